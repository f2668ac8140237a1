"""The order of the stages, and which of them are skipped."""

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
from deploy.machine.host import cache_folder
from deploy.rollout.history import Only
from deploy.targets.kubernetes.render import RELEASE_ANNOTATION
from tests.fakes.application import Application
from tests.fakes.deployers import Killed, mortal
from tests.fakes.engine import Script
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.registry import Meanwhile, MemoryRegistry
from tests.fakes.throwaway_containers import URL as CONTAINER

LOCAL = "http://127.0.0.1:8080"
STAGING = "http://fake/services/classifier-staging:80"
PRODUCTION = "http://fake/services/classifier-production:80"
REPOSITORY = "classifier"


def configure(monkeypatch: pytest.MonkeyPatch, environment: str, **keys: object) -> None:
    """Override settings of an environment."""
    for key, value in keys.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment}__{key}".upper(), str(value))


def count_pushed_bytes(application: Application) -> int:
    """Return how many bytes went to the registry."""
    return sum(
        len(application.registry.blobs[repository][digest])
        for repository, digest in application.registry.uploaded
    )


def test_a_first_release_runs_all_stages(application: Application) -> None:
    """Code is built, joined with the model, checked, pushed, rolled out and proven."""
    done = pipeline.release(application.context())
    image = done.rollout.attempt.release.image
    assert (done.changed, done.rollout.outcome, done.verdict.passed) == (True, "succeeded", True)
    assert image.digest in application.registry.manifests[REPOSITORY]
    assert [
        tag for tag, _ in application.engine.built if tag.startswith("twinship/classifier:")
    ] == [f"twinship/classifier:app-{image.app.key}"]
    assert application.containers.images == [image.config]
    assert [url for url, _ in application.play.played] == [CONTAINER, CONTAINER, LOCAL, LOCAL]
    assert application.target().serves(done.rollout.attempt.release)


def test_a_release_without_changes_moves_nothing(released: Application) -> None:
    """Nothing is built, checked, pushed or restarted; the golden cases are played once more."""
    before = released.state()
    done = pipeline.release(released.context())
    assert (done.changed, done.rollout.attempt.id) == (False, 1)
    assert released.state() == before
    assert (
        released.engine.built,
        released.registry.uploaded,
        released.containers.images,
        released.engine.events,
    ) == ([], [], [], [])
    assert [url for url, _ in released.play.played] == [LOCAL]


