"""The commands: records in files, and one line of result."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import pipeline
from deploy.cli import commands
from deploy.errors import (
    GoldenMiss,
    InputMissing,
    ManifestInvalid,
    ModelUnknown,
    NotServing,
    ReleaseUnknown,
    SettingsInvalid,
)
from deploy.targets.docker.state import DockerState
from tests.fakes.application import Application
from tests.fakes.engine import Script

Output = pytest.CaptureFixture[str]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a folder for records, which does not exist yet."""
    return tmp_path / "ci" / "records"


def read_json(output: Output) -> Any:
    """Return what was printed, parsed as JSON."""
    return json.loads(output.readouterr().out)


# --- stages as steps of their own


def test_stages_pass_records_as_files(
    application: Application, records: Path, capsys: Output
) -> None:
    """Each stage can run in a process of its own, and prints one line."""
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
    assert application.verify().passed


def test_results_name_digests(application: Application, records: Path, capsys: Output) -> None:
    """Later stages identify their input by its digest."""
    context = application.context()
    commands.fetch(context, "digits@1", records)
    commands.build(context, records)
    commands.smoke(context, records)
    commands.push(context, records)
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
    """The error names the missing file too."""
    with pytest.raises(InputMissing) as caught:
        run_stage(stage, application, records)
    assert caught.value.on == str(records / file)
    assert f"`invoke {writer}`" in caught.value.next


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"name": "classifier"}', '{"image": {}, "more": 1}']
)
def test_a_file_that_is_no_record_is_refused(
    application: Application, records: Path, content: str
) -> None:
    """Incomplete records and those of other versions are not used."""
    records.mkdir(parents=True)
    (records / "image.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputMissing, match="not what that stage writes"):
        run_stage("push", application, records)


def test_records_of_another_application_are_refused(staged: Application, records: Path) -> None:
    """An image does not serve, and is not rendered, under another application's name."""
    context = staged.context("staging")
    commands.fetch(context, "", records)
    commands.build(context, records)
    commands.smoke(context, records)
    commands.push(context, records)
    path = records / "release.json"
    theirs = json.loads(path.read_text(encoding="utf-8"))
    theirs["image"]["app"]["name"] = "other"
    path.write_text(json.dumps(theirs), encoding="utf-8")
    uses: list[Callable[[], None]] = [
        lambda: commands.deploy(context, records, json=True),
        lambda: commands.render(context, str(records)),
    ]
    for use in uses:
        with pytest.raises(InputMissing, match="records of another application: other") as caught:
            use()
        assert caught.value.on == str(path)
    assert len(staged.target("staging").history()) == 1


@pytest.mark.parametrize(
    "repository",
    ["evil.example/classifier", "registry.example:5000/classifier", "registry.example/other"],
)
def test_records_of_another_repository_are_refused(
    staged: Application, records: Path, repository: str
) -> None:
    """The environment's password would go to the host that a record names."""
    pushed = staged.current("staging").attempt.release
    record = pushed.model_copy(update={"repository": repository})
    records.mkdir(parents=True)
    path = records / "release.json"
    path.write_text(record.to_json(), encoding="utf-8")
    context = staged.context("staging")
    staged.clear_records()
    uses: list[Callable[[], None]] = [
        lambda: commands.deploy(context, records, json=True),
        lambda: commands.render(context, str(records)),
    ]
    for use in uses:
        with pytest.raises(InputMissing, match=f"another repository: {repository}") as caught:
            use()
        assert caught.value.on == str(path)
    assert staged.cluster_writes == []


def run_stage(stage: str, application: Application, records: Path) -> None:
    """Run one stage by its name."""
    if stage == "deploy":
        commands.deploy(application.context(), records, json=True)
    else:
        {"smoke": commands.smoke, "push": commands.push}[stage](application.context(), records)


# --- whole stories


def test_a_release_prints_its_address_and_a_prediction(
    application: Application, capsys: Output
) -> None:
    """It is one line, for people and scripts."""
    commands.release(application.context(), "", dry_run=False, json=False)
    assert capsys.readouterr().out == "http://127.0.0.1:8080  three → 3, 99.1 (12 ms)\n"


def test_a_release_prints_its_rollout_and_golden_cases_as_json(
    application: Application, capsys: Output
) -> None:
    """The rollout and the golden cases are in one document."""
    commands.release(application.context(), "digits", dry_run=False, json=True)
    printed = read_json(capsys)
    assert (
        printed["outcome"],
        printed["model"],
        printed["changed"],
        printed["golden"]["passed"],
    ) == (
        "succeeded",
        "digits@1",
        True,
        True,
    )


def test_a_dry_run_prints_a_plan_and_changes_nothing(
    application: Application, capsys: Output
) -> None:
    """The table for people and the JSON for scripts have the same content."""
    before = application.state()
    commands.release(application.context(), "", dry_run=True, json=False)
    table = capsys.readouterr().out.splitlines()
    commands.release(application.context(), "", dry_run=True, json=True)
    steps = read_json(capsys)
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
    """The latest version is the default."""
    application.publish("2")
    commands.release(application.context(), named, dry_run=False, json=True)
    assert read_json(capsys)["model"] == f"digits@{version}"


def test_another_model_is_refused(application: Application) -> None:
    """The settings say which model an application serves."""
    with pytest.raises(SettingsInvalid, match="serves 'digits', not 'imagenet'"):
        commands.release(application.context(), "imagenet@1", dry_run=False, json=False)


def test_a_rollback_prints_what_serves_afterwards(released: Application, capsys: Output) -> None:
    """The output is the same as that of a release."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.rollback(released.context(), "", "model", json=True)
    printed = read_json(capsys)
    assert (printed["trigger"], printed["model"], printed["id"]) == ("rollback", "digits@1", 3)
    commands.rollback(released.context(), "2", "", json=False)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:8080  three")


def test_only_model_or_code_can_be_rolled_back_alone(released: Application) -> None:
    """Another word is refused before anything changes."""
    before = released.state()
    with pytest.raises(SettingsInvalid, match="model or code, not 'wheels'"):
        commands.rollback(released.context(), "", "wheels", json=False)
    assert released.state() == before


# --- several environments


def test_a_promotion_prints_its_address_and_a_prediction(
    staged: Application, capsys: Output
) -> None:
    """The output is the same as that of a release."""
    commands.promote(staged.context("production"), staged.context("staging"), json=False)
    assert (
        capsys.readouterr().out
        == "http://fake/services/classifier-production:80  three → 3, 99.1 (12 ms)\n"
    )
    commands.promote(staged.context("production"), staged.context("staging"), json=True)
    printed = read_json(capsys)
    assert (
        printed["trigger"],
        printed["environment"],
        printed["changed"],
        printed["golden"]["passed"],
    ) == (
        "promote",
        "production",
        False,
        True,
    )


def test_a_release_is_not_promoted_to_its_own_environment(staged: Application) -> None:
    """The error comes before any request to the cluster."""
    with pytest.raises(SettingsInvalid, match="to where it serves"):
        commands.promote(staged.context("staging"), staged.context("staging"), json=False)
    assert staged.cluster.requests == []


@pytest.mark.parametrize(
    ("decide", "printed"), [(commands.promote_canary, "3 succeeded"), (commands.abort, "2 undone")]
)
def test_a_decision_on_a_canary_prints_one_line(
    orphaned: Application, decide: Callable[..., None], printed: str, capsys: Output
) -> None:
    """The line has the number of the attempt."""
    decide(orphaned.context(), json=False)
    assert (
        capsys.readouterr().out == f"http://fake/services/classifier-staging:80 release {printed}\n"
    )


@pytest.mark.parametrize(
    ("decide", "outcome", "why"),
    [(commands.promote_canary, "succeeded", ""), (commands.abort, "undone", "aborted by ada")],
)
def test_a_decision_on_a_canary_prints_json(
    orphaned: Application,
    monkeypatch: pytest.MonkeyPatch,
    decide: Callable[..., None],
    outcome: str,
    why: str,
    capsys: Output,
) -> None:
    """The document is the same as in the history."""
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    decide(orphaned.context(), json=True)
    found = read_json(capsys)
    assert (found["model"], found["outcome"], found["why"]) == ("digits@2", outcome, why)


def test_status_names_a_canary_and_the_next_commands(orphaned: Application, capsys: Output) -> None:
    """A canary on hold is not reported as a failure."""
    commands.status(orphaned.context(), check=False, json=False)
    printed = capsys.readouterr().out
    assert "release 2 by" in printed
    assert re.search(r"is in progress: commit [\w-]+, model digits@2", printed)
    assert (
        printed.splitlines()[-1] == "next: `invoke promote-canary` or `invoke abort` ends a canary"
    )


def read_objects(output: Output) -> dict[str, Any]:
    """Return the objects that were printed, by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all(output.readouterr().out)}


