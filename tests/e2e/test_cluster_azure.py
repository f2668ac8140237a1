"""A life on Azure: the store, the registry and the cluster are opened by one identity.

The tests run in order: each continues from the state in which the previous one left the
application. No token lives for more than some seconds, and no task has another login than the one
that its test gives it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from bench.application import Application, TaskResult
from tests.e2e.azure_parts import (
    ACCOUNT_KEY,
    CLOUD,
    CONTAINER,
    PULL_SECRET,
    STORE_HOST,
    Azure,
    register_cloud,
    serve_azure,
)
from tests.e2e.cluster import Namespace
from tests.e2e.containers import docker
from tests.e2e.digits import FOLDER, train
from tests.e2e.planted import CommandLines, Secrets
from tests.fakes.azure.certificates import make_certificate, write_pem
from tests.fakes.azure.logins import (
    GITHUB_JOB,
    PIPELINES_JOB,
    PRINCIPAL,
    SERVICE_PRINCIPAL,
    write_az_login,
    write_az_principal,
)
from tests.fakes.azure.stand_in import CLIENT, CLUSTER, CONNECTION, PIPELINES, REFRESH, SECRET, USER
from tests.fakes.azure.tokens import Signer
from tests.moto import MotoServer

# Seconds; tokens are renewed after half of it, several times in a rollout.
LIFETIME = 10.0
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
registry = "{registry}"
repository = "{name}-production"
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
        printed: what the tasks printed.
        secrets: finds the secrets that they must not show.
    """

    application: Application
    azure: Azure
    printed: list[str] = field(default_factory=list)
    secrets: Secrets = field(default_factory=Secrets)

    def ok(self, *arguments: str, login: Mapping[str, str] = GITHUB_JOB) -> TaskResult:
        """Run a task that must succeed, with a login."""
        (done,) = self.ok_together(login, arguments)
        return done

    def ok_together(self, login: Mapping[str, str], *tasks: Sequence[str]) -> list[TaskResult]:
        """Run tasks at the same time, which must succeed, with a login."""
        environment = {**self.azure.variables, **login}
        with ThreadPoolExecutor() as pool:
            results = list(
                pool.map(lambda task: self.application.invoke(*task, **environment), tasks)
            )
        self.printed.extend(f"{done.out}\n{done.err}" for done in results)
        for task, done in zip(tasks, results, strict=True):
            assert done.code == 0, f"{task}: {done.out}\n{done.err}"
        return results

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
        azure = stack.enter_context(serve_azure(tmp_path_factory.mktemp("azure")))
        azure.open_cluster(cluster)
        azure.stand_in.lifetime = LIFETIME
        application = Application.create(tmp_path_factory.mktemp("digits"), FOLDER)
        stack.callback(application.invoke, "down", "--purge")
        path = application.folder / "pipeline.toml"
        text = path.read_text(encoding="utf-8")
        store = f'[model]\nstore = "az://{CONTAINER}/pictures"\n'
        tables = ENVIRONMENTS.format(
            namespace=cluster.name,
            registry=azure.registry,
            name=application.name,
            secret=PULL_SECRET,
        )
        path.write_text(text.replace("[model]\n", store) + tables, encoding="utf-8")
        application.commit("on Azure")
        # From here on the tasks reach Azure alone, and no index of packages.
        application.ok("build")
        yield Life(application, azure)


def assert_reached(found: Any, source: str, name: str) -> None:
    """Assert that `doctor` found all parts, and opened them by a login."""
    checks = {check["part"]: check for check in found}
    assert all(checks[part]["ok"] for part in PARTS), found
    assert checks["Azure login"]["found"].startswith(f"{source}, as {name} of tenant ")


def test_a_model_is_published(life: Life) -> None:
    """In Azure Blob, by a job of GitHub that has no other login."""
    done = life.ok("model.publish", "--directory", "model")
    assert f"GitHub Actions (OpenID Connect), as {CLIENT}" in done.err
    assert "digits  1        latest" in life.ok("model.list").out


def test_nothing_is_missing(life: Life) -> None:
    """The login reaches the store, the registry and the cluster."""
    found = life.ok("doctor", "--env", "staging", "--json").json
    assert_reached(found, "GitHub Actions (OpenID Connect)", CLIENT)


def test_a_release_ends_with_a_prediction(life: Life, cluster: Namespace) -> None:
    """From the store through the registry to the cluster, whose nodes pull what was pushed."""
    done = life.ok("release", "--env", "staging")
    assert "nothing to build" in done.err
    assert "seven → 7" in done.out
    assert life.serving("staging")["model"] == "digits@1"
    image = cluster.image(f"{life.application.name}-staging")
    assert image.startswith(f"{life.azure.registry}/{life.application.name}")
    assert "seven → 7" in life.ok("verify", "--env", "staging").out


def test_a_release_is_promoted(life: Life) -> None:
    """To another repository of the registry: the same digest."""
    life.ok("promote", "--from", "staging", "--to", "production")
    assert life.serving("production")["digest"] == life.serving("staging")["digest"]


def test_an_engine_pulls_by_the_same_login(life: Life) -> None:
    """Docker gets the login of the registry with each pull; its own configuration has none."""
    title = f"label=org.opencontainers.image.title={life.application.name}"
    # The smoke test has loaded it.
    docker("image", "rm", "--force", *docker("image", "ls", "-q", "--filter", title).split())
    login = {**GITHUB_JOB, "TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY": life.azure.registry}
    done = life.ok("promote", "--from", "staging", "--to", "local", login=login)
    assert "seven → 7" in done.out
    assert life.serving("local")["digest"] == life.serving("staging")["digest"]
    clients = [one.headers.get("User-Agent", "") for one in life.azure.stand_in.asked]
    assert any(client.startswith("docker/") for client in clients), set(clients)


