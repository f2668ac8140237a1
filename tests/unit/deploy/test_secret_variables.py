"""Secrets of applications from end to end: who gets them, what changes with them, who sees them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from deploy import pipeline, promotion
from deploy.cli import commands
from deploy.errors import ReleaseError, SettingsInvalid, SmokeFailed
from deploy.machine.host import cache_folder
from deploy.machine.labels import ROLE
from deploy.plan import make_plan
from deploy.rollout.history import Only
from deploy.variables import Variables
from tests.fakes.application import Application
from tests.fakes.engine import Script
from tests.fakes.kubernetes.api_server import PodScript

ENVIRONMENTS = ("local", "staging")


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an environment whose replicas get a value and a secret."""
    name = str(request.param)
    prefix = f"TWINSHIP_ENVIRONMENTS__{name.upper()}"
    monkeypatch.setenv(f"{prefix}__ENV__MODE", "fast")
    monkeypatch.setenv(f"{prefix}__SECRETS__API_KEY", "KEY_OF_TODAY")
    monkeypatch.setenv("TWINSHIP_SMOKE__ENV__API_KEY", "stand-in")
    monkeypatch.setenv("KEY_OF_TODAY", "planted-1")
    return name


def given(secret: str) -> Variables:
    """Return the variables of a replica with that secret."""
    return Variables({"MODE": "fast"}, {"API_KEY": secret})


def why(application: Application, environment: str) -> str:
    """Return why a release would roll out."""
    steps = {step.stage: step for step in make_plan(application.context(environment))}
    assert steps["deploy"].runs
    return steps["deploy"].why


