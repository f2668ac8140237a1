"""The tables [environments.NAME] of pipeline.toml, one class for each kind of target.

Nothing here reads a secret: `username`, `password` and the table `secrets` name secrets, and
`pull_secret` names an object of the cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from deploy.clients.azure.names import CLUSTER
from deploy.clients.docker.protocol import Limits
from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.settings.table import Port, Table
from deploy.settings.variables import SecretNames, Values

_QUANTITY = r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?"
Quantity = Annotated[str, Field(pattern=rf"^{_QUANTITY}$")]
OptionalQuantity = Annotated[str, Field(pattern=rf"^({_QUANTITY})?$")]
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
# What a container may use, unless the environment says so: room for a framework and its threads,
# and for copies of the model while it is loaded.
_MEMORY = 2 * 2**30
_MODEL_FACTOR = 4
_PIDS = 2048
_LEAST_MEMORY = 16 * 2**20
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
KubernetesName = Annotated[str, Field(pattern=rf"^({_LABEL})?$")]
# A component of a repository's path (OCI distribution specification 1.1, "Pulling manifests").
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
# The key of a node's label, with or without a prefix.
LabelKey = Annotated[
    str,
    Field(
        pattern=rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$",
        max_length=317,
    ),
]
_REPOSITORY = re.compile(rf"({_PART}(/{_PART})*)?")
_HOST = re.compile(r"[A-Za-z0-9_.-]+(:\d{1,5})?")
# Not only "/", which would be every path.
PrivatePath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.~-]+)+$")]
HostName = Annotated[str, Field(pattern=rf"^({_LABEL}(\.{_LABEL})*)?$", max_length=253)]


def _check_registry(host: str) -> str:
    if "://" in host or "/" in host:
        raise ValueError("give the host alone, and the path in `repository`")
    if host.startswith("[") or host.count(":") > 1:
        raise ValueError("container engines take no IPv6 address; give a name, or an IPv4 address")
    if not _HOST.fullmatch(host):
        raise ValueError("it should be a host with its port, such as registry.example:5000")
    if ":" in host and not 1 <= int(host.rpartition(":")[2]) <= 65535:
        raise ValueError("the port should be from 1 to 65535")
    return host


def _check_repository(path: str) -> str:
    if path != path.lower() and _REPOSITORY.fullmatch(path.lower()):
        raise ValueError(f"it must be lower-case, such as {path.lower()}")
    if not _REPOSITORY.fullmatch(path):
        raise ValueError(
            "it should be a path of lower-case names below the registry's host, such as team/app"
        )
    return path


def _check_address(address: str) -> str:
    # An engine listens on every address of the machine if it cannot read the given one.
    try:
        IPv4Address(address)
    except AddressValueError:
        raise ValueError(
            "it should be an IPv4 address, such as 127.0.0.1, or 0.0.0.0 for every address"
        ) from None
    return address


# A resource group and a name, or the id of the resource.
_AKS = (
    r"^([\w.()-]+/[\w-]+|/subscriptions/[\w-]+/[rR]esource[gG]roups/[\w.()-]+"
    r"/providers/Microsoft\.ContainerService/managedClusters/[\w-]+)?$"
)


def _check_memory(quantity: str) -> str:
    if quantity and _parse_quantity(quantity) < _LEAST_MEMORY:
        raise ValueError("it should be at least 16Mi")
    return quantity


def _parse_quantity(quantity: str) -> float:
    number = quantity.rstrip("kKmMGTi")
    return float(number) * _UNITS.get(quantity.removeprefix(number), 1.0)


class ClusterAddress(NamedTuple):
    """The path of a kubeconfig or `aks:group/name`, a context, and the name of a namespace."""

    kubeconfig: str
    context: str
    namespace: str


class Environment(Table):
    """The keys that every kind of environment has. Times are in seconds.

    `registry` is the host (and port) of the OCI registry. `username` and `password` *name*
    secrets; without them the login is that of the identity on Azure, or of the Docker
    configuration. Replicas get the variables of the table `env`, with their values, and those of
    the table `secrets`, which names the secret that each of them gets.

    Attributes:
        needs_proxy: whether releases serve behind this project's proxy, whose image must exist.
    """

    registry: Annotated[str, AfterValidator(_check_registry)] = "127.0.0.1:5000"
    repository: Annotated[str, Field(max_length=255), AfterValidator(_check_repository)] = ""
    username: str = ""
    password: str = ""
    replicas: Annotated[int, Field(ge=1, le=50)] = 2
    ready_within: Annotated[float, Field(gt=0, le=3600)] = 60.0
    drain_within: Annotated[float, Field(gt=0, le=3600)] = 30.0
    lock_wait: Annotated[float, Field(ge=0, le=86400)] = 120.0
    env: Values = Field(default={})
    secrets: SecretNames = Field(default={})

    needs_proxy: ClassVar[bool] = False

    @model_validator(mode="after")
    def _check_variables(self) -> Self:
        both = sorted(self.env.keys() & self.secrets.keys())
        if both:
            raise ValueError(
                f"{', '.join(both)}: in env and in secrets; remove it from one of them"
            )
        return self

    def limits(self, model_size: int) -> Limits:
        """Return what a container may use that serves a model of so many bytes."""
        return Limits(memory=_MEMORY + _MODEL_FACTOR * model_size, pids=_PIDS)

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
    """A Docker host: replicas behind a proxy that listens on `address` and `port`.

    `memory` and `pids` are the limits of one replica. Clients get status 404 for the paths
    `private`, and for those below them.
    """

    needs_proxy: ClassVar[bool] = True

    target: Literal["docker"] = "docker"
    address: Annotated[str, AfterValidator(_check_address)] = "127.0.0.1"
    port: Port = 8080
    in_flight: Annotated[int, Field(ge=1, le=10000)] = 16
    answer_within: Annotated[float, Field(gt=0, le=86400)] = 60.0
    memory: Annotated[OptionalQuantity, AfterValidator(_check_memory)] = ""
    pids: Annotated[int, Field(ge=16, le=4194304)] = _PIDS
    private: tuple[PrivatePath, ...] = ("/metrics", "/version", "/openapi.json")

    def limits(self, model_size: int) -> Limits:
        """Return what a replica may use that serves a model of so many bytes."""
        limits = super().limits(model_size)
        memory = round(_parse_quantity(self.memory)) if self.memory else limits.memory
        return replace(limits, memory=memory, pids=self.pids)

    @property
    def url(self) -> str:
        """The address at which clients reach the release."""
        host = "127.0.0.1" if self.address == "0.0.0.0" else self.address  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"


class Resources(Table):
    """The resources of one replica, as quantities of Kubernetes.

    `cpu` is the request and `cpu_limit` the limit, or empty for no limit. `memory` and
    `ephemeral_storage` are both; without the latter, the object template decides.
    """

    cpu: Quantity = "250m"
    memory: Quantity = "512Mi"
    cpu_limit: OptionalQuantity = "2"
    ephemeral_storage: OptionalQuantity = ""

    @model_validator(mode="after")
    def _check_limit(self) -> Resources:
        if self.cpu_limit and _parse_quantity(self.cpu_limit) < _parse_quantity(self.cpu):
            raise ValueError(f"cpu_limit ({self.cpu_limit}) is below cpu ({self.cpu})")
        return self


class Autoscale(Table):
    """The automatic number of replicas.

    `at_most` is the highest number; above `cpu` percent of the requested CPU a replica is added.
    """

    at_most: Annotated[int, Field(ge=1, le=1000)]
    cpu: Annotated[int, Field(ge=1, le=100)] = 80


class Canary(Table):
    """How a canary is tried: its number of replicas, and how long it is on hold.

    The hold ends after `seconds`, or as soon as the canary has answered `requests` (0: only time
    counts). The canary is given up if its share of responses with status 5xx is above that of the
    stable replicas by more than `errors`.
    """

    replicas: Annotated[int, Field(ge=1, le=50)] = 1
    seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    requests: Annotated[int, Field(ge=0)] = 0
    errors: Annotated[float, Field(ge=0, le=1)] = 0.01
    metrics: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_./~?=&%+-]*)?$")] = "/metrics"
    counter: Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")] = "app_requests_total"
    status: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "status"

    @model_validator(mode="after")
    def _check_counting(self) -> Canary:
        if self.requests and not self.metrics:
            raise ValueError("requests needs metrics, by which they are counted")
        return self


class Kubernetes(Environment):
    """A namespace of a cluster.

    `aks` names a cluster on AKS, which the identity on Azure logs in to. Without it, `kubeconfig`
    and `context` choose the cluster as kubectl does; inside a cluster, without a
    kubeconfig, it is that one. The deadline of a rollout follows from `pull_rate` (bytes a second)
    and the size of the image. `manifests` is a folder of your own object templates. Replicas are
    spread over the nodes, and over the values of the nodes' labels in `topology_keys`.
    """

    target: Literal["kubernetes"]
    aks: Annotated[str, Field(pattern=_AKS)] = ""
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
    min_ready_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    priority_class: HostName = ""
    topology_keys: tuple[LabelKey, ...] = ()
    autoscale: Autoscale | None = None
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    dns_label: KubernetesName = ""
    host: HostName = ""
    ingress_class: HostName = ""
    tls_secret: HostName = ""

    def limits(self, model_size: int) -> Limits:
        """Return what a container may use in the smoke test: the memory of a replica."""
        memory = round(_parse_quantity(self.resources.memory))
        return replace(super().limits(model_size), memory=memory)

    @property
    def has_canaries(self) -> bool:
        """Whether a release is tried as a canary first."""
        return self.strategy == "canary"

    def cluster_address(self, directory: Path) -> ClusterAddress:
        """Return where the cluster is found."""
        if self.aks:
            return ClusterAddress(f"{CLUSTER}{self.aks}", "", self.namespace)
        is_path = self.kubeconfig not in ("", IN_CLUSTER)
        # A user without a home folder gets a path that does not exist, and the error that says so.
        expanded = os.path.expanduser(self.kubeconfig)  # noqa: PTH111 - Path's raises for such a user
        kubeconfig = str(directory / expanded) if is_path else self.kubeconfig
        return ClusterAddress(kubeconfig, self.context, self.namespace)

    @model_validator(mode="after")
    def _check_keys(self) -> Kubernetes:
        if self.aks and (self.kubeconfig or self.context):
            raise ValueError("aks takes the place of kubeconfig and context")
        if self.dns_label and self.service != "LoadBalancer":
            raise ValueError('dns_label needs service = "LoadBalancer"')
        if (self.ingress_class or self.tls_secret) and not self.host:
            raise ValueError("ingress_class and tls_secret need a host")
        if self.autoscale and self.autoscale.at_most < self.replicas:
            raise ValueError("autoscale.at_most is below replicas")
        return self


Kinds = Mapping[str, type[Environment]]


def target_of(table: object) -> str:
    """Return the kind of target that a table names; `docker` is the default."""
    return str(
        table.get("target", "docker")
        if isinstance(table, Mapping)
        else getattr(table, "target", "docker")
    )


KINDS: Kinds = {"docker": Docker, "kubernetes": Kubernetes}
AnyEnvironment = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Kubernetes, Tag("kubernetes")],
    Discriminator(target_of),
]


def union_of(kinds: Kinds) -> Any:  # noqa: ANN401 - a type that is made at run time
    """Return the type of a table that is one of those kinds, chosen by its `target`."""
    tagged = tuple(Annotated[kind, Tag(name)] for name, kind in kinds.items())
    return Annotated[Union[tagged], Discriminator(target_of)]  # noqa: UP007 - known at run time only
