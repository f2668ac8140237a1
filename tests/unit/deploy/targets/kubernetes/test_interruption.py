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


def releases(place: FakeNamespace, wanted: Release, dies: Callable[[str], bool]) -> None:
    """Applies a release, by somebody who may be killed meanwhile."""
    place.apply(wanted, place.deployer(dies))


def killed(
    settings: dict[str, Any], *, first: bool, run: Run = releases
) -> Iterator[FakeNamespace]:
    """Places where a deployer was killed who released `b`, before each of its writes; then nobody is at work."""
    for number in count():
        place = FakeNamespace(**settings)
        if first:
            place.apply(place.release("a"))
        try:
            run(place, place.release("b"), at_write(number))
        except Killed:
            yield place
        else:
            assert number > 8
            return


@pytest.fixture(params=STRATEGIES)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a strategy."""
    return STRATEGIES[request.param]


def expected(settings: dict[str, Any], *codes: str) -> dict[str, Any]:
    """How things stand after releases by nobody who was killed."""
    place = FakeNamespace(**settings)
    for code in codes:
        place.apply(place.release(code))
    return place.summary()


def test_the_same_release_run_again_ends_as_if_nobody_had_been_killed(
    settings: dict[str, Any],
) -> None:
    """Whatever the killed deployer was about to write, what served answered on, and nothing is left of it."""
    end = expected(settings, "a", "b")
    for place in killed(settings, first=True):
        assert place.answers() in ({"a"}, {"a", "b"}, {"b"})
        place.apply(place.release("b"))
        assert place.summary() == end
        assert place.deployer().serves(place.release("b"))


def test_another_release_after_it_ends_alone(settings: dict[str, Any]) -> None:
    """What was begun and never proven is taken away, though nobody asks for it any more."""
    for place in killed(settings, first=True):
        place.apply(place.release("c"))
        assert place.answers() == {"c"}
        assert place.deployer().serves(place.release("c"))
        assert place.pods("c") | place.pods("a") | place.pods("b") == place.pods()
        if not settings.get("standby"):
            assert place.pods() == place.pods("c")


def test_what_served_before_can_be_released_again(settings: dict[str, Any]) -> None:
    """Going back is always possible, too."""
    for place in killed(settings, first=True):
        place.apply(place.release("a"))
        assert place.answers() == {"a"}
        assert place.deployer().serves(place.release("a"))


def test_a_first_release_run_again_ends_as_if_nobody_had_been_killed(
    settings: dict[str, Any],
) -> None:
    """Before it there was nothing to fall back on."""
    end = expected(settings, "b")
    for place in killed(settings, first=False):
        place.apply(place.release("b"))
        assert place.summary() == end


def missed(place: FakeNamespace, wanted: Release, dies: Callable[[str], bool]) -> None:
    """Applies a release that answers wrongly at the front door, by somebody who may be killed meanwhile."""
    place.fail_golden_cases("/services/", wanted)
    with pytest.raises(GoldenMiss):
        releases(place, wanted, dies)


def test_a_deployer_killed_while_it_takes_a_release_back_is_made_up_for(
    settings: dict[str, Any],
) -> None:
    """A wrong release may serve until somebody comes; then it does not any more."""
    for place in killed(settings, first=True, run=missed):
        place.apply(place.release("c"))
        assert place.answers() == {"c"}
        assert place.deployer().serves(place.release("c"))


def is_held(place: FakeNamespace) -> bool:
    """Whether requests go to a canary, too."""
    return TRACK_LABEL not in place.get("Service")["spec"]["selector"]


def test_a_deployer_killed_while_it_holds_a_canary_is_made_up_for() -> None:
    """The canary answers its share until somebody comes, who holds it anew, from its beginning."""
    settings: dict[str, Any] = {"strategy": "canary", "canary": {"seconds": 30, "metrics": ""}}
    end = expected(settings, "a", "b")
    place = FakeNamespace(**settings)
    place.apply(place.release("a"))
    with pytest.raises(Killed):
        releases(place, place.release("b"), lambda _: is_held(place))
    place.cluster.step(10)
    assert place.answers() == {"a", "b"}
    assert place.deployer().canary() == place.release("b").image.digest
    canary = place.pods("b")
    began = place.cluster.seconds()
    place.apply(place.release("b"))
    assert place.cluster.seconds() - began > 60
    assert canary < place.pods("b")
    assert place.summary() == end


def test_a_canary_that_was_left_is_given_up_without_touching_what_is_stable() -> None:
    """Whatever the settings of whoever gives it up; what is left of the stable replicas has all requests at once."""
    place = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    place.apply(a := place.release("a"))
    before = deepcopy(place.get("Deployment")["spec"])
    with pytest.raises(Killed):
        releases(place, place.release("b"), lambda _: is_held(place))
    place.release("a", PodScript(ready_after=20))
    place.lose(lost := min(place.pods("a")))
    stayed = place.pods("a") - {lost}
    done = rollout.abort(place.deployer(resources={"memory": "1Gi"}), "grace")
    assert (done.outcome, done.ending and done.ending.why) == ("undone", "given up by grace")
    assert place.get("Deployment")["spec"] == before
    assert stayed < place.pods() == place.pods("a")
    assert place.deployer().serves(a)


def test_the_lease_of_a_killed_deployer_expires() -> None:
    """Until then others are told of it; nobody has to remove anything."""
    place = FakeNamespace()
    with pytest.raises(Killed):
        releases(place, place.release("a"), at_write(5))
    with pytest.raises(RolloutLocked, match="another deployer is at work"):
        place.apply(place.release("a"), place.deployer(lock_wait=20.0))
    began = place.cluster.seconds()
    place.apply(place.release("a"), place.deployer(lock_wait=60.0))
    assert 25 < place.cluster.seconds() - began < 60
