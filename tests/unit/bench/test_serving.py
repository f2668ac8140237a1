from __future__ import annotations

import base64
import io
import json

from PIL import Image

from bench import serving


def test_the_camera_picture_has_a_cameras_size_and_weight() -> None:
    """It is always the same, and below the limit of the application."""
    data = serving.camera_picture()
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", serving.CAMERA)
    body = serving.score_request(data)

    assert 3_000_000 < len(data) < 6_000_000
    assert len(body) < 10 * 1024 * 1024
    assert base64.b64decode(json.loads(json.loads(body)["input"])[0]) == data
    assert serving.camera_picture() == data
