"""The records of a run of the benchmark: what was measured, on what, and whether the aims were met.

Times are in seconds, sizes in bytes, unless a name says otherwise. A record holds every repetition; what is shown of them
is their median, with the least and the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Self

from deploy.records import Record

# The stages that a model or code must pass to be a pushed image; the others prove it and make it serve.
TO_PUSHED = ("start and fetch", "build", "join", "push")
# Where each part of a run is kept.
FIELDS = {
    "releases": "cases",
    "pushes": "transfer",
    "serving": "served",
    "load": "rolled",
    "cluster": "cluster",
    "listing": "listing",
}


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


class Cost(Record):
    """What running a command takes.

    Args:
        seconds: from its start to its end.
        cpu: processor time of it and its children.
        peak: the most memory that its processes had at once.
        read, written: bytes that it read from and wrote to files and pipes, where the system tells.
        engine_cpu, engine_peak: processor time and peak of the engine's own processes meanwhile, where they can be seen.
    """

    seconds: float
    cpu: float
    peak: int
    read: int | None
    written: int | None
    engine_cpu: float | None
    engine_peak: int | None

    def __add__(self, other: Cost) -> Cost:
        """The cost of one command after the other."""
        return Cost(
            seconds=self.seconds + other.seconds,
            cpu=self.cpu + other.cpu,
            peak=max(self.peak, other.peak),
            read=_total(self.read, other.read),
            written=_total(self.written, other.written),
            engine_cpu=_total(self.engine_cpu, other.engine_cpu),
            engine_peak=max(self.engine_peak or 0, other.engine_peak or 0) or None,
        )


class Run(Cost):
    """One way to do one thing, once: what all its commands cost together, and what came of it.

    Args:
        stored: by how much the registry's storage grew.
        received, sent: bytes at the registry's network interface, headers and all.
        stages: how long each part took, in order.
    """

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


class Second(Record):
    """A second of a load: when it began, after the load itself; latencies in milliseconds."""

    at: float
    requests: int
    p50: float
    p99: float


class Rollout(Record):
    """A rollout under load: what was rolled out, and when it began and ended, after the load itself."""

    name: str
    begin: float
    end: float


class Rolled(Record):
    """Rollouts in a row under one load, and what clients saw.

    Args:
        target: where the application ran.
        load: the load's name.
        clients: how many asked at once.
        pause: seconds between an answer and the same client's next request.
        mixed: right answers that no model which might serve at that moment gives.
        rest: before the first rollout.
        rolling: from the beginning of the first rollout to the end of the last.
        rollouts: each of them.
        seconds: each second of the load.
    """

    target: str
    load: str
    clients: int
    pause: float
    mixed: int
    rest: Burst
    rolling: Burst
    rollouts: tuple[Rollout, ...]
    seconds: tuple[Second, ...]

    @property
    def failed(self) -> int:
        """Requests without a right answer, in all."""
        return self.rest.failures + self.rolling.failures

    @property
    def sent(self) -> int:
        """Requests in all."""
        return self.rest.requests + self.rolling.requests + self.failed


class Arrival(Record):
    """A replica of a release that its node did not have yet: seconds of its way from the apply until it answered.

    Args:
        started: until a node was found and the image was pulled.
        loaded: from there until the model was loaded.
        ready: from there until it got requests.
    """

    started: float
    loaded: float
    ready: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.started + self.loaded + self.ready


class Clustered(Record):
    """Rollouts on a Kubernetes cluster: under load, and replica by replica at rest."""

    rolled: Rolled
    arrivals: tuple[Arrival, ...]


class Machine(Record):
    """What all of it was measured on."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    engine: str
    docker: str


class Taken(Record):
    """When, at which commit, by which command, in how many seconds and on what figures were taken."""

    at: str
    commit: str
    command: str
    took: float
    machine: Machine


class Measured(Taken):
    """Everything that the benchmark found; a part that was left out is empty, and one that was taken `later` says so."""

    cases: tuple[Case, ...] = ()
    transfer: Transfer | None = None
    listing: tuple[float, ...] = ()
    served: tuple[Served, ...] = ()
    rolled: tuple[Rolled, ...] = ()
    cluster: Clustered | None = None
    later: Mapping[str, Taken] = {}

    @property
    def loads(self) -> tuple[Rolled, ...]:
        """The rollouts under load, on whichever target."""
        return (*self.rolled, *([self.cluster.rolled] if self.cluster else []))

    def with_parts_of(self, other: Measured, parts: Iterable[str]) -> Measured:
        """These figures, with some parts in the place of this run's; each knows when it was taken."""
        chosen = tuple(parts)
        fields = {FIELDS[part]: getattr(other, FIELDS[part]) for part in chosen}
        taken = Taken(**{name: getattr(other, name) for name in Taken.model_fields})
        return self.model_copy(
            update=fields | {"later": {**self.later, **dict.fromkeys(chosen, taken)}}
        )


class Aim(Record):
    """Something that was promised, and what was found."""

    promise: str
    found: str
    met: bool


class Report(Record):
    """What is written: the figures and what they say of the aims."""

    measured: Measured
    aims: tuple[Aim, ...]


def _total(*values: float | None) -> Any:  # noqa: ANN401 - a whole number of whole numbers
    known = [value for value in values if value is not None]
    return sum(known) if known else None
