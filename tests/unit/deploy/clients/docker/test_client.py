"""The engine in memory that the tests of the targets use."""

from __future__ import annotations

import pytest

from deploy.clients.docker.protocol import Engine, Spec
from deploy.errors import EngineUnavailable
from tests.contracts.engine import EngineContract, ImageOf
from tests.fakes.engine import FakeEngine, Script


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