def test_a_changed_variable_is_a_rollout_of_the_same_image(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan has its name; the replicas are proven with it, and the smoke test with its own."""
    first = pipeline.release(application.context(environment))
    assert not pipeline.release(application.context(environment)).changed
    monkeypatch.setenv("KEY_OF_TODAY", "planted-2")
    assert why(application, environment) == "changed variables: API_KEY"
    application.play.variables.clear()
    done = pipeline.release(application.context(environment))
    assert done.changed
    assert done.rollout.attempt.release == first.rollout.attempt.release
    assert application.containers.environments == [{"API_KEY": "stand-in"}] * 2
    _, smoke, *proofs = application.play.variables
    assert smoke == Variables({"API_KEY": "stand-in"})
    assert proofs == [given("planted-2")] * len(proofs)
    assert application.target(environment).variables() == given("planted-2")


def test_a_plan_names_changed_variables_of_another_image(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are reasons."""
    pipeline.release(application.context(environment))
    application.publish("2")
    monkeypatch.delenv(f"TWINSHIP_ENVIRONMENTS__{environment.upper()}__ENV__MODE")
    assert why(application, environment) == (
        "release 1 serves another image; changed variables: MODE"
    )


def test_a_status_needs_no_secret(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do a proof of what serves, its history, and a rollback that finds its own."""
    pipeline.release(application.context(environment))
    monkeypatch.delenv("KEY_OF_TODAY")
    target = application.target(environment)
    assert target.serves(target.history()[-1].attempt.release)
    application.play.variables.clear()
    assert application.verify(environment).passed
    assert application.play.variables == [given("planted-1")]


@pytest.mark.parametrize("act", [pipeline.release, make_plan])
def test_a_secret_that_is_not_set_stops_a_release_before_any_work(
    application: Application,
    environment: str,
    monkeypatch: pytest.MonkeyPatch,
    act: object,
) -> None:
    """Variable and table are named."""
    monkeypatch.delenv("KEY_OF_TODAY")
    before = application.state()
    with pytest.raises(SettingsInvalid, match="KEY_OF_TODAY is not set") as caught:
        act(application.context(environment))  # type: ignore[operator]  # one of two functions
    assert caught.value.on == f"[environments.{environment}.secrets]"
    assert application.state() == before


def test_a_promotion_gives_the_variables_of_its_environment(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is the same, and a changed variable is a rollout there."""
    source = next(name for name in ENVIRONMENTS if name != environment)
    pipeline.release(application.context(source))
    for secret in ("planted-1", "planted-2"):
        monkeypatch.setenv("KEY_OF_TODAY", secret)
        contexts = (application.context(environment), application.context(source))
        assert promotion.promote(*contexts).changed
        assert application.target(environment).variables() == given(secret)
    assert not promotion.promote(
        application.context(environment), application.context(source)
    ).changed


def test_a_golden_case_that_names_a_missing_variable_stops_a_release(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in the smoke test, whose stand-in is missing, then at the environment."""
    application.publish("2", key="Key ${API_KEY}")
    monkeypatch.delenv("TWINSHIP_SMOKE__ENV__API_KEY")
    with pytest.raises(SettingsInvalid) as caught:
        pipeline.release(application.context(environment))
    assert "[smoke.env]" in caught.value.next
    monkeypatch.setenv("TWINSHIP_SMOKE__ENV__API_KEY", "stand-in")
    monkeypatch.delenv(f"TWINSHIP_ENVIRONMENTS__{environment.upper()}__SECRETS__API_KEY")
    with pytest.raises(SettingsInvalid) as caught:
        pipeline.release(application.context(environment))
    assert f"[environments.{environment}.env]" in caught.value.next
    assert application.target(environment).history() == ()


@pytest.mark.parametrize("only", [None, "model"])
def test_a_rollback_returns_to_the_variables_of_its_release_where_they_are(
    application: Application,
    environment: str,
    monkeypatch: pytest.MonkeyPatch,
    only: Only | None,
) -> None:
    """A Docker host no longer has them; with one half as it is now come those of now."""
    pipeline.release(application.context(environment))
    application.publish("2")
    monkeypatch.setenv("KEY_OF_TODAY", "planted-2")
    pipeline.release(application.context(environment))
    application.play.variables.clear()
    pipeline.rollback(application.context(environment), None, only)
    is_kept = environment == "staging" and only is None
    expected = given("planted-1" if is_kept else "planted-2")
    assert application.target(environment).variables() == expected
    assert application.play.variables[-1] == expected


def test_a_rollback_needs_a_secret_only_where_it_is_not_kept(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it does, nothing is changed without it."""
    pipeline.release(application.context(environment))
    application.publish("2")
    pipeline.release(application.context(environment))
    monkeypatch.delenv("KEY_OF_TODAY")
    context = application.context(environment)
    if environment == "staging":
        assert pipeline.rollback(context, None, None).changed
    else:
        with pytest.raises(SettingsInvalid, match="KEY_OF_TODAY is not set"):
            pipeline.rollback(context, None, None)
        assert len(application.target(environment).history()) == 2


# --- a planted secret


def fail(application: Application, environment: str) -> None:
    """Run a release that fails, and a command for each way to look at what is left."""
    with pytest.raises(ReleaseError) as caught:
        pipeline.release(application.context(environment))
    logging.getLogger("deploy.test").error("%s", caught.value, exc_info=caught.value)


def look(application: Application, environment: str) -> None:
    """Run each command that shows something."""
    for json_ in (False, True):
        commands.status(application.context(environment), check=False, json=json_)
        commands.history(application.context(environment), "", json=json_)
        commands.history(application.context(environment), "1", json=json_)
        commands.logs(application.context(environment), "", "", follow=False, json=json_)
        commands.verify(application.context(environment), json=json_)
        commands.doctor(application.context(environment), json=json_)
        commands.release(application.context(environment), "", dry_run=True, json=json_)
        commands.release(application.context(environment), "", dry_run=False, json=json_)
    if environment != "local":
        commands.render(application.context(environment), "")


def others_state(application: Application) -> str:
    """Return all that engine and cluster have, besides what replicas need."""
    containers = [
        (made.as_container(), made.spec.labels, made.log, made.spec.command)
        + (() if made.spec.labels.get(ROLE) == "replica" else (made.spec.environment,))
        for made in application.engine.all_containers.values()
    ]
    objects = [
        item
        for kind in ("ConfigMap", "Deployment", "ReplicaSet", "Pod", "Service", "Lease", "Event")
        for item in application.cluster.objects.find_all(kind)
    ]
    return f"{containers}{application.engine.volumes}{json.dumps(objects)}"


def files_below(folder: Path) -> str:
    """Return the content of all files of a folder."""
    return "".join(
        path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()
    )


def test_a_planted_secret_is_seen_by_replicas_alone(
    application: Application,
    environment: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever succeeds, fails or is shown: no output, log, file, record or label has it."""
    caplog.set_level(logging.DEBUG)
    application.publish("2", key="Key ${API_KEY}")
    pipeline.release(application.context(environment))
    look(application, environment)
    application.publish("3", key="Key ${API_KEY}")
    monkeypatch.setenv("KEY_OF_TODAY", "planted-2")
    look(application, environment)
    monkeypatch.setenv("KEY_OF_TODAY", "planted-3")
    application.publish("4", key="Key ${NO_KEY}")
    fail(application, environment)
    application.publish("5", key="${API_KEY}")
    image = application.create_image(environment)
    crash = Script(exits=3, says="the key planted-3 is not that of planted\nor so")
    application.script_container(image.config, crash)
    application.cluster.scripts[image.digest] = PodScript(**vars(crash))
    fail(application, environment)
    pipeline.rollback(application.context(environment), None, None)
    application.script_container(image.config, Script())
    del application.cluster.scripts[image.digest]
    look(application, environment)
    printed = capsys.readouterr()
    for text in (
        printed.out + printed.err,
        caplog.text,
        others_state(application),
        files_below(application.folder),
        files_below(cache_folder()),
    ):
        assert len(text) > 1000
        assert "planted-" not in text
        assert "cGxhbnRlZC" not in text
    assert os.environ["KEY_OF_TODAY"] == "planted-3"


def test_a_failed_smoke_test_names_what_its_container_lacks(
    application: Application, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual reason of a newcomer's first failure."""
    application.containers.alive = False
    application.play.problem = lambda: "no response"
    with pytest.raises(SmokeFailed) as caught:
        pipeline.release(application.context(environment))
    assert caught.value.next.endswith("[smoke.env], which lacks MODE")
