"""The state of an environment on a Docker host: its containers, network and volume, by label."""

from __future__ import annotations

from deploy.clients.docker.protocol import Container, Engine
from deploy.machine.labels import (
    APP,
    ATTEMPT,
    ENVIRONMENT,
    LABEL,
    ROLE,
    SECRETS,
    SLOT,
    VALUES,
)
from deploy.variables import Variables

# Labels of containers that older versions made say so too.
_PROXY = "door"


class DockerState:
    """What an application has on a Docker host in one environment.

    Args:
        engine: the host's engine.
        app: the application's name.
        environment: the environment's name.

    Attributes:
        name: the name of the network and the volume; names of containers begin with it.
        labels: the labels of all of it.
    """

    def __init__(self, engine: Engine, app: str, environment: str) -> None:
        self.engine = engine
        self.environment = environment
        self.name = f"twinship-{app}-{environment}"
        self.labels = {LABEL: "yes", APP: app, ENVIRONMENT: environment}

    @property
    def replica_labels(self) -> dict[str, str]:
        """The labels of every replica."""
        return self._role("replica")

    @property
    def proxy_labels(self) -> dict[str, str]:
        """The labels of the proxy's container."""
        return self._role(_PROXY)

    @property
    def lock_labels(self) -> dict[str, str]:
        """The labels of the container that is the lock."""
        return self._role("lock")

    def _role(self, role: str) -> dict[str, str]:
        return self.labels | {ROLE: role}

    @property
    def proxy_name(self) -> str:
        """The name of the proxy's container."""
        return f"{self.name}-{_PROXY}"

    def replicas(self) -> list[Container]:
        """Return every replica, running or not."""
        return self.engine.containers(self.replica_labels)

    def proxy(self) -> Container | None:
        """Return the proxy's container, running or not, whatever its image."""
        return next(iter(self.engine.containers(self.proxy_labels)), None)

    def lock(self) -> Container | None:
        """Return the container that is the lock, if a deployer has it."""
        return next(iter(self.engine.containers(self.lock_labels)), None)

    def subnet(self) -> str:
        """Return the addresses of the environment's network; make the network if it is missing."""
        return self.engine.ensure_network(self.name, self.labels)


def slot_of(replica: Container) -> int:
    """Return the number of a replica's slot in the proxy."""
    return int(replica.labels[SLOT])


def attempt_of(replica: Container) -> int:
    """Return the number of the attempt that started a replica; 0 for one of an older version."""
    return int(replica.labels.get(ATTEMPT, "0"))


def variables_of(replica: Container) -> Variables:
    """Return the variables that a replica was given, without those of its image."""

    def select(label: str) -> dict[str, str]:
        names = filter(None, replica.labels.get(label, "").split(","))
        return {name: replica.environment.get(name, "") for name in names}

    return Variables(select(VALUES), select(SECRETS))


def variable_labels(variables: Variables) -> dict[str, str]:
    """Return the labels by which `variables_of` finds a replica's variables; none for none."""
    names = {VALUES: ",".join(variables.values), SECRETS: ",".join(variables.secrets)}
    return {label: text for label, text in names.items() if text}
