"""The target on a cluster when a release does not work: it is told why, and what served before serves throughout."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from deploy.errors import ClusterForbidden, ClusterRefused, GoldenMiss, RolloutFailed, UndoFailed
from deploy.records import Release
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.render import TRACK_LABEL
from tests.contracts.target import replicas, states
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, STRATEGIES, FakeNamespace, observe_responses
from tests.fakes.proof import in_turn

WARM = STRATEGIES[1:]


@pytest.fixture
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """An environment of each strategy in which `a` serves."""
    namespace.apply(namespace.release("a"))
    return namespace


@pytest.fixture(params=WARM, ids=lambda settings: settings["strategy"])
def warm(request: pytest.FixtureRequest) -> FakeNamespace:
    """The same, of each strategy that keeps what serves apart from what shall."""
    namespace = FakeNamespace(**request.param)
    namespace.apply(namespace.release("a"))
    return namespace


def is_undone(namespace: FakeNamespace, error: Exception) -> None:
    """The release before serves alone, as it should, and the history says what came of the last one."""
    a = namespace.release("a")
    assert namespace.answers() == {"a"}
    assert states(namespace.deployer()) == replicas(a, "serving")
    assert namespace.deployer().serves(a)
    last = namespace.deployer().history()[-1]
    assert (last.outcome, last.ending and last.ending.why) == ("undone", getattr(error, "what", ""))


BROKEN: dict[str, tuple[PodScript, str, str]] = {
    "not pulled": (
        PodScript(unpullable="manifest unknown"),
        "cannot start: ImagePullBackOff",
        "manifest unknown",
    ),
    "no config": (
        PodScript(misconfigured='secret "key" not found'),
        "CreateContainerConfigError",
        'secret "key" not found',
    ),
    "no node": (
        PodScript(unschedulable="0/3 nodes: Insufficient cpu"),
        "no node can take a replica: 0/3 nodes",
        "FailedScheduling",
    ),
    "crashes": (
        PodScript(exits=3, says="no licence"),
        "ended with exit code 3 before it was ready",
        "no licence",
    ),
    "crashes later": (
        PodScript(ready_after=9, dies_after=0, says="no more room"),
        "ended with exit code 1",
        "no more room",
    ),
    "never ready": (
        PodScript(ready_after=None, says="waiting for Godot"),
        "not ready within 20 s of its start",
        "waiting for Godot",
    ),
    "slow pull": (PodScript(pulled_in=100_000), "not ready within 1 min 00 s", "Pulling"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_does_not_start_is_undone(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """What was seen of the replica is told, with its events and its log; requests are answered by the old ones all the while."""
    script, what, detail = BROKEN[broken]
    seen = observe_responses(namespace, monkeypatch)
    with pytest.raises(RolloutFailed, match=what) as caught:
        namespace.apply(namespace.release("b", script))
    assert detail in caught.value.detail
    assert caught.value.on.startswith(f"pod {NAME}")
    is_undone(namespace, caught.value)
    assert {"a"} in seen
    assert all(answers == {"a"} for answers in seen)


def test_a_quota_that_is_used_up_is_told(namespace: FakeNamespace) -> None:
    """With the words of who refused the pod, and at once."""
    namespace.cluster.world.quota = 2
    began = namespace.cluster.seconds()
    with pytest.raises(RolloutFailed, match="the cluster creates no pods: FailedCreate") as caught:
        namespace.apply(namespace.release("b"))
    assert "exceeded quota" in caught.value.detail
    assert namespace.cluster.seconds() - began < 30
    is_undone(namespace, caught.value)


def test_golden_cases_that_are_missed_at_the_front_door_are_undone(
    namespace: FakeNamespace,
) -> None:
    """The new replicas had all requests already; then they have none."""
    namespace.fail_golden_cases("/services/", b := namespace.release("b"))
    with pytest.raises(GoldenMiss) as caught:
        namespace.apply(b)
    is_undone(namespace, caught.value)


def test_a_release_that_answers_wrongly_gets_no_request(
    warm: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden cases are missed before the switch, and the side that serves is not touched."""
    before = deepcopy(warm.get("Deployment"))
    pods = warm.pods()
    warm.fail_golden_cases("/pods/", b := warm.release("b"))
    seen = observe_responses(warm, monkeypatch)
    with pytest.raises(GoldenMiss) as caught:
        warm.apply(b)
    is_undone(warm, caught.value)
    assert all(answers == {"a"} for answers in seen)
    assert warm.get("Deployment") == before
    assert warm.pods() == pods


