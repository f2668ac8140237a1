"""The target on a cluster after its deployer was killed: the next deployer finishes its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count
from typing import Any

import pytest

from deploy.errors import GoldenMiss, RolloutLocked
from deploy.records import Release
from deploy.rollout import apply as rollout
from deploy.targets.kubernetes.render import TRACK_LABEL
from tests.fakes.deployers import Killed
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import FakeNamespace, before_write

STRATEGIES: dict[str, dict[str, Any]] = {
    "rolling": {"strategy": "rolling", "host": "shop.example"},
    "blue-green": {"strategy": "blue-green"},
    "blue-green, standby": {
        "strategy": "blue-green",
        "standby": True,
        "warm_up": True,
        "autoscale": {"at_most": 4},
    },
    "canary": {
        "strategy": "canary",
        "canary": {"seconds": 3, "metrics": ""},
        "warm_up": True,
        "autoscale": {"at_most": 4},
    },
}
Run = Callable[[FakeNamespace, Release, Callable[[str], bool]], None]


def apply_release(
    namespace: FakeNamespace, wanted: Release, is_killed: Callable[[str], bool]
) -> None:
    """Apply a release by a deployer that may be killed."""
    namespace.apply(wanted, namespace.deployer(is_killed))


def namespaces_after_kill(
    settings: dict[str, Any], *, first: bool, run: Run = apply_release
) -> Iterator[FakeNamespace]:
    """Yield an environment for each write before which a deployer of `b` was killed."""
    for number in count():
        namespace = FakeNamespace(**settings)
        if first:
            namespace.apply(namespace.release("a"))
        try:
            run(namespace, namespace.release("b"), before_write(number))
        except Killed:
            yield namespace
        else:
            assert number > 8
            return


@pytest.fixture(params=STRATEGIES)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of a strategy."""
    return STRATEGIES[request.param]


def expected(settings: dict[str, Any], *codes: str) -> dict[str, Any]:
    """Return the summary after the same releases without a kill."""
    namespace = FakeNamespace(**settings)
    for code in codes:
        namespace.apply(namespace.release(code))
    return namespace.summary()


def test_the_same_release_again_ends_as_without_a_kill(
    settings: dict[str, Any],
) -> None:
    """The previous release answers until then, and nothing remains of the killed run."""
    end = expected(settings, "a", "b")
    for namespace in namespaces_after_kill(settings, first=True):
        assert namespace.answers() in ({"a"}, {"a", "b"}, {"b"})
        namespace.apply(namespace.release("b"))
        assert namespace.summary() == end
        assert namespace.deployer().serves(namespace.release("b"))


def test_another_release_afterwards_serves_alone(settings: dict[str, Any]) -> None:
    """What was begun and never proven is removed."""
    for namespace in namespaces_after_kill(settings, first=True):
        namespace.apply(namespace.release("c"))
        assert namespace.answers() == {"c"}
        assert namespace.deployer().serves(namespace.release("c"))
        assert namespace.pods("c") | namespace.pods("a") | namespace.pods("b") == namespace.pods()
        if not settings.get("standby"):
            assert namespace.pods() == namespace.pods("c")


def test_the_previous_release_can_be_released_again(settings: dict[str, Any]) -> None:
    """A rollback is always possible."""
    for namespace in namespaces_after_kill(settings, first=True):
        namespace.apply(namespace.release("a"))
        assert namespace.answers() == {"a"}
        assert namespace.deployer().serves(namespace.release("a"))


def test_a_first_release_again_ends_as_without_a_kill(
    settings: dict[str, Any],
) -> None:
    """There is no previous release."""
    end = expected(settings, "b")
    for namespace in namespaces_after_kill(settings, first=False):
        namespace.apply(namespace.release("b"))
        assert namespace.summary() == end


def apply_wrong_release(
    namespace: FakeNamespace, wanted: Release, is_killed: Callable[[str], bool]
) -> None:
    """Apply a release that answers wrongly at the endpoint, by a deployer that may be killed."""
    namespace.fail_golden_cases("/services/", wanted)
    with pytest.raises(GoldenMiss):
        apply_release(namespace, wanted, is_killed)


def test_the_undo_of_a_killed_deployer_is_finished(
    settings: dict[str, Any],
) -> None:
    """The wrong release may serve until the next run."""
    for namespace in namespaces_after_kill(settings, first=True, run=apply_wrong_release):
        namespace.apply(namespace.release("c"))
        assert namespace.answers() == {"c"}
        assert namespace.deployer().serves(namespace.release("c"))


def is_canary_on_hold(namespace: FakeNamespace) -> bool:
    """Return whether a canary gets requests."""
    return TRACK_LABEL not in namespace.get("Service")["spec"]["selector"]


def test_the_hold_of_a_killed_deployer_is_repeated() -> None:
    """The canary keeps its share of the requests until then, and the hold starts again."""
    settings: dict[str, Any] = {"strategy": "canary", "canary": {"seconds": 30, "metrics": ""}}
    end = expected(settings, "a", "b")
    namespace = FakeNamespace(**settings)
    namespace.apply(namespace.release("a"))
    with pytest.raises(Killed):
        apply_release(namespace, namespace.release("b"), lambda _: is_canary_on_hold(namespace))
    namespace.cluster.step(10)
    assert namespace.answers() == {"a", "b"}
    assert namespace.deployer().canary() == namespace.release("b").image.digest
    canary = namespace.pods("b")
    began = namespace.cluster.seconds()
    namespace.apply(namespace.release("b"))
    assert namespace.cluster.seconds() - began > 60
    assert canary < namespace.pods("b")
    assert namespace.summary() == end


def test_aborting_an_abandoned_canary_does_not_change_the_stable_release() -> None:
    """The present settings do not count; the stable replicas get all requests at once."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    namespace.apply(a := namespace.release("a"))
    before = deepcopy(namespace.get("Deployment")["spec"])
    with pytest.raises(Killed):
        apply_release(namespace, namespace.release("b"), lambda _: is_canary_on_hold(namespace))
    namespace.release("a", PodScript(ready_after=20))
    namespace.lose(lost := min(namespace.pods("a")))
    stayed = namespace.pods("a") - {lost}
    done = rollout.abort(namespace.deployer(resources={"memory": "1Gi"}), "grace")
    assert (done.outcome, done.ending and done.ending.why) == ("undone", "aborted by grace")
    assert namespace.get("Deployment")["spec"] == before
    assert stayed < namespace.pods() == namespace.pods("a")
    assert namespace.deployer().serves(a)


def test_the_lock_of_a_killed_deployer_expires() -> None:
    """Until then it is reported to others; nothing has to be removed by hand."""
    namespace = FakeNamespace()
    with pytest.raises(Killed):
        apply_release(namespace, namespace.release("a"), before_write(5))
    with pytest.raises(RolloutLocked, match="another deployer is at work"):
        namespace.apply(namespace.release("a"), namespace.deployer(lock_wait=20.0))
    began = namespace.cluster.seconds()
    namespace.apply(namespace.release("a"), namespace.deployer(lock_wait=60.0))
    assert 25 < namespace.cluster.seconds() - began < 60
