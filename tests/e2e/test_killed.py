"""Tasks that are killed at any moment: what serves goes on, and the next run converges."""

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
from tests.e2e.cluster import until
from tests.e2e.labels import EGYPTIAN_CAT, TIGER_CAT
from tests.e2e.moments import Moment, start_until

# Moments of every stage of a release.
RELEASE = (
    Moment(),
    Moment(line="· model "),
    Moment(line="building"),
    Moment(line="exporting the app image"),
    Moment(line="built in"),
    Moment(line="image "),
    Moment(event="create throwaway"),
    Moment(event="start throwaway"),
    Moment(line="smoke "),
    Moment(line="pushing"),
    Moment(line="push   127"),
    Moment(event="create lock"),
    Moment(event="start lock"),
    Moment(line="push   127", event="create replica"),
    Moment(line="push   127", event="start replica"),
    Moment(line="push   127", event="create replica", times=2),
    Moment(line="push   127", event="start replica", times=2),
    Moment(line="proven"),
    Moment(line="proven", event="kill replica"),
    Moment(line="proven", event="destroy replica"),
    Moment(line="· serves "),
)
ROLLBACK = (
    Moment(),
    Moment(event="create lock"),
    Moment(event="create replica"),
    Moment(event="start replica"),
    # The replica of the run before runs already: this is the second.
    Moment(event="start replica"),
    Moment(line="proven"),
)
UNDO = (
    Moment(line="restoring release"),
    Moment(line="restoring release", event="kill replica"),
    Moment(line="restoring release", event="destroy replica"),
)
PUBLISH = (
    Moment(),
    Moment(line="· model  imagenet@2"),
    Moment(line="publishing imagenet@2"),
)
# Bytes that take a while to be fetched.
BALLAST = 150_000_000
# The labels that the two models give to the picture of the load.
SAYS = {"imagenet@1": TIGER_CAT, "imagenet@2": EGYPTIAN_CAT}


@pytest.mark.timeout(1800)
def test_a_release_killed_at_any_moment_leaves_the_old_one_serving(serving: Application) -> None:
    """No request fails or mixes two releases, and the run after a kill leaves one release alone."""
    alone: list[tuple[float, float, str]] = []
    body = serving.score_request(rollouts.PICTURE)
    serving.edit("app/routes.py", '"Healthy', '"Healthy -1')
    with Load(
        "127.0.0.1", serving.port, body, clients=4, pause=0.1, extractor=rollouts.first_label
    ) as load:
        for number, moment in enumerate(RELEASE):
            serving.edit("app/routes.py", f'"Healthy {number - 1}', f'"Healthy {number}')
            serving.commit(f"change {number}")
            model = f"imagenet@{1 + number % 2}"
            serving.kill(start_until(moment, serving, "release", "--model", model))
            if number % 3 == 2:
                done = serving.ok("release", "--model", model, "--json").json
                released = time.monotonic()
                assert done["model"] == model
                assert done["commit"] == serving.git("rev-parse", "HEAD")
                remains.assert_none(serving)
                alone.append((released, time.monotonic(), model))

    assert not load.failures, load.failures[:5]
    assert len(load.answers) > 20 * len(RELEASE)
    models = {item["model_digest"]: item["model"] for item in serving.ok("history", "--json").json}
    assert {(models.get(answer.model), answer.extract) for answer in load.answers} == set(
        SAYS.items()
    )
    for begin, end, model in alone:
        assert {models[answer.model] for answer in load.answers if begin <= answer.at < end} == {
            model
        }


def test_a_release_killed_while_its_image_is_built_is_built_again(serving: Application) -> None:
    """The engine gives up the build that was under way, and the next run is not disturbed."""
    dockerfile = serving.folder / "Dockerfile"
    good = dockerfile.read_text(encoding="utf-8")
    mark = f"{serving.name}-is-built"
    dockerfile.write_text(f"{good}\nRUN : {mark} && sleep 5\n", encoding="utf-8")
    serving.commit("a slow step")
    process = serving.start("release")
    until(lambda: _runs(mark), "the slow step runs")
    serving.kill(process)

    dockerfile.write_text(good, encoding="utf-8")
    serving.commit("no slow step")
    serving.ok("release")
    remains.assert_none(serving)


def test_a_rollback_killed_at_any_moment_converges(serving: Application) -> None:
    """A rollback is a rollout like any other."""
    for moment in ROLLBACK:
        serving.kill(start_until(moment, serving, "rollback", "--only", "model"))
    serving.ok("release")

    remains.assert_none(serving)


def test_an_undo_killed_at_any_moment_is_finished_by_the_next_run(serving: Application) -> None:
    """A release with wrong answers behind the proxy is killed during its undo."""
    path = serving.folder / "app" / "application.py"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + WRONG_BEHIND_A_PROXY % 0, encoding="utf-8")
    serving.commit("wrong behind a proxy")
    for moment in UNDO:
        serving.kill(start_until(moment, serving, "release", "--model", "imagenet@2"))
    done = serving.invoke("release")
    assert done.code == 60, done.err

    path.write_text(good, encoding="utf-8")
    serving.commit("good again")
    serving.ok("release")
    remains.assert_none(serving)


def test_a_publish_killed_at_any_moment_leaves_the_store_usable(serving: Application) -> None:
    """A version appears only when it is whole, and publishing again completes it."""
    publish = ("model.publish", "--sample", "2")
    for moment in PUBLISH:
        serving.kill(start_until(moment, serving, *publish))
        assert [item["version"] for item in serving.ok("model.list", "--json").json] == ["1", "2"]
    serving.ok(*publish)


def test_a_fetch_that_is_killed_leaves_no_half_of_a_model(
    serving: Application, tmp_path: Path
) -> None:
    """A file that was fetched by half is neither used nor kept."""
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
    until(lambda: _has_file(under_way, BALLAST // 10), "the model is being fetched", every=0.01)
    assert "· model " not in serving.kill(process)
    assert list(under_way.iterdir())

    assert "fetched in" in serving.ok("fetch", "--model", "imagenet@3").err
    remains.assert_none(serving)


def _has_file(folder: Path, size: int) -> bool:
    """Return whether a file has grown to that size; files come and go."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size > size for path in folder.iterdir())
    return False


def _runs(mark: str) -> bool:
    """Return whether a process of this machine has a word in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                return True
    return False
