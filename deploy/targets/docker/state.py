"""What an environment has on a Docker host, by name and by label: whoever comes next finds the same."""

from __future__ import annotations

from deploy.clients.docker.protocol import Container, Engine

LABEL = "dev.twinship.docker"
APP = "dev.twinship.app"
SLOT = "dev.twinship.slot"
IMAGE = "dev.twinship.image"
_ENVIRONMENT = "dev.twinship.environment"
_ROLE = "dev.twinship.role"


class DockerState:
    """An application's containers, network and volume in one environment.

    Args:
        engine: the host's engine.
        app: the application's name.
        environment: the environment's.
    """

    def __init__(self, engine: Engine, app: str, environment: str) -> None:
        self.engine = engine
        self.environment = environment
        self.name = f"twinship-{app}-{environment}"
        self.labels = {LABEL: "yes", APP: app, _ENVIRONMENT: environment}

    def role(self, role: str) -> dict[str, str]:
        """The labels of a container with that part to play."""
        return self.labels | {_ROLE: role}

    def replicas(self) -> list[Container]:
        """Every replica, running or not."""
        return self.engine.containers(self.role("replica"))

    def proxy(self) -> Container | None:
        """The front door, running or not, whatever image it was made from."""
        return next(iter(self.engine.containers(self.role("door"))), None)

    def subnet(self) -> str:
        """The addresses of the environment's own network, which is made if it is missing."""
        return self.engine.network(self.name, self.labels)


def slot_of(replica: Container) -> int:
    """The slot behind the door that a replica is in."""
    return int(replica.labels[SLOT])
