"""The order of the stages, and what of them is left out when nothing asks for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from deploy import pipeline, promotion
from deploy.clients.kubernetes.protocol import ROOT_CA
from deploy.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterLogin,
    ClusterUnknown,
    ClusterUnreachable,
    GoldenMiss,
    ModelUnknown,
    NamespaceMissing,
    RegistryNotFound,
    RegistryUnreachable,
    ReleaseUnknown,
    RolloutFailed,
    RolloutLocked,
    SmokeFailed,
    VerifyFailed,
)
from deploy.machine.setup import cache_folder
from deploy.rollout.history import Only
from deploy.targets.kubernetes.render import RELEASE_ANNOTATION
from tests.fakes.application import Application
from tests.fakes.deployers import Killed, mortal
from tests.fakes.engine import Script
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.registry import Meanwhile, MemoryRegistry
from tests.fakes.trials import URL as TRIAL

DOOR = "http://127.0.0.1:8080"
STAGING = "http://fake/services/classifier-staging:80"
PRODUCTION = "http://fake/services/classifier-production:80"
REPOSITORY = "classifier"


def configure(monkeypatch: pytest.MonkeyPatch, environment: str, **keys: object) -> None:
    """Gives an environment other settings."""
    for key, value in keys.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment}__{key}".upper(), str(value))


def sent(application: Application) -> int:
    """The bytes that went to the registry."""
    return sum(
        len(application.registry.blobs[repository][digest])
        for repository, digest in application.registry.sent
    )


def test_a_first_release_goes_all_the_way(application: Application) -> None:
    """Code is built, joined with the model, tried, pushed, served, and proven at the front door."""
    done = pipeline.release(application.context())
    image = done.rollout.attempt.release.image
    assert (done.changed, done.rollout.outcome, done.verdict.passed) == (True, "succeeded", True)
    assert image.digest in application.registry.manifests[REPOSITORY]
    assert [
        tag for tag, _ in application.engine.built if tag.startswith("twinship/classifier:")
    ] == [f"twinship/classifier:app-{image.app.key}"]
    assert application.trials.tried == [image.config]
    assert [url for url, _ in application.play.played] == [TRIAL, TRIAL, DOOR, DOOR]
    assert application.context().target.serves(done.rollout.attempt.release)


def test_a_release_of_nothing_new_moves_nothing(released: Application) -> None:
    """Nothing is built, tried, sent or restarted; what serves is asked once more."""
    before = released.state()
    done = pipeline.release(released.context())
    assert (done.changed, done.rollout.attempt.id) == (False, 1)
    assert released.state() == before
    assert (
        released.engine.built,
        released.registry.sent,
        released.trials.tried,
        released.engine.happened,
    ) == ([], [], [], [])
    assert [url for url, _ in released.play.played] == [DOOR]


def test_settings_that_were_half_rolled_out_are_not_there_already(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the replicas have them: what stands around them changes last, and its deployer was killed before."""
    configure(monkeypatch, "staging", host="shop.example", ingress_class="one")
    pipeline.release(staged.context("staging"))
    configure(monkeypatch, "staging", ingress_class="two")

    def ingress_class() -> str:
        return str(
            (staged.cluster.objects.get("Ingress", "classifier-staging") or {})["spec"][
                "ingressClassName"
            ]
        )

    def rolled(operation: str) -> bool:
        found = staged.cluster.objects.get("Deployment", "classifier-staging") or {}
        return (
            operation == "apply"
            and '"id":3,' in found["metadata"]["annotations"][RELEASE_ANNOTATION]
        )

    with mortal(staged, "staging", rolled), pytest.raises(Killed):
        pipeline.release(staged.context("staging"))
    assert ingress_class() == "one"
    assert pipeline.release(staged.context("staging")).changed
    assert ingress_class() == "two"


