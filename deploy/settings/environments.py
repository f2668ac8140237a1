"""The tables [environments.NAME] of pipeline.toml: where releases serve, one class for each kind of target.

Nothing here reads a secret: `username` and `password` name environment variables, `pull_secret` an object of the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.settings.table import Port, Table

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
_UNITS = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
KubernetesName = Annotated[str, Field(pattern=rf"^({_LABEL})?$")]
# A component of a repository's path (OCI distribution specification 1.1, "Pulling manifests").
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
HostName = Annotated[str, Field(pattern=rf"^({_LABEL}(\.{_LABEL})*)?$", max_length=253)]


def _with_a_port(host: str) -> str:
    if ":" in host and not 1 <= int(host.rpartition(":")[2]) <= 65535:
        raise ValueError("the port should be from 1 to 65535")
    return host


def _of_a_machine(address: str) -> str:
    # An engine takes what it cannot read for "every address of this machine".
    try:
        IPv4Address(address)
    except AddressValueError:
        raise ValueError(
            "it should be an IPv4 address, such as 127.0.0.1, or 0.0.0.0 for every one of the machine"
        ) from None
    return address


class ClusterAddress(NamedTuple):
    """Where a namespace of a cluster is found: the kubeconfig's path, its context, and the namespace."""

    kubeconfig: str
    context: str
    namespace: str


class Environment(Table):
    """A place where releases serve: what every target is told.

    `registry` is the host (and port) of the OCI registry; `username` and `password` *name* environment variables, and
    without them the Docker configuration is asked. Times are in seconds.
    """

    registry: Annotated[
        str, Field(pattern=r"^[\w.-]+(:\d{1,5})?$"), AfterValidator(_with_a_port)
    ] = "127.0.0.1:5000"
    repository: Annotated[str, Field(pattern=rf"^({_PART}(/{_PART})*)?$", max_length=255)] = ""
    username: str = ""
    password: str = ""
    replicas: Annotated[int, Field(ge=1, le=50)] = 2
    ready_within: Annotated[float, Field(gt=0, le=3600)] = 60.0
    drain_within: Annotated[float, Field(gt=0, le=3600)] = 30.0
    lock_wait: Annotated[float, Field(ge=0, le=86400)] = 120.0

    needs_proxy: ClassVar[bool] = False

    @property
    def has_canaries(self) -> bool:
        """Whether a release is tried as a canary first."""
        return False

    def cluster_address(self, directory: Path) -> ClusterAddress | None:
        """Return where the cluster is found, or None for an environment that is not on a cluster.

        Args:
            directory: the folder of pipeline.toml, to which a kubeconfig's path is relative.
        """
        return None


class Docker(Environment):
    """One Docker host: replicas behind a small proxy that listens on `address` and `port`."""

    needs_proxy: ClassVar[bool] = True

    target: Literal["docker"] = "docker"
    address: Annotated[str, AfterValidator(_of_a_machine)] = "127.0.0.1"
    port: Port = 8080
    in_flight: Annotated[int, Field(ge=1, le=10000)] = 16
    answer_within: Annotated[float, Field(gt=0, le=86400)] = 60.0

    @property
    def url(self) -> str:
        """The front door."""
        host = "127.0.0.1" if self.address == "0.0.0.0" else self.address  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"


class Resources(Table):
    """What one replica is given: `cpu` is asked for, `memory` is asked for and is also the limit; quantities of Kubernetes."""

    cpu: Quantity = "250m"
    memory: Quantity = "512Mi"
    cpu_limit: Quantity = "2"

    @model_validator(mode="after")
    def _fits(self) -> Resources:
        if _amount(self.cpu_limit) < _amount(self.cpu):
            raise ValueError(f"cpu_limit ({self.cpu_limit}) is below cpu ({self.cpu})")
        return self


def _amount(quantity: str) -> float:
    number = quantity.rstrip("kKmMGTi")
    return float(number) * _UNITS.get(quantity.removeprefix(number), 1.0)


class Autoscale(Table):
    """Between how many replicas the cluster may choose, and at which use of the asked-for CPU (percent) it adds one."""

    at_most: Annotated[int, Field(ge=1, le=1000)]
    cpu: Annotated[int, Field(ge=1, le=100)] = 80


