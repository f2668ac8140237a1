"""What a target on a cluster does, on a cluster in memory or a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.records import Attempt, Ending, Release
from deploy.rollout import Prove
from deploy.targets.kubernetes import KubernetesTarget


class Deployer(KubernetesTarget):
    """A target that takes the lease for each change by itself, where a rollout would hold it over all of them."""

    _held = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        with super().locked():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def _with_lease(self) -> Iterator[None]:
        if self._held:
            yield
        else:
            with self.locked():
                yield

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        with self._with_lease():
            super().shift(release, prove)

    def settle(self, *keep: Release) -> None:
        with self._with_lease():
            super().settle(*keep)

    def begin(self, attempt: Attempt) -> None:
        with self._with_lease():
            super().begin(attempt)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        with self._with_lease():
            super().end(attempt, ending)


def environment(**changed: Any) -> dict[str, Any]:
    """The settings of an environment that is quick to give up."""
    return {"target": "kubernetes", "standby": False, "ready_within": 20.0, "drain_within": 5.0, "lock_wait": 0.0, **changed}
