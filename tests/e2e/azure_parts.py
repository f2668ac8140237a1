"""Azure on this machine: the stand-in under Azure's own names, and real parts behind it.

A proxy leads the names to this machine, and refuses all others. Real are the model store (Azurite),
the images of the registries (Debian's docker-registry) and the cluster. Only the registries have an
address in place of a name, as the nodes of the cluster have to reach them as well: plain HTTP on
this machine, and TLS on the same port for the exchange of tokens.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bench.application import ROOT, free_port
from deploy.clients.azure.registry import USER
from deploy.clients.docker.client import DockerEngine
from deploy.clients.network import ca_bundle
from deploy.machine import services
from deploy.settings.reading import Settings
from tests.e2e.azure_fronts import REALM, STORAGE, RegistryFront, StoreFront
from tests.e2e.cluster import Namespace, until
from tests.e2e.containers import docker
from tests.e2e.entra_server import EntraServer
from tests.fakes.azure.certificates import make_certificate
from tests.fakes.azure.exchange import Answer, Asked
from tests.fakes.azure.proxy import Proxy
from tests.fakes.azure.server import Trust, make_trust, serve_answers
from tests.fakes.azure.stand_in import (
    CLUSTER,
    ISSUER,
    OBJECT,
    REGISTRY,
    SUBSCRIPTION,
    USER_OBJECT,
    VAULT,
    StandIn,
)
from tests.fakes.azure.tokens import Signer
from tests.fakes.kubeconfig import exec_user

CLOUD = "StandIn"
ACCOUNT = "shop"
CONTAINER = "models"
ACCOUNT_KEY = base64.b64encode(base64.b64decode("planted+") * 8).decode()
PULL_SECRET = "registry"
IDENTITIES = (OBJECT, USER_OBJECT)
STORE_HOST = f"{ACCOUNT}.blob.core.windows.net"
SECOND_REGISTRY = "shopproduction.azurecr.io"
NAMES = (
    "login.microsoftonline.com",
    "sts.windows.net",
    "management.azure.com",
    "pipelines.actions.githubusercontent.com",
    "dev.azure.com",
    VAULT,
)
# The public cloud, but for the names of its registries.
_CLOUD = f"""
[{CLOUD}]
endpoint_active_directory = https://login.microsoftonline.com
endpoint_active_directory_resource_id = https://management.core.windows.net/
endpoint_management = https://management.core.windows.net/
endpoint_resource_manager = https://management.azure.com/
suffix_acr_login_server_endpoint = 127.0.0.1
suffix_keyvault_dns = .vault.azure.net
suffix_storage_endpoint = core.windows.net
"""
# All libraries log all they can.
_DEBUG = """
import logging, os
logging.basicConfig(level=logging.DEBUG, filename=os.environ["DEBUG_LOG"])
"""
_REGISTRY = """
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: /var/lib/registry}}}}
http: {{addr: ":5000", relativeurls: true}}
auth:
  token: {{realm: "{realm}", service: {name}, issuer: {name}, rootcertbundle: /tmp/ca.pem}}
