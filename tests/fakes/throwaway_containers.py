"""Throwaway containers that do not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from deploy.clients.docker.protocol import Limits
from deploy.clients.docker.throwaway_container import ThrowawayContainer

URL = "http://127.0.0.1:32768"


class MemoryContainers:
    """Throwaway containers that only record their images.

    Attributes:
        images: The images, in order.
        limits: What their processes may use, in order.
        environments: Their variables, in order.
        alive: Whether their processes are running.
        log: Their output.
    """

    def __init__(self) -> None:
        self.images: list[str] = []
        self.limits: list[Limits] = []
        self.environments: list[Mapping[str, str]] = []
        self.alive = True
        self.log = "listening"

    @contextmanager
    def __call__(
        self, image: str, port: int, limits: Limits, environment: Mapping[str, str]
    ) -> Iterator[ThrowawayContainer]:
        self.environments.append(environment)
        self.images.append(image)
        self.limits.append(limits)
        yield ThrowawayContainer(
            url=URL,
            is_running=lambda: self.alive,
            read_log=lambda: self.log,
            was_out_of_memory=lambda: False,
        )
