"""A life on Azure: the store, the registries and the cluster are opened by one identity.

The tests run in order: each continues from the state in which the previous one left the
application. No token lives for more than some seconds, and no task has another login than the one
that its test gives it.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from bench.application import Application, TaskResult
from deploy.clients.azure.assertions import claims_of
from deploy.clients.azure.registry import RESOURCE
from tests.e2e.azure_fronts import STORAGE
from tests.e2e.azure_logins import AZ_USER, GITHUB, KEY, SOURCES, LoginSource
from tests.e2e.azure_parts import (
    ACCOUNT_KEY,
    CONTAINER,
    IDENTITIES,
    PULL_SECRET,
    STORE_HOST,
    AcrRegistry,
    Azure,
    serve_azure,
)
from tests.e2e.cluster import Namespace
from tests.e2e.containers import docker
from tests.e2e.digits import FOLDER
from tests.e2e.entra_server import EntraServer, serve_api
from tests.e2e.planted import CommandLines, Secrets
from tests.fakes.azure.blobs import blob_error
from tests.fakes.azure.certificates import make_certificate
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import GITHUB_JOB, PIPELINES_JOB
from tests.fakes.azure.stand_in import (
    CLUSTER,
    ISSUER,
    OBJECT,
    REFRESH,
    REGISTRY,
    SECRET,
    SUBJECT,
    Cut,
    Late,
)
from tests.fakes.azure.tokens import Signer
from tests.moto import MotoServer

# Seconds; tokens are renewed after half of it, several times in a rollout.
LIFETIME = 10.0
# Seconds of a token's life, and of each write to a registry, in a push that outlasts the tokens.
SHORT = 3.0
SLOW = 1.0
# What logins and vaults have; the tokens that come of them are others each time.
PLANTED = (
    ACCOUNT_KEY,
    SECRET,
    REFRESH,
    GITHUB_JOB["ACTIONS_ID_TOKEN_REQUEST_TOKEN"],
    PIPELINES_JOB["SYSTEM_ACCESSTOKEN"],
)
# What `doctor` checks of Azure.
PARTS = ("Azure login", "model store", "registry", "registry login", "cluster", "cluster rights")
ENVIRONMENTS = """
[environments.staging]
target = "kubernetes"
aks = "pictures/shop"
namespace = "{namespace}"
registry = "{registry}"
pull_secret = "{secret}"
replicas = 1
ready_within = 30
resources = {{ cpu = "50m", memory = "256Mi" }}

[environments.production]
target = "kubernetes"
aks = "pictures/shop"
namespace = "{namespace}"
registry = "{second}"
pull_secret = "{secret}"
replicas = 1
ready_within = 30
resources = {{ cpu = "50m", memory = "256Mi" }}
"""


@dataclass(frozen=True)
class Life:
    """An application on Azure, and all that its tasks print.

    Attributes:
        application: the application.
        azure: Azure.
        cluster: the namespace.
        server: the API server, if it takes the tokens of identities.
        printed: what the tasks printed.
        secrets: finds the secrets that they must not show.
        versions: the versions of the model that are not published yet.
    """

    application: Application
    azure: Azure
    cluster: Namespace
    server: EntraServer | None
    printed: list[str] = field(default_factory=list)
    secrets: Secrets = field(default_factory=Secrets)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def ok(self, *arguments: str, login: Mapping[str, str] = GITHUB_JOB) -> TaskResult:
        """Run a task that must succeed, with a login."""
        (done,) = self.ok_together(login, arguments)
        return done

    def ok_together(self, login: Mapping[str, str], *tasks: Sequence[str]) -> list[TaskResult]:
        """Run tasks at the same time, which must succeed, with a login."""
        with ThreadPoolExecutor(len(tasks)) as pool:
            results = list(pool.map(lambda task: self._invoke(task, login), tasks))
        for task, done in zip(tasks, results, strict=True):
            assert done.code == 0, f"{task}: {done.out}\n{done.err}"
        return results

    def refused(self, *arguments: str) -> TaskResult:
        """Run a task that must fail."""
        done = self._invoke(arguments, GITHUB_JOB)
        assert done.code != 0, f"{done.out}\n{done.err}"
        return done

    def _invoke(self, task: Sequence[str], login: Mapping[str, str]) -> TaskResult:
        done = self.application.invoke(*task, **{**self.azure.variables, **login})
        self.printed.append(f"{done.out}\n{done.err}")
        return done

    def publish(self, login: Mapping[str, str] = GITHUB_JOB) -> str:
        """Publish the model as a new version; return its name."""
        version = next(self.versions)
        path = self.application.folder / "model" / "model.toml"
        text = path.read_text(encoding="utf-8")
        line = f'version = "{version}"'
        path.write_text(re.sub(r'(?m)^version = ".*"', line, text), encoding="utf-8")
        self.ok("model.publish", "--directory", "model", login=login)
        return f"digits@{version}"

    def serving(self, environment: str) -> dict[str, Any]:
        """Return what serves in an environment."""
        status = self.ok("status", "--env", environment, "--json").json
        assert status["healthy"] is True
        return dict(status["serving"])


@pytest.fixture(scope="module", name="command_lines")
def _command_lines() -> Iterator[CommandLines]:
    """Look at all processes while the tests run."""
    with CommandLines() as seen:
        yield seen


@pytest.fixture(scope="module", name="life")
def _life(
    tmp_path_factory: pytest.TempPathFactory, cluster: Namespace, command_lines: CommandLines
) -> Iterator[Life]:
    """Make an application whose model store, registry and clusters are on Azure; build its code."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("azure")
        azure = stack.enter_context(serve_azure(folder))
        proxy = azure.variables["HTTPS_PROXY"]
        server = stack.enter_context(serve_api(cluster, folder, azure.authority, proxy))
        application = Application.create(tmp_path_factory.mktemp("digits"), FOLDER)
        stack.callback(application.invoke, "down", "--purge")
        path = application.folder / "pipeline.toml"
        text = path.read_text(encoding="utf-8")
        store = f'[model]\nstore = "az://{CONTAINER}/pictures"\n'
        tables = ENVIRONMENTS.format(
            namespace=cluster.name,
            registry=azure.registry.host,
            second=azure.second.host,
            secret=PULL_SECRET,
        )
        path.write_text(text.replace("[model]\n", store) + tables, encoding="utf-8")
        application.commit("on Azure")
        # From here on the tasks reach Azure alone, and no index of packages.
        application.ok("build")
        azure.open_cluster(cluster, server)
        azure.stand_in.lifetime = LIFETIME
        yield Life(application, azure, server.cluster if server else cluster, server)


