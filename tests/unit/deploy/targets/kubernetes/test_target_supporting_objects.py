"""The target on a cluster when more changes than replicas: Service, Ingress and autoscaler go forth and back with the release."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import GoldenMiss, ReleaseError, RolloutFailed, UndoFailed
from deploy.rollout import apply as rollout
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.target import KubernetesTarget
from tests.fakes.deployers import Killed
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import MANIFESTS, NAME, STRATEGIES, FakeNamespace, observe_responses
from tests.unit.deploy.targets.kubernetes.test_interruption import at_write

WHOLE: dict[str, Any] = {
    "service": "LoadBalancer",
    "host": "shop.example",
    "tls_secret": "tls",
    "autoscale": {"at_most": 4},
}
CHANGES: dict[str, dict[str, Any]] = {
    "another type of Service": {**WHOLE, "service": "ClusterIP"},
    "another secret": {**WHOLE, "tls_secret": "typo"},
    "no host": {**WHOLE, "host": "", "tls_secret": ""},
    "no autoscaler": {**WHOLE, "autoscale": None},
    "another limit": {**WHOLE, "autoscale": {"at_most": 7}},
    "nothing but a Service": {},
}
KINDS = ("Service", "Ingress", "HorizontalPodAutoscaler")


@pytest.fixture(params=CHANGES)
def changed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that a release brings along."""
    return CHANGES[request.param]


@pytest.fixture
def place(place: FakeNamespace) -> FakeNamespace:
    """An environment of each strategy in which `a` serves, with everything around it."""
    place.apply(place.release("a"), deployer(place, WHOLE))
    return place


def deployer(
    place: FakeNamespace, settings: Mapping[str, Any], dies: Callable[[str], bool] = lambda _: False
) -> KubernetesTarget:
    """A deployer with other settings, who may be killed."""
    return place.deployer(dies, **settings)


def around(place: FakeNamespace) -> dict[str, Object]:
    """The objects around replicas, but for what a cluster itself notes of them."""
    found = {kind: deepcopy(place.get(kind)) for kind in KINDS if place.get(kind)}
    for item in found.values():
        item.pop("status")
        for key in ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"):
            item["metadata"].pop(key, None)
        for port in item["spec"].get("ports", ()):
            port.pop("nodePort", None)
    return found


def before(place: FakeNamespace) -> Snapshot:
    """All that would be put back now."""
    changes = place.writer()
    found = changes.take_snapshot(place.state().traffic())
    assert found
    return found


# --- forth and back


def test_nothing_that_answers_requests_changes_for_a_release_that_does_not_start(
    place: FakeNamespace, changed: dict[str, Any]
) -> None:
    """An address that a cloud gave would not come back."""
    was = {kind: deepcopy(place.get(kind)) for kind in KINDS}
    with pytest.raises(RolloutFailed):
        place.apply(place.release("b", PodScript(exits=1)), deployer(place, changed))
    assert {kind: place.get(kind) for kind in KINDS} == was
    assert place.answers() == {"a"}


def test_what_a_release_has_changed_is_undone_with_it(
    place: FakeNamespace, changed: dict[str, Any]
) -> None:
    """To the last field; the release before serves with the settings that it had."""
    was = around(place)
    way = before(place)
    place.fail_golden_cases("/", b := place.release("b"))
    with pytest.raises(GoldenMiss):
        place.apply(b, deployer(place, changed))
    assert around(place) == was
    assert before(place) == way
    assert place.answers() == {"a"}
    assert deployer(place, WHOLE).serves(place.release("a"))


def test_what_a_release_has_made_is_undone_with_it(place: FakeNamespace) -> None:
    """Where there was nothing but a Service before."""
    fresh = FakeNamespace(**place.settings)
    fresh.apply(fresh.release("a"))
    was = around(fresh)
    fresh.fail_golden_cases("/services/", b := fresh.release("b"))
    with pytest.raises(GoldenMiss):
        fresh.apply(b, deployer(fresh, WHOLE))
    assert around(fresh) == was
    assert fresh.deployer().serves(fresh.release("a"))


def test_a_release_that_works_changes_all_of_it(
    place: FakeNamespace, changed: dict[str, Any]
) -> None:
    """Also if it is the settings alone that change."""
    place.apply(place.release("a"), deployer(place, changed))
    fresh = FakeNamespace(**place.settings)
    fresh.apply(fresh.release("a"), deployer(fresh, changed))
    kept = [
        place.writer().supporting_objects.snapshot(),
        fresh.writer().supporting_objects.snapshot(),
    ]
    assert kept[0] == kept[1]
    assert deployer(place, changed).serves(place.release("a"))


def test_what_somebody_changed_is_put_right_by_the_same_release(place: FakeNamespace) -> None:
    """Though there is nothing to do for its replicas."""
    pods = place.pods()
    place.cluster.delete("Ingress", NAME)
    place.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] = 3
    place.apply(place.release("a"), deployer(place, WHOLE))
    assert place.get("Ingress")
    assert place.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 4
    assert place.pods() == pods


# --- a selector of other labels


