"""The records of a run of the benchmark: what was measured, on what, and whether the aims were met.

Times are in seconds, sizes in bytes, unless a name says otherwise. A record holds every repetition; what is shown of them
is their median, with the least and the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Self

from deploy.records import Record

# The stages that a model or code must pass to be a pushed image; the others prove it and make it serve.
TO_PUSHED = ("start and fetch", "build", "join", "push")


class Spread(Record):
    """The middle of some repetitions, and their ends."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of at least one value."""
        found = list(values)
        return cls(median=median(found), least=min(found), most=max(found))


class Run(Record):
    """One way to do one thing, once.

    Args:
        seconds: from the start of the first command to the end of the last.
        cpu: processor time of the commands and their children.
        peak: the most memory that the commands' processes had at once.
        read, written: bytes that the commands read from and wrote to files and pipes, where the system tells.
        engine_cpu, engine_peak: the same of the engine's own processes, where they can be seen.
        stored: by how much the registry's storage grew.
        received, sent: bytes at the registry's network interface, headers and all.
        stages: how long each part took, in order.
    """

    seconds: float
    cpu: float
    peak: int
    read: int | None
    written: int | None
    engine_cpu: float | None
    engine_peak: int | None
    stored: int
    received: int
    sent: int
    stages: Mapping[str, float]

    @property
    def pushed(self) -> float:
        """The time until the registry holds the image, without what only tries it out or makes it serve."""
        return sum(self.stages.get(stage, 0.0) for stage in TO_PUSHED)


class Case(Record):
    """The same change, brought out by the suite and by `docker build` and `docker push`, in turns.

    `weights_read` is how much of the model's files the suite read in each repetition, where that was watched.
    """

    name: str
    title: str
    model: int
    suite: tuple[Run, ...]
    docker: tuple[Run, ...]
    weights_read: tuple[int, ...] = ()


class Transfer(Record):
    """The same bytes to the same registry, by the suite and as one plain streamed PUT, in turns."""

    size: int
    suite: tuple[float, ...]
    put: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times the PUT's time the suite took, pair by pair."""
        return tuple(mine / plain for mine, plain in zip(self.suite, self.put, strict=True))


class Burst(Record):
    """One stretch of load: whole requests only, latencies in milliseconds."""

    requests: int
    failures: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Served(Record):
    """A server under the load of some clients that each ask again as soon as they are answered."""

    server: str
    picture: str
    body: int
    clients: int
    bursts: tuple[Burst, ...]


class Machine(Record):
    """What all of it was measured on."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    engine: str
    docker: str


class Measured(Record):
    """Everything that one run of the benchmark found; a part that was left out is empty."""

    at: str
    commit: str
    command: str
    took: float
    machine: Machine
    cases: tuple[Case, ...]
    transfer: Transfer | None
    listing: tuple[float, ...]
    served: tuple[Served, ...]


class Aim(Record):
    """Something that was promised, and what was found."""

    promise: str
    found: str
    met: bool


class Report(Record):
    """What is written: the figures and what they say of the aims."""

    measured: Measured
    aims: tuple[Aim, ...]
