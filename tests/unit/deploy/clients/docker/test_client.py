"""The engine in memory that the tests of the targets use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from deploy.clients.docker.client import DockerEngine, find_exit
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import EngineFailed, EngineUnavailable
from tests.contracts.engine import EngineContract, ImageOf
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.web import Answer, FakeWeb

CHANGING = "consistency error: data changed during operation, retry"


class TestFakeEngine(EngineContract):
    """The fake keeps the contract of the real one."""

    @pytest.fixture
    def fake(self) -> FakeEngine:
        """Return an empty engine."""
        return FakeEngine()

    @pytest.fixture
    def engine(self, fake: FakeEngine) -> Engine:
        """Return the engine."""
        return fake

    @pytest.fixture
    def prefix(self) -> str:
        """Return any prefix."""
        return "test"

    @pytest.fixture
    def port(self) -> int:
        """Return any port."""
        return 8080

    @pytest.fixture
    def image_of(self, fake: FakeEngine) -> ImageOf:
        """Return a function that adds an image for a script."""

        def image(script: Script) -> tuple[str, tuple[str, ...]]:
            name = f"image-{script}"
            fake.script(name, script)
            return fake.image_id(name) or "", ()

        return image

    @pytest.fixture
    def missing(self) -> str:
        """Return a reference; the registry is empty."""
        return f"registry.example/a@sha256:{'0' * 64}"


def test_a_tied_container_ends_with_its_process() -> None:
    """The name is free when the process is killed."""
    engine = FakeEngine({"parts": Script()})
    spec = Spec(name="lock", image="parts", labels={})
    assert engine.start_tied(spec) is not None
    engine.kill_tied_process("lock")
    assert engine.start_tied(spec) is not None


def test_a_stopped_engine_does_not_answer() -> None:
    """Every call is the same error, as with a real engine."""
    engine = FakeEngine({"parts": Script()})
    engine.is_stopped = True
    for ask in (
        lambda: engine.containers({}),
        lambda: engine.diff_ids("parts"),
        lambda: engine.create(Spec(name="a", image="parts", labels={})),
        lambda: engine.ensure_network("a", {}),
        lambda: engine.logs("a", 1),
    ):
        with pytest.raises(EngineUnavailable):
            ask()


def test_a_pulled_image_has_its_reference() -> None:
    """An image of the fake's registry can be pulled by reference."""
    engine = FakeEngine()
    other = FakeEngine()
    image = other.add_image("app", b"layer")
    engine.registry["registry.example/app@sha256:1"] = other.images[image]
    engine.pull("registry.example/app@sha256:1", ("user", "password"), lambda _: None)
    assert engine.image_id("registry.example/app@sha256:1") == image
    assert engine.pulled == [("registry.example/app@sha256:1", ("user", "password"))]


def engine_that_answers(monkeypatch: pytest.MonkeyPatch, answers: Iterator[Answer]) -> DockerEngine:
    """Return an engine with these answers to questions about images."""
    version = Answer(200, {}, json.dumps({"ApiVersion": "1.51"}).encode())

    def answer(request: requests.PreparedRequest) -> Answer:
        return next(answers) if "/images/" in (request.url or "") else version

    FakeWeb(monkeypatch).servers = {"http://engine.test:2375": answer}
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.test:2375")
    return DockerEngine()


def test_an_image_that_changes_is_inspected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes it, and the engine says that the request is to be repeated."""
    busy = Answer(500, {}, json.dumps({"message": CHANGING}).encode())
    gone = Answer(404, {}, json.dumps({"message": "No such image: a"}).encode())
    engine = engine_that_answers(monkeypatch, iter([busy, busy, gone]))
    assert engine.image_id("a") is None


def test_another_failure_of_an_engine_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message is shown."""
    broken = Answer(500, {}, json.dumps({"message": "out of order"}).encode())
    engine = engine_that_answers(monkeypatch, iter([broken]))
    with pytest.raises(EngineFailed) as caught:
        engine.image_id("a")
    assert "out of order" in caught.value.detail


def event(action: str, code: int = 0) -> dict[str, Any]:
    """Return an event of a container, as the engine's API gives it."""
    attributes = {"exitCode": str(code)} if action == "die" else {}
    return {
        "Action": action,
        "Actor": {"Attributes": attributes},
        "timeNano": 1_767_225_600_500_000_000,
    }


def test_the_last_exit_is_found_among_the_events_of_a_container() -> None:
    """Too little memory is an event of its own, which comes before."""
    killed = find_exit([event("die", 1), event("oom"), event("oom"), event("die", 137)])
    assert killed
    assert str(killed) == "exit code 137 (OOMKilled)"
    assert killed.at == datetime(2026, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)
    later = find_exit([event("oom"), event("die", 137), event("die", 3)])
    assert str(later) == "exit code 3"
    assert find_exit([event("oom")]) is None


@pytest.mark.parametrize(
    ("status", "restarts", "out_of_memory", "expected"),
    [
        ("running", 0, False, None),
        ("running", 2, False, None),
        ("running", 2, True, "exit code 137 (OOMKilled)"),
        ("exited", 0, False, "exit code 3"),
        ("restarting", 2, True, "exit code 3 (OOMKilled)"),
    ],
)
def test_the_state_of_a_container_shows_how_its_process_ended(
    status: str, restarts: int, out_of_memory: bool, expected: str | None
) -> None:
    """The engine forgets the code when another process runs, but not the lack of memory."""
    found = Container(
        id="1",
        name="local-1",
        image="",
        labels={},
        status=status,
        exit_code=3,
        restarts=restarts,
        out_of_memory=out_of_memory,
        ended=datetime(2026, 1, 1, tzinfo=UTC),
    ).last_exit
    assert (found and str(found)) == expected