# --- a release, from the store to the cluster


def test_nothing_is_missing(life: Life) -> None:
    """The login reaches the store, the registry and the cluster."""
    life.publish()
    assert "digits  1        latest" in life.ok("model.list").out
    assert_reached(life.ok("doctor", "--env", "staging", "--json"), GITHUB)


def assert_reached(done: TaskResult, source: LoginSource) -> None:
    """Assert that `doctor` found all parts, and opened them by a login."""
    checks = {check["part"]: check for check in done.json}
    assert all(checks[part]["ok"] for part in PARTS), checks
    assert checks["Azure login"]["found"].startswith(str(source))


def test_a_release_ends_with_a_prediction(life: Life) -> None:
    """From the store through the registry to the cluster, whose nodes pull what was pushed."""
    done = life.ok("release", "--env", "staging")
    assert "nothing to build" in done.err
    assert "seven → 7" in done.out
    assert life.serving("staging")["model"] == "digits@1"
    image = life.cluster.image(f"{life.application.name}-staging")
    assert image.startswith(f"{life.azure.registry.host}/{life.application.name}")
    assert "seven → 7" in life.ok("verify", "--env", "staging").out


def test_the_cluster_checks_the_tokens(life: Life) -> None:
    """It asks the login service for its keys, as a cluster on AKS does."""
    if life.server is None:
        pytest.skip("the API server of this cluster is no process of this machine")
    signer = life.azure.stand_in.signer
    claims = {"aud": CLUSTER, "iss": ISSUER, "oid": OBJECT}
    tokens = {
        "good": signer.sign(60, **claims),
        "over": signer.sign(-60, **claims),
        "for another": signer.sign(60, **{**claims, "aud": RESOURCE}),
        "of another": Signer(make_certificate("another")[0]).sign(60, **claims),
    }
    statuses = {name: life.server.status(token) for name, token in tokens.items()}
    assert statuses == {"good": 200, "over": 401, "for another": 401, "of another": 401}


@contextmanager
def short_tokens(life: Life) -> Iterator[None]:
    """Let tokens end soon, and the second registry be slow, while a `with` block lasts."""
    azure = life.azure
    azure.stand_in.lifetime, azure.second.front.delay = SHORT, SLOW
    try:
        yield
    finally:
        azure.stand_in.lifetime, azure.second.front.delay = LIFETIME, 0.0


def test_a_promotion_outlasts_the_tokens(life: Life) -> None:
    """The other registry is slow, and gets all blobs: its tokens end several times meanwhile."""
    front = life.azure.second.front
    before = life.azure.stand_in.tokens_issued(CLUSTER)
    with short_tokens(life):
        life.ok("promote", "--from", "staging", "--to", "production")
    accepted = {one.token for one in front.asked if one.method == "PUT"}
    assert len(accepted) >= 3
    assert front.exchanges >= 2
    assert life.azure.stand_in.tokens_issued(CLUSTER) >= before + 2
    assert life.serving("production")["digest"] == life.serving("staging")["digest"]


