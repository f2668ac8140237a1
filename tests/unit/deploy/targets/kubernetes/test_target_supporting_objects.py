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
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """An environment of each strategy in which `a` serves, with everything around it."""
    namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
    return namespace


def deployer(
    namespace: FakeNamespace,
    settings: Mapping[str, Any],
    dies: Callable[[str], bool] = lambda _: False,
) -> KubernetesTarget:
    """A deployer with other settings, who may be killed."""
    return namespace.deployer(dies, **settings)


def around(namespace: FakeNamespace) -> dict[str, Object]:
    """The objects around replicas, but for what a cluster itself notes of them."""
    found = {kind: deepcopy(namespace.get(kind)) for kind in KINDS if namespace.get(kind)}
    for item in found.values():
        item.pop("status")
        for key in ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"):
            item["metadata"].pop(key, None)
        for port in item["spec"].get("ports", ()):
            port.pop("nodePort", None)
    return found


def before(namespace: FakeNamespace) -> Snapshot:
    """All that would be put back now."""
    changes = namespace.writer()
    found = changes.take_snapshot(namespace.state().traffic())
    assert found
    return found


# --- forth and back


def test_nothing_that_answers_requests_changes_for_a_release_that_does_not_start(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """An address that a cloud gave would not come back."""
    was = {kind: deepcopy(namespace.get(kind)) for kind in KINDS}
    with pytest.raises(RolloutFailed):
        namespace.apply(namespace.release("b", PodScript(exits=1)), deployer(namespace, changed))
    assert {kind: namespace.get(kind) for kind in KINDS} == was
    assert namespace.answers() == {"a"}


def test_what_a_release_has_changed_is_undone_with_it(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """To the last field; the release before serves with the settings that it had."""
    was = around(namespace)
    way = before(namespace)
    namespace.fail_golden_cases("/", b := namespace.release("b"))
    with pytest.raises(GoldenMiss):
        namespace.apply(b, deployer(namespace, changed))
    assert around(namespace) == was
    assert before(namespace) == way
    assert namespace.answers() == {"a"}
    assert deployer(namespace, WHOLE).serves(namespace.release("a"))


def test_what_a_release_has_made_is_undone_with_it(namespace: FakeNamespace) -> None:
    """Where there was nothing but a Service before."""
    fresh = FakeNamespace(**namespace.settings)
    fresh.apply(fresh.release("a"))
    was = around(fresh)
    fresh.fail_golden_cases("/services/", b := fresh.release("b"))
    with pytest.raises(GoldenMiss):
        fresh.apply(b, deployer(fresh, WHOLE))
    assert around(fresh) == was
    assert fresh.deployer().serves(fresh.release("a"))


def test_a_release_that_works_changes_all_of_it(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """Also if it is the settings alone that change."""
    namespace.apply(namespace.release("a"), deployer(namespace, changed))
    fresh = FakeNamespace(**namespace.settings)
    fresh.apply(fresh.release("a"), deployer(fresh, changed))
    kept = [
        namespace.writer().supporting_objects.snapshot(),
        fresh.writer().supporting_objects.snapshot(),
    ]
    assert kept[0] == kept[1]
    assert deployer(namespace, changed).serves(namespace.release("a"))


def test_what_somebody_changed_is_put_right_by_the_same_release(namespace: FakeNamespace) -> None:
    """Though there is nothing to do for its replicas."""
    pods = namespace.pods()
    namespace.cluster.delete("Ingress", NAME)
    namespace.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] = 3
    namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
    assert namespace.get("Ingress")
    assert namespace.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 4
    assert namespace.pods() == pods


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
    namespace: FakeNamespace,
    monkeypatch: pytest.MonkeyPatch,
    old: list[str],
    new: list[str],
    code: str,
) -> None:
    """On the way there and on the way back; some replicas lack what the others carry."""
    namespace.apply(namespace.release("a"), namespace.deployer(manifests=labelled(*old)))
    namespace.release("a", PodScript(ready_after=5))
    wanted = namespace.release(code, PodScript(ready_after=5))
    way = before(namespace)
    seen = observe_responses(namespace, monkeypatch)
    namespace.player.problem = lambda: _missed(namespace)
    with pytest.raises(GoldenMiss):
        namespace.apply(wanted, namespace.deployer(manifests=labelled(*new)))
    assert before(namespace) == way
    assert namespace.answers() == {"a"}
    namespace.player.problem = lambda: ""
    namespace.apply(wanted, namespace.deployer(manifests=labelled(*new)))
    assert namespace.answers() == {code}
    assert set() not in seen


def _missed(namespace: FakeNamespace) -> str:
    return "expected 3, got 8" if "/services/" in namespace.player.played[-1][0] else ""


# --- checkouts that know nothing of it


def test_a_stale_checkout_gives_an_attempt_up_without_bringing_its_own_settings(
    namespace: FakeNamespace,
) -> None:
    """It puts back what was there, not what it would make."""
    was = around(namespace)
    way = before(namespace)
    with pytest.raises(Killed):
        namespace.apply(
            namespace.release("b"),
            deployer(
                namespace, {**WHOLE, "tls_secret": "typo"}, lambda _: "b" in namespace.answers()
            ),
        )
    assert (
        rollout.abort(namespace.deployer(service="NodePort", replicas=5), "grace").outcome
        == "undone"
    )
    assert around(namespace) == was
    assert before(namespace) == way


def test_to_hold_the_lease_changes_nothing(namespace: FakeNamespace) -> None:
    """Who waits for a deployer only wants to hear what came of it."""
    target = namespace.deployer(service="NodePort")
    namespace.cluster.requests.clear()
    with target.lock():
        pass
    written = {
        kind
        for verb, kind, _ in namespace.cluster.requests
        if verb in ("patch", "create", "update", "delete")
    }
    assert written == {"Lease"}


def test_a_canary_is_of_the_settings_that_it_was_made_of() -> None:
    """Others would make something else of it that nobody has tried."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    namespace.apply(namespace.release("a"))
    b = namespace.release("b")
    assert not namespace.deployer().may_take_over(b)
    with pytest.raises(Killed):
        namespace.apply(b, namespace.deployer(lambda _: namespace.answers() == {"a", "b"}))
    assert namespace.deployer().may_take_over(b)
    assert not namespace.deployer(host="shop.example").may_take_over(b)


# --- killed on the way


def killed(
    strategy: Mapping[str, Any], changed: Mapping[str, Any], script: PodScript
) -> Iterator[tuple[FakeNamespace, Snapshot]]:
    """Places where a deployer was killed who released `b` with other settings, before each of its writes, and the way back."""
    for number in range(100):
        namespace = FakeNamespace(**strategy)
        namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
        way = before(namespace)
        namespace.fail_golden_cases("/services/", b := namespace.release("b", script))
        try:
            namespace.apply(b, deployer(namespace, changed, at_write(number)))
        except Killed:
            yield namespace, way
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
    for namespace, way in killed(strategy, changed, script):
        with pytest.raises(ReleaseError) as caught:
            namespace.apply(namespace.release("b", script), deployer(namespace, changed))
        assert not isinstance(caught.value, UndoFailed)
        assert before(namespace) == way
        assert namespace.answers() == {"a"}
        assert deployer(namespace, WHOLE).serves(namespace.release("a"))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda settings: settings["strategy"])
def test_an_attempt_that_was_killed_can_be_given_up_from_anywhere(strategy: dict[str, Any]) -> None:
    """With all that it has changed by then."""
    for namespace, way in killed(
        strategy, {**WHOLE, "service": "ClusterIP", "host": "other.example"}, PodScript()
    ):
        if namespace.deployer().history()[-1].ending is None:
            rollout.abort(namespace.deployer(replicas=7), "grace")
        assert before(namespace) == way
        assert deployer(namespace, WHOLE).serves(namespace.release("a"))
