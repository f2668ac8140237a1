"""The target on a cluster: supporting objects change with a release and are undone with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import GoldenMiss, ReleaseError, RolloutFailed, UndoFailed
from deploy.rollout import apply as rollout
from deploy.targets.kubernetes.snapshot import SNAPSHOT_KINDS, Snapshot
from deploy.targets.kubernetes.target import KubernetesTarget
from tests.fakes.deployers import Killed
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import (
    MANIFESTS,
    NAME,
    STRATEGIES,
    FakeNamespace,
    before_write,
    observe_responses,
)

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


@pytest.fixture(params=CHANGES)
def changed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return settings that change with a release."""
    return CHANGES[request.param]


@pytest.fixture
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """Return an environment of each strategy in which `a` serves, with all supporting objects."""
    namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
    return namespace


def deployer(
    namespace: FakeNamespace,
    settings: Mapping[str, Any],
    is_killed: Callable[[str], bool] = lambda _: False,
) -> KubernetesTarget:
    """Return a deployer with other settings, which may be killed."""
    return namespace.deployer(is_killed, **settings)


def comparable_objects(namespace: FakeNamespace) -> dict[str, Object]:
    """Return the supporting objects without the fields that the cluster sets."""
    found = {kind: deepcopy(namespace.get(kind)) for kind in SNAPSHOT_KINDS if namespace.get(kind)}
    for item in found.values():
        item.pop("status")
        for key in ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"):
            item["metadata"].pop(key, None)
        for port in item["spec"].get("ports", ()):
            port.pop("nodePort", None)
    return found


def take_snapshot(namespace: FakeNamespace) -> Snapshot:
    """Return a snapshot of what serves now."""
    writer = namespace.writer()
    found = writer.take_snapshot(namespace.state().traffic())
    assert found
    return found


# --- release and undo


