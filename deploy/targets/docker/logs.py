"""The logs of an environment on a Docker host: those of its replicas and of its proxy."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.clients.docker.protocol import Container, Engine
from deploy.clients.log_lines import TimedLine
from deploy.machine.labels import IMAGE
from deploy.rollout.logs import LogSource, Window
from deploy.targets.docker.state import DockerState, slot_of, variables_of

_PROXY = "proxy"


def find_log_sources(state: DockerState) -> tuple[LogSource, ...]:
    """Return the logs of all replicas, running or not, and of the proxy, without secrets."""
    proxy = state.proxy()
    replicas = [
        _source(state.engine, container, f"{state.environment}-{slot_of(container)}")
        for container in state.replicas()
    ]
    return (*replicas, *([_source(state.engine, proxy, _PROXY)] if proxy else []))


def _source(engine: Engine, container: Container, name: str) -> LogSource:
    variables = variables_of(container)

    def read(window: Window) -> Iterator[TimedLine]:
        for at, text in engine.read_log(container.id, window.since, window.lines):
            yield at, variables.hide(text)

    return LogSource(name, container.labels.get(IMAGE, ""), read)
