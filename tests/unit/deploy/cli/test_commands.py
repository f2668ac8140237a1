"""Between the command line and a stage: records in files, one line of result."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import pipeline
from deploy.cli import commands
from deploy.errors import GoldenMiss, InputMissing, ModelUnknown, SettingsInvalid
from tests.fakes.application import Application

Output = pytest.CaptureFixture[str]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder for records, which is not there yet."""
    return tmp_path / "ci" / "records"


def shown(output: Output) -> Any:
    """What was printed, as JSON."""
    return json.loads(output.readouterr().out)


# --- stages as steps of their own


def test_stages_hand_records_on_as_files(
    application: Application, records: Path, capsys: Output
) -> None:
    """Each in a process of its own, on a CI runner; each prints one line."""
    stages: tuple[Callable[[], None], ...] = (
        lambda: commands.fetch(application.context(), "", records),
        lambda: commands.build(application.context(), records),
        lambda: commands.smoke(application.context(), records),
        lambda: commands.push(application.context(), records),
        lambda: commands.deploy(application.context(), records, json=False),
    )
    for stage in stages:
        stage()
        assert len(capsys.readouterr().out.splitlines()) == 1
    assert sorted(path.name for path in records.iterdir()) == [
        "app.json",
        "image.json",
        "model.json",
        "release.json",
        "rollout.json",
    ]
    assert pipeline.verify(application.context()).passed


def test_results_name_what_came_of_a_stage(
    application: Application, records: Path, capsys: Output
) -> None:
    """The digest, by which everything after it goes."""
    site = application.context()
    commands.fetch(site, "digits@1", records)
    commands.build(site, records)
    commands.smoke(site, records)
    commands.push(site, records)
    lines = capsys.readouterr().out.splitlines()
    model, app, image, release = (
        json.loads((records / f"{name}.json").read_text())
        for name in ("model", "app", "image", "release")
    )
    assert lines == [
        f"digits@1 {model['digest']}",
        f"classifier unversioned-dirty {app['manifest']['digest']}",
        f"{image['manifest']['digest']} passed 1 golden case",
        f"registry.example/classifier@{release['image']['manifest']['digest']}",
    ]


