from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from bench import serving
from bench.load import Answer


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: int) -> None:
    """The nearest rank, not something between two."""
    assert serving.percentile([float(number) for number in range(100, 0, -1)], percent) == value


def test_failures_have_no_latency() -> None:
    """An error that comes fast must not make a server look fast."""
    answers = [Answer(0, 0.010, 200, "m"), Answer(0, 0.030, 200, "m"), Answer(0, 0.001, 503, ""), Answer(0, 0.002, 0, "")]
    burst = serving.summed(answers, 2.0)

    assert (burst.requests, burst.failures, burst.rate) == (2, 2, 1.0)
    assert [burst.p50, burst.p99] == pytest.approx([10.0, 30.0])


def test_a_server_that_never_answers_is_no_error_of_the_benchmark() -> None:
    """Its rate is 0, and its failures are counted."""
    burst = serving.summed([Answer(0, 1.0, 0, "")], 1.0)

    assert (burst.rate, burst.failures) == (0.0, 1)


def test_the_camera_picture_has_a_cameras_size_and_weight() -> None:
    """12 megapixels, several megabytes, always the same bytes, and below what the application takes at most."""
    data = serving.camera()
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", serving.CAMERA)
    body = serving.body_of(data)

    assert 3_000_000 < len(data) < 6_000_000
    assert len(body) < 10 * 1024 * 1024
    assert base64.b64decode(json.loads(json.loads(body)["input"])[0]) == data
    assert serving.camera() == data
