"""The plan of a release, which changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy import pipeline
from deploy.errors import ClusterUnknown, ModelUnknown, NamespaceMissing, SourceUnreadable
from deploy.plan import Step, make_plan
from deploy.settings.image import DEBIAN
from deploy.targets.kubernetes.render import RELEASE_ANNOTATION
from tests.fakes.application import PIPELINE, Application
from tests.fakes.deployers import Killed, mortal


def plan_steps(application: Application, version: str = "latest") -> dict[str, Step]:
    """Return the steps of the plan by stage."""
    return {step.stage: step for step in make_plan(application.context(), version)}


def stages_to_run(application: Application) -> list[str]:
    """Return the stages that would run."""
    return [stage for stage, step in plan_steps(application).items() if step.runs]


def test_a_first_release_runs_all_stages(application: Application) -> None:
    """Each stage gives its reason."""
    found = plan_steps(application)
    assert stages_to_run(application) == ["fetch", "build", "smoke", "push", "deploy"]
    assert found["fetch"].why == "digits@1 is new here"
    assert found["fetch"].moves is not None
    assert found["fetch"].moves > 5000
    assert found["build"].why == "this machine has not built classifier yet"
    assert found["push"].why == "what the registry lacks is known after the build"
    assert found["deploy"].why == "nothing was released here yet"


def test_no_stage_runs_without_changes(released: Application) -> None:
    """Each stage gives its reason."""
    found = plan_steps(released)
    assert stages_to_run(released) == []
    assert found["deploy"].why == "release 1 serves exactly this image"


def test_a_new_model_is_moved_and_nothing_is_built(released: Application) -> None:
    """The step has the number of bytes."""
    released.publish("2", size=40_000)
    found = plan_steps(released)
    assert stages_to_run(released) == ["fetch", "smoke", "push", "deploy"]
    assert found["fetch"].moves is not None
    assert 40_000 < found["fetch"].moves < 41_000
    assert found["deploy"].why == "release 1 serves another image"


def test_new_code_is_built(released: Application) -> None:
    """The reason names the changed file, and the model is not fetched."""
    released.write("app/main.py", "print('two')\n")
    assert stages_to_run(released) == ["build", "smoke", "push", "deploy"]
    assert "app/main.py changed" in plan_steps(released)["build"].why


def test_missing_blobs_are_counted(released: Application) -> None:
    """If the image is known already, the size of its push is known too."""
    released.publish("2", size=40_000)
    context = released.context()
    layer = pipeline.fetch(context, "latest")
    step = plan_steps(released)["push"]
    assert step.runs
    assert step.moves is not None
    assert layer.size < step.moves < layer.size + 5000
    pipeline.push(context, released.create_image())
    after = plan_steps(released)["push"]
    assert (after.runs, after.why) == (False, "the registry has all of it")


def test_a_lost_replica_is_released_again(released: Application) -> None:
    """The image is the same."""
    released.engine.stop(released.target().replicas()[0].name, 0)
    found = plan_steps(released)
    assert found["deploy"].runs
    assert found["deploy"].why == "release 1 does not match the settings and object templates"
    assert found["smoke"].why == "this image is tried out again"


def test_a_missing_engine_is_a_step_of_the_plan(application: Application) -> None:
    """The other steps are planned too."""
    application.machine.running = False
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
    """The release will start a local registry."""
    application.create_image()
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert plan_steps(application)["push"].why == "the registry is not up yet"


def test_an_empty_store_will_get_the_sample(application: Application) -> None:
    """The plan does not publish it."""
    application.store.files.clear()
    application.write(
        "pipeline.toml", PIPELINE.format(base=DEBIAN, sample='sample = "nowhere:write"')
    )
    assert "the sample model will be made" in plan_steps(application)["fetch"].why
    assert application.store.files == {}


def test_an_unknown_model_is_an_error(application: Application) -> None:
    """Whatever stops a release stops its plan."""
    with pytest.raises(ModelUnknown):
        make_plan(application.context(), "7")


def test_code_that_cannot_be_read_is_an_error(application: Application) -> None:
    """Whatever stops a release stops its plan."""
    (application.folder / "Dockerfile").unlink()
    with pytest.raises(SourceUnreadable):
        make_plan(application.context())


def change_nothing(_: Application) -> None:
    """Leave the application as it is."""


def publish_model(application: Application) -> None:
    """Publish another model."""
    application.publish("2")


def change_code(application: Application) -> None:
    """Change the code."""
    application.write("app/main.py", "print('two')\n")


def stop_engine(application: Application) -> None:
    """Stop the engine."""
    application.machine.running = False


def stop_replica(application: Application) -> None:
    """Stop a replica."""
    application.engine.stop(application.target().replicas()[0].name, 0)


@pytest.mark.parametrize(
    "change", [change_nothing, publish_model, change_code, stop_engine, stop_replica]
)
def test_a_plan_changes_nothing(
    released: Application, change: Callable[[Application], None]
) -> None:
    """All fakes have the same state as before, and no image was run."""
    change(released)
    released.containers.images.clear()
    before = released.state()
    make_plan(released.context())
    assert released.state() == before
    assert released.containers.images == []


@pytest.mark.parametrize("change", [change_nothing, change_code, stop_engine])
def test_a_plan_of_a_first_release_changes_nothing(
    application: Application, change: Callable[[Application], None]
) -> None:
    """All fakes have the same state as before."""
    change(application)
    before = application.state()
    make_plan(application.context())
    assert application.state() == before


# --- on a cluster


@pytest.fixture
def on_cluster(staged: Application) -> Application:
    """Return an application released to `staging`, which is planned for."""
    staged.environment = "staging"
    return staged


def test_a_first_release_to_a_cluster_runs_all_stages(application: Application) -> None:
    """The plan is the same as for an engine."""
    application.environment = "staging"
    assert stages_to_run(application) == ["fetch", "build", "smoke", "push", "deploy"]
    assert plan_steps(application)["deploy"].why == "nothing was released here yet"


def test_no_stage_runs_for_a_cluster_without_changes(on_cluster: Application) -> None:
    """The plan is the same as for an engine."""
    assert stages_to_run(on_cluster) == []
    assert plan_steps(on_cluster)["deploy"].why == "release 1 serves exactly this image"


def test_a_new_model_for_a_cluster_is_moved(on_cluster: Application) -> None:
    """The push goes to the registry of the environment."""
    on_cluster.publish("2", size=40_000)
    assert stages_to_run(on_cluster) == ["fetch", "smoke", "push", "deploy"]
    on_cluster.environment = "production"
    found = plan_steps(on_cluster)
    assert found["push"].why == "what the registry lacks is known after the build"
    assert found["deploy"].why == "nothing was released here yet"


def test_new_settings_of_a_cluster_are_rolled_out(
    on_cluster: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is pushed for them."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__RESOURCES__MEMORY", "1Gi")
    assert stages_to_run(on_cluster) == ["smoke", "deploy"]


def test_an_unfinished_rollout_is_rolled_out_again(
    on_cluster: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `invoke release` does it, though all replicas are as the settings say."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__RESOURCES__MEMORY", "1Gi")

    def is_end(operation: str) -> bool:
        deployment = on_cluster.cluster.objects.get("Deployment", "classifier-staging") or {}
        annotations = deployment["metadata"]["annotations"]
        ready = deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"]
        return operation == "replace" and ready and '"id":2,' in annotations[RELEASE_ANNOTATION]

    with mortal(on_cluster, "staging", is_end), pytest.raises(Killed):
        pipeline.release(on_cluster.context())
    assert (
        on_cluster.context()
        .inspect_target()
        .serves(on_cluster.context().inspect_target().history()[-1].attempt.release)
    )
    assert plan_steps(on_cluster)["deploy"].why == "release 2 is unfinished"
    assert stages_to_run(on_cluster) == ["smoke", "deploy"]


@pytest.mark.parametrize("environment", ["local", "staging"])
def test_a_new_registry_gets_the_image(
    application: Application, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """The plan says what the release will do."""
    pipeline.release(application.context(environment))
    application.environment = environment
    monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__{environment.upper()}__REGISTRY", "far.example")
    assert [stage for stage in stages_to_run(application) if stage in ("push", "deploy")] == [
        "push",
        "deploy",
    ]


def test_an_unreachable_cluster_is_an_error(on_cluster: Application) -> None:
    """The plan depends on what serves there, so the cluster is asked before the store."""
    on_cluster.machine.clusters.clear()
    with pytest.raises(ClusterUnknown):
        make_plan(on_cluster.context(), "7")


def test_a_missing_namespace_is_an_error(on_cluster: Application) -> None:
    """A release could not start, and `up` does not create a namespace."""
    on_cluster.cluster.missing = True
    with pytest.raises(NamespaceMissing):
        make_plan(on_cluster.context(), "7")


def test_the_plan_uses_the_kubeconfig_of_the_environment(
    on_cluster: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is relative to the application's folder."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__KUBECONFIG", "keys/shop.yaml")
    on_cluster.machine.connections.clear()
    make_plan(on_cluster.context())
    assert {kubeconfig for kubeconfig, _, _ in on_cluster.machine.connections} == {
        str(on_cluster.folder / "keys/shop.yaml")
    }


def remove_pod(application: Application) -> None:
    """Remove a replica from the cluster."""
    application.cluster.lose(application.target().replicas()[0].name)


@pytest.mark.parametrize(
    "change", [change_nothing, publish_model, change_code, stop_engine, remove_pod]
)
def test_a_plan_for_a_cluster_changes_nothing(
    on_cluster: Application, change: Callable[[Application], None]
) -> None:
    """The cluster is only read, and the lock is not acquired."""
    change(on_cluster)
    before = on_cluster.state()
    make_plan(on_cluster.context())
    assert on_cluster.state() == before
    assert on_cluster.cluster_writes == []
