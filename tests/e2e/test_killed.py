"""Killed anywhere, run again: what serves goes on serving, and the next run finishes what the killed one began."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench import rollouts
from bench.application import Application
from bench.load import Load
from bench.rollouts import WRONG_BEHIND_A_PROXY
from sample import bundle
from tests.e2e import remains
from tests.e2e.labels import EGYPTIAN_CAT, TIGER_CAT

# The line after which the release is killed, and how many seconds later: several moments of every stage.
MOMENTS = [
    ("", 0.2),
    ("· model ", 0.0),
    ("building", 0.0),
    ("building", 0.8),
    ("building", 1.6),
    ("building", 2.4),
    ("built in", 0.0),
    ("image ", 0.0),
    ("image ", 0.4),
    ("image ", 0.8),
    ("smoke ", 0.0),
    ("push   127", 0.0),
    ("push   127", 0.4),
    ("push   127", 0.8),
    ("push   127", 1.2),
    ("push   127", 1.6),
    ("push   127", 2.0),
    ("push   127", 2.4),
    ("proven", 0.0),
    ("proven", 0.2),
    ("· serves ", 0.0),
    ("proven", 0.5),
]
# Bytes that make a model take a while to be fetched.
BALLAST = 150_000_000
# How the two models call the picture that is asked for.
SAYS = {"imagenet@1": TIGER_CAT, "imagenet@2": EGYPTIAN_CAT}


@pytest.mark.timeout(1800)
def test_a_release_killed_at_any_moment_leaves_the_old_one_serving(serving: Application) -> None:
    """Twenty-two kills under load: no request fails or is answered by halves, and every run after a kill leaves one release alone."""
    alone: list[tuple[float, float, str]] = []
    body = serving.scored(rollouts.PICTURE)
    with Load(
        "127.0.0.1", serving.port, body, clients=4, pause=0.1, kept=rollouts.first_label
    ) as load:
        for number, (line, delay) in enumerate(MOMENTS):
            serving.edit(
                "app/routes.py", '"Healthy', f'"Healthy {number}'
            ) if number == 0 else _edit(serving, number)
            serving.commit(f"change {number}")
            model = f"imagenet@{1 + number % 2}"
            _killed(serving, model, line, delay)
            if number % 3 == 2:
                done = serving.ok("release", "--model", model, "--json").json
                released = time.monotonic()
                assert done["model"] == model
                assert done["commit"] == serving.git("rev-parse", "HEAD")
                remains.assert_none(serving)
                alone.append((released, time.monotonic(), model))

    assert not load.failures, load.failures[:5]
    assert len(load.answers) > 20 * len(MOMENTS)
    models = {item["model_digest"]: item["model"] for item in serving.ok("history", "--json").json}
    assert {(models.get(answer.model), answer.said) for answer in load.answers} == set(SAYS.items())
    for begin, end, model in alone:
        assert {models[answer.model] for answer in load.answers if begin <= answer.at < end} == {
            model
        }


def test_a_rollback_killed_at_any_moment_converges(serving: Application) -> None:
    """A rollback is a rollout like any other."""
    for delay in (0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.4, 3.0):
        process = serving.start("rollback", "--only", "model")
        time.sleep(delay)
        serving.kill(process)
    serving.ok("release")

    remains.assert_none(serving)


def test_an_undo_killed_at_any_moment_is_finished_by_the_next_run(serving: Application) -> None:
    """A release that is wrong at the front door, killed while it is being taken back."""
    path = serving.folder / "app" / "__init__.py"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + WRONG_BEHIND_A_PROXY % 0, encoding="utf-8")
    serving.commit("wrong behind a proxy")
    for delay in (0.0, 0.2, 0.5):
        _killed(serving, "imagenet@2", "putting back", delay)
    done = serving.invoke("release")
    assert done.code == 60, done.err

    path.write_text(good, encoding="utf-8")
    serving.commit("good again")
    serving.ok("release")
    remains.assert_none(serving)


def test_a_publish_killed_at_any_moment_leaves_the_store_usable(
    serving: Application, tmp_path: Path
) -> None:
    """No version appears that is not whole, and publishing again completes it."""
    for delay in (0.3, 0.6, 0.8, 1.0, 1.2, 1.4):
        process = serving.start("model.publish", "--sample", "2")
        time.sleep(delay)
        serving.kill(process)
        assert [item["version"] for item in serving.ok("model.list", "--json").json] == ["1", "2"]
    serving.ok("model.publish", "--sample", "2")


def test_a_fetch_that_is_killed_leaves_no_half_of_a_model(
    serving: Application, tmp_path: Path
) -> None:
    """What was fetched is not taken for the model, nor kept."""
    directory = tmp_path / "model"
    under_way = serving.home / "tmp"
    bundle.write("2", directory)
    text = (directory / "model.toml").read_text(encoding="utf-8")
    (directory / "model.toml").write_text(
        text.replace('version = "2"', 'version = "3"'), encoding="utf-8"
    )
    (directory / "ballast").write_bytes(bytes(BALLAST))
    serving.ok("model.publish", "--directory", str(directory))

    process = serving.start("release", "--model", "imagenet@3")
    while not _holds(under_way, BALLAST // 10):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert "· model " not in serving.kill(process)
    assert list(under_way.iterdir())

    assert "fetched in" in serving.ok("fetch", "--model", "imagenet@3").err
    remains.assert_none(serving)


def _holds(folder: Path, size: int) -> bool:
    """Whether a file has grown to that size; files come and go."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size > size for path in folder.iterdir())
    return False


def _edit(application: Application, number: int) -> None:
    application.edit("app/routes.py", f'"Healthy {number - 1}', f'"Healthy {number}')


def _killed(application: Application, model: str, line: str, delay: float) -> None:
    """Starts a release and kills it some time after it said something, or when it is done."""
    process = application.start("release", "--model", model)
    if line:
        for said in process.stderr or ():
            if line in said:
                break
    time.sleep(delay)
    application.kill(process)
