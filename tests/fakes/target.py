"""A target in memory, whose releases fail when they are told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.clients.http import Endpoint
from deploy.errors import RolloutLocked
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.target import Prove, Replica, replica_error

COUNT = 2


class MemoryTarget:
    """An environment with two replicas of whatever serves.

    Attributes:
        standing: the images of all replicas, with their states.
        broken: errors that a shift to an image ends in, by its digest; each is raised once, the last one always.
        happened: what was asked for, in order.
        busy: whether another deployer is at work.
        beside: where new replicas can be asked before they get requests; None for a target on which they cannot.
    """

    environment = "local"
    url = "http://127.0.0.1:8080"
    endpoint = Endpoint(url)

    def __init__(self) -> None:
        self.standing: list[tuple[str, str]] = []
        self.broken: dict[str, list[BaseException]] = {}
        self.happened: list[str] = []
        self.busy = False
        self._pressed = ""
        self._failing: dict[str, BaseException] = {}
        self.beside: Endpoint | None = None
        self._begun: dict[int, Attempt] = {}
        self._ended: dict[int, Ending] = {}

    def breaks(self, release: Release, *errors: BaseException) -> None:
        """Has shifts to a release end like that."""
        self.broken[release.image.digest] = list(errors) or [
            replica_error("a replica ended", "replica", "out of memory")
        ]

    def presses(self, moment: str) -> None:
        """Has somebody press Ctrl-C when that is asked for."""
        self._pressed = moment

    def fails(self, moment: str, error: BaseException) -> None:
        """Has what is asked for then fail, once."""
        self._failing[moment] = error

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self.busy:
            raise RolloutLocked(
                "another deployer is at work: ada", on="environment local", next="wait"
            )
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def history(self) -> tuple[Rollout, ...]:
        return tuple(
            Rollout(attempt=attempt, ending=self._ended.get(number))
            for number, attempt in sorted(self._begun.items())
        )

    def begin(self, attempt: Attempt) -> None:
        self._act(f"begin {attempt.id}")
        self._begun[attempt.id] = attempt

    def end(self, attempt: Attempt, ending: Ending) -> None:
        self._act(f"end {attempt.id}")
        self._ended[attempt.id] = ending

    def _act(self, what: str) -> None:
        assert self.busy, f"{what} without the lock"
        self.happened.append(what)
        if what == self._pressed:
            signal.raise_signal(signal.SIGINT)
        if what in self._failing:
            raise self._failing.pop(what)

    def replicas(self) -> tuple[Replica, ...]:
        return tuple(
            Replica(name=f"replica-{number}", image=image, state=state)
            for number, (image, state) in enumerate(self.standing, 1)
        )

    def serves(self, release: Release) -> bool:
        return self.standing == [(release.image.digest, "serving")] * COUNT

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        self._act(f"shift {name(release)}")
        errors = self.broken.get(release.image.digest)
        if errors:
            self.standing.append((release.image.digest, "starting"))
            raise errors.pop(0) if len(errors) > 1 else errors[0]
        if prove and self.beside:
            self.standing.append((release.image.digest, "standing by"))
            prove(self.beside)
        others = [
            (image, "standing by") for image, _ in self.standing if image != release.image.digest
        ]
        self.standing = [*others, *[(release.image.digest, "serving")] * COUNT]

    def settle(self, *keep: Release) -> None:
        self._act(f"settle {' '.join(map(name, keep))}".rstrip())
        kept = {release.image.digest for release in keep}
        self.standing = [(image, state) for image, state in self.standing if image in kept]

    def served(self, *rollouts: Rollout) -> None:
        """Gives the environment a past; what succeeded last is served."""
        for rollout in rollouts:
            self._begun[rollout.attempt.id] = rollout.attempt
            if rollout.ending:
                self._ended[rollout.attempt.id] = rollout.ending
            if rollout.succeeded:
                self.standing = [(rollout.attempt.release.image.digest, "serving")] * COUNT


def name(release: Release) -> str:
    """A release in short: its code and its model."""
    return f"{release.image.app.key}{release.image.layer.model.version}"
