"""The target on a cluster when its deployer is killed: whoever comes next finishes, and ends where it would have ended."""

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
from tests.fakes.namespaces import FakeNamespace, is_write

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


def at_write(number: int) -> Callable[[str], bool]:
    """The moment before the write that comes after so many others."""
    done = count()
    return lambda operation: is_write(operation) and next(done) == number


def releases(namespace: FakeNamespace, wanted: Release, dies: Callable[[str], bool]) -> None:
    """Applies a release, by somebody who may be killed meanwhile."""
    namespace.apply(wanted, namespace.deployer(dies))


def killed(
    settings: dict[str, Any], *, first: bool, run: Run = releases
) -> Iterator[FakeNamespace]:
    """Places where a deployer was killed who released `b`, before each of its writes; then nobody is at work."""
    for number in count():
        namespace = FakeNamespace(**settings)
        if first:
            namespace.apply(namespace.release("a"))
        try:
            run(namespace, namespace.release("b"), at_write(number))
        except Killed:
            yield namespace
        else:
            assert number > 8
            return


@pytest.fixture(params=STRATEGIES)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a strategy."""
    return STRATEGIES[request.param]


def expected(settings: dict[str, Any], *codes: str) -> dict[str, Any]:
    """How things stand after releases by nobody who was killed."""
    namespace = FakeNamespace(**settings)
    for code in codes:
        namespace.apply(namespace.release(code))
    return namespace.summary()


def test_the_same_release_run_again_ends_as_if_nobody_had_been_killed(
    settings: dict[str, Any],
) -> None:
    """Whatever the killed deployer was about to write, what served answered on, and nothing is left of it."""
    end = expected(settings, "a", "b")
    for namespace in killed(settings, first=True):
        assert namespace.answers() in ({"a"}, {"a", "b"}, {"b"})
        namespace.apply(namespace.release("b"))
        assert namespace.summary() == end
        assert namespace.deployer().serves(namespace.release("b"))


def test_another_release_after_it_ends_alone(settings: dict[str, Any]) -> None:
    """What was begun and never proven is taken away, though nobody asks for it any more."""
    for namespace in killed(settings, first=True):
        namespace.apply(namespace.release("c"))
        assert namespace.answers() == {"c"}
        assert namespace.deployer().serves(namespace.release("c"))
        assert namespace.pods("c") | namespace.pods("a") | namespace.pods("b") == namespace.pods()
        if not settings.get("standby"):
            assert namespace.pods() == namespace.pods("c")


def test_what_served_before_can_be_released_again(settings: dict[str, Any]) -> None:
    """Going back is always possible, too."""
    for namespace in killed(settings, first=True):
        namespace.apply(namespace.release("a"))
        assert namespace.answers() == {"a"}
        assert namespace.deployer().serves(namespace.release("a"))


def test_a_first_release_run_again_ends_as_if_nobody_had_been_killed(
    settings: dict[str, Any],
) -> None:
    """Before it there was nothing to fall back on."""
    end = expected(settings, "b")
    for namespace in killed(settings, first=False):
        namespace.apply(namespace.release("b"))
        assert namespace.summary() == end


def missed(namespace: FakeNamespace, wanted: Release, dies: Callable[[str], bool]) -> None:
    """Applies a release that answers wrongly at the front door, by somebody who may be killed meanwhile."""
    namespace.fail_golden_cases("/services/", wanted)
    with pytest.raises(GoldenMiss):
        releases(namespace, wanted, dies)


def test_a_deployer_killed_while_it_takes_a_release_back_is_made_up_for(
    settings: dict[str, Any],
) -> None:
    """A wrong release may serve until somebody comes; then it does not any more."""
    for namespace in killed(settings, first=True, run=missed):
        namespace.apply(namespace.release("c"))
        assert namespace.answers() == {"c"}
        assert namespace.deployer().serves(namespace.release("c"))


def is_held(namespace: FakeNamespace) -> bool:
    """Whether requests go to a canary, too."""
    return TRACK_LABEL not in namespace.get("Service")["spec"]["selector"]


def test_a_deployer_killed_while_it_holds_a_canary_is_made_up_for() -> None:
    """The canary answers its share until somebody comes, who holds it anew, from its beginning."""
    settings: dict[str, Any] = {"strategy": "canary", "canary": {"seconds": 30, "metrics": ""}}
    end = expected(settings, "a", "b")
    namespace = FakeNamespace(**settings)
    namespace.apply(namespace.release("a"))
    with pytest.raises(Killed):
        releases(namespace, namespace.release("b"), lambda _: is_held(namespace))
    namespace.cluster.step(10)
    assert namespace.answers() == {"a", "b"}
    assert namespace.deployer().canary() == namespace.release("b").image.digest
    canary = namespace.pods("b")
    began = namespace.cluster.seconds()
    namespace.apply(namespace.release("b"))
    assert namespace.cluster.seconds() - began > 60
    assert canary < namespace.pods("b")
    assert namespace.summary() == end


def test_a_canary_that_was_left_is_given_up_without_touching_what_is_stable() -> None:
    """Whatever the settings of whoever gives it up; what is left of the stable replicas has all requests at once."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    namespace.apply(a := namespace.release("a"))
    before = deepcopy(namespace.get("Deployment")["spec"])
    with pytest.raises(Killed):
        releases(namespace, namespace.release("b"), lambda _: is_held(namespace))
    namespace.release("a", PodScript(ready_after=20))
    namespace.lose(lost := min(namespace.pods("a")))
    stayed = namespace.pods("a") - {lost}
    done = rollout.abort(namespace.deployer(resources={"memory": "1Gi"}), "grace")
    assert (done.outcome, done.ending and done.ending.why) == ("undone", "given up by grace")
    assert namespace.get("Deployment")["spec"] == before
    assert stayed < namespace.pods() == namespace.pods("a")
    assert namespace.deployer().serves(a)


def test_the_lease_of_a_killed_deployer_expires() -> None:
    """Until then others are told of it; nobody has to remove anything."""
    namespace = FakeNamespace()
    with pytest.raises(Killed):
        releases(namespace, namespace.release("a"), at_write(5))
    with pytest.raises(RolloutLocked, match="another deployer is at work"):
        namespace.apply(namespace.release("a"), namespace.deployer(lock_wait=20.0))
    began = namespace.cluster.seconds()
    namespace.apply(namespace.release("a"), namespace.deployer(lock_wait=60.0))
    assert 25 < namespace.cluster.seconds() - began < 60