class Canary(Table):
    """How a canary is tried: its share by number of replicas, and how long it is held.

    It ends after `seconds`, or as soon as it has answered `requests` (0: only time counts). It is given up when its share of
    answers with status 5xx is above that of the stable side by more than `errors`.
    """

    replicas: Annotated[int, Field(ge=1, le=50)] = 1
    seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    requests: Annotated[int, Field(ge=0)] = 0
    errors: Annotated[float, Field(ge=0, le=1)] = 0.01
    metrics: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_./~?=&%+-]*)?$")] = "/metrics"
    counter: Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")] = "app_requests_total"
    status: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "status"

    @model_validator(mode="after")
    def _can_count(self) -> Canary:
        if self.requests and not self.metrics:
            raise ValueError("requests needs metrics, by which they are counted")
        return self


class Kubernetes(Environment):
    """A namespace of a cluster.

    `kubeconfig` and `context` choose the cluster as kubectl does; inside a cluster, without a kubeconfig, it is that one.
    `pull_rate` (bytes a second) and the image's size make the deadline of a rollout; `manifests` is a folder of YAML of your
    own, used in place of the suite's.
    """

    target: Literal["kubernetes"]
    kubeconfig: str = ""
    context: str = ""
    namespace: Annotated[str, Field(pattern=rf"^{_LABEL}$")] = "default"
    manifests: str = ""
    strategy: Literal["rolling", "blue-green", "canary"] = "rolling"
    canary: Canary = Canary()
    standby: bool = True
    warm_up: bool = False
    pull_rate: Annotated[float, Field(ge=1000)] = 10e6
    pull_secret: HostName = ""
    resources: Resources = Resources()
    autoscale: Autoscale | None = None
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    dns_label: KubernetesName = ""
    host: HostName = ""
    ingress_class: HostName = ""
    tls_secret: HostName = ""

    @property
    def has_canaries(self) -> bool:
        """Whether a release is tried as a canary first."""
        return self.strategy == "canary"

    def cluster_address(self, directory: Path) -> ClusterAddress:
        """Return where the cluster is found."""
        is_path = self.kubeconfig not in ("", IN_CLUSTER)
        kubeconfig = (
            str(directory / Path(self.kubeconfig).expanduser()) if is_path else self.kubeconfig
        )
        return ClusterAddress(kubeconfig, self.context, self.namespace)

    @model_validator(mode="after")
    def _fits(self) -> Kubernetes:
        if self.dns_label and self.service != "LoadBalancer":
            raise ValueError('dns_label needs service = "LoadBalancer"')
        if (self.ingress_class or self.tls_secret) and not self.host:
            raise ValueError("ingress_class and tls_secret need a host")
        if self.autoscale and self.autoscale.at_most < self.replicas:
            raise ValueError("autoscale.at_most is below replicas")
        return self


def target_of(table: object) -> str:
    """Which target a table is about: `docker` where it does not say."""
    return str(
        table.get("target", "docker")
        if isinstance(table, Mapping)
        else getattr(table, "target", "docker")
    )


KINDS: Mapping[str, type[Environment]] = {"docker": Docker, "kubernetes": Kubernetes}
AnyEnvironment = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Kubernetes, Tag("kubernetes")],
    Discriminator(target_of),
]
_NESTED: Mapping[str, type[Table]] = {
    "canary": Canary,
    "resources": Resources,
    "autoscale": Autoscale,
}


def union_of(kinds: Mapping[str, type[Environment]]) -> Any:  # noqa: ANN401 - a type that is made at run time
    """Return the type of a table that is one of those kinds, chosen by its `target`."""
    tagged = tuple(Annotated[kind, Tag(name)] for name, kind in kinds.items())
    return Annotated[Union[tagged], Discriminator(target_of)]  # noqa: UP007 - known at run time only


def known_keys(kind: type[Environment] | None, *nested: str) -> list[str]:
    """Return the keys that a table of that kind knows, or a table inside it."""
    section = _NESTED.get(nested[0]) if nested else kind
    return list(section.model_fields) if section else []
