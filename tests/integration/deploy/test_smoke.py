"""Images that answer rightly, wrongly, or not at all, tried in real containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import smoke
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.container import LABEL, throwaway_container
from deploy.errors import ReleaseError, SmokeFailed
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.machine import services
from deploy.machine.process import ProcessId
from deploy.model.golden import GoldenSet
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import AppImage, Verdict
from deploy.settings.reading import Settings
from tests.integration.conftest import lacking
from tests.integration.deploy.tiny import MOUNT, PORT, Tiny, local_cache

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
GOLDEN_SET = GoldenSet(
    (
        GoldenCase(
            name="cat",
            request=GoldenRequest(path="/animal"),
            expect=ExpectedResponse.model_validate({"json": [{"at": "/animal", "equals": "cat"}]}),
        ),
    ),
    {},
)


@pytest.fixture(scope="module")
def tiny(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """A tiny application."""
    try:
        base = services.ensure_base_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(error.what, error.next)
    made = Tiny(engine, base, local_cache(tmp_path_factory.mktemp("smoke")))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def app(tiny: Tiny) -> AppImage:
    """Its image."""
    return tiny.app()


def check(tiny: Tiny, app: AppImage, mode: str, within: float = 20.0) -> Verdict:
    """Tries the application with a model that has it behave in a way."""
    joined = join_image(app, tiny.model(mode), MOUNT, tiny.cache)
    held = load_image(joined, tiny.engine, tiny.cache, lambda _: None).id
    try:
        return smoke.check(
            joined, held, GOLDEN_SET, throwaway_container, port=PORT, ready="/readyz", within=within
        )
    finally:
        assert not [
            found
            for found in tiny.engine.containers({LABEL: str(ProcessId.current())})
            if found.image == held
        ]


def test_an_image_that_answers_as_promised_passes(tiny: Tiny, app: AppImage) -> None:
    """And its container is gone afterwards."""
    verdict = check(tiny, app, "right")
    assert verdict.passed
    assert [(case.name, case.answer) for case in verdict.cases] == [("cat", "cat")]


def test_a_wrong_answer_shows_expected_and_actual_and_the_log(tiny: Tiny, app: AppImage) -> None:
    """With the lines that the container wrote."""
    with pytest.raises(SmokeFailed) as caught:
        check(tiny, app, "wrong")
    assert "/animal: expected 'cat', got 'dog'" in caught.value.detail
    assert "serving in mode wrong" in caught.value.detail


def test_a_container_that_crashes_shows_its_log(tiny: Tiny, app: AppImage) -> None:
    """Also one that ends before it can be asked for its port; it is not waited for."""
    with pytest.raises(SmokeFailed, match="ended before it was ready") as caught:
        check(tiny, app, "crash", within=600)
    assert "these weights are broken" in caught.value.detail


def test_a_container_that_is_never_ready_shows_its_log(tiny: Tiny, app: AppImage) -> None:
    """When its time is over."""
    with pytest.raises(SmokeFailed, match="not ready within") as caught:
        check(tiny, app, "never", within=3.0)
    assert "serving in mode never" in caught.value.detail