def test_each_registry_gets_its_own_tokens(life: Life) -> None:
    """In the promotion from one to the other as well; only their exchange takes the identity's."""
    for registry in (life.azure.registry, life.azure.second):
        assert set(audiences(registry)) == {registry.front.name, RESOURCE}


def audiences(registry: AcrRegistry) -> Iterator[str]:
    """Yield for which services the tokens are that a registry got."""
    for asked in registry.front.asked:
        authorization = asked.headers.get("Authorization", "")
        kind, _, value = authorization.partition(" ")
        password = base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else ""
        for token in filter(None, (asked.token, password, asked.value("access_token"))):
            yield claims_of(token)["aud"]


def test_an_engine_pulls_by_the_same_login(life: Life) -> None:
    """Docker gets the login of the registry with each pull; its own configuration has none."""
    title = f"label=org.opencontainers.image.title={life.application.name}"
    # The smoke test has loaded it.
    docker("image", "rm", "--force", *docker("image", "ls", "-q", "--filter", title).split())
    login = {**GITHUB_JOB, "TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY": life.azure.registry.host}
    done = life.ok("promote", "--from", "staging", "--to", "local", login=login)
    assert "seven → 7" in done.out
    assert life.serving("local")["digest"] == life.serving("staging")["digest"]
    clients = [one.headers.get("User-Agent", "") for one in life.azure.registry.front.asked]
    assert any(client.startswith("docker/") for client in clients), set(clients)


# --- each login


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_each_login_publishes_releases_and_rolls_back(
    life: Life, tmp_path: Path, source: LoginSource
) -> None:
    """It opens the store, the registry and the cluster, and nothing is written to its files."""
    login = source.prepare(life.azure, tmp_path)
    for key in tmp_path.glob(KEY):
        life.secrets.add_key(key)
    before = states(tmp_path)
    begin = len(life.printed)
    model = life.publish(login)
    released = life.ok("release", "--env", "staging", "--json", login=login).json
    restored = life.ok("rollback", "--env", "staging", "--json", login=login).json
    assert released["model"] == model
    assert restored["model"] == "digits@1"
    assert released["golden"]["passed"]
    assert restored["golden"]["passed"]
    assert all(f"azure  {source}" in text for text in life.printed[begin:])
    assert states(tmp_path) == before


def test_no_assertion_was_used_twice(life: Life) -> None:
    """Tokens end during a release: a job gets new ones, each by an assertion of its own."""
    used = [one.value("client_assertion") for one in life.azure.stand_in.asked]
    of_jobs = [one for one in used if one and claims_of(one)["sub"] == SUBJECT]
    assert len(of_jobs) > 20
    assert len(set(of_jobs)) == len(of_jobs)


def test_four_processes_use_one_login(life: Life, tmp_path: Path) -> None:
    """That of `az`, whose cache they read at the same time, and do not write."""
    login = AZ_USER.prepare(life.azure, tmp_path)
    before = states(tmp_path)
    home = {"TWINSHIP_HOME": str(life.application.home / "another")}
    doctor = ("doctor", "--env", "staging", "--json")
    fetch = ("fetch", "--env", "staging")
    done = life.ok_together({**login, **home}, doctor, fetch, doctor, fetch)
    for one in done[::2]:
        assert_reached(one, AZ_USER)
    for one in done[1::2]:
        assert f"azure  {AZ_USER}" in one.err
    assert states(tmp_path) == before


