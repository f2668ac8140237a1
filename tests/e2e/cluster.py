"""A namespace of a real cluster, with a deployer that may do only what rbac.yaml allows."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config, utils
from kubernetes.client import ApiException

from bench.application import ROOT, Application
from bench.watching import Watcher
from tests.processes import read_pod_environment

RBAC = ROOT / "deploy" / "manifests" / "rbac.yaml"
ACCOUNT = "twinship-deployer"
# Seconds between two looks at what there is.
_LOOK = 0.5
ENVIRONMENTS = """
[environments.staging]
target = "kubernetes"
kubeconfig = "{kubeconfig}"
namespace = "{namespace}"
service = "NodePort"
ready_within = 30
resources = {{ cpu = "50m", memory = "256Mi" }}

[environments.production]
target = "kubernetes"
kubeconfig = "{kubeconfig}"
namespace = "{namespace}"
repository = "{name}-production"
service = "NodePort"
strategy = "blue-green"
ready_within = 30
resources = {{ cpu = "50m", memory = "256Mi" }}

[environments.inside]
target = "kubernetes"
kubeconfig = "{kubeconfig}"
namespace = "{namespace}"
replicas = 1
warm_up = true
ready_within = 30
resources = {{ cpu = "50m", memory = "256Mi" }}
"""


@dataclass(frozen=True)
class Namespace:
    """A namespace of a test run, as its administrator sees it.

    Args:
        name: its name.
        api: the administrator's API client.
    """

    name: str
    api: Any

    @property
    def core(self) -> Any:
        """The administrator's calls of the core API."""
        return client.CoreV1Api(self.api)

    @classmethod
    def made(cls, kubeconfig: str) -> Namespace:
        """Make a namespace with the deployer's account."""
        library: Any = config
        yaml: Any = utils
        made = cls(f"e2e-{secrets.token_hex(4)}", library.new_client_from_config(kubeconfig))
        made.core.create_namespace({"metadata": {"name": made.name}})
        yaml.create_from_yaml(made.api, str(RBAC), namespace=made.name)
        return made

    def remove(self) -> None:
        """Remove the namespace and everything in it."""
        self.core.delete_namespace(self.name)

    def deployer(self, path: Path, account: str = ACCOUNT) -> Path:
        """Write a kubeconfig with one account of this namespace and no other."""
        write_kubeconfig(path, self.api.configuration, self.name, self._token(account))
        return path

    def account(self, name: str) -> None:
        """Make an account that may do nothing."""
        self.core.create_namespaced_service_account(self.name, {"metadata": {"name": name}})

    def _token(self, account: str) -> str:
        core = self.core
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                created = core.create_namespaced_service_account_token(
                    account, self.name, {"spec": {"expirationSeconds": 3600}}
                )
                return str(created.status.token)
            except ApiException as error:
                if error.status != 404:
                    raise
            # Old clusters make no tokens on request, but one for each account.
            for found in core.list_namespaced_secret(self.name).items:
                if (found.metadata.annotations or {}).get(
                    "kubernetes.io/service-account.name"
                ) == account:
                    return base64.b64decode(found.data["token"]).decode()
            time.sleep(0.2)
        raise AssertionError(f"no token for {account}")

    # --- objects

    def deployment(self, name: str) -> Any:
        """Return a Deployment."""
        return _apps(self.api).read_namespaced_deployment(name, self.name)

    def image(self, deployment: str) -> str:
        """Return the image of a Deployment's container."""
        return str(self.deployment(deployment).spec.template.spec.containers[0].image)

    def apply_deployment(self, name: str, item: dict[str, Any], manager: str) -> None:
        """Take over fields of a Deployment as another field manager."""
        _apps(self.api).patch_namespaced_deployment(
            name,
            self.name,
            item,
            field_manager=manager,
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    def replica_sets(self, deployment: str) -> list[Any]:
        """Return the ReplicaSets of a Deployment, by revision."""
        found = _apps(self.api).list_namespaced_replica_set(self.name).items
        owned = [item for item in found if item.metadata.owner_references[0].name == deployment]
        return sorted(
            owned,
            key=lambda item: int(item.metadata.annotations["deployment.kubernetes.io/revision"]),
        )

    def pods(self) -> list[Any]:
        """Return the pods that are not being deleted."""
        found = self.core.list_namespaced_pod(self.name).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def environment(self, pod: str) -> set[str]:
        """Return the variables of a pod's first process, each as NAME=VALUE."""
        return set(read_pod_environment(self.name, pod).split("\0"))

    def describe_state(self) -> str:
        """Return what all may read who may not read Secrets: records, objects and their events."""
        core = self.core
        kinds = (
            core.list_namespaced_config_map,
            core.list_namespaced_pod,
            core.list_namespaced_event,
            _apps(self.api).list_namespaced_deployment,
            _apps(self.api).list_namespaced_replica_set,
        )
        return "".join(str(listed(self.name)) for listed in kinds)

    def port(self, service: str) -> int:
        """Return the port of the nodes that leads to a Service."""
        return int(self.core.read_namespaced_service(service, self.name).spec.ports[0].node_port)

    def ingress(self, name: str) -> Any:
        """Return an Ingress."""
        networking: Any = client.NetworkingV1Api(self.api)
        return networking.read_namespaced_ingress(name, self.name)

    def create_certificate(self, name: str, certificate: Path, key: Path) -> None:
        """Create the Secret of a certificate."""
        files = {"tls.crt": certificate, "tls.key": key}
        data = {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()}
        self.core.create_namespaced_secret(
            self.name, {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data}
        )

    def host(self) -> str:
        """Return the address of a node that runs a pod."""
        return str(next(pod.status.host_ip for pod in self.pods() if pod.status.host_ip))

    def lease(self, name: str) -> str:
        """Return who holds a Lease; empty if it is free."""
        leases: Any = client.CoordinationV1Api(self.api)
        return str(leases.read_namespaced_lease(name, self.name).spec.holder_identity or "")


class Sightings(Watcher):
    """A record of when each pod was first and last seen, also while it is deleted.

    It looks while the `with` block lasts.

    Args:
        namespace: where the pods are.
        prefix: the start of their names.
    """

    def __init__(self, namespace: Namespace, prefix: str) -> None:
        super().__init__(_LOOK)
        self._namespace = namespace
        self._prefix = prefix
        self._seen: dict[str, tuple[float, float]] = {}

    def outlast(self, begin: float, end: float) -> float:
        """Return for how many seconds after `end` a pod was seen that existed at `begin`."""
        last = max((last for first, last in self._seen.values() if first <= begin), default=end)
        return max(0.0, last + _LOOK - end)

    def look(self) -> None:
        """Note which pods there are."""
        names = [
            pod.metadata.name
            for pod in self._namespace.core.list_namespaced_pod(self._namespace.name).items
        ]
        now = time.monotonic()
        for name in (name for name in names if name.startswith(self._prefix)):
            self._seen[name] = (self._seen.get(name, (now, now))[0], now)


def _apps(api: Any) -> Any:
    return client.AppsV1Api(api)


def write_kubeconfig(path: Path, like: Any, namespace: str, token: str) -> None:
    """Write a kubeconfig with a token, for the cluster of another configuration."""
    authority = base64.b64encode(Path(like.ssl_ca_cert).read_bytes()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "deployer",
        "clusters": [
            {
                "name": "cluster",
                "cluster": {"server": like.host, "certificate-authority-data": authority},
            }
        ],
        "contexts": [
            {
                "name": "deployer",
                "context": {"cluster": "cluster", "user": "deployer", "namespace": namespace},
            }
        ],
        "users": [{"name": "deployer", "user": {"token": token}}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    path.chmod(0o600)


def on_cluster(application: Application, namespace: Namespace) -> Application:
    """Give an application environments in a namespace, with the kubeconfig of its deployer."""
    kubeconfig = namespace.deployer(application.folder.parent / "deployer.kubeconfig")
    path = application.folder / "pipeline.toml"
    text = path.read_text(encoding="utf-8").partition("[environments.staging]")[0]
    tables = ENVIRONMENTS.format(
        kubeconfig=kubeconfig, namespace=namespace.name, name=application.name
    )
    path.write_text(text + tables, encoding="utf-8")
    application.commit("environments on a cluster")
    return application


def until(
    condition: Callable[[], object], what: str, within: float = 90.0, every: float = 0.3
) -> None:
    """Wait until a condition holds.

    Args:
        condition: it is asked again and again.
        what: the condition in words.
        within: seconds after which the test fails.
        every: seconds between two looks.
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s"
        time.sleep(every)