def image_of(objects: dict[str, Any]) -> str:
    """Return the image of rendered replicas."""
    image: str = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_the_current_release_is_rendered(staged: Application, capsys: Output) -> None:
    """All objects are printed as they are applied, with the release's attempt; nothing changes."""
    commands.render(staged.context("staging"), "")
    objects = read_objects(capsys)
    now = staged.current("staging").attempt
    assert objects.keys() == {"ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"}
    assert image_of(objects) == now.release.reference
    assert (
        json.loads(objects["Deployment"]["metadata"]["annotations"]["twinship.dev/release"])["id"]
        == 1
    )
    assert staged.cluster_writes == []


def test_an_undone_release_is_not_rendered(staged: Application, capsys: Output) -> None:
    """The printed objects can be applied safely."""
    first = staged.current("staging").attempt.release
    staged.publish("2")
    staged.play.wrong["http://fake/services/classifier-staging:80"] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(staged.context("staging"))
    capsys.readouterr()
    commands.render(staged.context("staging"), "")
    assert image_of(read_objects(capsys)) == first.reference


def test_the_last_attempt_is_rendered_if_none_succeeded(
    application: Application, capsys: Output
) -> None:
    """It shows what the cluster refused."""
    application.play.wrong["http://fake/services/classifier-staging:80"] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(application.context("staging"))
    capsys.readouterr()
    commands.render(application.context("staging"), "")
    assert (
        image_of(read_objects(capsys))
        == application.target("staging").history()[0].attempt.release.reference
    )