def test_a_release_of_nothing_new_that_answers_wrongly_is_said(released: Application) -> None:
    """That nothing changed does not mean that all is well."""
    released.play.wrong[DOOR] = "expected 3, got 8"
    with pytest.raises(VerifyFailed):
        pipeline.release(released.context())


def test_a_new_model_moves_no_code(released: Application) -> None:
    """Nothing is built, and of the layers only the model's is sent and loaded."""
    released.publish("2", size=50_000)
    done = pipeline.release(released.context())
    layer = done.rollout.attempt.release.image.layer
    assert layer.model.version == "2"
    assert released.engine.built == []
    assert (REPOSITORY, layer.digest) in released.registry.sent
    assert sent(released) < layer.size + 5000
    assert [len(names) for names in released.engine.loaded] == [1]


def test_new_code_moves_no_model(released: Application) -> None:
    """The model's bytes are neither read from the store nor sent."""
    released.write("app/main.py", "print('two')\n")
    done = pipeline.release(released.context())
    layer = done.rollout.attempt.release.image.layer
    assert done.changed
    assert released.store.streamed == []
    assert (REPOSITORY, layer.digest) not in released.registry.sent
    assert len(released.engine.built) == 1


def test_what_another_machine_built_and_pushed_is_not_made_again(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an empty cache, code and model are found in the registry, and the same image comes of them."""
    before = pipeline.current_rollout(released.context()).attempt.release.image.digest
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    site = released.context()
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "latest"))
    assert joined.digest == before
    assert released.engine.built == []
    assert released.store.streamed == []


def test_stages_one_by_one_come_to_the_same_image(released: Application) -> None:
    """A CI system that runs them as steps of its own releases what a laptop does."""
    site = released.context()
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "1"))
    assert pipeline.check(site, joined).passed
    done = pipeline.deploy(site, pipeline.push(site, joined))
    first, second = (rollout.attempt.release for rollout in site.target.history())
    assert first == second == done.attempt.release
    assert pipeline.verify(site).passed


def test_a_model_that_is_not_published_stops_before_anything_is_built(
    application: Application,
) -> None:
    """Nothing was changed by then."""
    with pytest.raises(ModelUnknown):
        pipeline.release(application.context(), "7")
    assert application.registry.put == []
    assert [tag for tag, _ in application.engine.built if "app-" in tag] == []


def test_an_image_that_fails_its_trial_is_not_pushed(released: Application) -> None:
    """The registry and what serves are left alone."""
    before = released.context().target.replicas()
    released.write("app/main.py", "print('wrong')\n")
    released.play.wrong[TRIAL] = "expected 3, got 8"
    released.trials.alive = False
    with pytest.raises(SmokeFailed):
        pipeline.release(released.context())
    assert released.registry.put == []
    assert released.context().target.replicas() == before
    assert len(released.context().target.history()) == 1


def test_a_miss_at_the_front_door_puts_the_previous_release_back(released: Application) -> None:
    """Though the image passed its trial."""
    before = released.context().target.replicas()
    released.publish("2")
    released.play.wrong[DOOR] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(released.context())
    assert released.context().target.replicas() == before
    assert [rollout.outcome for rollout in released.context().target.history()] == [
        "succeeded",
        "undone",
    ]


def test_a_release_whose_replicas_crash_is_taken_back_and_can_be_mended(
    released: Application,
) -> None:
    """The next release starts from what served before."""
    site = released.context()
    released.write("app/main.py", "crash()\n")
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "latest"))
    released.scripted(joined.config, Script(exits=1, says="Traceback"))
    with pytest.raises(RolloutFailed) as caught:
        pipeline.release(released.context())
    assert "Traceback" in caught.value.detail
    released.write("app/main.py", "print('mended')\n")
    assert pipeline.release(released.context()).rollout.attempt.id == 3


def test_what_serves_no_more_is_released_again(released: Application) -> None:
    """The same image, where a replica was lost, is rolled out anew."""
    released.engine.stop(released.context().target.replicas()[0].name, 0)
    done = pipeline.release(released.context())
    assert (done.changed, done.rollout.attempt.id) == (True, 2)
    assert released.context().target.serves(done.rollout.attempt.release)


def test_another_environment_of_the_same_registry_takes_blobs_over(released: Application) -> None:
    """Nothing but JSON is sent twice to one registry."""
    site = released.context()
    joined = pipeline.current_rollout(site).attempt.release.image
    pushed = pipeline.push(released.context("other"), joined)
    assert pushed.reference == f"registry.example/elsewhere/classifier@{joined.digest}"
    assert released.registry.sent == []
    assert len(released.registry.mounted) >= 3


# --- going back


@pytest.fixture(params=["local", "staging"])
def grown(application: Application, request: pytest.FixtureRequest) -> Application:
    """Released three times, to an engine or a cluster: code one with model 1, code two with model 1, code two with model 2."""
    application.environment = request.param
    pipeline.release(application.context())
    application.write("app/main.py", "print('two')\n")
    pipeline.release(application.context())
    application.publish("2")
    pipeline.release(application.context())
    application.forget()
    return application


def halves(application: Application) -> list[tuple[str, str]]:
    """The code and the model of every release in the history, the code as a letter."""
    keys: dict[str, str] = {}
    found = []
    for rollout in application.context().target.history():
        image = rollout.attempt.release.image
        keys.setdefault(image.app.key, "abcd"[len(keys)])
        found.append((keys[image.app.key], image.layer.model.version))
    return found


@pytest.mark.parametrize(
    ("number", "only", "expected", "tried"),
    [
        (None, None, ("b", "1"), 0),
        (1, None, ("a", "1"), 0),
        (None, "model", ("b", "1"), 0),
        (None, "code", ("a", "2"), 1),
        (1, "code", ("a", "2"), 1),
        (1, "model", ("b", "1"), 0),
    ],
)
def test_a_rollback_takes_back_what_it_is_asked_to(
    grown: Application, number: int | None, only: Only | None, expected: tuple[str, str], tried: int
) -> None:
    """The model, the code, or both; a pair that never served is tried out first, and nothing is built or read from the store."""
    done = pipeline.rollback(grown.context(), number, only)
    assert halves(grown) == [("a", "1"), ("b", "1"), ("b", "2"), expected]
    assert (done.rollout.attempt.trigger, done.rollout.attempt.id, done.changed) == (
        "rollback",
        4,
        True,
    )
    assert grown.context().target.serves(done.rollout.attempt.release)
    assert len(grown.trials.tried) == tried
    assert (grown.engine.built, grown.store.streamed) == ([], [])


def test_a_rollback_needs_nothing_but_the_registry(
    grown: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another machine with an empty cache can go back, to a pair that never served as well."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    pipeline.rollback(grown.context(), None, "code")
    assert halves(grown)[-1] == ("a", "2")
    assert not (cache_folder() / "wheels").exists()


def test_a_rollback_on_a_cluster_needs_no_engine(grown: Application) -> None:
    """Whoever has access can go back, from any machine."""
    grown.architecture.running = grown.environment != "staging"
    grown.architecture.programs.clear()
    pipeline.rollback(grown.context(), None, "model")
    assert halves(grown)[-1] == ("b", "1")
    assert grown.architecture.happened == []


def test_a_rollback_to_what_the_registry_lost_changes_nothing(grown: Application) -> None:
    """It is found before anything is drained."""
    first = grown.context().target.history()[0].attempt.release
    grown.registry.manifests[REPOSITORY].pop(first.image.digest)
    before = grown.state()
    with pytest.raises(RegistryNotFound) as caught:
        pipeline.rollback(grown.context(), 1, None)
    assert caught.value.on == first.reference
    assert grown.state() == before


class Away(MemoryRegistry):
    """A registry that cannot be asked for anything."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("has", "mount", "upload", "blob", "manifest", "put_manifest"):
            raise RegistryUnreachable(
                "the registry gave no answer", on="registry.example", next="see whether it runs"
            )
        return super().__getattribute__(name)


@pytest.mark.parametrize(("only", "expected"), [(None, ("b", "1")), ("model", ("b", "1"))])
def test_a_rollback_to_what_served_does_without_a_registry_that_is_away(
    grown: Application,
    caplog: pytest.LogCaptureFixture,
    only: Only | None,
    expected: tuple[str, str],
) -> None:
    """The image may still be where it shall serve; it is said that nobody could be asked."""
    grown.registry = Away()
    done = pipeline.rollback(grown.context(), None, only)
    assert halves(grown)[-1] == expected
    assert grown.context().target.serves(done.rollout.attempt.release)
    assert "the registry cannot be asked" in caplog.text


def test_a_pair_that_never_served_needs_the_registry(grown: Application) -> None:
    """It has to be pushed before it can serve."""
    grown.registry = Away()
    with pytest.raises(RegistryUnreachable):
        pipeline.rollback(grown.context(), None, "code")
    assert len(halves(grown)) == 3


@pytest.mark.parametrize("only", [None, "model"])
def test_a_rollback_does_not_take_back_what_came_after_it_was_decided(
    grown: Application, only: Only | None
) -> None:
    """Whoever asked for it did not know of that release; it goes on serving, and they are told who made it."""

    def released() -> None:
        grown.write("app/main.py", "print('three')\n")
        pipeline.release(grown.context())

    site = grown.context()
    site.registry = Meanwhile(grown.registry, released)
    with pytest.raises(RolloutLocked, match="release 4") as caught:
        pipeline.rollback(site, None, only)
    assert "run again" in caught.value.next
    assert halves(grown)[3:] == [("c", "2")]
    assert grown.context().target.serves(pipeline.current_rollout(grown.context()).attempt.release)
    pipeline.rollback(grown.context(), None, only)
    assert len(halves(grown)) == 5


def test_a_pair_that_never_served_and_fails_its_trial_changes_nothing(grown: Application) -> None:
    """Old code may not know a new model."""
    grown.play.wrong[TRIAL] = "expected 3, got 8"
    grown.trials.alive = False
    serving = pipeline.current_rollout(grown.context())
    with pytest.raises(SmokeFailed):
        pipeline.rollback(grown.context(), None, "code")
    assert pipeline.current_rollout(grown.context()) == serving


def test_where_nothing_was_released_nothing_can_be_verified_or_taken_back(
    application: Application,
) -> None:
    """Both say what to do first."""
    for ask in (
        lambda: pipeline.verify(application.context()),
        lambda: pipeline.rollback(application.context(), None, None),
    ):
        with pytest.raises(ReleaseUnknown) as caught:
            ask()
        assert "invoke release" in caught.value.next


def test_a_release_without_its_model_in_the_cache_is_proven_from_the_registry(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The golden cases are at the head of the model's layer, wherever that is."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert pipeline.verify(released.context()).passed
    assert released.play.played == [(DOOR, ("three",))]


# --- on a cluster


def test_a_release_to_a_cluster_goes_all_the_way(application: Application) -> None:
    """Nothing is left on the engine on which it was tried, and the front door is the one that the cluster has."""
    done = pipeline.release(application.context("staging"))
    image = done.rollout.attempt.release.image
    assert (done.changed, done.rollout.outcome, done.rollout.attempt.url) == (
        True,
        "succeeded",
        STAGING,
    )
    assert image.digest in application.registry.manifests[REPOSITORY]
    assert [url for url, _ in application.play.played] == [TRIAL, TRIAL, STAGING, STAGING]
    assert application.cluster.answers("classifier-staging") == {image.digest}
    assert application.engine.made == {}


def test_a_release_of_nothing_new_to_a_cluster_writes_nothing(staged: Application) -> None:
    """Not even a lock is taken."""
    done = pipeline.release(staged.context("staging"))
    assert (done.changed, done.rollout.attempt.id, staged.written) == (False, 1, [])
    assert (staged.registry.sent, staged.trials.tried, [url for url, _ in staged.play.played]) == (
        [],
        [],
        [STAGING],
    )


def test_new_settings_of_a_cluster_are_rolled_out(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the image is the same."""
    configure(monkeypatch, "staging", resources__memory="1Gi")
    done = pipeline.release(staged.context("staging"))
    assert (done.changed, done.rollout.attempt.id) == (True, 2)
    assert not pipeline.release(staged.context("staging")).changed


def test_pods_that_crash_are_taken_back(staged: Application) -> None:
    """With the end of their log, and what served before serves on."""
    site = staged.context("staging")
    before = staged.cluster.answers("classifier-staging")
    staged.write("app/main.py", "crash()\n")
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "latest"))
    staged.cluster.scripts[joined.digest] = PodScript(exits=1, says="Traceback")
    with pytest.raises(RolloutFailed) as caught:
        pipeline.release(staged.context("staging"))
    assert "Traceback" in caught.value.detail
    assert staged.cluster.answers("classifier-staging") == before
    assert [item.outcome for item in site.view.history()] == ["succeeded", "undone"]


def test_a_miss_at_a_clusters_front_door_puts_the_previous_release_back(
    staged: Application,
) -> None:
    """Though the image passed its trial."""
    before = staged.cluster.answers("classifier-staging")
    staged.publish("2")
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert staged.cluster.answers("classifier-staging") == before


def test_taking_back_needs_no_registry(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be what fails; the nodes have the previous image."""
    before = staged.cluster.answers("classifier-staging")
    staged.publish("2")
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    first = pipeline.current_rollout(staged.context("staging")).attempt.release.image.digest
    ask = staged.registry.manifest

    def lost(repository: str, reference: str) -> bytes | None:
        if reference == first:
            raise RegistryNotFound("no such manifest", on=reference, next="push it")
        return ask(repository, reference)

    monkeypatch.setattr(staged.registry, "manifest", lost)
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert staged.cluster.answers("classifier-staging") == before


def test_a_cluster_is_looked_at_without_an_engine(staged: Application) -> None:
    """History, replicas and golden cases; nothing is started for them, and nothing written."""
    staged.architecture.running = False
    assert pipeline.verify(staged.context("staging")).passed
    assert pipeline.current_rollout(staged.context("staging")).attempt.id == 1
    assert (staged.architecture.happened, staged.written) == ([], [])


@pytest.mark.parametrize(("environment", "replaced"), [("local", False), ("staging", True)])
def test_images_that_shall_come_from_another_registry_are_pushed_there(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    replaced: bool,
) -> None:
    """Though nothing else is new: a node that pulls tomorrow shall not ask the old one. An engine has the image already."""
    pipeline.release(application.context(environment))
    before = {replica.name for replica in application.context(environment).view.replicas()}
    configure(monkeypatch, environment, registry="far.example")
    done = pipeline.release(application.context(environment))
    assert done.changed
    assert done.rollout.attempt.release.repository == "far.example/classifier"
    assert done.rollout.attempt.release.image.digest in application.far.manifests["classifier"]
    assert (
        before.isdisjoint(
            replica.name for replica in application.context(environment).view.replicas()
        )
        is replaced
    )
    assert not pipeline.release(application.context(environment)).changed


def at_write(number: int) -> Callable[[str], bool]:
    """The moment before the write that comes after so many others."""
    written = count()
    return lambda name: name in ("apply", "create", "replace", "delete") and next(written) == number


@pytest.mark.parametrize("strategy", ["rolling", "blue-green", "canary"])
def test_the_next_deployer_makes_up_for_a_killed_one(
    staged: Application, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Before each of its writes: something proven answers all the while, and running it again ends as if it had lived."""
    configure(
        monkeypatch,
        "staging",
        strategy=strategy,
        canary__metrics="",
        canary__seconds=3,
        standby="false",
    )
    for writes in count():
        proven = staged.cluster.answers("classifier-staging")
        staged.publish(str(writes + 2))
        with mortal(staged, "staging", at_write(writes)), suppress(Killed):
            pipeline.release(staged.context("staging"))
            break
        assert staged.cluster.answers("classifier-staging")
        assert len(staged.cluster.answers("classifier-staging") - proven) <= 1
        done = pipeline.release(staged.context("staging")).rollout.attempt.release.image
        assert done.layer.model.version == str(writes + 2)
        assert [replica.image for replica in staged.context("staging").view.replicas()] == [
            done.digest
        ] * 2
        assert staged.cluster.answers("classifier-staging") == {done.digest}
        assert not pipeline.release(staged.context("staging")).changed
    assert writes > 8


# --- clusters that take no release


def no_context(application: Application) -> None:
    """No kubeconfig knows the cluster."""
    application.architecture.clusters.clear()


def no_answer(application: Application) -> None:
    """Its API server is away."""
    application.cluster.failures["get", "ConfigMap"] = [
        ClusterUnreachable("no answer", on="memory", next="see whether it runs")
    ]


def no_login(application: Application) -> None:
    """The credentials have expired."""
    application.cluster.failures["get", "ConfigMap"] = [
        ClusterLogin("they have expired", on="memory", next="log in again")
    ]


def no_rights(application: Application) -> None:
    """The account is nobody there."""
    application.cluster.forbidden.add(("get", "ConfigMap"))


def no_namespace(application: Application) -> None:
    """Nobody made it."""
    application.cluster.missing = True


def release_there(application: Application) -> pipeline.ReleaseResult:
    """A new model and new code, from a machine whose engine is not started yet."""
    application.architecture.running = False
    return pipeline.release(application.context("staging"))


def promote_there(application: Application) -> pipeline.ReleaseResult:
    """What serves here, to a registry that does not have it."""
    return promotion.promote(application.context("production"), application.context("local"))


def roll_back_there(application: Application) -> pipeline.ReleaseResult:
    """From a machine whose engine, and with it the registry, is not started yet."""
    application.architecture.running = False
    return pipeline.rollback(application.context("staging"), None, None)


@pytest.mark.parametrize("ask", [release_there, promote_there, roll_back_there])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (no_context, ClusterUnknown),
        (no_answer, ClusterUnreachable),
        (no_login, ClusterLogin),
        (no_rights, ClusterForbidden),
        (no_namespace, NamespaceMissing),
    ],
)
def test_a_cluster_that_takes_no_release_is_told_before_anything_is_done(
    released: Application,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Application], pipeline.ReleaseResult],
    spoil: Callable[[Application], None],
    error: type[ClusterError],
) -> None:
    """No engine or registry is started for it, and nothing is fetched, built, tried or sent."""
    configure(monkeypatch, "staging", registry="127.0.0.1:5000")
    released.publish("2")
    released.write("app/main.py", "print('two')\n")
    spoil(released)
    before = released.state()
    with pytest.raises(error):
        ask(released)
    assert released.state() == before
    assert (released.store.streamed, released.engine.built, released.trials.tried) == ([], [], [])


def test_a_cluster_is_asked_once_whether_it_takes_a_release(released: Application) -> None:
    """And none for a release to an engine."""
    pipeline.release(released.context("local"))
    assert released.architecture.reached == []
    pipeline.release(released.context("staging"))
    assert released.cluster.requests.count(("get", "ConfigMap", ROOT_CA)) == 1
    assert released.cluster.requests[0] == ("get", "ConfigMap", ROOT_CA)
