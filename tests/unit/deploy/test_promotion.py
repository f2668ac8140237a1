"""Shipping what was proven elsewhere, and deciding of canaries that are held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import pipeline, promotion
from deploy.errors import (
    CanaryAborted,
    GoldenMiss,
    RegistryNotFound,
    ReleaseUnknown,
    RolloutFailed,
    RolloutLocked,
    SettingsInvalid,
)
from deploy.machine.process import ProcessId
from deploy.records import Rollout
from deploy.targets.kubernetes.render import TRACK_LABEL
from tests.fakes.application import Application
from tests.fakes.deployers import Deployer, is_held
from tests.fakes.registry import Meanwhile

DOOR = "http://127.0.0.1:8080"
STAGING = "http://fake/services/classifier-staging:80"
PRODUCTION = "http://fake/services/classifier-production:80"
REPOSITORY = "classifier"


def configure(monkeypatch: pytest.MonkeyPatch, environment: str, **keys: object) -> None:
    """Gives an environment other settings."""
    for key, value in keys.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment}__{key}".upper(), str(value))


def promoted(
    application: Application, to: str = "production", source: str = "staging"
) -> pipeline.ReleaseResult:
    """Ships what serves in one environment to another."""
    return promotion.promote(application.context(to), application.context(source))


def test_a_promotion_ships_the_same_bytes(staged: Application) -> None:
    """To the other environment's own registry; nothing is built, tried or fetched."""
    first = pipeline.current_rollout(staged.context("staging")).attempt.release
    done = promoted(staged)
    release = done.rollout.attempt.release
    assert (done.changed, done.rollout.attempt.trigger, done.rollout.attempt.environment) == (
        True,
        "promote",
        "production",
    )
    assert (release.image, release.repository) == (first.image, "far.example/live/classifier")
    assert (
        staged.far.manifests["live/classifier"][release.image.digest]
        == staged.registry.manifests[REPOSITORY][release.image.digest]
    )
    assert (staged.engine.built, staged.trials.tried, staged.store.streamed) == ([], [], [])
    assert (
        staged.cluster.answers("classifier-production")
        == staged.cluster.answers("classifier-staging")
        == {first.image.digest}
    )
    assert [url for url, _ in staged.play.played] == [PRODUCTION, PRODUCTION]


