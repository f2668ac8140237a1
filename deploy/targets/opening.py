"""The kinds of targets, and how each is opened from settings. A new kind is added to `TARGETS`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from deploy.clients.docker.protocol import Engine
from deploy.clients.kubernetes.protocol import Object
from deploy.clients.oci.credentials import Login
from deploy.clock import Clock
from deploy.errors import RegistryDenied, SettingsInvalid
from deploy.machine import services
from deploy.machine.host import Host
from deploy.records import Attempt, Release
from deploy.rollout.target import CanaryTarget, Target
from deploy.settings.environments import Docker, Environment, Kubernetes, target_of
from deploy.settings.reading import Settings
from deploy.variables import Variables

if TYPE_CHECKING:
    from deploy.targets.docker.target import DockerTarget
    from deploy.targets.kubernetes.target import KubernetesTarget

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Environment)


class RenderedTarget(Target, Protocol):
    """A target that consists of objects, which can be printed."""

    def rendered(self, release: Release, attempt: Attempt | None) -> list[Object]:
        """Return the objects of a release as they are applied."""


@dataclass(frozen=True)
class TargetInputs:
    """What a target can be made of, besides the table of its environment.

    Args:
        settings: the settings of the application.
        environment: the name of the environment.
        directory: the folder of pipeline.toml.
        host: this machine.
        clock: tells the time.
        engine: returns the container engine; called only where replicas run on one.
        find_login: returns the registry's login for the pull of a release, or None.
        variables: returns the variables of the settings; raises SettingsInvalid if a secret is
            not there.
        image_size: returns the bytes that a node pulls for a release.
        image_platform: returns the platform of a release's image; empty if it is not known.
    """

    settings: Settings
    environment: str
    directory: Path
    host: Host
    clock: Clock
    engine: Callable[[], Engine]
    find_login: Callable[[Release], Login | None]
    variables: Callable[[], Variables]
    image_size: Callable[[Release], int]
    image_platform: Callable[[Release], str]


@dataclass(frozen=True)
class TargetKind(Generic[E]):
    """A kind of target.

    Args:
        settings: the table of an environment with such a target; its `target` has the kind's name.
        open: returns the target of an environment.
        open_canary_target: the same, where the kind has canaries.
        open_rendered_target: the same, where the kind consists of objects.
    """

    settings: type[E]
    open: Callable[[E, TargetInputs], Target]
    open_canary_target: Callable[[E, TargetInputs], CanaryTarget] | None = None
    open_rendered_target: Callable[[E, TargetInputs], RenderedTarget] | None = None


Kinds = Mapping[str, TargetKind[Any]]


def open_target(inputs: TargetInputs, kinds: Kinds) -> Target:
    """Return the target of an environment.

    Raises:
        ClusterError: the cluster does not answer, denies access, or has no such namespace.
    """
    env = inputs.settings.environment(inputs.environment)
    return kinds[target_of(env)].open(env, inputs)


def open_canary_target(inputs: TargetInputs, kinds: Kinds) -> CanaryTarget:
    """Return the target of an environment that can have canaries.

    Raises:
        SettingsInvalid: targets of that kind have none.
        ClusterError: as for any target.
    """
    env = inputs.settings.environment(inputs.environment)
    found = kinds[target_of(env)].open_canary_target
    if found is None:
        raise _no_cluster(inputs.environment)
    return found(env, inputs)


def open_rendered_target(inputs: TargetInputs, kinds: Kinds) -> RenderedTarget:
    """Return the target of an environment whose objects can be printed.

    Raises:
        SettingsInvalid: targets of that kind have no objects.
        ClusterError: as for any target.
    """
    env = inputs.settings.environment(inputs.environment)
    found = kinds[target_of(env)].open_rendered_target
    if found is None:
        raise _no_cluster(inputs.environment)
    return found(env, inputs)


def _no_cluster(environment: str) -> SettingsInvalid:
    return SettingsInvalid(
        "this needs an environment on a cluster",
        on=f"[environments.{environment}] target",
        next='choose one with target = "kubernetes"',
    )


def open_docker(env: Docker, inputs: TargetInputs) -> DockerTarget:
    """Return a target on a Docker host.

    Raises:
        SettingsInvalid: the engine is Podman, which cannot do all that a rollout needs.
    """
    from deploy.targets.docker.target import DockerTarget, Supplies

    engine = inputs.engine()
    if engine.product == "Podman":
        raise SettingsInvalid(
            "Podman cannot change whether a container is restarted, which a rollout needs",
            on=f"[environments.{inputs.environment}] target",
            next="use Docker for this environment; with Podman, `invoke build`, `smoke` and `push` "
            "work, and releases to a cluster",
        )

    def find_login(release: Release) -> tuple[str, str] | None:
        try:
            login = inputs.find_login(release)
        except RegistryDenied as error:
            # The registry may need no login; if it does, its refusal comes after this line.
            log.warning("pulling without a login: %s (%s)", error.what, error.on)
            return None
        return (login.user, login.password) if login else None

    return DockerTarget(
        engine,
        inputs.settings.app,
        inputs.environment,
        env,
        services_image=lambda: services.ensure_services_image(
            engine, inputs.settings.image, inputs.host
        ),
        supplies=Supplies(find_login, inputs.variables),
        require_free_port=inputs.host.require_free_port if engine.is_local else _accept_any_port,
        send=inputs.host.send,
        clock=inputs.clock,
    )


def _accept_any_port(_address: str, _port: int) -> None:
    """Accept a port of another machine, whose listeners cannot be seen from here."""


def open_kubernetes(env: Kubernetes, inputs: TargetInputs) -> KubernetesTarget:
    """Return a target in a namespace of a cluster.

    Raises:
        ClusterError: the cluster does not answer, denies access, or has no such namespace.
    """
    from deploy.targets.kubernetes.render import Rendering
    from deploy.targets.kubernetes.target import KubernetesTarget

    rendering = Rendering.read(inputs.settings.app, inputs.environment, env, inputs.directory)
    cluster = inputs.host.connect_cluster(*env.cluster_address(inputs.directory))
    cluster.require_access()
    return KubernetesTarget(
        cluster,
        rendering,
        inputs.image_size,
        clock=inputs.clock,
        platform=inputs.image_platform,
        variables=inputs.variables,
    )


TARGETS: Kinds = {
    "docker": TargetKind(Docker, open_docker),
    "kubernetes": TargetKind(Kubernetes, open_kubernetes, open_kubernetes, open_kubernetes),
}
