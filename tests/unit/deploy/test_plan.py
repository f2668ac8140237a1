"""What a release would do, found out by looking only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy import pipeline
from deploy.errors import ClusterUnknown, ModelUnknown, NamespaceMissing, SourceUnreadable
from deploy.plan import Step, make_plan
from deploy.settings.image import DEBIAN
from tests.fakes.application import PIPELINE, Application


def steps(application: Application, version: str = "latest") -> dict[str, Step]:
    """The plan's steps by stage."""
    return {step.stage: step for step in make_plan(application.context(), version)}


def runs(application: Application) -> list[str]:
    """The stages that would run."""
    return [stage for stage, step in steps(application).items() if step.runs]


def test_a_first_release_runs_everything(application: Application) -> None:
    """Each stage says why."""
    found = steps(application)
    assert runs(application) == ["fetch", "build", "smoke", "push", "deploy"]
    assert found["fetch"].why == "digits@1 is new here"
    assert found["fetch"].moves is not None
    assert found["fetch"].moves > 5000
    assert found["build"].why == "this machine has not built classifier yet"
    assert found["push"].why == "what the registry lacks is known after the build"
    assert found["deploy"].why == "nothing was released here yet"


def test_where_nothing_is_new_nothing_runs(released: Application) -> None:
    """Each stage says so."""
    found = steps(released)
    assert runs(released) == []
    assert found["deploy"].why == "release 1 serves exactly this image"


def test_a_new_model_is_moved_and_nothing_is_built(released: Application) -> None:
    """The bytes that will move are told."""
    released.publish("2", size=40_000)
    found = steps(released)
    assert runs(released) == ["fetch", "smoke", "push", "deploy"]
    assert found["fetch"].moves is not None
    assert 40_000 < found["fetch"].moves < 41_000
    assert found["deploy"].why == "release 1 serves another image"


def test_new_code_is_built_and_told_by_its_file(released: Application) -> None:
    """The model is here already."""
    released.write("app/main.py", "print('two')\n")
    assert runs(released) == ["build", "smoke", "push", "deploy"]
    assert "app/main.py changed" in steps(released)["build"].why


def test_what_the_registry_lacks_is_counted(released: Application) -> None:
    """Where the image is known already, what a push would move is known as well."""
    released.publish("2", size=40_000)
    context = released.context()
    layer = pipeline.fetch(context, "latest")
    step = steps(released)["push"]
    assert step.runs
    assert step.moves is not None
    assert layer.size < step.moves < layer.size + 5000
    pipeline.push(context, released.join())
    after = steps(released)["push"]
    assert (after.runs, after.why) == (False, "the registry has all of it")


def test_what_serves_no_more_is_released_again(released: Application) -> None:
    """The image is the same, but a replica is gone."""
    released.engine.stop(released.target().replicas()[0].name, 0)
    found = steps(released)
    assert found["deploy"].runs
    assert found["deploy"].why == "release 1 does not match the settings and object templates"
    assert found["smoke"].why == "this image is tried out again"


def test_a_machine_without_an_engine_is_told_what_up_would_do(application: Application) -> None:
    """The rest of the plan is made all the same."""
    application.architecture.running = False
    found = make_plan(application.context())
    assert (found[0].stage, found[0].runs) == ("up", True)
    assert found[0].why.startswith("container engine is missing")
    assert [step.stage for step in found if step.stage != "up"] == [
        "fetch",
        "build",
        "smoke",
        "push",
        "deploy",
    ]