def labelled(*labels: str) -> dict[str, Object]:
    """Manifests whose replicas carry more labels, by which the Service selects them."""
    manifests = deepcopy(dict(MANIFESTS))
    more = dict.fromkeys(labels, "yes")
    manifests["Service"]["spec"]["selector"] |= more
    template = manifests["Deployment"]["spec"]["template"]
    template["metadata"]["labels"] = template["metadata"].get("labels", {}) | more
    return manifests


@pytest.mark.parametrize("code", ["a", "b"])
@pytest.mark.parametrize(("old", "new"), [(["one"], ["one", "two"]), (["one", "two"], ["one"])])
def test_requests_are_answered_while_the_service_comes_to_select_by_other_labels(
    place: FakeNamespace, monkeypatch: pytest.MonkeyPatch, old: list[str], new: list[str], code: str
) -> None:
    """On the way there and on the way back; some replicas lack what the others carry."""
    place.apply(place.release("a"), place.deployer(manifests=labelled(*old)))
    place.release("a", PodScript(ready_after=5))
    wanted = place.release(code, PodScript(ready_after=5))
    way = before(place)
    seen = observe_responses(place, monkeypatch)
    place.player.problem = lambda: _missed(place)
    with pytest.raises(GoldenMiss):
        place.apply(wanted, place.deployer(manifests=labelled(*new)))
    assert before(place) == way
    assert place.answers() == {"a"}
    place.player.problem = lambda: ""
    place.apply(wanted, place.deployer(manifests=labelled(*new)))
    assert place.answers() == {code}
    assert set() not in seen


def _missed(place: FakeNamespace) -> str:
    return "expected 3, got 8" if "/services/" in place.player.played[-1][0] else ""


# --- checkouts that know nothing of it


def test_a_stale_checkout_gives_an_attempt_up_without_bringing_its_own_settings(
    place: FakeNamespace,
) -> None:
    """It puts back what was there, not what it would make."""
    was = around(place)
    way = before(place)
    with pytest.raises(Killed):
        place.apply(
            place.release("b"),
            deployer(place, {**WHOLE, "tls_secret": "typo"}, lambda _: "b" in place.answers()),
        )
    assert (
        rollout.abort(place.deployer(service="NodePort", replicas=5), "grace").outcome == "undone"
    )
    assert around(place) == was
    assert before(place) == way


def test_to_hold_the_lease_changes_nothing(place: FakeNamespace) -> None:
    """Who waits for a deployer only wants to hear what came of it."""
    target = place.deployer(service="NodePort")
    place.cluster.requests.clear()
    with target.lock():
        pass
    written = {
        kind
        for verb, kind, _ in place.cluster.requests
        if verb in ("patch", "create", "update", "delete")
    }
    assert written == {"Lease"}


def test_a_canary_is_of_the_settings_that_it_was_made_of() -> None:
    """Others would make something else of it that nobody has tried."""
    place = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    place.apply(place.release("a"))
    b = place.release("b")
    assert not place.deployer().may_take_over(b)
    with pytest.raises(Killed):
        place.apply(b, place.deployer(lambda _: place.answers() == {"a", "b"}))
    assert place.deployer().may_take_over(b)
    assert not place.deployer(host="shop.example").may_take_over(b)


# --- killed on the way


def killed(
    strategy: Mapping[str, Any], changed: Mapping[str, Any], script: PodScript
) -> Iterator[tuple[FakeNamespace, Snapshot]]:
    """Places where a deployer was killed who released `b` with other settings, before each of its writes, and the way back."""
    for number in range(100):
        place = FakeNamespace(**strategy)
        place.apply(place.release("a"), deployer(place, WHOLE))
        way = before(place)
        place.fail_golden_cases("/services/", b := place.release("b", script))
        try:
            place.apply(b, deployer(place, changed, at_write(number)))
        except Killed:
            yield place, way
        except ReleaseError:
            assert number > 6
            return


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda settings: settings["strategy"])
@pytest.mark.parametrize("script", [PodScript(), PodScript(exits=137)], ids=["wrong", "crashing"])
def test_a_release_that_was_killed_and_is_run_again_knows_the_way_back(
    strategy: dict[str, Any], script: PodScript
) -> None:
    """What is there by then is half of it; what served comes back with the settings that it had, and nothing else."""
    changed = {"resources": {"memory": "16Mi"}}
    for place, way in killed(strategy, changed, script):
        with pytest.raises(ReleaseError) as caught:
            place.apply(place.release("b", script), deployer(place, changed))
        assert not isinstance(caught.value, UndoFailed)
        assert before(place) == way
        assert place.answers() == {"a"}
        assert deployer(place, WHOLE).serves(place.release("a"))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda settings: settings["strategy"])
def test_an_attempt_that_was_killed_can_be_given_up_from_anywhere(strategy: dict[str, Any]) -> None:
    """With all that it has changed by then."""
    for place, way in killed(
        strategy, {**WHOLE, "service": "ClusterIP", "host": "other.example"}, PodScript()
    ):
        if place.deployer().history()[-1].ending is None:
            rollout.abort(place.deployer(replicas=7), "grace")
        assert before(place) == way
        assert deployer(place, WHOLE).serves(place.release("a"))
