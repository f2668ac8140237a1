"""The records of a run of the benchmark: the figures, the machine, and the aims.

Times are in seconds and sizes in bytes, unless a name says otherwise. A record has every
repetition; the report shows the median, the minimum and the maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Self

from deploy.records import Record

# The stages that end with a pushed image; the others test it and roll it out.
TO_PUSHED = ("start and fetch", "build", "join", "push")
# The field of each part of a run.
FIELDS = {
    "releases": "cases",
    "pushes": "transfer",
    "serving": "served",
    "load": "rolled",
    "cluster": "cluster",
    "azure": "azure",
    "listing": "listing",
}


class Spread(Record):
    """The median, the minimum and the maximum of some repetitions."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the spread of one or more values."""
        found = list(values)
        return cls(median=median(found), least=min(found), most=max(found))


class Cost(Record):
    """What a command uses.

    Args:
        seconds: from its start to its end.
        cpu: processor time of it and its children.
        peak: the maximum of the memory of all its processes.
        read: bytes that it read from files and pipes, where the system reports them.
        written: bytes that it wrote to files and pipes, where the system reports them.
        engine_cpu: processor time of the engine's processes meanwhile, where they are visible.
        engine_peak: maximum memory of the engine's processes, where they are visible.
    """

    seconds: float
    cpu: float
    peak: int
    read: int | None
    written: int | None
    engine_cpu: float | None
    engine_peak: int | None

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of two commands in a row."""
        return Cost(
            seconds=self.seconds + other.seconds,
            cpu=self.cpu + other.cpu,
            peak=max(self.peak, other.peak),
            read=_sum(self.read, other.read),
            written=_sum(self.written, other.written),
            engine_cpu=_sum(self.engine_cpu, other.engine_cpu),
            engine_peak=max(self.engine_peak or 0, other.engine_peak or 0) or None,
        )


class Run(Cost):
    """One way to do one thing, once: the cost of all its commands, and its results.

    Args:
        stored: by how much the registry's storage grew.
        received: bytes that came in at the registry's network interface, with headers.
        sent: bytes that went out at the registry's network interface, with headers.
        stages: the seconds of each stage, in order.
    """

    stored: int
    received: int
    sent: int
    stages: Mapping[str, float]

    @property
    def pushed(self) -> float:
        """The time until the registry has the image, without the smoke test and the rollout."""
        return sum(self.stages.get(stage, 0.0) for stage in TO_PUSHED)


class Case(Record):
    """The same change, released by the suite and by `docker build` and `docker push`, in turns.

    `weights_read` has the bytes of the model's files that the suite read in each repetition, where
    this was observed.
    """

    name: str
    title: str
    model: int
    suite: tuple[Run, ...]
    docker: tuple[Run, ...]
    weights_read: tuple[int, ...] = ()


class Transfer(Record):
    """The same bytes to the same registry, by the suite and by one streamed PUT, in turns."""

    size: int
    suite: tuple[float, ...]
    put: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The time of the suite as a multiple of that of the PUT, for each pair."""
        return tuple(mine / plain for mine, plain in zip(self.suite, self.put, strict=True))


class Download(Record):
    """The same blob from Azurite, by the suite and by azure-storage-blob, in turns."""

    size: int
    suite: tuple[float, ...]
    library: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast as the library the suite is, for each pair."""
        return tuple(library / mine for mine, library in zip(self.suite, self.library, strict=True))


class FirstToken(Record):
    """The first token of a new process, and that of another identity in the same process.

    Args:
        process: from the start of the process to the end of both.
        cold: the first one, with the imports that it needs.
        warm: the other one.
        requests: the requests to the login service for one of them.
    """

    process: float
    cold: float
    warm: float
    requests: int

    @property
    def first(self) -> float:
        """The time from the start of the process to the first token."""
        return self.process - self.warm

    @property
    def imports(self) -> float:
        """The time of the imports."""
        return self.cold - self.warm


class OnAzure(Record):
    """What Azure costs: logging in, and fetching a model.

    The download is None where Azurite is not installed.
    """

    tokens: tuple[FirstToken, ...]
    download: Download | None


class Burst(Record):
    """A period of load: whole requests only, latencies in milliseconds."""

    requests: int
    failures: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """The requests a second."""
        return self.requests / self.seconds


class Served(Record):
    """A server under the load of clients that each send again as soon as they get a response."""

    server: str
    picture: str
    body: int
    clients: int
    bursts: tuple[Burst, ...]


class Second(Record):
    """A second of a load: its time since the load began; latencies in milliseconds."""

    at: float
    requests: int
    p50: float
    p99: float


class Rollout(Record):
    """A rollout under load: its name, and its begin and end since the load began."""

    name: str
    begin: float
    end: float


class Rolled(Record):
    """Rollouts in a row under one load, as clients saw them.

    Args:
        target: where the application ran.
        load: the load's name.
        clients: the number of clients.
        pause: seconds between a response and the same client's next request.
        mixed: correct responses that no model which might serve at that time gives.
        rest: the time before the first rollout.
        rolling: from the begin of the first rollout to the end of the last.
        rollouts: the rollouts.
        seconds: the seconds of the load.
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
        """The number of requests without a correct response."""
        return self.rest.failures + self.rolling.failures

    @property
    def sent(self) -> int:
        """The number of all requests."""
        return self.rest.requests + self.rolling.requests + self.failed


class Arrival(Record):
    """The start of a replica of a release that its node did not have: seconds from the apply on.

    Args:
        started: until it had a node and the image was pulled.
        loaded: from then until the model was loaded.
        ready: from then until it got requests.
    """

    started: float
    loaded: float
    ready: float

    @property
    def total(self) -> float:
        """The seconds in all."""
        return self.started + self.loaded + self.ready


class Clustered(Record):
    """Rollouts on a Kubernetes cluster: under load, and replica by replica without load."""

    rolled: Rolled
    arrivals: tuple[Arrival, ...]


class Machine(Record):
    """The machine of a run."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    engine: str
    docker: str


class Taken(Record):
    """The time, commit, command, duration and machine of a run."""

    at: str
    commit: str
    command: str
    took: float
    machine: Machine


class Measured(Taken):
    """All figures of a run; a part that was left out is empty.

    `later` has the parts that were measured in another run.
    """

    cases: tuple[Case, ...] = ()
    transfer: Transfer | None = None
    listing: tuple[float, ...] = ()
    served: tuple[Served, ...] = ()
    rolled: tuple[Rolled, ...] = ()
    cluster: Clustered | None = None
    azure: OnAzure | None = None
    later: Mapping[str, Taken] = {}

    @property
    def loads(self) -> tuple[Rolled, ...]:
        """The rollouts under load, on every target."""
        return (*self.rolled, *([self.cluster.rolled] if self.cluster else []))

    def with_parts_of(self, other: Measured, parts: Iterable[str]) -> Measured:
        """Return these figures with some parts of another run, each marked with its time."""
        chosen = tuple(parts)
        fields = {FIELDS[part]: getattr(other, FIELDS[part]) for part in chosen}
        taken = Taken(**{name: getattr(other, name) for name in Taken.model_fields})
        return self.model_copy(
            update=fields | {"later": {**self.later, **dict.fromkeys(chosen, taken)}}
        )


class Aim(Record):
    """A promise, and what was found."""

    promise: str
    found: str
    met: bool


class Report(Record):
    """The figures, and how they meet the aims."""

    measured: Measured
    aims: tuple[Aim, ...]


def _sum(*values: float | None) -> Any:  # noqa: ANN401 - a whole number of whole numbers
    known = [value for value in values if value is not None]
    return sum(known) if known else None