def test_a_registry_that_is_not_up_yet_is_not_asked(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on this machine will be started by the release."""
    application.join()
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert steps(application)["push"].why == "the registry is not up yet"


def test_an_empty_store_will_get_the_sample(application: Application) -> None:
    """It is not made to find that out."""
    application.store.held.clear()
    application.write(
        "pipeline.toml", PIPELINE.format(base=DEBIAN, sample='sample = "nowhere:write"')
    )
    assert "the sample model will be made" in steps(application)["fetch"].why
    assert application.store.held == {}


def test_a_model_that_is_not_published_is_no_plan(application: Application) -> None:
    """What would stop a release stops its plan."""
    with pytest.raises(ModelUnknown):
        make_plan(application.context(), "7")


def test_code_that_cannot_be_read_is_no_plan(application: Application) -> None:
    """Nor can a release be made of files that are not there."""
    (application.folder / "Dockerfile").unlink()
    with pytest.raises(SourceUnreadable):
        make_plan(application.context())


def nothing(_: Application) -> None:
    """Leaves the application as it is."""


def new_model(application: Application) -> None:
    """Publishes another model."""
    application.publish("2")


def new_code(application: Application) -> None:
    """Changes the code."""
    application.write("app/main.py", "print('two')\n")


def no_engine(application: Application) -> None:
    """Stops the engine."""
    application.architecture.running = False


def lost_replica(application: Application) -> None:
    """Ends a replica."""
    application.engine.stop(application.target().replicas()[0].name, 0)


@pytest.mark.parametrize("change", [nothing, new_model, new_code, no_engine, lost_replica])
def test_planning_changes_nothing(
    released: Application, change: Callable[[Application], None]
) -> None:
    """Engine, registry, store and machine hold exactly what they held before, and no image was run."""
    change(released)
    released.trials.tried.clear()
    before = released.state()
    make_plan(released.context())
    assert released.state() == before
    assert released.trials.tried == []


@pytest.mark.parametrize("change", [nothing, new_code, no_engine])
def test_planning_a_first_release_changes_nothing(
    application: Application, change: Callable[[Application], None]
) -> None:
    """Not on a machine to which nothing was released, either."""
    change(application)
    before = application.state()
    make_plan(application.context())
    assert application.state() == before


# --- on a cluster


@pytest.fixture
def on_cluster(staged: Application) -> Application:
    """Released to the cluster, which is planned for from now on."""
    staged.environment = "staging"
    return staged


def test_a_first_release_to_a_cluster_runs_everything(application: Application) -> None:
    """As to an engine; what is there already says so."""
    application.environment = "staging"
    assert runs(application) == ["fetch", "build", "smoke", "push", "deploy"]
    assert steps(application)["deploy"].why == "nothing was released here yet"


def test_where_nothing_is_new_on_a_cluster_nothing_runs(on_cluster: Application) -> None:
    """A release has converged."""
    assert runs(on_cluster) == []
    assert steps(on_cluster)["deploy"].why == "release 1 serves exactly this image"


def test_a_new_model_for_a_cluster_is_moved(on_cluster: Application) -> None:
    """The registry it is moved to is the environment's."""
    on_cluster.publish("2", size=40_000)
    assert runs(on_cluster) == ["fetch", "smoke", "push", "deploy"]
    on_cluster.environment = "production"
    found = steps(on_cluster)
    assert found["push"].why == "what the registry lacks is known after the build"
    assert found["deploy"].why == "nothing was released here yet"


def test_new_settings_of_a_cluster_are_rolled_out(
    on_cluster: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is pushed for them."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__RESOURCES__MEMORY", "1Gi")
    assert runs(on_cluster) == ["smoke", "deploy"]


@pytest.mark.parametrize("environment", ["local", "staging"])
def test_images_that_shall_come_from_another_registry_are_pushed_there(
    application: Application, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """As the release will do it."""
    pipeline.release(application.context(environment))
    application.environment = environment
    monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment.upper()}__REGISTRY", "far.example")
    assert [stage for stage in runs(application) if stage in ("push", "deploy")] == [
        "push",
        "deploy",
    ]


def test_a_cluster_that_cannot_be_asked_is_no_plan(on_cluster: Application) -> None:
    """What serves there is what the plan goes by, so that it is asked before a store is looked into."""
    on_cluster.architecture.clusters.clear()
    with pytest.raises(ClusterUnknown):
        make_plan(on_cluster.context(), "7")


def test_a_namespace_that_is_missing_is_no_plan(on_cluster: Application) -> None:
    """A release there could not start, and `up` does not make one."""
    on_cluster.cluster.missing = True
    with pytest.raises(NamespaceMissing):
        make_plan(on_cluster.context(), "7")


def test_a_cluster_is_planned_for_by_its_own_kubeconfig(
    on_cluster: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is found from the application's folder, whoever asks."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__KUBECONFIG", "keys/shop.yaml")
    on_cluster.architecture.reached.clear()
    make_plan(on_cluster.context())
    assert {kubeconfig for kubeconfig, _, _ in on_cluster.architecture.reached} == {
        str(on_cluster.folder / "keys/shop.yaml")
    }


def lost_pod(application: Application) -> None:
    """Ends a replica on the cluster."""
    application.cluster.lose(application.target().replicas()[0].name)


@pytest.mark.parametrize("change", [nothing, new_model, new_code, no_engine, lost_pod])
def test_planning_for_a_cluster_changes_nothing(
    on_cluster: Application, change: Callable[[Application], None]
) -> None:
    """It is asked, and nothing is written; not even a lock is taken."""
    change(on_cluster)
    before = on_cluster.state()
    make_plan(on_cluster.context())
    assert on_cluster.state() == before
    assert on_cluster.written == []
