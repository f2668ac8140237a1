"""The target on a cluster, on one in memory: its contracts under each strategy, and what can only be seen from inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.environments import Kubernetes
from deploy.records import Release
from deploy.render import CAUSE, Rendering
from deploy.rollout import Target
from deploy.settings import App
from deploy.targets.clock import Clock
from tests.contracts.kubernetes_target import Deployer, environment
from tests.contracts.target import Place, TargetContract, WarmTargetContract
from tests.fakes.cluster import FakeCluster, PodScript
from tests.fakes.engine import Script
from tests.fakes.releases import attempt, release, rollout


class FakePlace:
    """An environment on a cluster in memory."""

    def __init__(self, **settings: Any) -> None:
        self.cluster = FakeCluster()
        self.settings = settings

    def target(self, *, replicas: int = 2, **changed: Any) -> Target:
        env = Kubernetes(**environment(replicas=replicas, **{**self.settings, **changed}))
        rendering = Rendering.of(App(name="classifier"), "local", env, Path())
        clock = Clock(now=lambda: self.cluster.objects.now.timestamp(), sleep=self.cluster.sleep)
        return Deployer(self.cluster, rendering, lambda _: 100_000_000, clock=clock)

    def release(self, code: str, script: Script | None = None) -> Release:
        made = release(code)
        script = script or Script()
        self.cluster.scripts[made.image.digest] = PodScript(exits=script.exits, ready_after=script.ready_after, says=script.says)
        self.cluster.texts[made.image.digest] = code
        return made

    def answers(self, **changed: object) -> set[str]:
        return self.cluster.answers("classifier-local")

    def lose(self, replica: str) -> None:
        self.cluster.lose(replica)


class TestRolling(TargetContract):
    """A Deployment's own rolling update keeps the contract, but not the old replicas."""

    @pytest.fixture
    def place(self) -> Place:
        return FakePlace()


class TestBlueGreen(WarmTargetContract):
    """Two Deployments keep the old replicas warm."""

    @pytest.fixture
    def place(self) -> Place:
        return FakePlace(strategy="blue-green")


class TestCanary(WarmTargetContract):
    """So does a canary, which is not held where nothing has to be proven."""

    @pytest.fixture
    def place(self) -> Place:
        return FakePlace(strategy="canary")


def test_the_cluster_tells_which_release_was_put_back() -> None:
    """What `kubectl rollout history` shows of a release that was put back is that release, not the one that failed."""
    place = FakePlace()
    target, first, second = place.target(), place.release("a"), place.release("b")
    done = rollout(1, first)
    assert done.ending
    target.begin(done.attempt)
    target.shift(first)
    target.end(done.attempt, done.ending)
    target.begin(attempt(2, second))
    target.shift(second)

    target.shift(first)

    item = place.cluster.find("Deployment", "classifier-local") or {}
    assert item["metadata"]["annotations"][CAUSE].startswith("release 1: ")