@pytest.mark.parametrize("absolute", [True, False])
def test_a_pushed_release_is_rendered_from_its_record(
    application: Application, capsys: Output, absolute: bool
) -> None:
    """A relative folder is found from the application's folder."""
    records = application.folder / "ci"
    context = application.context("staging")
    commands.fetch(context, "", records)
    commands.build(context, records)
    commands.smoke(context, records)
    commands.push(context, records)
    reference = capsys.readouterr().out.splitlines()[-1]
    commands.render(context, str(records) if absolute else "ci")
    objects = read_objects(capsys)
    assert image_of(objects) == reference
    assert "twinship.dev/release" not in objects["Deployment"]["metadata"].get("annotations", {})


def test_nothing_is_rendered_without_a_release_or_a_cluster(
    application: Application, released: Application
) -> None:
    """Each error says what is missing."""
    with pytest.raises(InputMissing, match="no release to render") as caught:
        commands.render(application.context("staging"), "")
    assert caught.value.on == "environment staging"
    with pytest.raises(InputMissing, match="input is missing"):
        commands.render(application.context("staging"), "nowhere")
    with pytest.raises(SettingsInvalid, match="environment on a cluster"):
        commands.render(released.context("local"), "")


# --- looking


def test_the_history_is_printed_newest_first(released: Application, capsys: Output) -> None:
    """A star marks the current release."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.history(released.context(), "", json=True)
    assert [
        (printed["id"], printed["model"], printed["outcome"]) for printed in read_json(capsys)
    ] == [
        (2, "digits@2", "succeeded"),
        (1, "digits@1", "succeeded"),
    ]
    commands.history(released.context(), "", json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "2*", "1"]


@pytest.fixture
def undone(released: Application, capsys: Output) -> Application:
    """Return the application after a release that missed a golden case and was undone."""
    released.publish("2")
    released.play.wrong["http://127.0.0.1:8080"] = "expected 3, got 8"
    image = released.create_image()
    released.script_container(image.config, Script(says="loading\nread \x1b[31mno labels"))
    with pytest.raises(GoldenMiss):
        commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    return released


def test_the_history_of_one_release_says_why_it_was_undone(
    undone: Application, capsys: Output
) -> None:
    """It has the golden cases that it missed, and the last lines of its replicas."""
    commands.history(undone.context(), "2", json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("release 2 by ")
    assert re.match(r"undone at [\d :-]+: the release missed 1 of 1 golden cases", lines[1])
    assert lines[2:4] == ["golden cases that it missed:", "  three: expected 3, got 8"]
    assert lines[4] == "the last lines of its replicas:"
    assert re.fullmatch(r"  local-\d  [\d-]+ [\d:]+  read \\x1b\[31mno labels", lines[-1])
    commands.history(undone.context(), "2", json=True)
    found = read_json(capsys)
    assert found["misses"] == {"three": "expected 3, got 8"}
    assert {line["text"] for line in found["log"]} == {"loading", "read \\x1b[31mno labels"}


def test_the_history_of_one_release_that_succeeded_is_two_lines(
    released: Application, capsys: Output
) -> None:
    """There is nothing to explain."""
    commands.history(released.context(), "1", json=False)
    assert len(capsys.readouterr().out.splitlines()) == 2


# --- logs


def test_logs_are_printed_with_the_names_of_their_writers(
    undone: Application, capsys: Output
) -> None:
    """Replicas, proxy, and what was kept of the release that was undone."""
    target = DockerState(undone.engine, "classifier", "local")
    undone.engine.write(target.proxy_name, "192.0.2.1 GET / 200")
    commands.logs(undone.context(), "", "", follow=False, json=False)
    lines = capsys.readouterr().out.splitlines()
    names = {re.split(r" {2,}", line)[0] for line in lines}
    assert "proxy" in names
    assert any(re.fullmatch(r"local-\d of 2", name) for name in names)
    assert all(re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)


def test_logs_as_json_are_one_object_a_line(undone: Application, capsys: Output) -> None:
    """So a script can read them as they come."""
    commands.logs(undone.context(), "2", "1h", follow=False, json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["text"] for line in found} == {"loading", "read \\x1b[31mno labels"}
    assert all(line.keys() == {"at", "source", "text"} for line in found)


def test_control_characters_of_a_log_are_not_printed(released: Application, capsys: Output) -> None:
    """Clients choose some of what an application logs."""
    name = released.target().replicas()[0].name
    released.engine.write(name, "\x1b]0;title\x07", "##vso[task.complete]", "a\rb")
    for json_ in (True, False):
        commands.logs(released.context(), "", "", follow=False, json=json_)
        printed = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\r"} & set(printed)
        assert "##vso" not in printed


def test_logs_without_a_line_print_nothing(
    released: Application, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    """Standard error says so."""
    with caplog.at_level("INFO"):
        commands.logs(released.context(), "1", "", follow=False, json=False)
    assert capsys.readouterr().out == ""
    assert "there are no such lines" in caplog.text


def test_logs_are_followed_until_an_interruption(released: Application, capsys: Output) -> None:
    """What is written meanwhile is printed once."""
    name = released.target().replicas()[0].name
    released.engine.write(name, "before")
    written = iter(["after"])

    def sleep(_: float) -> None:
        line = next(written, None)
        if line is None:
            raise KeyboardInterrupt
        released.engine.write(name, line)

    released.clock = replace(released.clock, sleep=sleep)
    with pytest.raises(KeyboardInterrupt):
        commands.logs(released.context(), "", "", follow=True, json=False)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == [
        "before",
        "after",
    ]


def test_logs_of_a_cluster_are_those_of_its_pods(staged: Application, capsys: Output) -> None:
    """By their names without the application's."""
    (first, *_) = staged.target("staging").replicas()
    pod = staged.cluster.objects.get("Pod", first.name)
    assert pod
    staged.cluster.kubelet.write(pod, "listening")
    commands.logs(staged.context("staging"), "1", "", follow=False, json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == "listening"
    assert f"classifier-staging-{json.loads(line)['source']}" == first.name


def test_logs_need_no_login(
    released: Application, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The registry is not asked."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__USERNAME", "ada")
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__PASSWORD", "NOT_SET_HERE")
    released.engine.write(released.target().replicas()[0].name, "serving")
    commands.logs(released.context(), "", "", follow=False, json=False)
    assert "serving" in capsys.readouterr().out


# --- comparisons


def test_two_releases_are_printed_side_by_side(released: Application, capsys: Output) -> None:
    """What is the same has one sign, and what is not known is said."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.diff(released.context(), "1", "2", json=False)
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split(r" {2,}", line) for line in lines]
    assert lines[0].split() == ["1", "2"]
    assert ["model", "digits@1", "digits@2"] in cells
    assert ["golden three", "status 200", "="] in cells
    assert lines[-3:] == [
        "not known:",
        "  the code of release 1: it is unversioned",
        "  the code of release 2: it is unversioned",
    ]
    commands.diff(released.context(), "1", "2", json=True)
    found = read_json(capsys)
    assert (found["first"]["id"], found["second"]["id"]) == (1, 2)
    assert {"what": "model", "first": "digits@1", "second": "digits@2"} in found["values"]


def test_a_release_that_never_was_cannot_be_compared(released: Application) -> None:
    """The error says where the ids are."""
    with pytest.raises(ReleaseUnknown, match="no release 7"):
        commands.diff(released.context(), "1", "7", json=False)


def test_an_empty_history_is_printed(application: Application, capsys: Output) -> None:
    """For scripts it is an empty list."""
    commands.history(application.context(), "", json=True)
    assert read_json(capsys) == []
    commands.history(application.context(), "", json=False)
    assert capsys.readouterr().out == "nothing was released here yet\n"


def test_status_prints_what_serves(released: Application, capsys: Output) -> None:
    """It has the address, the release and all replicas."""
    commands.status(released.context(), check=False, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "http://127.0.0.1:8080  serving, 2 of 2 replicas"
    assert "model digits@1" in lines[1]
    assert [line.split()[1] for line in lines[2:]] == ["serving", "serving"]
    commands.status(released.context(), check=False, json=True)
    assert read_json(capsys)["healthy"] is True


def test_status_prints_why_the_endpoint_does_not_respond(
    released: Application, capsys: Output
) -> None:
    """A release opens the port again."""
    proxy = DockerState(released.engine, "classifier", "local").proxy_name
    released.engine.end_forwarder(proxy)
    commands.status(released.context(), check=False, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "http://127.0.0.1:8080  unhealthy, 2 of 2 replicas"
    assert lines[2] == "the endpoint refuses connections"
    assert lines[-1].startswith("next: ")
    commands.status(released.context(), check=False, json=True)
    found = read_json(capsys)
    assert (found["healthy"], found["problem"]) == (False, "the endpoint refuses connections")
    commands.release(released.context(), "", dry_run=False, json=False)
    capsys.readouterr()
    commands.status(released.context(), check=False, json=True)
    found = read_json(capsys)
    assert (found["healthy"], found["problem"]) == (True, "")


def test_status_prints_what_is_unhealthy_and_the_next_commands(
    released: Application, capsys: Output
) -> None:
    """A replica is gone, and the last attempt was undone."""
    released.publish("2")
    released.play.wrong["http://127.0.0.1:8080"] = "expected 3, got 8"
    with pytest.raises(Exception, match="golden"):
        commands.release(released.context(), "", dry_run=False, json=False)
    released.engine.stop(released.target().replicas()[0].name, 0)
    commands.status(released.context(), check=False, json=False)
    printed = capsys.readouterr().out
    assert "unhealthy" in printed
    assert "the last attempt, 2, was undone: the release missed 1 of 1 golden cases" in printed
    assert (
        printed.splitlines()[-1] == "next: `invoke rollback --to 1` restores this release, "
        "`invoke release` brings the newest"
    )


def test_status_for_a_monitor_ends_with_an_error(released: Application, capsys: Output) -> None:
    """It has printed what it found all the same; the error is of its own."""
    commands.status(released.context(), check=True, json=True)
    assert read_json(capsys)["served"] is True
    released.engine.stop(released.target().replicas()[0].name, 0)
    with pytest.raises(NotServing, match="1 of 2 replicas serve") as caught:
        commands.status(released.context(), check=True, json=True)
    found = read_json(capsys)
    assert (found["served"], found["count"], found["next"]) == (False, 1, caught.value.next)


def test_status_of_a_release_that_crashes_advises_the_one_before(
    released: Application, capsys: Output
) -> None:
    """Its replicas show how often and how they ended."""
    released.publish("2")
    commands.release(released.context(), "", dry_run=False, json=False)
    for replica in released.target().replicas():
        released.engine.end_process(replica.name, 3)
    capsys.readouterr()
    commands.status(released.context(), check=False, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("unhealthy, 0 of 2 replicas")
    assert all(re.search(r"up \d+ s, 1 restart, last exit code 3$", line) for line in lines[2:4])
    assert lines[-1].startswith("next: `invoke rollback` goes back to release 1, ")


def test_status_prints_a_release_as_the_history_does(
    released: Application, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commit, time and digest have the same form."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    commands.history(released.context(), "", json=False)
    row = capsys.readouterr().out.splitlines()[1].split()
    commands.status(released.context(), check=False, json=False)
    printed = capsys.readouterr().out.splitlines()[1]
    monkeypatch.undo()
    time.tzset()
    assert printed == (
        f"release 1 by {row[3]} at {row[1]} {row[2]}: commit {row[5]}, model {row[6]}, {row[7]}"
    )


def test_status_of_an_empty_environment_is_printed(
    application: Application, capsys: Output
) -> None:
    """For scripts, `serving` is null."""
    commands.status(application.context(), check=False, json=False)
    assert capsys.readouterr().out == "local: nothing was released here yet\n"
    commands.status(application.context(), check=False, json=True)
    assert read_json(capsys)["serving"] is None


def test_status_of_a_cluster_has_the_form_of_an_engines(
    staged: Application, capsys: Output
) -> None:
    """The lines and the keys are the same."""
    commands.status(staged.context("staging"), check=False, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "http://fake/services/classifier-staging:80  serving, 2 of 2 replicas"
    assert [line.split()[1] for line in lines[2:]] == ["serving", "serving"]
    commands.history(staged.context("staging"), "", json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "1*"]
    commands.status(staged.context("staging"), check=False, json=True)
    on_cluster = read_json(capsys)
    commands.status(staged.context("local"), check=False, json=True)
    assert on_cluster.keys() == read_json(capsys).keys()


def test_verify_prints_responses(released: Application, capsys: Output) -> None:
    """People get one response, scripts get all."""
    commands.verify(released.context(), json=False)
    assert capsys.readouterr().out == "http://127.0.0.1:8080  three → 3, 99.1 (12 ms)\n"
    commands.verify(released.context(), json=True)
    assert read_json(capsys)["passed"] is True


# --- models


def test_published_versions_are_listed(application: Application, capsys: Output) -> None:
    """The latest one is marked."""
    application.publish("2")
    commands.list_models(application.context(), json=True)
    assert [(printed["version"], printed["latest"]) for printed in read_json(capsys)] == [
        ("1", False),
        ("2", True),
    ]
    commands.list_models(application.context(), json=False)
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]][1] == [
        "digits",
        "2",
        "latest",
    ]


def test_a_model_manifest_is_printed_as_published(application: Application, capsys: Output) -> None:
    """The default is the latest version."""
    commands.show_model(application.context(), "latest")
    assert (printed := read_json(capsys))["version"] == "1"
    assert printed["files"]
    with pytest.raises(ModelUnknown):
        commands.show_model(application.context(), "7")


def test_a_folder_is_published(application: Application, capsys: Output) -> None:
    """The identity of the model is printed."""
    folder = str(application.folder / "models" / "1")
    commands.publish(application.context(), folder, "", new_name=False)
    name, digest = capsys.readouterr().out.split()
    assert (name, digest[:7]) == ("digits@1", "sha256:")


@pytest.mark.parametrize(("directory", "sample"), [("", ""), ("models/1", "1"), ("models/1", True)])
def test_publish_needs_a_folder_or_the_sample(
    application: Application, directory: str, sample: str | bool
) -> None:
    """Both or neither is an error."""
    with pytest.raises(SettingsInvalid, match="say what to publish"):
        commands.publish(application.context(), directory, sample, new_name=False)


def test_a_model_of_another_name_is_published_on_request(
    application: Application, capsys: Output
) -> None:
    """Otherwise it is refused, because no release of the application would find it."""
    folder = application.folder / "models" / "1"
    text = (folder / "model.toml").read_text(encoding="utf-8")
    (folder / "model.toml").write_text(text.replace('"digits"', '"letters"'), encoding="utf-8")
    with pytest.raises(ManifestInvalid, match="named 'letters'") as caught:
        commands.publish(application.context(), str(folder), "", new_name=False)
    assert "--new-name" in caught.value.next
    commands.publish(application.context(), str(folder), "", new_name=True)
    assert capsys.readouterr().out.startswith("letters@1 sha256:")


def test_a_list_shows_the_versions_that_cannot_be_read(
    application: Application, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them hides no other, nor does a damaged record of the latest."""
    application.store.files["models/digits/2/manifest.json"] = b"{}"
    application.store.files["models/digits/latest.json"] = b"{"
    commands.list_models(application.context(), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("digits  1")
    assert "sha256:" in lines[1]
    assert lines[2].startswith("digits  2")
    assert "cannot be read: the model's description has 7 problems" in lines[2]
    assert "record of the latest version cannot be read" in caplog.text


# --- the machine


def test_doctor_prints_what_is_missing_with_its_cure(
    application: Application, capsys: Output
) -> None:
    """The lines for people and the JSON for scripts have the same content."""
    application.machine.running = False
    commands.doctor(application.context(), json=False)
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "missing" in lines["container engine"]
    assert "invoke up" in lines["container engine"]
    assert lines["registry"].split()[1:] == ["ok", "registry.example"]
    commands.doctor(application.context(), json=True)
    printed = {check["part"]: check for check in read_json(capsys)}
    assert (printed["container engine"]["ok"], printed["registry"]["ok"]) == (False, True)


def test_doctor_checks_the_cluster_of_the_environment(
    application: Application, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The path of a kubeconfig is relative to the application's folder; no other is used."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__KUBECONFIG", "keys/shop.yaml")
    for environment, expected in (("staging", True), ("local", False)):
        commands.doctor(application.context(environment), json=True)
        found = {check["part"]: check["found"] for check in read_json(capsys)}
        assert ("cluster" in found) is expected
    assert application.machine.connections == [
        (str(application.folder / "keys/shop.yaml"), "", "shop")
    ]


def test_up_and_down_print_what_they_did(application: Application, capsys: Output) -> None:
    """`down` also says that there was nothing to do."""
    commands.up(application.context())
    assert capsys.readouterr().out == "ready: Docker 0.0, registry registry.example\n"
    pipeline.release(application.context())
    commands.down(application.context(), purge=False)
    assert capsys.readouterr().out.startswith("stopped: twinship-classifier-local-1, ")
    commands.down(application.context(), purge=False)
    assert capsys.readouterr().out == "nothing was running\n"