def test_going_back_does_not_wait_for_a_replica_that_went_missing_meanwhile(
    warm: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the old release has the requests at once; the rest comes when it comes."""
    a = warm.release("a")
    b = warm.release("b")
    seen: list[float] = []

    def problem() -> str:
        if "/services/" not in warm.player.played[-1][0]:
            return ""
        warm.cluster.scripts[a.image.digest] = PodScript(ready_after=15)
        warm.cluster.lose(min(warm.pods("a")))
        seen.append(warm.cluster.seconds())
        return "expected 3, got 8"

    warm.player.problem = problem
    step = warm.cluster.step

    def watched(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        if len(seen) == 1 and warm.answers() == {"a"}:
            seen.append(warm.cluster.seconds())

    monkeypatch.setattr(warm.cluster, "step", watched)
    with pytest.raises(GoldenMiss):
        warm.apply(b)
    assert seen[1] - seen[0] < 2 < warm.cluster.seconds() - seen[0]
    assert states(warm.deployer()) == replicas(a, "serving")


def test_an_old_replica_that_was_started_again_may_come_back(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ends of before say nothing of what is put back; it is waited for."""
    a = namespace.release("a")
    b = namespace.release("b", PodScript(exits=3))
    crashed: list[str] = []
    step = namespace.cluster.step

    def watched(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        if namespace.pods("b") and not crashed:
            namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=20)
            crashed.append(min(namespace.pods("a")))
            namespace.cluster.crash(crashed[0])

    monkeypatch.setattr(namespace.cluster, "step", watched)
    with pytest.raises(RolloutFailed, match="ended with exit code 3") as caught:
        namespace.apply(b)
    assert crashed[0] in namespace.pods("a")
    is_undone(namespace, caught.value)


# --- settings that do not work


def template(namespace: FakeNamespace) -> Any:
    """What the replicas that serve are made of."""
    side = namespace.get("Service")["spec"]["selector"][TRACK_LABEL]
    return deepcopy(
        namespace.get("Deployment", NAME if side == "main" else f"{NAME}-twin")["spec"]["template"]
    )


def test_a_release_with_new_settings_is_undone_to_the_old_ones(namespace: FakeNamespace) -> None:
    """It may have been the settings that did not work; the old replicas are not made anew with them."""
    before = template(namespace)
    pods = namespace.pods()
    changed = namespace.deployer(resources={"memory": "16Mi"})
    with pytest.raises(RolloutFailed):
        namespace.apply(namespace.release("b", PodScript(exits=137)), changed)
    assert template(namespace) == before
    assert namespace.pods() == pods
    assert namespace.deployer().serves(namespace.release("a"))
    assert not namespace.deployer(resources={"memory": "16Mi"}).serves(namespace.release("a"))


def test_new_settings_alone_are_undone_too(namespace: FakeNamespace) -> None:
    """Though the image is the same."""
    before = template(namespace)
    namespace.player.problem = in_turn(["expected 3, got 8"])
    with pytest.raises(GoldenMiss):
        namespace.apply(namespace.release("a"), namespace.deployer(resources={"memory": "16Mi"}))
    assert template(namespace) == before
    assert namespace.deployer().serves(namespace.release("a"))


def test_new_settings_alone_are_rolled_out(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All replicas are made anew, while enough of the old ones answer; only then the release counts as serving."""
    before = namespace.pods()
    memory = {"memory": "1Gi"}
    seen = observe_responses(namespace, monkeypatch)
    assert not namespace.deployer(resources=memory).serves(namespace.release("a"))
    namespace.apply(namespace.release("a"), namespace.deployer(resources=memory))
    assert namespace.pods().isdisjoint(before)
    assert len(namespace.pods()) == 2
    assert namespace.deployer(resources=memory).serves(namespace.release("a"))
    assert all(answers == {"a"} for answers in seen)


def test_settings_can_cure_what_crashes(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the old replicas of the same image crash says nothing of the new ones."""
    a = namespace.release("a", PodScript(exits=137))
    namespace.cluster.step(300)
    assert {state for _, state in states(namespace.deployer())} == {"failing"}
    target = namespace.deployer(resources={"memory": "1Gi"})
    apply = namespace.cluster.apply

    def cured(item: Any, **how: Any) -> Any:
        applied = apply(item, **how)
        if item["kind"] == "Deployment":
            namespace.release("a", PodScript(ready_after=5))
        return applied

    monkeypatch.setattr(namespace.cluster, "apply", cured)
    namespace.apply(a, target)
    assert namespace.deployer(resources={"memory": "1Gi"}).serves(a)


def test_a_roll_of_settings_that_stopped_half_way_does_not_stand() -> None:
    """Old and new replicas of one image, as many as there shall be, are not what the settings say."""
    namespace = FakeNamespace()
    namespace.apply(a := namespace.release("a"))
    namespace.release("a", PodScript(pulled_in=1, ready_after=1))
    changes = namespace.writer(resources={"memory": "1Gi"})
    (item,) = (item for item in changes.render("main", a, None) if item["kind"] == "Deployment")
    namespace.cluster.apply(item)
    target = namespace.deployer(resources={"memory": "1Gi"})
    pods = namespace.state().pods("main")
    while (
        len(pods) != 2
        or not all(pod.ready for pod in pods)
        or len({pod.pod_template for pod in pods}) != 2
    ):
        namespace.cluster.step()
        pods = [Pod(deepcopy(namespace.get("Pod", name))) for name in namespace.pods()]
    namespace.cluster.stop_controllers()
    side = namespace.deployment()
    assert side.image == pods[0].image == pods[1].image == a.image.digest
    assert side.settings == changes.settings_hash(a)
    assert namespace.state().routes_to("main")
    assert not target.serves(a)


# --- what cannot be undone


def test_what_cannot_be_put_back_is_told(namespace: FakeNamespace) -> None:
    """Both reasons; the history has no end of the attempt, and running it again goes on."""
    namespace.fail_golden_cases("/services/", b := namespace.release("b"))
    play = namespace.player.problem

    def breaks() -> str:
        if wrong := play():
            for kind in ("Service", "Deployment"):
                namespace.cluster.failures["patch", kind] = [
                    ClusterRefused("no", on="it", next="wait")
                ]
        return wrong

    namespace.player.problem = breaks
    with pytest.raises(UndoFailed) as caught:
        namespace.apply(b)
    assert (
        "missed 1 of 1 golden cases; and the previous release could not be put back: no"
        in caught.value.what
    )
    assert namespace.deployer().history()[-1].outcome == "unfinished"
    namespace.player.problem = lambda: ""
    namespace.cluster.failures.clear()
    namespace.apply(namespace.release("c"))
    assert namespace.answers() == {"c"}


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ServiceAccount"])
def test_where_nothing_has_changed_there_is_nothing_to_put_back(
    namespace: FakeNamespace, kind: str
) -> None:
    """What a policy refuses now it might refuse to be put back, too, though it is there and serves."""
    before = template(namespace)
    service = deepcopy(namespace.get("Service"))
    namespace.cluster.forbidden.add(("patch", kind))
    with pytest.raises(ClusterForbidden) as caught:
        namespace.apply(namespace.release("b"))
    namespace.cluster.forbidden.clear()
    is_undone(namespace, caught.value)
    assert (template(namespace), namespace.get("Service")) == (before, service)


def test_a_first_release_that_fails_leaves_no_replica(namespace: FakeNamespace) -> None:
    """Whatever the strategy."""
    fresh = FakeNamespace(**namespace.settings)
    fresh.fail_golden_cases("/services/", b := fresh.release("b"))
    with pytest.raises(GoldenMiss):
        fresh.apply(b)
    assert fresh.pods() == set()
    assert fresh.deployer().history()[-1].outcome == "failed"


def test_a_rollback_is_held_and_proven_like_a_release(warm: FakeNamespace) -> None:
    """What served once may not work any more."""
    a: Release = warm.release("a")
    warm.apply(warm.release("b"))
    warm.fail_golden_cases("/pods/", a)
    with pytest.raises(GoldenMiss):
        warm.apply(a, trigger="rollback")
    assert warm.answers() == {"b"}