def test_settings_of_an_unfinished_rollout_are_rolled_out_again(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replicas have the new settings, but the deployer was killed before the Ingress."""
    configure(monkeypatch, "staging", host="shop.example", ingress_class="one")
    pipeline.release(staged.context("staging"))
    configure(monkeypatch, "staging", ingress_class="two")

    def ingress_class() -> str:
        return str(
            (staged.cluster.objects.get("Ingress", "classifier-staging") or {})["spec"][
                "ingressClassName"
            ]
        )

    def is_last_rollout(operation: str) -> bool:
        found = staged.cluster.objects.get("Deployment", "classifier-staging") or {}
        return (
            operation == "apply"
            and '"id":3,' in found["metadata"]["annotations"][RELEASE_ANNOTATION]
        )

    with mortal(staged, "staging", is_last_rollout), pytest.raises(Killed):
        pipeline.release(staged.context("staging"))
    assert ingress_class() == "one"
    assert pipeline.release(staged.context("staging")).changed
    assert ingress_class() == "two"


def test_a_release_without_changes_fails_if_responses_are_wrong(released: Application) -> None:
    """What serves is proven even if nothing changes."""
    released.play.wrong[LOCAL] = "expected 3, got 8"
    with pytest.raises(VerifyFailed):
        pipeline.release(released.context())


def test_a_new_model_moves_no_code(released: Application) -> None:
    """Nothing is built, and only the layer of the model is pushed and loaded."""
    released.publish("2", size=50_000)
    done = pipeline.release(released.context())
    layer = done.rollout.attempt.release.image.layer
    assert layer.model.version == "2"
    assert released.engine.built == []
    assert (REPOSITORY, layer.digest) in released.registry.uploaded
    assert count_pushed_bytes(released) < layer.size + 5000
    assert [len(names) for names in released.engine.loaded] == [1]


def test_new_code_moves_no_model(released: Application) -> None:
    """The bytes of the model are neither read from the store nor pushed."""
    released.write("app/main.py", "print('two')\n")
    done = pipeline.release(released.context())
    layer = done.rollout.attempt.release.image.layer
    assert done.changed
    assert released.store.streamed == []
    assert (REPOSITORY, layer.digest) not in released.registry.uploaded
    assert len(released.engine.built) == 1


def test_an_unknown_model_stops_the_release_before_a_build(
    application: Application,
) -> None:
    """Nothing is built or pushed."""
    with pytest.raises(ModelUnknown):
        pipeline.release(application.context(), "7")
    assert application.registry.stored_references == []
    assert [tag for tag, _ in application.engine.built if "app-" in tag] == []


def test_an_image_that_fails_the_smoke_test_is_not_pushed(released: Application) -> None:
    """The registry and the replicas stay as they are."""
    before = released.target().replicas()
    released.write("app/main.py", "print('wrong')\n")
    released.play.wrong[CONTAINER] = "expected 3, got 8"
    released.containers.alive = False
    with pytest.raises(SmokeFailed):
        pipeline.release(released.context())
    assert released.registry.stored_references == []
    assert released.target().replicas() == before
    assert len(released.target().history()) == 1


def test_a_miss_at_the_endpoint_undoes_the_rollout(released: Application) -> None:
    """The previous replicas serve again, although the image passed the smoke test."""
    before = released.target().replicas()
    released.publish("2")
    released.play.wrong[LOCAL] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(released.context())
    assert released.target().replicas() == before
    assert [rollout.outcome for rollout in released.target().history()] == [
        "succeeded",
        "undone",
    ]


def test_a_release_with_crashing_replicas_is_undone_and_can_be_fixed(
    released: Application,
) -> None:
    """The next release follows the previous one that served."""
    released.write("app/main.py", "crash()\n")
    released.script_container(released.create_image().config, Script(exits=1, says="Traceback"))
    with pytest.raises(RolloutFailed) as caught:
        pipeline.release(released.context())
    assert "Traceback" in caught.value.detail
    released.write("app/main.py", "print('fixed')\n")
    assert pipeline.release(released.context()).rollout.attempt.id == 3


def test_a_lost_replica_is_released_again(released: Application) -> None:
    """The same image is rolled out again."""
    released.engine.stop(released.target().replicas()[0].name, 0)
    done = pipeline.release(released.context())
    assert (done.changed, done.rollout.attempt.id) == (True, 2)
    assert released.target().serves(done.rollout.attempt.release)


# --- going back


@pytest.fixture(params=["local", "staging"])
def grown(application: Application, request: pytest.FixtureRequest) -> Application:
    """Return an application released thrice: code a with model 1, then code b, then model 2."""
    application.environment = request.param
    pipeline.release(application.context())
    application.write("app/main.py", "print('two')\n")
    pipeline.release(application.context())
    application.publish("2")
    pipeline.release(application.context())
    application.clear_records()
    return application


def list_halves(application: Application) -> list[tuple[str, str]]:
    """Return the code and the model of every attempt, with the code as a letter."""
    keys: dict[str, str] = {}
    found = []
    for rollout in application.target().history():
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
def test_a_rollback_takes_back_the_model_the_code_or_both(
    grown: Application, number: int | None, only: Only | None, expected: tuple[str, str], tried: int
) -> None:
    """A pair that never served is checked first; nothing is built or read from the store."""
    done = pipeline.rollback(grown.context(), number, only)
    assert list_halves(grown) == [("a", "1"), ("b", "1"), ("b", "2"), expected]
    assert (done.rollout.attempt.trigger, done.rollout.attempt.id, done.changed) == (
        "rollback",
        4,
        True,
    )
    assert grown.target().serves(done.rollout.attempt.release)
    assert len(grown.containers.images) == tried
    assert (grown.engine.built, grown.store.streamed) == ([], [])


def test_a_rollback_needs_nothing_but_the_registry(
    grown: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It works on a machine with an empty cache, also for a pair that never served."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    pipeline.rollback(grown.context(), None, "code")
    assert list_halves(grown)[-1] == ("a", "2")
    assert not (cache_folder() / "wheels").exists()


def test_a_rollback_on_a_cluster_needs_no_engine(grown: Application) -> None:
    """It works on every machine with access to the cluster."""
    grown.machine.running = grown.environment != "staging"
    grown.machine.programs.clear()
    pipeline.rollback(grown.context(), None, "model")
    assert list_halves(grown)[-1] == ("b", "1")
    assert grown.machine.actions == []


def test_a_rollback_to_an_image_that_the_registry_lost_changes_nothing(grown: Application) -> None:
    """This is found out before any request is drained."""
    first = grown.target().history()[0].attempt.release
    grown.registry.manifests[REPOSITORY].pop(first.image.digest)
    before = grown.state()
    with pytest.raises(RegistryNotFound) as caught:
        pipeline.rollback(grown.context(), 1, None)
    assert caught.value.on == first.reference
    assert grown.state() == before


def test_a_rollback_to_a_release_of_another_repository_is_refused(
    grown: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login of the environment is not for that host; no registry and no engine is asked."""
    configure(monkeypatch, grown.environment, repository="moved/classifier")
    before = grown.state()
    context = grown.context(registry=UnreachableRegistry())
    with pytest.raises(ReleaseUnknown, match="another repository") as caught:
        pipeline.rollback(context, 1, None)
    assert caught.value.on.startswith("registry.example/classifier@sha256:")
    assert "registry.example/moved/classifier" in caught.value.detail
    assert grown.state() == before


def test_an_image_is_pulled_without_a_login_that_cannot_be_read(
    released: Application,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """The registry may need none; a warning names what is missing."""
    first = released.current().attempt.release
    released.publish("2")
    pipeline.release(released.context())
    image = released.engine.images.pop(first.image.config)
    released.engine.registry[first.reference] = image
    (tmp_path / "config.json").write_text('{"credsStore": "not-installed"}', encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    done = pipeline.rollback(released.context(), None, None)
    assert done.rollout.attempt.release == first
    assert released.engine.pulled == [(first.reference, None)]
    assert "docker-credential-not-installed" in caplog.text


class UnreachableRegistry(MemoryRegistry):
    """A registry that does not answer."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("has_blob", "mount", "upload", "download", "get_manifest", "put_manifest"):
            raise RegistryUnreachable(
                "the registry gave no answer", on="registry.example", next="see whether it runs"
            )
        return super().__getattribute__(name)


@pytest.mark.parametrize(("only", "expected"), [(None, ("b", "1")), ("model", ("b", "1"))])
def test_a_rollback_to_a_release_that_served_needs_no_registry(
    grown: Application,
    caplog: pytest.LogCaptureFixture,
    only: Only | None,
    expected: tuple[str, str],
) -> None:
    """The image can still be on the target; a warning says that the registry does not answer."""
    grown.registry = UnreachableRegistry()
    done = pipeline.rollback(grown.context(), None, only)
    assert list_halves(grown)[-1] == expected
    assert grown.target().serves(done.rollout.attempt.release)
    assert "the registry cannot say whether it has" in caplog.text


def test_a_pair_that_never_served_needs_the_registry(grown: Application) -> None:
    """It must be pushed before it can serve."""
    grown.registry = UnreachableRegistry()
    with pytest.raises(RegistryUnreachable):
        pipeline.rollback(grown.context(), None, "code")
    assert len(list_halves(grown)) == 3


@pytest.mark.parametrize("only", [None, "model"])
def test_a_rollback_does_not_take_back_a_newer_release(
    grown: Application, only: Only | None
) -> None:
    """It came after the rollback was decided, continues to serve, and is named in the error."""

    def release_again() -> None:
        grown.write("app/main.py", "print('three')\n")
        pipeline.release(grown.context())

    context = grown.context(registry=Meanwhile(grown.registry, release_again))
    with pytest.raises(RolloutLocked, match="release 4") as caught:
        pipeline.rollback(context, None, only)
    assert "run again" in caught.value.next
    assert list_halves(grown)[3:] == [("c", "2")]
    assert grown.target().serves(grown.current().attempt.release)
    pipeline.rollback(grown.context(), None, only)
    assert len(list_halves(grown)) == 5


def test_a_pair_that_fails_the_smoke_test_changes_nothing(grown: Application) -> None:
    """Old code may not support a new model."""
    grown.play.wrong[CONTAINER] = "expected 3, got 8"
    grown.containers.alive = False
    serving = grown.current()
    with pytest.raises(SmokeFailed):
        pipeline.rollback(grown.context(), None, "code")
    assert grown.current() == serving


def test_nothing_can_be_verified_or_rolled_back_before_a_release(
    application: Application,
) -> None:
    """Both errors name the command for a first release."""
    for ask in (
        application.verify,
        lambda: pipeline.rollback(application.context(), None, None),
    ):
        with pytest.raises(ReleaseUnknown) as caught:
            ask()
        assert "invoke release" in caught.value.next


# --- on a cluster


def test_a_first_release_to_a_cluster_runs_all_stages(application: Application) -> None:
    """The image is checked on the engine, and proven at the endpoint of the cluster."""
    done = pipeline.release(application.context("staging"))
    image = done.rollout.attempt.release.image
    assert (done.changed, done.rollout.outcome, done.rollout.attempt.url) == (
        True,
        "succeeded",
        STAGING,
    )
    assert image.digest in application.registry.manifests[REPOSITORY]
    assert [url for url, _ in application.play.played] == [CONTAINER, CONTAINER, STAGING, STAGING]
    assert application.cluster.answers("classifier-staging") == {image.digest}
    assert application.engine.all_containers == {}


def test_a_release_to_a_cluster_without_changes_writes_nothing(staged: Application) -> None:
    """Not even the lock is acquired."""
    done = pipeline.release(staged.context("staging"))
    assert (done.changed, done.rollout.attempt.id, staged.cluster_writes) == (False, 1, [])
    assert (
        staged.registry.uploaded,
        staged.containers.images,
        [url for url, _ in staged.play.played],
    ) == (
        [],
        [],
        [STAGING],
    )


def test_new_settings_of_a_cluster_are_rolled_out(
    staged: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is the same."""
    configure(monkeypatch, "staging", resources__memory="1Gi")
    done = pipeline.release(staged.context("staging"))
    assert (done.changed, done.rollout.attempt.id) == (True, 2)
    assert not pipeline.release(staged.context("staging")).changed


def test_a_release_with_crashing_pods_is_undone(staged: Application) -> None:
    """The error has the end of their log, and the previous release continues to serve."""
    before = staged.cluster.answers("classifier-staging")
    staged.write("app/main.py", "crash()\n")
    staged.cluster.scripts[staged.create_image("staging").digest] = PodScript(
        exits=1, says="Traceback"
    )
    with pytest.raises(RolloutFailed) as caught:
        pipeline.release(staged.context("staging"))
    assert "Traceback" in caught.value.detail
    assert staged.cluster.answers("classifier-staging") == before
    assert [item.outcome for item in staged.target("staging").history()] == [
        "succeeded",
        "undone",
    ]


def test_a_miss_at_a_clusters_endpoint_undoes_the_rollout(
    staged: Application,
) -> None:
    """The previous release serves again, although the image passed the smoke test."""
    before = staged.cluster.answers("classifier-staging")
    staged.publish("2")
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert staged.cluster.answers("classifier-staging") == before


def test_an_undo_needs_no_registry(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The registry may be what fails, and the nodes have the previous image."""
    before = staged.cluster.answers("classifier-staging")
    staged.publish("2")
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    first = staged.current("staging").attempt.release.image.digest
    ask = staged.registry.get_manifest

    def refuse_first(repository: str, reference: str) -> bytes | None:
        if reference == first:
            raise RegistryNotFound("no such manifest", on=reference, next="push it")
        return ask(repository, reference)

    monkeypatch.setattr(staged.registry, "get_manifest", refuse_first)
    staged.play.wrong[STAGING] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    assert staged.cluster.answers("classifier-staging") == before


@pytest.mark.parametrize(("environment", "replaced"), [("local", False), ("staging", True)])
def test_a_new_registry_gets_the_image(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    replaced: bool,
) -> None:
    """A node pulls from the new registry later; an engine has the image already."""
    pipeline.release(application.context(environment))
    before = {replica.name for replica in application.target(environment).replicas()}
    configure(monkeypatch, environment, registry="far.example")
    done = pipeline.release(application.context(environment))
    assert done.changed
    assert done.rollout.attempt.release.repository == "far.example/classifier"
    assert done.rollout.attempt.release.image.digest in application.far.manifests["classifier"]
    assert (
        before.isdisjoint(replica.name for replica in application.target(environment).replicas())
        is replaced
    )
    assert not pipeline.release(application.context(environment)).changed


def before_write(number: int) -> Callable[[str], bool]:
    """Return whether an operation of the cluster is a write after that many others."""
    written = count()
    return lambda name: name in ("apply", "create", "replace", "delete") and next(written) == number


@pytest.mark.parametrize("strategy", ["rolling", "blue-green", "canary"])
def test_the_next_deployer_completes_the_work_of_a_killed_one(
    staged: Application, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """It is killed before each write: a proven release always serves, and the next run succeeds."""
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
        with mortal(staged, "staging", before_write(writes)), suppress(Killed):
            pipeline.release(staged.context("staging"))
            break
        assert staged.cluster.answers("classifier-staging")
        assert len(staged.cluster.answers("classifier-staging") - proven) <= 1
        done = pipeline.release(staged.context("staging")).rollout.attempt.release.image
        assert done.layer.model.version == str(writes + 2)
        assert [replica.image for replica in staged.target("staging").replicas()] == [
            done.digest
        ] * 2
        assert staged.cluster.answers("classifier-staging") == {done.digest}
        assert not pipeline.release(staged.context("staging")).changed
    assert writes > 8


# --- clusters that take no release


def remove_context(application: Application) -> None:
    """Remove the cluster from the kubeconfig."""
    application.machine.clusters.clear()


def stop_api_server(application: Application) -> None:
    """Make the API server unreachable."""
    application.cluster.failures["get", "ConfigMap"] = [
        ClusterUnreachable("no answer", on="memory", next="see whether it runs")
    ]


def expire_login(application: Application) -> None:
    """Let the credentials expire."""
    application.cluster.failures["get", "ConfigMap"] = [
        ClusterLogin("they have expired", on="memory", next="log in again")
    ]


def revoke_rights(application: Application) -> None:
    """Take all permissions from the account."""
    application.cluster.forbidden.add(("get", "ConfigMap"))


def remove_namespace(application: Application) -> None:
    """Remove the namespace."""
    application.cluster.missing = True


def release_to_cluster(application: Application) -> pipeline.ReleaseResult:
    """Release new code and a new model from a machine whose engine is stopped."""
    application.machine.running = False
    return pipeline.release(application.context("staging"))


def promote_to_cluster(application: Application) -> pipeline.ReleaseResult:
    """Promote what serves on the engine to a registry that does not have it."""
    return promotion.promote(application.context("production"), application.context("local"))


def roll_back_on_cluster(application: Application) -> pipeline.ReleaseResult:
    """Roll back from a machine whose engine and registry are stopped."""
    application.machine.running = False
    return pipeline.rollback(application.context("staging"), None, None)


@pytest.mark.parametrize("ask", [release_to_cluster, promote_to_cluster, roll_back_on_cluster])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (remove_context, ClusterUnknown),
        (stop_api_server, ClusterUnreachable),
        (expire_login, ClusterLogin),
        (revoke_rights, ClusterForbidden),
        (remove_namespace, NamespaceMissing),
    ],
)
def test_an_unusable_cluster_is_reported_first(
    released: Application,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Application], pipeline.ReleaseResult],
    spoil: Callable[[Application], None],
    error: type[ClusterError],
) -> None:
    """Nothing is started, fetched, built, checked or pushed before."""
    configure(monkeypatch, "staging", registry="127.0.0.1:5000")
    released.publish("2")
    released.write("app/main.py", "print('two')\n")
    spoil(released)
    before = released.state()
    with pytest.raises(error):
        ask(released)
    assert released.state() == before
    assert (released.store.streamed, released.engine.built, released.containers.images) == (
        [],
        [],
        [],
    )


def test_a_cluster_is_checked_once(released: Application) -> None:
    """A release to an engine checks no cluster."""
    pipeline.release(released.context("local"))
    assert released.machine.connections == []
    pipeline.release(released.context("staging"))
    assert released.cluster.requests.count(("get", "ConfigMap", ROOT_CA)) == 1
    assert released.cluster.requests[0] == ("get", "ConfigMap", ROOT_CA)
