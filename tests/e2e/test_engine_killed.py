"""An engine that is killed during a rollout: the release that served is back with the engine.

The tests are one story, in order: each continues from the state after the previous one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.application import Application, TaskResult
from tests.e2e import remains
from tests.e2e.cluster import until
from tests.e2e.halted import halted
from tests.e2e.moments import BOUND, Moment, start_until
from tests.e2e.small_engine import SmallEngine, small_engine
from tests.missing import lacking

FOLDER = "tests/applications/parrot"
WORDS = {"1": "pieces of eight", "2": "hello sailor"}
NOTHING = "nothing"
WRONG = r"""
    return "HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n" if $head =~ /^X-Forwarded-For:/mi;"""
PATIENCE = 30.0


class Story:
    """An application and the engine on which it serves.

    Args:
        application: its image is in its cache, because the engine can build nothing.
        engine: one that the story may kill.
    """

    def __init__(self, application: Application, engine: SmallEngine) -> None:
        self.engine = engine
        self.application = replace(application, under=engine.within)
        self.at = {"DOCKER_HOST": engine.host}

    def release(self, version: str) -> TaskResult:
        """Release a model."""
        return self.application.ok("release", "--model", f"@{version}", "--json", **self.at)

    def release_and_crash(self, version: str, moment: Moment) -> TaskResult:
        """Kill the engine at a moment of a release; return how the release ended."""
        model = f"@{version}"
        releasing = start_until(moment, self.application, "release", "--model", model, **self.at)
        with halted(releasing):
            self.engine.crash()
        out, err = releasing.communicate(timeout=BOUND)
        return TaskResult(releasing.returncode, out, err)

    def answers(self) -> set[str]:
        """Return the different responses of the proxy to twelve requests."""
        curl = ["curl", "-s", "-m", "5", "-w", "%{http_code}\n", f"{self.application.url}/[1-12]"]
        said = subprocess.run(
            [*self.engine.within, *curl], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        return {line.removesuffix("200") if line.endswith("200") else NOTHING for line in said}

    def back(self, *may: str) -> str:
        """Start the engine; wait until all responses are of one release; return its words.

        Args:
            may: the models of which responses are allowed.
        """
        self.engine.start()
        allowed = {*(WORDS[version] for version in may), NOTHING}
        deadline = time.monotonic() + PATIENCE
        while len(answers := self.answers()) != 1 or NOTHING in answers:
            assert answers <= allowed
            assert time.monotonic() < deadline, (
                f"nothing serves: {remains.docker('ps', '-a', **self.at)}"
            )
            time.sleep(0.1)
        assert answers <= allowed
        return answers.pop()


@pytest.fixture(scope="module", name="engine")
def _small() -> Iterator[SmallEngine]:
    """Start an engine that only this story uses."""
    if shutil.which("curl") is None:
        lacking("no curl is here", "`sudo apt-get install curl` brings it")
    with small_engine("300m") as engine:
        yield engine


@pytest.fixture(scope="module", name="parrot")
def _parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Build an application with two models; it is not released."""
    parrot = Application.create(tmp_path_factory.mktemp("parrot"), FOLDER)
    for version, words in WORDS.items():
        model = tmp_path_factory.mktemp("model") / "model"
        shutil.copytree(parrot.folder / "model", model)
        for path in (model / "model.toml", model / "words.txt"):
            path.write_text(
                path.read_text(encoding="utf-8")
                .replace("WORDS", words)
                .replace("VERSION", version),
                encoding="utf-8",
            )
        parrot.ok("model.publish", "--directory", str(model))
    parrot.ok("build")
    yield parrot
    # By name: other images may have been made from what these have.
    named = f"reference=twinship/{parrot.name}"
    built = remains.docker("images", "--filter", named, "--format", "{{.Repository}}:{{.Tag}}")
    remains.docker("image", "rm", "-f", *built.split())


@pytest.fixture(scope="module", name="story")
def _story(engine: SmallEngine, parrot: Application) -> Story:
    """Release the application with model 1 on the engine."""
    story = Story(parrot, engine)
    story.release("1")
    return story


