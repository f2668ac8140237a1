"""Smoke tests in real containers, with right and wrong responses, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import smoke
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Limits
from deploy.clients.docker.throwaway_container import LABEL, throwaway_container
from deploy.errors import ReleaseError, SmokeFailed
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.machine.base_image import ensure_base_image
from deploy.machine.process import ProcessId
from deploy.model.golden_cases import GoldenSet
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import AppImage, Verdict
from deploy.settings.reading import Settings
from tests.integration.deploy.tiny import MOUNT, PORT, TinyApplication, create_cache
from tests.missing import lacking

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
def tiny(
    engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TinyApplication]:
    """Return a maker of tiny applications."""
    try:
        base = ensure_base_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(error.what, error.next)
    application = TinyApplication(engine, base, create_cache(tmp_path_factory.mktemp("smoke")))
    yield application
    application.remove()


@pytest.fixture(scope="module")
def app(tiny: TinyApplication) -> AppImage:
    """Return the image of a tiny application."""
    return tiny.app()


def check(tiny: TinyApplication, app: AppImage, mode: str, within: float = 20.0) -> Verdict:
    """Run the smoke test of the application with a model of that mode."""
    joined = join_image(app, tiny.model(mode), MOUNT, tiny.cache)
    image_id = load_image(joined, tiny.engine, tiny.cache, lambda _: None).id
    try:
        return smoke.check(
            joined,
            image_id,
            GOLDEN_SET,
            throwaway_container,
            smoke.Trial(port=PORT, ready="/readyz", within=within, limits=Limits()),
        )
    finally:
        assert not [
            found
            for found in tiny.engine.containers({LABEL: str(ProcessId.current())})
            if found.image == image_id
        ]


def test_an_image_with_the_expected_responses_passes(tiny: TinyApplication, app: AppImage) -> None:
    """The container is removed afterwards."""
    verdict = check(tiny, app, "right")
    assert verdict.passed
    assert [(case.name, case.answer) for case in verdict.cases] == [("cat", "cat")]


def test_a_wrong_response_is_an_error_with_the_log(tiny: TinyApplication, app: AppImage) -> None:
    """The detail has expected and actual values and the container's lines."""
    with pytest.raises(SmokeFailed) as caught:
        check(tiny, app, "wrong")
    assert "/animal: expected 'cat', got 'dog'" in caught.value.detail
    assert "serving in mode wrong" in caught.value.detail


def test_a_container_that_crashes_is_an_error_with_the_log(
    tiny: TinyApplication, app: AppImage
) -> None:
    """The test does not wait for a container that ended."""
    with pytest.raises(SmokeFailed, match="ended before it was ready") as caught:
        check(tiny, app, "crash", within=600)
    assert "these weights are broken" in caught.value.detail


def test_a_container_that_is_never_ready_is_an_error_with_the_log(
    tiny: TinyApplication, app: AppImage
) -> None:
    """The error comes after the configured time."""
    # Long enough for a container of a busy engine to write its first line.
    with pytest.raises(SmokeFailed, match="not ready within") as caught:
        check(tiny, app, "never", within=15.0)
    assert "serving in mode never" in caught.value.detail