"""
_SERVE = (
    'printf %s "$AUTHORITY" >/tmp/ca.pem; printf %s "$CONFIG" >/tmp/config.yml; '
    "exec docker-registry serve /tmp/config.yml"
)
_NODES = ("ps", "--filter", "label=io.x-k8s.kind.role", "--format", "{{.Names}}")
# What would be another login, or another place, if this machine or this CI system has it.
_OTHERS = ("AZURE_", "ARM_", "ACTIONS_ID_TOKEN_", "SYSTEM_", "IDENTITY_", "MSI_")


@dataclass(frozen=True)
class AcrRegistry:
    """A registry on Azure.

    Attributes:
        host: its host and port on this machine.
        container: the container with its images.
        front: its address.
    """

    host: str
    container: str
    front: RegistryFront


@dataclass(frozen=True)
class Azure:
    """Azure on this machine.

    Attributes:
        stand_in: the stand-in.
        proxy: leads to it.
        authority: the file with the authority of all servers.
        registry: a registry.
        second: another registry.
        machine: the URL at which this machine has a managed identity.
        folder: has the files of the parts.
        variables: the environment of the tasks: how they reach it, and no login.
    """

    stand_in: StandIn
    proxy: Proxy
    authority: Path
    registry: AcrRegistry
    second: AcrRegistry
    machine: str
    folder: Path
    variables: dict[str, str]

    @property
    def log(self) -> Path:
        """The log of all libraries of all tasks."""
        return self.folder / "debug.log"

    def open_cluster(self, cluster: Namespace, server: EntraServer | None) -> None:
        """Give out the cluster as AKS does, and let its nodes pull as those of AKS may.

        Args:
            cluster: the cluster.
            server: takes the tokens of identities; None lets them have that of an account.
        """
        path = cluster.deployer(self.folder / "deployer.kubeconfig")
        content = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        user = content["users"][0]
        if server is None:
            self.stand_in.cluster_token = user["user"]["token"]
        else:
            token = self.stand_in.signer.sign(600, aud=CLUSTER, iss=ISSUER, oid=OBJECT)
            server.await_start(token)
            server.allow(IDENTITIES)
            content["clusters"][0]["cluster"]["server"] = server.url
        user["user"] = exec_user("kubelogin", "get-token", "--server-id", CLUSTER)
        self.stand_in.kubeconfig = json.dumps(content)
        data = {".dockerconfigjson": base64.b64encode(self._docker_config().encode()).decode()}
        cluster.core.create_namespaced_secret(
            cluster.name,
            {
                "metadata": {"name": PULL_SECRET},
                "type": "kubernetes.io/dockerconfigjson",
                "data": data,
            },
        )

    def _docker_config(self) -> str:
        """Return a configuration of Docker that may pull from both registries."""
        logins = {}
        for one in (self.registry, self.second):
            token = self.stand_in.signer.sign(7200, aud=one.front.name)
            login = base64.b64encode(f"{USER}:{token}".encode()).decode()
            logins[one.host] = {"auth": login}
        return json.dumps({"auths": logins})


@contextmanager
def serve_azure(folder: Path) -> Iterator[Azure]:
    """Start all parts; stop them afterwards.

    Args:
        folder: gets their files.
    """
    azure = StandIn()
    key, certificate = make_certificate("registry tokens")
    azure.signer = Signer(key, certificate)
    azure.secrets["account-key"] = ACCOUNT_KEY
    trust = make_trust(folder, *NAMES, STORE_HOST)
    with ExitStack() as stack:
        store = stack.enter_context(_run_store(azure, folder, trust))
        first, second = (
            stack.enter_context(_serve_registry(azure, name, certificate, trust))
            for name in (REGISTRY, SECOND_REGISTRY)
        )
        services_port = stack.enter_context(serve_answers(azure.answer, trust))
        machine = stack.enter_context(
            serve_answers(lambda asked: azure.answer(asked.to("169.254.169.254")), trust)
        )
        proxy = Proxy({**dict.fromkeys(NAMES, services_port), STORE_HOST: store})
        url = stack.enter_context(proxy.serve())
        yield Azure(
            azure,
            proxy,
            trust.authority,
            first,
            second,
            f"http://127.0.0.1:{machine}",
            folder,
            _variables(folder, trust, url),
        )


def _variables(folder: Path, trust: Trust, proxy: str) -> dict[str, str]:
    """Return the environment of tasks without a login."""
    trusted = Path(ca_bundle() or certifi.where()).read_text(encoding="utf-8")
    bundle = folder / "bundle.pem"
    bundle.write_text(trusted + trust.authority.read_text(encoding="utf-8"), encoding="utf-8")
    empty = folder / "empty"
    debug = folder / "debug"
    for one in (empty, debug):
        one.mkdir()
    (debug / "sitecustomize.py").write_text(_DEBUG, encoding="utf-8")
    others = {name: "" for name in os.environ if name.startswith(_OTHERS)}
    return {
        **others,
        "GITHUB_ACTIONS": "",
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": str(bundle),
        "KUBECONFIG": str(empty / "kubeconfig"),
        "DOCKER_CONFIG": str(empty),
        "AZURE_CONFIG_DIR": str(register_cloud(folder / "az")),
        "AZURE_CLOUD_NAME": CLOUD,
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "PYTHONPATH": str(debug),
        "DEBUG_LOG": str(folder / "debug.log"),
    }


def register_cloud(folder: Path) -> Path:
    """Write what `az cloud register` leaves in a folder; return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "clouds.config").write_text(_CLOUD, encoding="utf-8")
    return folder


