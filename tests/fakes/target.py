"""A target in memory that fails where a test says so, and checks the order of calls."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from deploy.clients.http import Endpoint
from deploy.clients.log_lines import TimedLine
from deploy.errors import RolloutLocked
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.history import current
from deploy.rollout.logs import LogSource, Window
from deploy.rollout.target import CanaryVerb, Prove, Replica, ReplicaState, replica_error
from deploy.variables import NO_VARIABLES, Variables

COUNT = 2


class MemoryTarget:
    """An environment with two replicas of the release that serves.

    Attributes:
        running: the image digests of all replicas, with their states.
        errors: the errors that bringing up an image raises, by its digest: each is raised once,
            and the last one again and again.
        calls: the changes that were asked for, in order.
        locked: whether a deployer has the lock.
        direct: where new replicas are reached before they get requests; None if they cannot be.
        endpoint_problem: why clients get no response at the endpoint; empty if they do.
        written: the lines that the replicas of an image have written, by its digest.
        settings: returns the variables of the settings.
    """

    environment = "local"
    url = "http://127.0.0.1:8080"
    endpoint = Endpoint(url)

    def __init__(self) -> None:
        self.running: list[tuple[str, ReplicaState]] = []
        self.errors: dict[str, list[BaseException]] = {}
        self.calls: list[str] = []
        self.locked = False
        self.direct: Endpoint | None = None
        self.endpoint_problem = ""
        self.written: dict[str, list[TimedLine]] = {}
        self.settings: Callable[[], Variables] = lambda: NO_VARIABLES
        self._given: dict[int, Variables] = {}
        self._interrupted_call = ""
        self._failing_calls: dict[str, BaseException] = {}
        self._attempts: dict[int, Attempt] = {}
        self._endings: dict[int, Ending] = {}
        self._open: Attempt | None = None
        self._in_service: Release | None = None

    def fail_release(self, release: Release, *errors: BaseException) -> None:
        """Make every attempt to bring up a release raise these errors, one after another."""
        self.errors[release.image.digest] = list(errors) or [
            replica_error("a replica ended", "replica", "out of memory")
        ]

    def interrupt(self, call: str) -> None:
        """Send SIGINT to this process during a call."""
        self._interrupted_call = call

    def fail(self, call: str, error: BaseException) -> None:
        """Make a call raise an error, once."""
        self._failing_calls[call] = error

    def add_history(self, *rollouts: Rollout) -> None:
        """Add earlier attempts; the last release that succeeded serves."""
        for rollout in rollouts:
            self._attempts[rollout.attempt.id] = rollout.attempt
            self._given[rollout.attempt.id] = self.settings()
            if rollout.ending:
                self._endings[rollout.attempt.id] = rollout.ending
            if rollout.succeeded:
                self.add_replicas(rollout.attempt.release, ReplicaState.SERVING, alone=True)

    def add_replicas(self, release: Release, state: ReplicaState, *, alone: bool = False) -> None:
        """Add replicas of a release, in addition to the others or in place of them."""
        self.running = [] if alone else self.running
        self.running += [(release.image.digest, state)] * COUNT

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self.locked:
            raise RolloutLocked(
                "another deployer is at work: ada", on="environment local", next="wait"
            )
        self.locked = True
        self._open = None
        self._in_service = None
        try:
            yield
        finally:
            self.locked = False

    def history(self) -> tuple[Rollout, ...]:
        return tuple(
            Rollout(attempt=attempt, ending=self._endings.get(number))
            for number, attempt in sorted(self._attempts.items())
        )

    def begin(self, attempt: Attempt, variables: Variables | None = None) -> None:
        self._call(f"begin {attempt.id}")
        assert self._open is None, "the attempt before has not ended"
        self._open = attempt
        self._given[attempt.id] = self.settings() if variables is None else variables
        self._attempts[attempt.id] = attempt

    def end(self, attempt: Attempt, ending: Ending) -> None:
        self._call(f"end {attempt.id}")
        assert attempt.id in self._attempts, "the attempt was never begun"
        self._open = None
        self._endings[attempt.id] = ending

    def _call(self, what: str) -> None:
        assert self.locked, f"{what} without the lock"
        self.calls.append(what)
        if what == self._interrupted_call:
            signal.raise_signal(signal.SIGINT)
        if what in self._failing_calls:
            raise self._failing_calls.pop(what)

    def replicas(self) -> tuple[Replica, ...]:
        return tuple(
            Replica(name=f"replica-{number}", image=image, state=state)
            for number, (image, state) in enumerate(self.running, 1)
        )

    def log_sources(self) -> tuple[LogSource, ...]:
        return tuple(
            LogSource(replica.name, replica.image, partial(self._read_log, replica.image))
            for replica in self.replicas()
        )

    def _read_log(self, image: str, window: Window) -> Iterator[TimedLine]:
        lines = self.written.get(image, [])[-(window.lines or 0) :]
        return (line for line in lines if window.since is None or line[0] >= window.since)

    def write(self, release: Release, *lines: str, at: datetime) -> None:
        """Write lines to the logs of all replicas of a release."""
        self.written.setdefault(release.image.digest, []).extend((at, line) for line in lines)

    def replica_count(self) -> int:
        return COUNT

    def serves(self, release: Release) -> bool:
        replicas = [(release.image.digest, ReplicaState.SERVING)] * COUNT
        return self.running == replicas and not self.endpoint_problem

    def variables(self) -> Variables:
        now = current(self.history())
        return self._given.get(now.attempt.id, NO_VARIABLES) if now else NO_VARIABLES

    def variables_for(self, returns_to: int | None) -> Variables:
        return self._given.get(returns_to or 0) or self.settings()

    def find_endpoint_problem(self) -> str:
        return self.endpoint_problem

    def serve(self, release: Release, prove: Prove) -> None:
        self._call(f"serve {name(release)}")
        self._require_begun(release)
        self._start(release)
        if self.direct:
            self.running.append((release.image.digest, ReplicaState.STANDBY))
            prove(self.direct)
        self._switch(release)

    def restore(self, release: Release) -> None:
        self._call(f"restore {name(release)}")
        self._start(release)
        self._switch(release)

    def _require_begun(self, release: Release) -> None:
        assert self._open, "no attempt was begun"
        assert self._open.release == release, "the attempt is at another release"

    def _start(self, release: Release) -> None:
        errors = self.errors.get(release.image.digest)
        if errors:
            self.running.append((release.image.digest, ReplicaState.STARTING))
            raise errors.pop(0) if len(errors) > 1 else errors[0]

    def _switch(self, release: Release) -> None:
        digest = release.image.digest
        self.running = [
            (image, ReplicaState.STANDBY) for image, _ in self.running if image != digest
        ]
        self.add_replicas(release, ReplicaState.SERVING)
        self._in_service = release

    def settle(self, *keep: Release) -> None:
        self._call(f"settle {' '.join(map(name, keep))}".rstrip())
        assert not keep or keep[0] == self._in_service, "the first release does not serve"
        kept = {release.image.digest for release in keep}
        self.running = [(image, state) for image, state in self.running if image in kept]


class MemoryCanaryTarget(MemoryTarget):
    """The same with canaries.

    Attributes:
        decisions: the decisions about the canary, with who made them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[tuple[CanaryVerb, str]] = []

    def canary(self) -> str:
        images = {image for image, state in self.running if state is ReplicaState.SERVING}
        last = self.history()[-1:]
        held = (item.attempt.release.image.digest for item in last if item.ending is None)
        return next((image for image in held if image in images), "")

    def may_take_over(self, release: Release) -> bool:
        return self.canary() == release.image.digest

    def decide(self, verb: CanaryVerb, by: str) -> None:
        self.decisions.append((verb, by))

    def take_over(self, release: Release) -> None:
        self._call(f"take over {name(release)}")
        self._require_begun(release)
        self._start(release)
        self._switch(release)


def name(release: Release) -> str:
    """Return a release in short: its code and its model."""
    return f"{release.image.app.key}{release.image.layer.model.version}"
