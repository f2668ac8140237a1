"""The engine killed in mid-rollout: what served serves again when it is back, and the next run finishes what was begun.

The tests are one story, in order: each goes on from what serves after the one before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from bench.application import Application, TaskResult
from tests.e2e import remains
from tests.e2e.halted import halted
from tests.e2e.rights import lacking
from tests.e2e.small_engine import SmallEngine, small_engine

FOLDER = "tests/applications/parrot"
WORDS = {"1": "pieces of eight", "2": "hello sailor"}
NOTHING = "nothing"
EVENT = '{{.Action}} {{with index .Actor.Attributes "dev.twinship.trial"}}trial{{end}}{{index .Actor.Attributes "dev.twinship.role"}}'
WRONG = r"""
    return "HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n" if $head =~ /^X-Forwarded-For:/mi;"""
BOUND = 60.0
PATIENCE = 30.0


@dataclass(frozen=True)
class Moment:
    """When the engine is killed: the release has said something, or the engine has done something so many times."""

    said: str = ""
    done: str = ""
    times: int = 1


class Story:
    """An application, and the engine on which it serves.

    Args:
        application: with all that it needs already in its cache; the engine could build nothing.
        engine: one that the story may kill.
    """

    def __init__(self, application: Application, engine: SmallEngine) -> None:
        self.engine = engine
        self.application = replace(application, under=engine.within)
        self.at = {"DOCKER_HOST": engine.host}

    def release(self, version: str) -> TaskResult:
        """Releases a model."""
        return self.application.ok("release", "--model", f"@{version}", "--json", **self.at)

    def killed(self, version: str, moment: Moment) -> TaskResult:
        """Releases a model, and kills the engine at that moment; returns what the command made of it."""
        watching = self._watching()
        releasing = self.application.start("release", "--model", f"@{version}", **self.at)
        threading.Thread(target=_ended_together, args=(releasing, watching), daemon=True).start()
        found = 0
        for line in (releasing.stderr if moment.said else watching.stdout) or ():
            found += moment.said in line if moment.said else line.strip() == moment.done
            if found == moment.times:
                break
        assert found == moment.times, (
            f"{moment} never came\n{''.join(releasing.communicate(timeout=BOUND))}"
        )
        with halted(releasing):
            self.engine.crash()
        out, err = releasing.communicate(timeout=BOUND)
        watching.communicate(timeout=BOUND)
        return TaskResult(releasing.returncode, out, err)

    def _watching(self) -> subprocess.Popen[str]:
        command = [
            "docker",
            "-H",
            self.engine.host,
            "events",
            "--filter",
            "type=container",
            "--format",
            EVENT,
        ]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answers(self) -> set[str]:
        """What the front door says to a dozen who ask."""
        curl = ["curl", "-s", "-m", "5", "-w", "%{http_code}\n", f"{self.application.url}/[1-12]"]
        said = subprocess.run(
            [*self.engine.within, *curl], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        return {line.removesuffix("200") if line.endswith("200") else NOTHING for line in said}

    def back(self, *may: str) -> str:
        """Starts the engine, and waits until the front door says one thing alone, of those it may; it says no other before."""
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


def _ended_together(releasing: subprocess.Popen[str], watching: subprocess.Popen[str]) -> None:
    """Ends what watches a release when that has ended, or takes too long: a moment that never came is not waited for."""
    with suppress(subprocess.TimeoutExpired):
        releasing.wait(BOUND)
    watching.terminate()


@pytest.fixture(scope="module", name="engine")
def _small() -> Iterator[SmallEngine]:
    """An engine that only this story uses."""
    if shutil.which("curl") is None:
        lacking("no curl is here", "`sudo apt-get install curl` brings it")
    with small_engine("300m") as engine:
        yield engine


@pytest.fixture(scope="module", name="parrot")
def _parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """An application with two models, built, but not released anywhere."""
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
    built = remains.docker("images", "-q", "--filter", f"reference=twinship/{parrot.name}").split()
    remains.docker("image", "rm", "-f", *built)


@pytest.fixture(scope="module", name="story")
def _story(engine: SmallEngine, parrot: Application) -> Story:
    """The application on the engine, serving model 1."""
    story = Story(parrot, engine)
    story.release("1")
    return story


def told(done: TaskResult, *codes: int) -> None:
    """Looks at how a command told that the engine went away: what, on what, what to do next."""
    assert done.code in codes, f"it ended with {done.code}\n{done.out}\n{done.err}"
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "the container engine stopped answering" in done.err
    shown = rf"^error: .+\n   on: .+\n(?:.*\n)* next: see that it runs .+\(exit code {done.code}\)$"
    assert re.search(shown, done.err, re.MULTILINE), done.err


def assert_clean(story: Story) -> None:
    """The application is whole, and the engine holds nothing beside it and its registry."""
    remains.assert_none(story.application, **story.at)
    kept = f"twinship-{story.application.name}-local"
    assert len(remains.docker("ps", "-aq", **story.at).split()) == 4
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


def test_an_engine_that_was_killed_before_a_rollout_brings_back_what_served(story: Story) -> None:
    """While the image is loaded, while it is tried out, and when the lock is taken."""
    for moment in (Moment(said="· image"), Moment(done="start trial"), Moment(done="create lock")):
        told(story.killed("2", moment), 70)
        assert story.answers() == {NOTHING}
        assert story.back("1") == WORDS["1"]


def test_an_engine_that_is_back_in_time_is_waited_for(story: Story) -> None:
    """A push asks the registry again for a while; where that is too short, the next run goes on."""
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


def test_an_engine_that_was_killed_in_a_rollout_brings_back_what_served(story: Story) -> None:
    """With a replica made but not started, with one of two taken over, and with all of them but no proof."""
    for moment in (
        Moment(done="create replica"),
        Moment(done="start replica", times=2),
        Moment(done="update replica"),
    ):
        told(story.killed("1", moment), 62)
        assert story.back("2") == WORDS["2"]
    assert story.release("1").json["model"] == "words@1"
    assert story.answers() == {WORDS["1"]}
    assert_clean(story)


def test_an_engine_that_was_killed_after_the_proof_brings_back_one_release(story: Story) -> None:
    """As it is written down, one of the two; once old replicas are retired, the new one."""
    # What is not written down yet cannot be put back either.
    told(story.killed("2", Moment(said="· proven")), 62, 70)
    story.back("1", "2")
    told(story.killed("2", Moment(done="kill replica")), 70)
    assert story.back("2") == WORDS["2"]
    assert story.release("2").json["model"] == "words@2"
    assert story.answers() == {WORDS["2"]}
    assert_clean(story)


def test_an_engine_that_was_killed_in_an_undoing_brings_back_what_served(
    story: Story, parrot: Application
) -> None:
    """A release that is wrong at the front door is never seen again, and the next one finds nothing in its way."""
    parrot.edit("parrot.pl", "my ($head) = @_;", f"my ($head) = @_;{WRONG}")
    parrot.commit("wrong behind a proxy")
    parrot.ok("build")
    told(story.killed("1", Moment(said="restoring release")), 62)
    assert story.back("2") == WORDS["2"]

    parrot.git("checkout", "-q", "HEAD~1")
    assert story.release("1").json["model"] == "words@1"
    assert story.answers() == {WORDS["1"]}
    assert_clean(story)