def test_a_promotion_needs_two_registries_and_a_cluster_only(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No engine, no source, and nothing in the cache."""
    staged.architecture.running = False
    staged.architecture.programs.clear()
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    (staged.folder / "Dockerfile").unlink()
    assert promoted(staged).changed
    assert staged.architecture.happened == []


def test_promoting_again_changes_nothing(staged: Application) -> None:
    """What serves there is proven once more."""
    promoted(staged)
    staged.forget()
    before = staged.state()
    done = promoted(staged)
    assert (done.changed, done.rollout.attempt.id) == (False, 1)
    assert staged.state() == before
    assert [url for url, _ in staged.play.played] == [PRODUCTION]


@pytest.mark.parametrize(
    ("repository", "mounts"), [("live/classifier", True), ("classifier", False)]
)
def test_a_promotion_within_a_registry_sends_nothing(
    staged: Application,
    monkeypatch: pytest.MonkeyPatch,
    repository: str,
    mounts: bool,
) -> None:
    """Another repository takes the blobs over; the same one has them."""
    configure(monkeypatch, "production", registry="registry.example", repository=repository)
    done = promoted(staged)
    assert done.rollout.attempt.release.repository == f"registry.example/{repository}"
    assert staged.registry.sent == []
    assert bool(staged.registry.mounted) is bool(staged.registry.put) is mounts


def test_nothing_can_be_promoted_from_where_nothing_was_released(application: Application) -> None:
    """It is said for which environment; the other one is left alone."""
    with pytest.raises(ReleaseUnknown) as caught:
        promoted(application)
    assert caught.value.on == "environment staging"
    assert application.written == []


@pytest.mark.parametrize("shared", [True, False])
def test_what_the_registry_lost_is_not_promoted(
    staged: Application, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Not even to an environment that shares the repository: its nodes could not pull it."""
    if shared:
        configure(monkeypatch, "production", registry="registry.example", repository="classifier")
    release = pipeline.current_rollout(staged.context("staging")).attempt.release
    staged.registry.manifests[REPOSITORY].pop(release.image.digest)
    with pytest.raises(RegistryNotFound) as caught:
        promoted(staged)
    assert caught.value.on == release.reference
    assert (staged.written, staged.far.sent, staged.far.put) == ([], [], [])


def test_what_was_proven_last_is_promoted(staged: Application) -> None:
    """Not what was tried after it and taken back."""
    first = pipeline.current_rollout(staged.context("staging")).attempt.release.image
    staged.publish("2")
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert promoted(staged).rollout.attempt.release.image == first


def test_a_promotion_that_fails_its_proof_is_taken_back(staged: Application) -> None:
    """What serves in production stays; staging is not asked."""
    promoted(staged)
    before = staged.cluster.answers("classifier-production")
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    staged.play.wrong[PRODUCTION] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        promoted(staged)
    assert staged.cluster.answers("classifier-production") == before
    assert [item.outcome for item in staged.context("production").view.history()] == [
        "succeeded",
        "undone",
    ]
    assert pipeline.current_rollout(staged.context("staging")).attempt.id == 2


def test_a_promotion_does_not_take_back_what_came_after_it_was_decided(staged: Application) -> None:
    """Somebody promoted a newer release while this one was being copied: that one goes on serving."""

    def newer() -> None:
        staged.publish("2")
        pipeline.release(staged.context("staging"))
        promoted(staged)

    source = staged.context("staging")
    source.registry = Meanwhile(staged.registry, newer)
    with pytest.raises(RolloutLocked, match="release 1"):
        promotion.promote(staged.context("production"), source)
    history = staged.context("production").view.history()
    assert [item.attempt.release.image.layer.model.version for item in history] == ["2"]


def test_a_promotion_is_taken_back_by_a_rollback(staged: Application) -> None:
    """As any other release."""
    first = promoted(staged).rollout.attempt.release
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    promoted(staged)
    assert (
        pipeline.rollback(staged.context("production"), None, None).rollout.attempt.release == first
    )
    assert [item.attempt.trigger for item in staged.context("production").view.history()] == [
        "promote",
        "promote",
        "rollback",
    ]


def test_what_serves_on_one_machine_is_promoted_to_a_cluster(released: Application) -> None:
    """From the engine's environment, whose registry they share."""
    first = pipeline.current_rollout(released.context("local")).attempt.release
    done = promoted(released, "staging", "local")
    assert done.rollout.attempt.release == first
    assert released.cluster.answers("classifier-staging") == {first.image.digest}
    assert (released.engine.happened, released.registry.sent, released.registry.put) == ([], [], [])


def test_what_serves_on_a_cluster_is_promoted_to_one_machine(staged: Application) -> None:
    """To look at a release of the cluster where it can be debugged."""
    done = promoted(staged, "local", "staging")
    assert (done.verdict.url, done.rollout.attempt.trigger) == (DOOR, "promote")
    assert staged.context("local").view.serves(
        pipeline.current_rollout(staged.context("staging")).attempt.release
    )


def test_a_promotion_waits_for_nobody_longer_than_it_may(staged: Application) -> None:
    """Who is at work in the other environment is told, and that environment is left as it is."""
    promoted(staged)
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    lease = staged.cluster.objects.get("Lease", "classifier-production-deployer")
    assert lease
    lease["spec"]["holderIdentity"] = str(ProcessId("grace", "elsewhere", 7, "1"))
    with pytest.raises(RolloutLocked, match=r"grace on elsewhere \(process 7\)"):
        promoted(staged)
    assert len(staged.context("production").view.history()) == 1


def test_a_release_from_a_ci_run_is_remembered_with_its_address(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the cluster, where everybody finds it."""
    monkeypatch.setenv("CI_PIPELINE_URL", "https://ci.example/pipelines/7")
    promoted(staged)
    assert (
        pipeline.current_rollout(staged.context("production")).attempt.run
        == "https://ci.example/pipelines/7"
    )
    assert pipeline.current_rollout(staged.context("staging")).attempt.run == ""


# --- canaries


def wait(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> Deployer[pipeline.ReleaseResult]:
    """A deployer that holds a canary, and for whom others wait."""
    configure(monkeypatch, "staging", lock_wait=60)
    deployer = Deployer(application, lambda: pipeline.release(application.context()))
    deployer.until(lambda: is_held(application))
    return deployer


def serving(application: Application) -> list[str]:
    """The versions of the models that answer."""
    known = {
        item.attempt.release.image.digest: item.attempt.release.image.layer.model.version
        for item in application.context().view.history()
    }
    return sorted(known[digest] for digest in application.cluster.answers("classifier-staging"))


def test_a_canary_is_promoted_by_its_deployer(
    trying: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told so by whoever asks, who hears what came of it; the history has one attempt."""
    deployer = wait(trying, monkeypatch)
    assert serving(trying) == ["1", "2"]
    done = promotion.promote_canary(trying.context())
    assert deployer.outcome().rollout == done == trying.context().view.history()[-1]
    assert (done.attempt.id, done.outcome, serving(trying)) == (2, "succeeded", ["2"])


def test_a_canary_is_given_up_by_its_deployer(
    trying: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which fails with the name of who wanted that; the previous release serves alone."""
    deployer = wait(trying, monkeypatch)
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    done = promotion.abort(trying.context())
    assert (done.attempt.id, done.outcome, serving(trying)) == (2, "undone", ["1"])
    with pytest.raises(CanaryAborted, match="ada aborted the canary"):
        deployer.outcome()


def test_whoever_cannot_wait_is_told_that_the_deployer_knows(
    trying: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no success yet; the deployer does what it was told all the same."""
    deployer = wait(trying, monkeypatch)
    configure(monkeypatch, "staging", lock_wait=0)
    with pytest.raises(RolloutLocked, match="it was told to promote") as caught:
        promotion.promote_canary(trying.context())
    assert "invoke status" in caught.value.next
    assert deployer.outcome().rollout.succeeded
    assert serving(trying) == ["2"]


def test_a_canary_that_fails_while_it_takes_over_is_no_success(
    trying: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever promoted it hears why it was taken back."""
    deployer = wait(trying, monkeypatch)
    trying.cluster.world.max_pods = len(trying.context().view.replicas())
    with pytest.raises(
        CanaryAborted, match="the canary was taken back: no node can take a replica"
    ):
        promotion.promote_canary(trying.context())
    with pytest.raises(RolloutFailed):
        deployer.outcome()
    assert serving(trying) == ["1"]


def test_a_canary_that_has_taken_over_is_not_given_up(
    trying: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deployer heard of it too late; the way back is named."""
    configure(monkeypatch, "staging", canary__seconds=3)
    deployer = wait(trying, monkeypatch)

    def grows() -> bool:
        return sum(replica.image == held for replica in trying.context().view.replicas()) == 2

    held = trying.context().on_cluster.canary()
    deployer.until(grows)
    assert is_held(trying)
    with pytest.raises(ReleaseUnknown, match="taken over already") as caught:
        promotion.abort(trying.context())
    assert "rollback" in caught.value.next
    assert deployer.outcome().rollout.succeeded


def test_a_canary_without_a_deployer_is_promoted_by_whoever_asks(orphaned: Application) -> None:
    """It is not held again, nor tried; the front door proves it."""
    assert serving(orphaned) == ["1", "2"]
    done = promotion.promote_canary(orphaned.context())
    assert (done.attempt.id, done.outcome, done.attempt.trigger, serving(orphaned)) == (
        3,
        "succeeded",
        "release",
        ["2"],
    )
    assert [item.outcome for item in orphaned.context().view.history()] == [
        "succeeded",
        "unfinished",
        "succeeded",
    ]
    assert [url for url, _ in orphaned.play.played] == [STAGING]


def test_a_canary_without_a_deployer_is_given_up_by_whoever_asks(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any machine with access to the cluster alone."""
    orphaned.architecture.running = False
    orphaned.registry.manifests.clear()
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    done = promotion.abort(orphaned.context())
    assert (done.attempt.id, done.outcome, done.ending and done.ending.why) == (
        2,
        "undone",
        "aborted by ada",
    )
    assert serving(orphaned) == ["1"]
    assert {replica.state for replica in orphaned.context().view.replicas()} == {"serving"}


def test_a_promoted_canary_that_misses_at_the_front_door_is_taken_back(
    orphaned: Application,
) -> None:
    """To promote it is not to trust it."""
    orphaned.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        promotion.promote_canary(orphaned.context())
    assert serving(orphaned) == ["1"]


def test_a_canary_is_not_promoted_with_settings_that_it_was_not_tried_with(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of an old checkout; it is left as it is for whoever has the right ones."""
    with monkeypatch.context() as stale:
        configure(stale, "staging", service="NodePort")
        with pytest.raises(SettingsInvalid, match="other settings or manifests") as caught:
            promotion.promote_canary(orphaned.context())
    assert "nothing was changed" in caught.value.next
    assert serving(orphaned) == ["1", "2"]
    assert promotion.promote_canary(orphaned.context()).succeeded


def test_a_canary_without_a_deployer_is_cleared_away_by_another_release(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go back to what was proven before a third model is tried."""
    configure(monkeypatch, "staging", canary__seconds=3)
    orphaned.publish("3")
    pipeline.release(orphaned.context())
    assert serving(orphaned) == ["3"]
    assert [item.outcome for item in orphaned.context().view.history()] == [
        "succeeded",
        "unfinished",
        "succeeded",
    ]


Ask = Callable[..., Rollout]


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_where_no_canary_is_held_none_can_be_decided_on(application: Application, ask: Ask) -> None:
    """Neither before a first release nor when one serves; nothing is written."""
    for releases in range(2):
        with pytest.raises(ReleaseUnknown, match="no canary is held"):
            ask(application.context("staging"))
        assert application.written == []
        if not releases:
            pipeline.release(application.context("staging"))
            application.forget()


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_what_stands_by_is_no_canary(
    staged: Application, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    """Though somebody has sent requests to both sides by hand: its attempt has ended long ago."""
    configure(monkeypatch, "staging", strategy="blue-green")
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    service = staged.cluster.objects.get("Service", "classifier-staging")
    assert service
    del service["spec"]["selector"][TRACK_LABEL]
    assert staged.context("staging").on_cluster.canary()
    with pytest.raises(ReleaseUnknown, match="no canary is held"):
        ask(staged.context("staging"))


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_there_are_no_canaries_on_one_machine(released: Application, ask: Ask) -> None:
    """The setting to change is named."""
    with pytest.raises(SettingsInvalid) as caught:
        ask(released.context("local"))
    assert caught.value.on == "[environments.local] target"