def assert_reported(done: TaskResult, *codes: int) -> None:
    """Check the error for an engine that stopped answering: what, on what, what to do next."""
    assert done.code in codes, f"it ended with {done.code}\n{done.out}\n{done.err}"
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "the container engine stopped answering" in done.err
    shown = rf"^error: .+\n   on: .+\n(?:.*\n)* next: see that it runs .+\(exit code {done.code}\)$"
    assert re.search(shown, done.err, re.MULTILINE), done.err


def assert_clean(story: Story) -> None:
    """Check that the engine has the application and its registry, and nothing else."""
    remains.assert_none(story.application, **story.at)
    kept = f"twinship-{story.application.name}-local"
    # A container whose removal has begun is listed until it has ended.
    until(lambda: len(remains.docker("ps", "-aq", **story.at).split()) == 4, "no other is left")
    assert set(remains.docker("network", "ls", "--format", "{{.Name}}", **story.at).split()) == {
        "bridge",
        "host",
        "none",
        kept,
    }
    assert set(remains.docker("volume", "ls", "-q", **story.at).split()) == {
        "twinship-registry",
        kept,
    }
    history = story.application.ok("history", "--json", **story.at).json
    assert sorted(item["id"] for item in history) == list(range(1, len(history) + 1))


def test_an_engine_killed_before_a_rollout_returns_with_the_same_release(story: Story) -> None:
    """It is killed at the load of the image, in the smoke test, and when the lock is acquired."""
    for moment in (
        Moment(line="· image"),
        Moment(event="start throwaway"),
        Moment(event="create lock"),
    ):
        assert_reported(story.release_and_crash("2", moment), 70)
        assert story.answers() == {NOTHING}
        assert story.back("1") == WORDS["1"]


def test_an_engine_that_is_back_in_time_is_waited_for(story: Story) -> None:
    """A push retries for a while; if that is too short, the next run continues."""
    releasing = story.application.start("release", "--model", "@2", **story.at)
    assert any("· smoke" in line for line in releasing.stderr or ())
    with halted(releasing):
        story.engine.crash()
    story.engine.start()
    _, err = releasing.communicate(timeout=BOUND)
    assert releasing.returncode in (0, 50), err
    assert story.release("2").json["changed"] is (releasing.returncode == 50)
    assert story.answers() == {WORDS["2"]}
    assert_clean(story)


def test_an_engine_killed_in_a_rollout_returns_with_the_same_release(story: Story) -> None:
    """One replica is created, one of two is replaced, or both are replaced but not verified."""
    for moment in (
        Moment(event="create replica"),
        Moment(event="start replica", times=2),
        Moment(event="update replica"),
    ):
        assert_reported(story.release_and_crash("1", moment), 62)
        assert story.back("2") == WORDS["2"]
    assert story.release("1").json["model"] == "words@1"
    assert story.answers() == {WORDS["1"]}
    assert_clean(story)


def test_an_engine_killed_after_the_golden_cases_returns_with_one_release(story: Story) -> None:
    """It is one of the two until the history has it; once old replicas are removed, the new one."""
    # What the history does not have yet cannot be restored.
    assert_reported(story.release_and_crash("2", Moment(line="· proven")), 62, 70)
    story.back("1", "2")
    assert_reported(story.release_and_crash("2", Moment(event="kill replica")), 70)
    assert story.back("2") == WORDS["2"]
    assert story.release("2").json["model"] == "words@2"
    assert story.answers() == {WORDS["2"]}
    assert_clean(story)


def test_an_engine_killed_in_an_undo_returns_with_the_previous_release(
    story: Story, parrot: Application
) -> None:
    """The release with wrong answers never serves again and does not disturb the next one."""
    parrot.edit("parrot.pl", "my ($head) = @_;", f"my ($head) = @_;{WRONG}")
    parrot.commit("wrong behind a proxy")
    parrot.ok("build")
    assert_reported(story.release_and_crash("1", Moment(line="restoring release")), 62)
    assert story.back("2") == WORDS["2"]

    parrot.git("checkout", "-q", "HEAD~1")
    assert story.release("1").json["model"] == "words@1"
    assert story.answers() == {WORDS["1"]}
    assert_clean(story)
