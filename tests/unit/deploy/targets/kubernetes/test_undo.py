"""The undo of a failed release: the reason is reported, and the previous release serves on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from deploy.errors import ClusterForbidden, ClusterRefused, GoldenMiss, RolloutFailed, UndoFailed
from deploy.records import Release
from deploy.rollout.target import ReplicaState
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.render import TRACK_LABEL
from tests.contracts.target import replicas, states
from tests.fakes.golden import return_in_turn
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, STRATEGIES, FakeNamespace, observe_responses

TWO_TRACKS = STRATEGIES[1:]


@pytest.fixture
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """Return an environment of each strategy in which `a` serves."""
    namespace.apply(namespace.release("a"))
    return namespace


@pytest.fixture(params=TWO_TRACKS, ids=lambda settings: settings["strategy"])
def two_tracks(request: pytest.FixtureRequest) -> FakeNamespace:
    """Return an environment of each strategy that uses both tracks, in which `a` serves."""
    namespace = FakeNamespace(**request.param)
    namespace.apply(namespace.release("a"))
    return namespace


def assert_undone(namespace: FakeNamespace, error: Exception) -> None:
    """Assert that the previous release serves alone, and that the history has the reason."""
    a = namespace.release("a")
    assert namespace.answers() == {"a"}
    assert states(namespace.deployer()) == replicas(a, ReplicaState.SERVING)
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
def test_a_release_that_does_not_start_is_undone(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The error has events and log of the replica; the old replicas answer all the time."""
    script, what, detail = BROKEN[broken]
    seen = observe_responses(namespace, monkeypatch)
    with pytest.raises(RolloutFailed, match=what) as caught:
        namespace.apply(namespace.release("b", script))
    assert detail in caught.value.detail
    assert caught.value.on.startswith(f"pod {NAME}")
    assert_undone(namespace, caught.value)
    assert {"a"} in seen
    assert all(answers == {"a"} for answers in seen)


def test_a_used_up_quota_is_reported(namespace: FakeNamespace) -> None:
    """The error comes soon and has the message about the pod; the history has it too."""
    namespace.cluster.world.quota = 2
    began = namespace.cluster.seconds()
    with pytest.raises(RolloutFailed, match=r"creates no pods: .*exceeded quota") as caught:
        namespace.apply(namespace.release("b"))
    ending = namespace.deployer().history()[-1].ending
    assert ending
    assert "exceeded quota" in ending.why
    assert namespace.cluster.seconds() - began < 30
    assert_undone(namespace, caught.value)


def test_a_release_that_misses_golden_cases_at_the_endpoint_is_undone(
    namespace: FakeNamespace,
) -> None:
    """The new replicas had all requests, and have none afterwards."""
    namespace.fail_golden_cases("/services/", b := namespace.release("b"))
    with pytest.raises(GoldenMiss) as caught:
        namespace.apply(b)
    assert_undone(namespace, caught.value)


