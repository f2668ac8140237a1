"""Promotion of proven releases, and decisions on canaries."""

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

LOCAL = "http://127.0.0.1:8080"
STAGING = "http://fake/services/classifier-staging:80"
PRODUCTION = "http://fake/services/classifier-production:80"
REPOSITORY = "classifier"


def configure(monkeypatch: pytest.MonkeyPatch, environment: str, **keys: object) -> None:
    """Override settings of an environment."""
    for key, value in keys.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment}__{key}".upper(), str(value))


def run_promotion(
    application: Application, to: str = "production", source: str = "staging"
) -> pipeline.ReleaseResult:
    """Promote what serves in one environment to another."""
    return promotion.promote(application.context(to), application.context(source))


def test_a_promotion_copies_the_same_image(staged: Application) -> None:
    """It goes to the registry of the other environment; nothing is built, checked or fetched."""
    first = staged.current("staging").attempt.release
    done = run_promotion(staged)
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
    assert (staged.engine.built, staged.containers.images, staged.store.streamed) == ([], [], [])
    assert (
        staged.cluster.answers("classifier-production")
        == staged.cluster.answers("classifier-staging")
        == {first.image.digest}
    )
    assert [url for url, _ in staged.play.played] == [PRODUCTION, PRODUCTION]


def test_a_promotion_needs_only_registries_and_a_cluster(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It needs no engine, no source files and no cache."""
    staged.machine.running = False
    staged.machine.programs.clear()
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    (staged.folder / "Dockerfile").unlink()
    assert run_promotion(staged).changed
    assert staged.machine.actions == []


def test_a_second_promotion_changes_nothing(staged: Application) -> None:
    """What serves there is proven once more."""
    run_promotion(staged)
    staged.clear_records()
    before = staged.state()
    done = run_promotion(staged)
    assert (done.changed, done.rollout.attempt.id) == (False, 1)
    assert staged.state() == before
    assert [url for url, _ in staged.play.played] == [PRODUCTION]


@pytest.mark.parametrize(
    ("repository", "mounts"), [("live/classifier", True), ("classifier", False)]
)
def test_a_promotion_within_a_registry_uploads_nothing(
    staged: Application,
    monkeypatch: pytest.MonkeyPatch,
    repository: str,
    mounts: bool,
) -> None:
    """Blobs are mounted in another repository, and the same repository has them already."""
    configure(monkeypatch, "production", registry="registry.example", repository=repository)
    done = run_promotion(staged)
    assert done.rollout.attempt.release.repository == f"registry.example/{repository}"
    assert staged.registry.uploaded == []
    assert bool(staged.registry.mounted) is bool(staged.registry.stored_references) is mounts


def test_nothing_can_be_promoted_before_a_release(application: Application) -> None:
    """The error names the environment, and the other environment stays as it is."""
    with pytest.raises(ReleaseUnknown) as caught:
        run_promotion(application)
    assert caught.value.on == "environment staging"
    assert application.cluster_writes == []


@pytest.mark.parametrize("shared", [True, False])
def test_an_image_that_the_registry_lost_is_not_promoted(
    staged: Application, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Nodes could not pull it, even if the other environment has the same repository."""
    if shared:
        configure(monkeypatch, "production", registry="registry.example", repository="classifier")
    release = staged.current("staging").attempt.release
    staged.registry.manifests[REPOSITORY].pop(release.image.digest)
    with pytest.raises(RegistryNotFound) as caught:
        run_promotion(staged)
    assert caught.value.on == release.reference
    assert (staged.cluster_writes, staged.far.uploaded, staged.far.stored_references) == (
        [],
        [],
        [],
    )


def test_a_release_of_another_repository_is_not_promoted(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history of the source can name any host; no registry is asked."""
    configure(monkeypatch, "staging", repository="moved/classifier")
    with pytest.raises(ReleaseUnknown, match="another repository"):
        run_promotion(staged)
    assert (staged.cluster_writes, staged.far.uploaded) == ([], [])


def test_the_last_proven_release_is_promoted(staged: Application) -> None:
    """A later release that was undone is not promoted."""
    first = staged.current("staging").attempt.release.image
    staged.publish("2")
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert run_promotion(staged).rollout.attempt.release.image == first


def test_a_promotion_with_wrong_responses_is_undone(staged: Application) -> None:
    """The previous release serves in production again, and staging is not changed."""
    run_promotion(staged)
    before = staged.cluster.answers("classifier-production")
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    staged.play.wrong[PRODUCTION] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        run_promotion(staged)
    assert staged.cluster.answers("classifier-production") == before
    assert [item.outcome for item in staged.target("production").history()] == [
        "succeeded",
        "undone",
    ]
    assert staged.current("staging").attempt.id == 2


def test_a_promotion_does_not_replace_a_newer_release(staged: Application) -> None:
    """A newer release was promoted during the copy: it continues to serve."""

    def promote_again() -> None:
        staged.publish("2")
        pipeline.release(staged.context("staging"))
        run_promotion(staged)

    source = staged.context("staging", Meanwhile(staged.registry, promote_again))
    with pytest.raises(RolloutLocked, match="release 1"):
        promotion.promote(staged.context("production"), source)
    history = staged.target("production").history()
    assert [item.attempt.release.image.layer.model.version for item in history] == ["2"]


def test_a_promotion_is_taken_back_by_a_rollback(staged: Application) -> None:
    """It is an attempt like all others."""
    first = run_promotion(staged).rollout.attempt.release
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    run_promotion(staged)
    assert (
        pipeline.rollback(staged.context("production"), None, None).rollout.attempt.release == first
    )
    assert [item.attempt.trigger for item in staged.target("production").history()] == [
        "promote",
        "promote",
        "rollback",
    ]


def test_a_release_on_an_engine_is_promoted_to_a_cluster(released: Application) -> None:
    """The two environments have the same registry."""
    first = released.current("local").attempt.release
    done = run_promotion(released, "staging", "local")
    assert done.rollout.attempt.release == first
    assert released.cluster.answers("classifier-staging") == {first.image.digest}
    assert (
        released.engine.events,
        released.registry.uploaded,
        released.registry.stored_references,
    ) == ([], [], [])


def test_a_release_on_a_cluster_is_promoted_to_an_engine(staged: Application) -> None:
    """The release of the cluster can be debugged there."""
    done = run_promotion(staged, "local", "staging")
    assert (done.verdict.url, done.rollout.attempt.trigger) == (LOCAL, "promote")
    assert staged.target("local").serves(staged.current("staging").attempt.release)


def test_a_promotion_waits_for_another_deployer_for_a_limited_time(staged: Application) -> None:
    """The error names the other deployer, and the environment stays as it is."""
    run_promotion(staged)
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    lease = staged.cluster.objects.get("Lease", "classifier-production-deployer")
    assert lease
    lease["spec"]["holderIdentity"] = str(ProcessId("grace", "laptop", 7, "1"))
    with pytest.raises(RolloutLocked, match=r"grace on laptop \(process 7\)"):
        run_promotion(staged)
    assert len(staged.target("production").history()) == 1


def test_the_history_has_the_address_of_a_ci_run(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the cluster, where all users find it."""
    monkeypatch.setenv("CI_PIPELINE_URL", "https://ci.example/pipelines/7")
    run_promotion(staged)
    assert staged.current("production").attempt.run == "https://ci.example/pipelines/7"
    assert staged.current("staging").attempt.run == ""


# --- canaries


def start_canary(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> Deployer[pipeline.ReleaseResult]:
    """Start a deployer that holds a canary, in an environment where others wait for it."""
    configure(monkeypatch, "staging", lock_wait=60)
    deployer = Deployer(application, lambda: pipeline.release(application.context()))
    deployer.until(lambda: is_held(application))
    return deployer


def list_serving_versions(application: Application) -> list[str]:
    """Return the versions of the models that serve."""
    versions = {
        item.attempt.release.image.digest: item.attempt.release.image.layer.model.version
        for item in application.target().history()
    }
    return sorted(versions[digest] for digest in application.cluster.answers("classifier-staging"))


def test_a_canary_is_promoted_by_its_deployer(
    staged_with_canaries: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process instructs the deployer and gets its result; the history has one attempt."""
    deployer = start_canary(staged_with_canaries, monkeypatch)
    assert list_serving_versions(staged_with_canaries) == ["1", "2"]
    done = promotion.promote_canary(staged_with_canaries.context())
    assert deployer.outcome().rollout == done == staged_with_canaries.target().history()[-1]
    assert (done.attempt.id, done.outcome, list_serving_versions(staged_with_canaries)) == (
        2,
        "succeeded",
        ["2"],
    )


def test_a_canary_is_aborted_by_its_deployer(
    staged_with_canaries: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployer's error names the user who decided, and the previous release serves alone."""
    deployer = start_canary(staged_with_canaries, monkeypatch)
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    done = promotion.abort(staged_with_canaries.context())
    assert (done.attempt.id, done.outcome, list_serving_versions(staged_with_canaries)) == (
        2,
        "undone",
        ["1"],
    )
    with pytest.raises(CanaryAborted, match="ada aborted the canary"):
        deployer.outcome()


def test_a_decision_without_time_to_wait_reaches_the_deployer(
    staged_with_canaries: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command fails as the result is not versions, but the deployer follows the decision."""
    deployer = start_canary(staged_with_canaries, monkeypatch)
    configure(monkeypatch, "staging", lock_wait=0)
    with pytest.raises(RolloutLocked, match="it was instructed to promote") as caught:
        promotion.promote_canary(staged_with_canaries.context())
    assert "invoke status" in caught.value.next
    assert deployer.outcome().rollout.succeeded
    assert list_serving_versions(staged_with_canaries) == ["2"]


def test_a_canary_that_fails_during_its_promotion_is_an_error(
    staged_with_canaries: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the reason."""
    deployer = start_canary(staged_with_canaries, monkeypatch)
    staged_with_canaries.cluster.world.max_pods = len(staged_with_canaries.target().replicas())
    with pytest.raises(
        CanaryAborted, match="the canary was taken back: no node can take a replica"
    ):
        promotion.promote_canary(staged_with_canaries.context())
    with pytest.raises(RolloutFailed):
        deployer.outcome()
    assert list_serving_versions(staged_with_canaries) == ["1"]


def test_a_canary_that_took_over_is_not_aborted(
    staged_with_canaries: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision came too late, and the error names the command for a rollback."""
    configure(monkeypatch, "staging", canary__seconds=3)
    deployer = start_canary(staged_with_canaries, monkeypatch)

    def is_taking_over() -> bool:
        return (
            sum(replica.image == canary for replica in staged_with_canaries.target().replicas())
            == 2
        )

    canary = staged_with_canaries.context().inspect_canary_target().canary()
    deployer.until(is_taking_over)
    assert is_held(staged_with_canaries)
    with pytest.raises(ReleaseUnknown, match="taken over already") as caught:
        promotion.abort(staged_with_canaries.context())
    assert "rollback" in caught.value.next
    assert deployer.outcome().rollout.succeeded


def test_a_canary_without_a_deployer_is_promoted_by_the_command(orphaned: Application) -> None:
    """It is not put on hold again, and it is proven at the endpoint."""
    assert list_serving_versions(orphaned) == ["1", "2"]
    done = promotion.promote_canary(orphaned.context())
    assert (
        done.attempt.id,
        done.outcome,
        done.attempt.trigger,
        list_serving_versions(orphaned),
    ) == (
        3,
        "succeeded",
        "release",
        ["2"],
    )
    assert [item.outcome for item in orphaned.target().history()] == [
        "succeeded",
        "unfinished",
        "succeeded",
    ]
    assert [url for url, _ in orphaned.play.played] == [STAGING]


def test_a_canary_of_another_repository_does_not_take_over(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays as it is, and can be aborted."""
    with monkeypatch.context() as moved:
        configure(moved, "staging", repository="moved/classifier")
        with pytest.raises(ReleaseUnknown, match="another repository"):
            promotion.promote_canary(orphaned.context())
    assert list_serving_versions(orphaned) == ["1", "2"]


def test_a_canary_without_a_deployer_is_aborted_by_the_command(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access to the cluster is enough."""
    orphaned.machine.running = False
    orphaned.registry.manifests.clear()
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    done = promotion.abort(orphaned.context())
    assert (done.attempt.id, done.outcome, done.ending and done.ending.why) == (
        2,
        "undone",
        "aborted by ada",
    )
    assert list_serving_versions(orphaned) == ["1"]
    assert {replica.state for replica in orphaned.target().replicas()} == {"serving"}


def test_a_promoted_canary_with_wrong_responses_is_undone(
    orphaned: Application,
) -> None:
    """A promotion does not replace the proof."""
    orphaned.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        promotion.promote_canary(orphaned.context())
    assert list_serving_versions(orphaned) == ["1"]


def test_a_canary_is_not_promoted_with_other_settings(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be those of an old checkout; the canary stays as it is."""
    with monkeypatch.context() as stale:
        configure(stale, "staging", service="NodePort")
        with pytest.raises(SettingsInvalid, match="other settings, variables or object") as caught:
            promotion.promote_canary(orphaned.context())
    assert "nothing was changed" in caught.value.next
    assert list_serving_versions(orphaned) == ["1", "2"]
    assert promotion.promote_canary(orphaned.context()).succeeded


def test_a_canary_without_a_deployer_is_removed_by_the_next_release(
    orphaned: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proven release gets all requests before the next canary starts."""
    configure(monkeypatch, "staging", canary__seconds=3)
    orphaned.publish("3")
    pipeline.release(orphaned.context())
    assert list_serving_versions(orphaned) == ["3"]
    assert [item.outcome for item in orphaned.target().history()] == [
        "succeeded",
        "unfinished",
        "succeeded",
    ]


Ask = Callable[..., Rollout]


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_a_decision_without_a_canary_is_an_error(application: Application, ask: Ask) -> None:
    """This holds before and after a first release; nothing is written."""
    for releases in range(2):
        with pytest.raises(ReleaseUnknown, match="no canary is on hold"):
            ask(application.context("staging"))
        assert application.cluster_writes == []
        if not releases:
            pipeline.release(application.context("staging"))
            application.clear_records()


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_a_standby_release_is_no_canary(
    staged: Application, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    """Its attempt has ended, although the Service was changed by hand to select both tracks."""
    configure(monkeypatch, "staging", strategy="blue-green")
    staged.publish("2")
    pipeline.release(staged.context("staging"))
    service = staged.cluster.objects.get("Service", "classifier-staging")
    assert service
    del service["spec"]["selector"][TRACK_LABEL]
    assert staged.context("staging").inspect_canary_target().canary()
    with pytest.raises(ReleaseUnknown, match="no canary is on hold"):
        ask(staged.context("staging"))


@pytest.mark.parametrize("ask", [promotion.promote_canary, promotion.abort])
def test_an_environment_on_an_engine_has_no_canaries(released: Application, ask: Ask) -> None:
    """The error names the setting to change."""
    with pytest.raises(SettingsInvalid) as caught:
        ask(released.context("local"))
    assert caught.value.on == "[environments.local] target"