def states(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the content and the time of each file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# --- what goes wrong


@contextmanager
def without_role(life: Life, role: str) -> Iterator[None]:
    """Take a role from the identity while a `with` block lasts."""
    life.azure.stand_in.roles.remove(role)
    try:
        yield
    finally:
        life.azure.stand_in.roles.add(role)


def test_a_release_without_a_role_names_it(life: Life) -> None:
    """Each part that refuses the identity has a role of its own."""
    life.publish()
    refusals = {
        "blobs": (25, "Storage Blob Data Contributor"),
        "cluster": (82, "Azure Kubernetes Service Cluster User Role"),
        "push": (51, "AcrPush"),
    }
    for part, (code, role) in refusals.items():
        with without_role(life, part):
            done = life.refused("release", "--env", "staging")
        assert done.code == code, done.err
        kind = "--assignee-principal-type ServicePrincipal"
        assert f'--assignee-object-id {OBJECT} {kind} --role "{role}"' in done.err
    assert life.serving("staging")["model"] == "digits@1"


def test_a_release_without_rights_in_the_cluster_names_the_identity(life: Life) -> None:
    """Rights that Kubernetes gives by itself belong to the object id of the token."""
    if life.server is None:
        pytest.skip("the API server of this cluster is no process of this machine")
    life.server.forbid()
    done = life.refused("release", "--env", "staging")
    life.server.allow(IDENTITIES)
    assert done.code == 83, done.err
    assert f'User "{OBJECT}" cannot' in done.err


def test_a_release_survives_services_that_are_busy_slow_or_cut(life: Life) -> None:
    """A limit of requests is given in seconds or as a date."""
    azure = life.azure.stand_in
    in_seconds = Answer(429, {}, {"Retry-After": "1"})
    by_date = Answer(429, {}, {"Retry-After": formatdate(time.time() + 4, usegmt=True)})
    model = life.publish()
    azure.faults = {
        "login.microsoftonline.com": deque([in_seconds, Cut, Late(1.0)]),
        "management.azure.com": deque([by_date, Cut, Late(1.0)]),
        REGISTRY: deque([in_seconds, Cut, by_date, Late(1.0)]),
        STORE_HOST: deque([blob_error(503, "ServerBusy"), Cut, Late(1.0)]),
    }
    released = life.ok("release", "--env", "staging", "--json").json
    assert released["model"] == model
    assert not any(azure.faults.values())


# --- other logins to the store


def test_a_model_in_s3_is_released_by_the_same_login(
    life: Life, moto: MotoServer, tmp_path: Path
) -> None:
    """The store has a login of its own; the registry and the cluster have the job's."""
    user = moto.create_user("s3:ListBucket", "s3:GetObject", "s3:PutObject")
    life.secrets.add(user["AWS_SECRET_ACCESS_KEY"])
    login = {
        **GITHUB_JOB,
        **moto.environ(),
        **user,
        "REQUESTS_CA_BUNDLE": str(
            moto.write_bundle(tmp_path, life.azure.variables["REQUESTS_CA_BUNDLE"])
        ),
        "TWINSHIP_MODEL__STORE": f"s3://{moto.create_bucket()}/pictures",
    }
    with moto.checking_logins():
        model = life.publish(login)
        done = life.ok("release", "--env", "staging", login=login)
    assert "seven → 7" in done.out
    assert life.serving("staging")["model"] == model


def test_a_key_in_a_vault_opens_the_store(life: Life) -> None:
    """Where the settings name one, in place of the identity, which reads the vault."""
    login = {**GITHUB_JOB, "TWINSHIP_MODEL__ACCOUNT_KEY": "keyvault://safe/account-key"}
    asked = life.azure.stand_in.tokens_issued(STORAGE)
    done = life.ok("model.list", login=login)
    assert " latest" in done.out
    assert "a stored key opens the model store" in done.err
    assert life.azure.stand_in.tokens_issued(STORAGE) == asked


# --- after all of them


def test_tasks_asked_no_other_host(life: Life) -> None:
    """What they need of the network is Azure."""
    assert life.azure.proxy.refused == []
    assert STORE_HOST in life.azure.proxy.ports


def test_no_secret_is_shown(life: Life, command_lines: CommandLines) -> None:
    """In no output, log, file, record, image, object or command line."""
    secrets = life.secrets
    azure = life.azure.stand_in
    for secret in filter(None, (*azure.signer.signed, *PLANTED, azure.cluster_token)):
        assert secrets.find(f"a line with {secret}.".encode())
    assert secrets.find("\n".join(life.printed).encode()) == ""
    log = life.azure.log.read_bytes()
    assert b"login.microsoftonline.com" in log
    assert secrets.find(log) == ""
    assert secrets.find_in_folder(life.application.home.parent) == {}
    # The other registry has a copy of this one's images, byte for byte.
    assert secrets.find_in_container(life.azure.registry.container, "/var/lib/registry") == {}
    assert secrets.find(_objects(life.cluster).encode()) == ""
    assert any(b"invoke" in line for line in command_lines.seen)
    assert secrets.find(b"\n".join(command_lines.seen)) == ""


def _objects(cluster: Namespace) -> str:
    """Return all objects of the namespace but its Secrets."""
    core = cluster.core
    apps: Any = client.AppsV1Api(cluster.api)
    lists = (
        core.list_namespaced_config_map,
        core.list_namespaced_event,
        core.list_namespaced_pod,
        core.list_namespaced_service,
        apps.list_namespaced_deployment,
        apps.list_namespaced_replica_set,
    )
    return "\n".join(json.dumps(one(cluster.name).to_dict(), default=str) for one in lists)