def test_a_release_that_does_not_start_changes_no_supporting_object(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """For example, the address of a cloud's load balancer would be lost."""
    was = {kind: deepcopy(namespace.get(kind)) for kind in SNAPSHOT_KINDS}
    with pytest.raises(RolloutFailed):
        namespace.apply(namespace.release("b", PodScript(exits=1)), deployer(namespace, changed))
    assert {kind: namespace.get(kind) for kind in SNAPSHOT_KINDS} == was
    assert namespace.answers() == {"a"}


def test_changes_of_supporting_objects_are_undone(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """The previous release serves with all its earlier settings."""
    was = comparable_objects(namespace)
    snapshot = take_snapshot(namespace)
    namespace.fail_golden_cases("/", b := namespace.release("b"))
    with pytest.raises(GoldenMiss):
        namespace.apply(b, deployer(namespace, changed))
    assert comparable_objects(namespace) == was
    assert take_snapshot(namespace) == snapshot
    assert namespace.answers() == {"a"}
    assert deployer(namespace, WHOLE).serves(namespace.release("a"))


def test_new_supporting_objects_are_removed_by_the_undo(namespace: FakeNamespace) -> None:
    """Before, there was only a Service."""
    fresh = FakeNamespace(**namespace.settings)
    fresh.apply(fresh.release("a"))
    was = comparable_objects(fresh)
    fresh.fail_golden_cases("/services/", b := fresh.release("b"))
    with pytest.raises(GoldenMiss):
        fresh.apply(b, deployer(fresh, WHOLE))
    assert comparable_objects(fresh) == was
    assert fresh.deployer().serves(fresh.release("a"))


def test_a_successful_release_changes_all_supporting_objects(
    namespace: FakeNamespace, changed: dict[str, Any]
) -> None:
    """That holds if only the settings change, too."""
    namespace.apply(namespace.release("a"), deployer(namespace, changed))
    fresh = FakeNamespace(**namespace.settings)
    fresh.apply(fresh.release("a"), deployer(fresh, changed))
    kept = [
        namespace.writer().supporting_objects.snapshot(),
        fresh.writer().supporting_objects.snapshot(),
    ]
    assert kept[0] == kept[1]
    assert deployer(namespace, changed).serves(namespace.release("a"))


def test_the_same_release_restores_changed_supporting_objects(namespace: FakeNamespace) -> None:
    """Its replicas do not change."""
    pods = namespace.pods()
    namespace.cluster.delete("Ingress", NAME)
    namespace.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] = 3
    namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
    assert namespace.get("Ingress")
    assert namespace.get("HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 4
    assert namespace.pods() == pods


# --- a selector of other labels


def templates_with_labels(*labels: str) -> dict[str, Object]:
    """Return templates whose replicas have more labels, by which the Service selects them."""
    templates = deepcopy(dict(MANIFESTS))
    more = dict.fromkeys(labels, "yes")
    templates["Service"]["spec"]["selector"] |= more
    template = templates["Deployment"]["spec"]["template"]
    template["metadata"]["labels"] = template["metadata"].get("labels", {}) | more
    return templates


@pytest.mark.parametrize("code", ["a", "b"])
@pytest.mark.parametrize(("old", "new"), [(["one"], ["one", "two"]), (["one", "two"], ["one"])])
def test_requests_are_answered_while_the_labels_of_the_selector_change(
    namespace: FakeNamespace,
    monkeypatch: pytest.MonkeyPatch,
    old: list[str],
    new: list[str],
    code: str,
) -> None:
    """Some replicas lack labels that others have, during the release and during the undo."""
    namespace.apply(
        namespace.release("a"), namespace.deployer(manifests=templates_with_labels(*old))
    )
    namespace.release("a", PodScript(ready_after=5))
    wanted = namespace.release(code, PodScript(ready_after=5))
    snapshot = take_snapshot(namespace)
    seen = observe_responses(namespace, monkeypatch)
    namespace.player.problem = lambda: _problem_at_endpoint(namespace)
    with pytest.raises(GoldenMiss):
        namespace.apply(wanted, namespace.deployer(manifests=templates_with_labels(*new)))
    assert take_snapshot(namespace) == snapshot
    assert namespace.answers() == {"a"}
    namespace.player.problem = lambda: ""
    namespace.apply(wanted, namespace.deployer(manifests=templates_with_labels(*new)))
    assert namespace.answers() == {code}
    assert set() not in seen


def _problem_at_endpoint(namespace: FakeNamespace) -> str:
    return "expected 3, got 8" if "/services/" in namespace.player.played[-1][0] else ""


# --- deployers with other settings


def test_an_abort_from_an_old_checkout_does_not_apply_its_settings(
    namespace: FakeNamespace,
) -> None:
    """It restores the snapshot."""
    was = comparable_objects(namespace)
    snapshot = take_snapshot(namespace)
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
    assert comparable_objects(namespace) == was
    assert take_snapshot(namespace) == snapshot


def test_acquiring_the_lock_changes_nothing_else(namespace: FakeNamespace) -> None:
    """A waiting deployer must not change the environment."""
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


def test_a_canary_can_take_over_only_with_its_own_settings() -> None:
    """With other settings it would be something that has not been tried."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, "metrics": ""})
    namespace.apply(namespace.release("a"))
    b = namespace.release("b")
    assert not namespace.deployer().may_take_over(b)
    with pytest.raises(Killed):
        namespace.apply(b, namespace.deployer(lambda _: namespace.answers() == {"a", "b"}))
    assert namespace.deployer().may_take_over(b)
    assert not namespace.deployer(host="shop.example").may_take_over(b)


# --- killed deployers


def namespaces_after_kill(
    strategy: Mapping[str, Any], changed: Mapping[str, Any], script: PodScript
) -> Iterator[tuple[FakeNamespace, Snapshot]]:
    """Yield an environment and its snapshot for each write before which a deployer was killed."""
    for number in range(100):
        namespace = FakeNamespace(**strategy)
        namespace.apply(namespace.release("a"), deployer(namespace, WHOLE))
        snapshot = take_snapshot(namespace)
        namespace.fail_golden_cases("/services/", b := namespace.release("b", script))
        try:
            namespace.apply(b, deployer(namespace, changed, before_write(number)))
        except Killed:
            yield namespace, snapshot
        except ReleaseError:
            assert number > 6
            return


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda settings: settings["strategy"])
@pytest.mark.parametrize("script", [PodScript(), PodScript(exits=137)], ids=["wrong", "crashing"])
def test_a_killed_release_that_is_run_again_can_be_undone(
    strategy: dict[str, Any], script: PodScript
) -> None:
    """The cluster is in a mixed state by then; the previous release is restored completely."""
    changed = {"resources": {"memory": "16Mi"}}
    for namespace, snapshot in namespaces_after_kill(strategy, changed, script):
        with pytest.raises(ReleaseError) as caught:
            namespace.apply(namespace.release("b", script), deployer(namespace, changed))
        assert not isinstance(caught.value, UndoFailed)
        assert take_snapshot(namespace) == snapshot
        assert namespace.answers() == {"a"}
        assert deployer(namespace, WHOLE).serves(namespace.release("a"))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda settings: settings["strategy"])
def test_a_killed_attempt_can_be_aborted_with_other_settings(strategy: dict[str, Any]) -> None:
    """All its changes are undone."""
    for namespace, snapshot in namespaces_after_kill(
        strategy, {**WHOLE, "service": "ClusterIP", "host": "other.example"}, PodScript()
    ):
        if namespace.deployer().history()[-1].ending is None:
            rollout.abort(namespace.deployer(replicas=7), "grace")
        assert take_snapshot(namespace) == snapshot
        assert deployer(namespace, WHOLE).serves(namespace.release("a"))