@pytest.mark.parametrize(
    ("stage", "file", "writer"),
    [
        ("smoke", "app.json", "build"),
        ("push", "image.json", "smoke"),
        ("deploy", "release.json", "push"),
    ],
)
def test_a_stage_without_its_input_names_the_stage_that_writes_it(
    application: Application, records: Path, stage: str, file: str, writer: str
) -> None:
    """And the file that it looked for."""
    with pytest.raises(InputMissing) as caught:
        run_stage(stage, application, records)
    assert caught.value.on == str(records / file)
    assert f"`invoke {writer}`" in caught.value.next


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"name": "classifier"}', '{"image": {}, "more": 1}']
)
def test_a_file_that_is_not_the_record_is_refused(
    application: Application, records: Path, content: str
) -> None:
    """A record of another version, or half of one, is not guessed at."""
    records.mkdir(parents=True)
    (records / "image.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputMissing, match="not what that stage writes"):
        run_stage("push", application, records)


def test_records_of_another_application_are_refused(staged: Application, records: Path) -> None:
    """One application's images do not serve under the name of another; neither are they printed as if they did."""
    site = staged.context("staging")
    commands.fetch(site, "", records)
    commands.build(site, records)
    commands.smoke(site, records)
    commands.push(site, records)
    path = records / "release.json"
    theirs = json.loads(path.read_text(encoding="utf-8"))
    theirs["image"]["app"]["name"] = "other"
    path.write_text(json.dumps(theirs), encoding="utf-8")
    uses: list[Callable[[], None]] = [
        lambda: commands.deploy(site, records, json=True),
        lambda: commands.render(site, str(records)),
    ]
    for use in uses:
        with pytest.raises(InputMissing, match="records of another application: other") as caught:
            use()
        assert caught.value.on == str(path)
    assert len(site.view.history()) == 1


def run_stage(stage: str, application: Application, records: Path) -> None:
    """One stage by its name."""
    if stage == "deploy":
        commands.deploy(application.context(), records, json=True)
    else:
        {"smoke": commands.smoke, "push": commands.push}[stage](application.context(), records)


# --- whole stories


def test_a_release_ends_with_where_it_serves_and_a_prediction(
    application: Application, capsys: Output
) -> None:
    """One line that a person can read and a script can cut."""
    commands.release(application.context(), "", dry_run=False, json=False)
    assert capsys.readouterr().out == "http://127.0.0.1:8080  three → 3, 99.1 (12 ms)\n"


def test_a_release_as_json_tells_the_whole_story(application: Application, capsys: Output) -> None:
    """What serves, and how the golden cases went."""
    commands.release(application.context(), "digits", dry_run=False, json=True)
    told = shown(capsys)
    assert (told["outcome"], told["model"], told["changed"], told["golden"]["passed"]) == (
        "succeeded",
        "digits@1",
        True,
        True,
    )


def test_a_dry_run_prints_a_plan_and_changes_nothing(
    application: Application, capsys: Output
) -> None:
    """For people as a table, for scripts with the same content."""
    before = application.state()
    commands.release(application.context(), "", dry_run=True, json=False)
    table = capsys.readouterr().out.splitlines()
    commands.release(application.context(), "", dry_run=True, json=True)
    steps = shown(capsys)
    assert [line.split()[0] for line in table] == ["stage", *(step["stage"] for step in steps)]
    assert [step["stage"] for step in steps if step["stage"] != "up"] == [
        "fetch",
        "build",
        "smoke",
        "push",
        "deploy",
    ]
    assert application.state() == before


@pytest.mark.parametrize(
    ("named", "version"),
    [("digits@1", "1"), ("@1", "1"), ("digits", "2"), ("", "2"), ("digits@latest", "2")],
)
def test_a_model_is_named_with_or_without_its_version(
    application: Application, named: str, version: str, capsys: Output
) -> None:
    """Without one the latest is meant."""
    application.publish("2")
    commands.release(application.context(), named, dry_run=False, json=True)
    assert shown(capsys)["model"] == f"digits@{version}"


def test_another_model_than_the_applications_is_refused(application: Application) -> None:
    """An application serves one; the settings say which."""
    with pytest.raises(SettingsInvalid, match="serves 'digits', not 'imagenet'"):
        commands.release(application.context(), "imagenet@1", dry_run=False, json=False)


def test_a_rollback_prints_what_serves_then(released: Application, capsys: Output) -> None:
    """As a release does."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.rollback(released.context(), 0, "model", json=True)
    told = shown(capsys)
    assert (told["trigger"], told["model"], told["id"]) == ("rollback", "digits@1", 3)
    commands.rollback(released.context(), 2, "", json=False)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:8080  three")


def test_only_halves_that_there_are_can_be_taken_back(released: Application) -> None:
    """What was meant is asked, before anything changes."""
    before = released.state()
    with pytest.raises(SettingsInvalid, match="model or code, not 'wheels'"):
        commands.rollback(released.context(), 0, "wheels", json=False)
    assert released.state() == before


# --- several environments


def test_a_promotion_ends_with_where_it_serves_and_a_prediction(
    staged: Application, capsys: Output
) -> None:
    """As a release does; for scripts with the whole story."""
    commands.promote(staged.context("production"), staged.context("staging"), json=False)
    assert (
        capsys.readouterr().out
        == "http://fake/services/classifier-production:80  three → 3, 99.1 (12 ms)\n"
    )
    commands.promote(staged.context("production"), staged.context("staging"), json=True)
    told = shown(capsys)
    assert (told["trigger"], told["environment"], told["changed"], told["golden"]["passed"]) == (
        "promote",
        "production",
        False,
        True,
    )


def test_a_release_is_not_promoted_to_where_it_serves(staged: Application) -> None:
    """That is told before anything is asked."""
    with pytest.raises(SettingsInvalid, match="to where it serves"):
        commands.promote(staged.context("staging"), staged.context("staging"), json=False)
    assert staged.cluster.requests == []


@pytest.mark.parametrize(
    ("decide", "told"), [(commands.promote_canary, "3 succeeded"), (commands.abort, "2 undone")]
)
def test_what_becomes_of_a_canary_is_one_line(
    orphaned: Application, decide: Callable[..., None], told: str, capsys: Output
) -> None:
    """With the attempt's number."""
    decide(orphaned.context(), json=False)
    assert capsys.readouterr().out == f"http://fake/services/classifier-staging:80 release {told}\n"


@pytest.mark.parametrize(
    ("decide", "outcome", "why"),
    [(commands.promote_canary, "succeeded", ""), (commands.abort, "undone", "aborted by ada")],
)
def test_what_becomes_of_a_canary_is_told_to_scripts(
    orphaned: Application,
    monkeypatch: pytest.MonkeyPatch,
    decide: Callable[..., None],
    outcome: str,
    why: str,
    capsys: Output,
) -> None:
    """As the history has it."""
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    decide(orphaned.context(), json=True)
    found = shown(capsys)
    assert (found["model"], found["outcome"], found["why"]) == ("digits@2", outcome, why)


def test_status_names_a_canary_and_how_it_is_ended(orphaned: Application, capsys: Output) -> None:
    """Not as something that is broken."""
    commands.status(orphaned.context(), json=False)
    told = capsys.readouterr().out
    assert "release 2 by" in told
    assert re.search(r"is under way beside it: commit [\w-]+, model digits@2", told)
    assert told.splitlines()[-1] == "next: `invoke promote-canary` or `invoke abort` ends a canary"


def rendered(output: Output) -> dict[str, Any]:
    """The objects that were printed, by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all(output.readouterr().out)}


def image_of(objects: dict[str, Any]) -> str:
    """The image that rendered replicas run."""
    image: str = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_what_should_serve_is_rendered(staged: Application, capsys: Output) -> None:
    """All objects of the environment as they are applied, with the attempt that brought the release; nothing is changed."""
    commands.render(staged.context("staging"), "")
    objects = rendered(capsys)
    now = pipeline.current_rollout(staged.context("staging")).attempt
    assert objects.keys() == {"ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"}
    assert image_of(objects) == now.release.reference
    assert (
        json.loads(objects["Deployment"]["metadata"]["annotations"]["twinship.dev/release"])["id"]
        == 1
    )
    assert staged.written == []


def test_what_was_taken_back_is_not_rendered(staged: Application, capsys: Output) -> None:
    """Whoever applies what is printed must not bring it back."""
    first = pipeline.current_rollout(staged.context("staging")).attempt.release
    staged.publish("2")
    staged.play.wrong["http://fake/services/classifier-staging:80"] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    capsys.readouterr()
    commands.render(staged.context("staging"), "")
    assert image_of(rendered(capsys)) == first.reference


def test_where_nothing_ever_served_the_last_attempt_is_rendered(
    application: Application, capsys: Output
) -> None:
    """To see what the cluster would not take."""
    application.play.wrong["http://fake/services/classifier-staging:80"] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(application.context("staging"))
    capsys.readouterr()
    commands.render(application.context("staging"), "")
    assert (
        image_of(rendered(capsys))
        == application.context("staging").view.history()[0].attempt.release.reference
    )


@pytest.mark.parametrize("absolute", [True, False])
def test_a_pushed_release_is_rendered_from_its_record(
    application: Application, capsys: Output, absolute: bool
) -> None:
    """Before anything was released; the folder is found from the application's."""
    records = application.folder / "ci"
    site = application.context("staging")
    commands.fetch(site, "", records)
    commands.build(site, records)
    commands.smoke(site, records)
    commands.push(site, records)
    reference = capsys.readouterr().out.splitlines()[-1]
    commands.render(site, str(records) if absolute else "ci")
    objects = rendered(capsys)
    assert image_of(objects) == reference
    assert "twinship.dev/release" not in objects["Deployment"]["metadata"].get("annotations", {})


def test_without_a_release_there_is_nothing_to_render(
    application: Application, released: Application
) -> None:
    """Neither for an environment without history, nor from a folder without a record, nor for an engine."""
    with pytest.raises(InputMissing, match="no release to render") as caught:
        commands.render(application.context("staging"), "")
    assert caught.value.on == "environment staging"
    with pytest.raises(InputMissing, match="input is missing"):
        commands.render(application.context("staging"), "nowhere")
    with pytest.raises(SettingsInvalid, match="environment on a cluster"):
        commands.render(released.context("local"), "")


# --- looking


def test_history_is_told_to_people_and_scripts(released: Application, capsys: Output) -> None:
    """Newest first; the one that serves is marked."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.history(released.context(), json=True)
    assert [(told["id"], told["model"], told["outcome"]) for told in shown(capsys)] == [
        (2, "digits@2", "succeeded"),
        (1, "digits@1", "succeeded"),
    ]
    commands.history(released.context(), json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "2*", "1"]


def test_an_empty_history_is_told(application: Application, capsys: Output) -> None:
    """To scripts as an empty list."""
    commands.history(application.context(), json=True)
    assert shown(capsys) == []
    commands.history(application.context(), json=False)
    assert capsys.readouterr().out == "nothing was released here yet\n"


def test_status_tells_what_serves(released: Application, capsys: Output) -> None:
    """The release, its replicas, and that all is well."""
    commands.status(released.context(), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "http://127.0.0.1:8080  serving"
    assert "model digits@1" in lines[1]
    assert [line.split()[1] for line in lines[2:]] == ["serving", "serving"]
    commands.status(released.context(), json=True)
    assert shown(capsys)["healthy"] is True


def test_status_tells_what_is_not_as_it_should_be_and_the_cure(
    released: Application, capsys: Output
) -> None:
    """A replica that is gone, and an attempt that was taken back."""
    released.publish("2")
    released.play.wrong["http://127.0.0.1:8080"] = "expected 3, got 8"
    with pytest.raises(Exception, match="golden"):
        commands.release(released.context(), "", dry_run=False, json=False)
    released.engine.stop(released.context().view.replicas()[0].name, 0)
    commands.status(released.context(), json=False)
    told = capsys.readouterr().out
    assert "not as it should be" in told
    assert "the last attempt, 2, was undone: the release missed 1 of 1 golden cases" in told
    assert (
        told.splitlines()[-1]
        == "next: `invoke rollback --to 1` puts this release right, `invoke release` brings the newest"
    )


def test_status_tells_a_release_as_the_history_does(
    released: Application, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same commit, and the same time, as clocks here show it."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    commands.history(released.context(), json=False)
    row = capsys.readouterr().out.splitlines()[1].split()
    commands.status(released.context(), json=False)
    told = capsys.readouterr().out.splitlines()[1]
    monkeypatch.undo()
    time.tzset()
    assert told.startswith(f"release 1 by {row[3]} at {row[1]} {row[2]}: commit {row[5]}, model ")


def test_status_of_an_empty_environment_is_told(application: Application, capsys: Output) -> None:
    """To scripts with nothing that serves."""
    commands.status(application.context(), json=False)
    assert capsys.readouterr().out == "local: nothing was released here yet\n"
    commands.status(application.context(), json=True)
    assert shown(capsys)["serving"] is None


def test_a_cluster_is_told_as_an_engine_is(staged: Application, capsys: Output) -> None:
    """The same lines for people, the same keys for scripts."""
    commands.status(staged.context("staging"), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "http://fake/services/classifier-staging:80  serving"
    assert [line.split()[1] for line in lines[2:]] == ["serving", "serving"]
    commands.history(staged.context("staging"), json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "1*"]
    commands.status(staged.context("staging"), json=True)
    on_cluster = shown(capsys)
    commands.status(staged.context("local"), json=True)
    assert on_cluster.keys() == shown(capsys).keys()


def test_verifying_prints_the_answers(released: Application, capsys: Output) -> None:
    """One for people, all for scripts."""
    commands.verify(released.context(), json=False)
    assert capsys.readouterr().out == "http://127.0.0.1:8080  three → 3, 99.1 (12 ms)\n"
    commands.verify(released.context(), json=True)
    assert shown(capsys)["passed"] is True


# --- models


def test_published_versions_are_listed(application: Application, capsys: Output) -> None:
    """The latest is marked."""
    application.publish("2")
    commands.list_models(application.context(), json=True)
    assert [(told["version"], told["latest"]) for told in shown(capsys)] == [
        ("1", False),
        ("2", True),
    ]
    commands.list_models(application.context(), json=False)
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]][1] == [
        "digits",
        "2",
        "latest",
    ]


def test_a_manifest_is_shown_as_it_is_published(application: Application, capsys: Output) -> None:
    """That of the latest version, or of the one asked for."""
    commands.show_model(application.context(), "latest")
    assert (told := shown(capsys))["version"] == "1"
    assert told["files"]
    with pytest.raises(ModelUnknown):
        commands.show_model(application.context(), "7")


def test_a_folder_is_published(application: Application, capsys: Output) -> None:
    """Again is no error; the identity is printed."""
    commands.publish(application.context(), str(application.folder / "models" / "1"), "")
    name, digest = capsys.readouterr().out.split()
    assert (name, digest[:7]) == ("digits@1", "sha256:")


@pytest.mark.parametrize(("directory", "sample"), [("", ""), ("models/1", "1"), ("models/1", True)])
def test_publishing_needs_one_thing_to_publish(
    application: Application, directory: str, sample: str | bool
) -> None:
    """A folder or the sample, not both and not neither."""
    with pytest.raises(SettingsInvalid, match="say what to publish"):
        commands.publish(application.context(), directory, sample)


# --- the machine


def test_the_doctor_prints_what_is_missing_with_its_cure(
    application: Application, capsys: Output
) -> None:
    """A line a part, for scripts with the same content."""
    application.architecture.running = False
    commands.doctor(application.context(), json=False)
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "missing" in lines["container engine"]
    assert "invoke up" in lines["container engine"]
    assert lines["registry"].split()[1:] == ["ok", "registry.example"]
    commands.doctor(application.context(), json=True)
    told = {check["part"]: check for check in shown(capsys)}
    assert (told["container engine"]["ok"], told["registry"]["ok"]) == (False, True)


def test_the_doctor_looks_at_the_cluster_of_an_environment(
    application: Application, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """By a kubeconfig that is found from the application's folder, and only at that of the environment it is asked about."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__KUBECONFIG", "keys/shop.yaml")
    for environment, expected in (("staging", True), ("local", False)):
        commands.doctor(application.context(environment), json=True)
        found = {check["part"]: check["found"] for check in shown(capsys)}
        assert ("cluster" in found) is expected
    assert application.architecture.reached == [
        (str(application.folder / "keys/shop.yaml"), "", "shop")
    ]


def test_up_and_down_say_what_they_did(application: Application, capsys: Output) -> None:
    """And down says it when there was nothing to do."""
    commands.up(application.context())
    assert capsys.readouterr().out == "ready: Docker 0.0, registry registry.example\n"
    pipeline.release(application.context())
    commands.down(application.context(), purge=False)
    assert capsys.readouterr().out.startswith("stopped: twinship-classifier-local-1, ")
    commands.down(application.context(), purge=False)
    assert capsys.readouterr().out == "nothing was running\n"