# --- the registries


@contextmanager
def _serve_registry(
    azure: StandIn, name: str, authority: x509.Certificate, trust: Trust
) -> Iterator[AcrRegistry]:
    """Serve a registry to this machine and to the nodes of the cluster."""
    with ExitStack() as stack:
        container, port = stack.enter_context(_run_registry(name, authority))
        front = RegistryFront(
            azure, name, lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        )
        host = f"127.0.0.1:{stack.enter_context(serve_answers(front.answer, trust))}"
        stack.enter_context(_open_to_nodes(host, front.answer, trust))
        yield AcrRegistry(host, container, front)


@contextmanager
def _run_registry(service: str, authority: x509.Certificate) -> Iterator[tuple[str, int]]:
    """Run a registry that takes the tokens of an authority; yield its container and its port."""
    image = services.ensure_services_image(DockerEngine(), Settings.read(ROOT, {}).image)
    name = f"e2e-azure-{secrets.token_hex(4)}"
    port = free_port()
    trusted = authority.public_bytes(Encoding.PEM).decode()
    config = _REGISTRY.format(realm=REALM, name=service)
    docker(
        *("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:5000"),
        *("--env", f"AUTHORITY={trusted}", "--env", f"CONFIG={config}"),
        *(image, "sh", "-c", _SERVE),
    )
    try:
        until(lambda: _status(f"http://127.0.0.1:{port}/v2/") == 401, "the registry answers")
        yield name, port
    finally:
        docker("rm", "--force", "--volumes", name)


def _status(url: str) -> int:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.ConnectionError:
        return 0


@contextmanager
def _open_to_nodes(
    registry: str, answer: Callable[[Asked], Answer], trust: Trust
) -> Iterator[None]:
    """Let nodes that are containers pull from the registry: this machine's address is not theirs.

    Source: kind's documentation, "Local Registry".
    """
    nodes = docker(*_NODES).split()
    if not nodes:
        yield
        return
    route = docker("exec", nodes[0], "ip", "-4", "route", "show", "default").split()
    gateway = route[route.index("via") + 1]
    folder = f"/etc/containerd/certs.d/{registry}"
    with serve_answers(answer, trust, gateway) as port:
        text = f'[host."http://{gateway}:{port}"]'
        for node in nodes:
            docker("exec", node, "mkdir", "-p", folder)
            docker("exec", node, "sh", "-c", f"echo '{text}' >{folder}/hosts.toml")
        yield
        for node in nodes:
            docker("exec", node, "rm", "-r", folder)


# --- the store


@contextmanager
def _run_store(azure: StandIn, folder: Path, trust: Trust) -> Iterator[int]:
    """Run Azurite with one empty container; yield the port of its address."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed; install Node.js and npm, and `./run nox -s e2e`")
    port = free_port()
    command = (
        *(program, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--oauth", "basic", "--cert", str(trust.certificate), "--key", str(trust.certificate)),
        *("--location", str(folder / "store"), "--skipApiVersionCheck", "--disableTelemetry"),
    )
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        token = azure.signer.sign(300, aud=STORAGE, iss=ISSUER)
        url = f"https://127.0.0.1:{port}/{ACCOUNT}/{CONTAINER}?restype=container"
        until(lambda: _create(url, token, trust.authority), "the store has a container")
        context = ssl.create_default_context(cafile=trust.authority)
        front = StoreFront(
            azure,
            lambda: http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context),
        )
        with serve_answers(front.answer, trust) as address:
            yield address
    finally:
        process.terminate()
        process.wait()


def _create(url: str, token: str, authority: Path) -> bool:
    headers = {"Authorization": f"Bearer {token}", "x-ms-version": "2024-11-04"}
    try:
        response = requests.put(url, headers=headers, verify=str(authority), timeout=10)
    except requests.ConnectionError:
        return False
    assert response.status_code == 201, response.text
    return True
