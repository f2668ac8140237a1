"""The engine in memory, on which the tests of the targets stand."""

from __future__ import annotations

import pytest

from deploy.clients.docker.protocol import Engine, Spec
from deploy.errors import EngineUnavailable
from tests.contracts.engine import EngineContract, Runs
from tests.fakes.engine import FakeEngine, Script


class TestFakeEngine(EngineContract):
    """The fake keeps the contract, so that tests on it mean something."""

    @pytest.fixture
    def fake(self) -> FakeEngine:
        """An engine without anything."""
        return FakeEngine()

    @pytest.fixture
    def engine(self, fake: FakeEngine) -> Engine:
        """The engine."""
        return fake

    @pytest.fixture
    def prefix(self) -> str:
        """Nothing else is there."""
        return "test"

    @pytest.fixture
    def port(self) -> int:
        """Nobody listens anywhere."""
        return 8080

    @pytest.fixture
    def runs(self, fake: FakeEngine) -> Runs:
        """An image of that script."""

        def made(script: Script) -> tuple[str, tuple[str, ...]]:
            name = f"image-{script}"
            fake.script(name, script)
            return fake.image_id(name) or "", ()

        return made

    @pytest.fixture
    def missing(self) -> str:
        """No registry holds anything."""
        return f"registry.example/a@sha256:{'0' * 64}"


def test_a_held_container_ends_with_its_holder() -> None:
    """When the process that holds a name is killed, the name is free."""
    engine = FakeEngine({"parts": Script()})
    spec = Spec(name="lock", image="parts", labels={})
    assert engine.start_tied(spec) is not None
    engine.kill_tied_process("lock")
    assert engine.start_tied(spec) is not None


def test_an_engine_that_is_gone_answers_nothing() -> None:
    """Every question to an engine that stopped is the same error, as with the real one."""
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


def test_a_pulled_image_is_held_under_its_reference() -> None:
    """What the registry of the fake holds can be pulled by reference, and comes to be the same image."""
    engine = FakeEngine()
    other = FakeEngine()
    made = other.add_image("app", b"layer")
    engine.registry["registry.example/app@sha256:1"] = other.images[made]
    engine.pull("registry.example/app@sha256:1", ("user", "password"), lambda _: None)
    assert engine.image_id("registry.example/app@sha256:1") == made
    assert engine.pulled == [("registry.example/app@sha256:1", ("user", "password"))]