def test_a_release_that_answers_wrongly_gets_no_request(
    two_tracks: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden cases are missed before the switch, and the serving track does not change."""
    before = deepcopy(two_tracks.get("Deployment"))
    pods = two_tracks.pods()
    two_tracks.fail_golden_cases("/pods/", b := two_tracks.release("b"))
    seen = observe_responses(two_tracks, monkeypatch)
    with pytest.raises(GoldenMiss) as caught:
        two_tracks.apply(b)
    assert_undone(two_tracks, caught.value)
    assert all(answers == {"a"} for answers in seen)
    assert two_tracks.get("Deployment") == before
    assert two_tracks.pods() == pods


def test_the_undo_does_not_wait_for_a_lost_replica(
    two_tracks: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remaining old replicas get the requests at once."""
    a = two_tracks.release("a")
    b = two_tracks.release("b")
    seen: list[float] = []

    def problem() -> str:
        if "/services/" not in two_tracks.player.played[-1][0]:
            return ""
        two_tracks.cluster.scripts[a.image.digest] = PodScript(ready_after=15)
        two_tracks.cluster.lose(min(two_tracks.pods("a")))
        seen.append(two_tracks.cluster.seconds())
        return "expected 3, got 8"

    two_tracks.player.problem = problem
    step = two_tracks.cluster.step

    def observed_step(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        if len(seen) == 1 and two_tracks.answers() == {"a"}:
            seen.append(two_tracks.cluster.seconds())

    monkeypatch.setattr(two_tracks.cluster, "step", observed_step)
    with pytest.raises(GoldenMiss):
        two_tracks.apply(b)
    assert seen[1] - seen[0] < 2 < two_tracks.cluster.seconds() - seen[0]
    assert states(two_tracks.deployer()) == replicas(a, ReplicaState.SERVING)


def test_an_old_replica_may_restart_during_the_undo(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its earlier exits do not count, and it is waited for."""
    a = namespace.release("a")
    b = namespace.release("b", PodScript(exits=3))
    crashed: list[str] = []
    step = namespace.cluster.step

    def observed_step(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        if namespace.pods("b") and not crashed:
            namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=20)
            crashed.append(min(namespace.pods("a")))
            namespace.cluster.crash(crashed[0])

    monkeypatch.setattr(namespace.cluster, "step", observed_step)
    with pytest.raises(RolloutFailed, match="ended with exit code 3") as caught:
        namespace.apply(b)
    assert crashed[0] in namespace.pods("a")
    assert_undone(namespace, caught.value)


# --- settings


def template(namespace: FakeNamespace) -> Any:
    """Return the pod template of the replicas that serve."""
    track = namespace.get("Service")["spec"]["selector"][TRACK_LABEL]
    return deepcopy(
        namespace.get("Deployment", NAME if track == "main" else f"{NAME}-twin")["spec"]["template"]
    )


def test_a_release_with_new_settings_is_undone_to_the_old_ones(namespace: FakeNamespace) -> None:
    """The settings may be the cause, so the old replicas are not restarted with them."""
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
    """The image is the same."""
    before = template(namespace)
    namespace.player.problem = return_in_turn(["expected 3, got 8"])
    with pytest.raises(GoldenMiss):
        namespace.apply(namespace.release("a"), namespace.deployer(resources={"memory": "16Mi"}))
    assert template(namespace) == before
    assert namespace.deployer().serves(namespace.release("a"))


def test_new_settings_alone_are_rolled_out(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All replicas are replaced; only then the release counts as serving."""
    before = namespace.pods()
    memory = {"memory": "1Gi"}
    seen = observe_responses(namespace, monkeypatch)
    assert not namespace.deployer(resources=memory).serves(namespace.release("a"))
    namespace.apply(namespace.release("a"), namespace.deployer(resources=memory))
    assert namespace.pods().isdisjoint(before)
    assert len(namespace.pods()) == 2
    assert namespace.deployer(resources=memory).serves(namespace.release("a"))
    assert all(answers == {"a"} for answers in seen)


def test_new_settings_can_fix_a_crash(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crashes of the old replicas of the same image do not count."""
    a = namespace.release("a", PodScript(exits=137))
    namespace.cluster.step(300)
    assert {state for _, state in states(namespace.deployer())} == {ReplicaState.UNHEALTHY}
    target = namespace.deployer(resources={"memory": "1Gi"})
    apply = namespace.cluster.apply

    def apply_and_fix(item: Any, **how: Any) -> Any:
        applied = apply(item, **how)
        if item["kind"] == "Deployment":
            namespace.release("a", PodScript(ready_after=5))
        return applied

    monkeypatch.setattr(namespace.cluster, "apply", apply_and_fix)
    namespace.apply(a, target)
    assert namespace.deployer(resources={"memory": "1Gi"}).serves(a)


def test_a_half_finished_rollout_of_settings_does_not_serve() -> None:
    """Old and new replicas of one image are not what the settings say."""
    namespace = FakeNamespace()
    namespace.apply(a := namespace.release("a"))
    namespace.release("a", PodScript(pulled_in=1, ready_after=1))
    writer = namespace.writer(resources={"memory": "1Gi"})
    (item,) = (
        item for item in writer.desired.render("main", a, None) if item["kind"] == "Deployment"
    )
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
    deployment = namespace.deployment()
    assert deployment.image == pods[0].image == pods[1].image == a.image.digest
    assert deployment.settings == writer.desired.settings_hash(a)
    assert namespace.state().routes_to("main")
    assert not target.serves(a)


# --- limits of the undo


def test_a_failed_undo_is_reported(namespace: FakeNamespace) -> None:
    """The error has both reasons; the attempt has no ending, and a new run continues."""
    namespace.fail_golden_cases("/services/", b := namespace.release("b"))
    play = namespace.player.problem

    def problem_and_failure() -> str:
        if wrong := play():
            for kind in ("Service", "Deployment"):
                namespace.cluster.failures["patch", kind] = [
                    ClusterRefused("no", on="it", next="wait")
                ]
        return wrong

    namespace.player.problem = problem_and_failure
    with pytest.raises(UndoFailed) as caught:
        namespace.apply(b)
    assert (
        "missed 1 of 1 golden cases; and the previous release could not be restored: no"
        in caught.value.what
    )
    assert namespace.deployer().history()[-1].outcome == "unfinished"
    namespace.player.problem = lambda: ""
    namespace.cluster.failures.clear()
    namespace.apply(namespace.release("c"))
    assert namespace.answers() == {"c"}


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ServiceAccount"])
def test_an_unchanged_object_is_not_restored(namespace: FakeNamespace, kind: str) -> None:
    """A policy might refuse it now, though it exists and serves."""
    before = template(namespace)
    service = deepcopy(namespace.get("Service"))
    namespace.cluster.forbidden.add(("patch", kind))
    with pytest.raises(ClusterForbidden) as caught:
        namespace.apply(namespace.release("b"))
    namespace.cluster.forbidden.clear()
    assert_undone(namespace, caught.value)
    assert (template(namespace), namespace.get("Service")) == (before, service)


def test_a_first_release_that_fails_leaves_no_replica(namespace: FakeNamespace) -> None:
    """That holds for each strategy."""
    fresh = FakeNamespace(**namespace.settings)
    fresh.fail_golden_cases("/services/", b := fresh.release("b"))
    with pytest.raises(GoldenMiss):
        fresh.apply(b)
    assert fresh.pods() == set()
    assert fresh.deployer().history()[-1].outcome == "failed"


def test_a_rollback_is_held_and_proven_like_a_release(two_tracks: FakeNamespace) -> None:
    """An earlier release may not work any more."""
    a: Release = two_tracks.release("a")
    two_tracks.apply(two_tracks.release("b"))
    two_tracks.fail_golden_cases("/pods/", a)
    with pytest.raises(GoldenMiss):
        two_tracks.apply(a, trigger="rollback")
    assert two_tracks.answers() == {"b"}