def test_a_new_model_is_released_and_rolled_back(life: Life) -> None:
    """Tokens end during the rollout: it gets new ones, each by an assertion of its own."""
    train(life.application.folder / "model", version="2", seed=1)
    life.ok("model.publish", "--directory", "model")
    azure = life.azure.stand_in
    before = azure.tokens_issued(CLUSTER)
    life.ok("release", "--env", "staging")
    assert azure.tokens_issued(CLUSTER) >= before + 2
    assertions = [one.value("client_assertion") for one in azure.asked]
    used = list(filter(None, assertions))
    assert len(set(used)) == len(used)
    assert life.serving("staging")["model"] == "digits@2"
    life.ok("rollback", "--env", "staging")
    assert life.serving("staging")["model"] == "digits@1"


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
    train(life.application.folder / "model", version="3", seed=1)
    with moto.checking_logins():
        life.ok("model.publish", "--directory", "model", login=login)
        done = life.ok("release", "--env", "staging", login=login)
    assert "seven → 7" in done.out
    assert life.serving("staging")["model"] == "digits@3"


# --- the other logins


def _pipelines(_: Life, __: Path) -> dict[str, str]:
    return PIPELINES_JOB


def _token_file(life: Life, folder: Path) -> dict[str, str]:
    path = folder / "token"
    path.write_text(life.azure.stand_in.assertion(PIPELINES, CONNECTION), encoding="utf-8")
    return {**PRINCIPAL, "AZURE_FEDERATED_TOKEN_FILE": str(path)}


def _secret(_: Life, __: Path) -> dict[str, str]:
    return SERVICE_PRINCIPAL


def _certificate(life: Life, folder: Path) -> dict[str, str]:
    key, certificate = make_certificate("client")
    life.azure.stand_in.client_key = Signer(key)
    write_pem(folder / "client.pem", key, certificate)
    life.secrets.add_key(folder / "client.pem")
    return {**PRINCIPAL, "AZURE_CLIENT_CERTIFICATE_PATH": str(folder / "client.pem")}


def _az_user(_: Life, folder: Path) -> dict[str, str]:
    return write_az_login(register_cloud(folder / "az"), cloud=CLOUD)


def _az_principal(_: Life, folder: Path) -> dict[str, str]:
    return write_az_principal(register_cloud(folder / "az"), cloud=CLOUD)


def _machine(life: Life, _: Path) -> dict[str, str]:
    return {
        "TWINSHIP_AZURE__MANAGED_IDENTITY": "true",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": life.azure.machine,
    }


@pytest.mark.parametrize(
    ("log_in", "source", "name"),
    [
        (_pipelines, "Azure Pipelines (service connection)", CLIENT),
        (_token_file, "workload identity (AZURE_FEDERATED_TOKEN_FILE)", CLIENT),
        (_secret, "a service principal (AZURE_CLIENT_SECRET)", CLIENT),
        (_certificate, "a service principal (AZURE_CLIENT_CERTIFICATE_PATH)", CLIENT),
        (_az_user, "`az login`", USER),
        (_az_principal, "`az login`", CLIENT),
        (_machine, "managed identity", CLIENT),
    ],
)
def test_every_login_opens_all_parts(
    life: Life,
    tmp_path: Path,
    log_in: Callable[[Life, Path], dict[str, str]],
    source: str,
    name: str,
) -> None:
    """The store gives a model, the registry allows a push, and the cluster a rollout.

    Two processes use the login at the same time, and neither writes what it is read from.
    """
    login = log_in(life, tmp_path)
    before = _states(tmp_path)
    home = {"TWINSHIP_HOME": str(life.application.home / tmp_path.name)}
    found, fetched = life.ok_together(
        {**login, **home},
        ("doctor", "--env", "staging", "--json"),
        ("fetch", "--env", "staging"),
    )
    assert_reached(found.json, source, name)
    assert "digits@2" in fetched.err
    assert _states(tmp_path) == before


def _states(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the content and the time of each file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_key_in_a_vault_opens_the_store(life: Life) -> None:
    """Where the settings name one, in place of the identity, which reads the vault."""
    login = {**GITHUB_JOB, "TWINSHIP_MODEL__ACCOUNT_KEY": "keyvault://safe/account-key"}
    asked = life.azure.stand_in.tokens_issued("https://storage.azure.com")
    done = life.ok("model.list", login=login)
    assert "digits  2        latest" in done.out
    assert "a stored key opens the model store" in done.err
    assert life.azure.stand_in.tokens_issued("https://storage.azure.com") == asked


# --- after all of them


def test_tasks_asked_no_other_host(life: Life) -> None:
    """What they need of the network is Azure."""
    assert life.azure.proxy.refused == []
    assert STORE_HOST in life.azure.proxy.ports


def test_no_secret_is_shown(life: Life, cluster: Namespace, command_lines: CommandLines) -> None:
    """In no output, log, file, record, image, object or command line."""
    secrets = life.secrets
    azure = life.azure.stand_in
    for secret in (*azure.signer.signed, *PLANTED, azure.cluster_token):
        assert secrets.find(f"a line with {secret}.".encode())
    assert secrets.find("\n".join(life.printed).encode()) == ""
    log = life.azure.log.read_bytes()
    assert b"login.microsoftonline.com" in log
    assert secrets.find(log) == ""
    assert secrets.find_in_folder(life.application.home.parent) == {}
    assert secrets.find_in_container(life.azure.container, "/var/lib/registry") == {}
    assert secrets.find(_objects(cluster).encode()) == ""
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
