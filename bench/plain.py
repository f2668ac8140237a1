"""A server as in many tutorials: one function, a full decode of each picture, default settings.

It runs inside the application's image, with the same Python, libraries and model; it imports
nothing of the project.
"""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it carries no types
from flask import Flask, Response, jsonify, request
from PIL import Image

_MODEL = Path("/model")
_SIDE = 224
_CROP = 0.875

app = Flask(__name__)
_labels = (_MODEL / "labels.txt").read_text(encoding="utf-8").splitlines()
_session = ort.InferenceSession(_MODEL / "model.onnx")


@app.get("/")
def healthy() -> str:
    """Report that the server is running."""
    return "Healthy"


@app.post("/score")
def score() -> Response:
    """Return the three best labels of each picture."""
    started = time.perf_counter()
    pictures = json.loads(request.get_json()["input"])
    batch = np.stack([_prepare(base64.b64decode(picture)) for picture in pictures])
    (probabilities,) = _session.run(None, {_session.get_inputs()[0].name: batch})
    result = [_best(row) for row in probabilities]
    return jsonify(result=[result, f"Computed in {(time.perf_counter() - started) * 1000:.1f} ms"])


def _prepare(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    side = round(min(picture.size) * _CROP)
    left = (picture.width - side) // 2
    top = (picture.height - side) // 2
    cropped = picture.crop((left, top, left + side, top + side)).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC
    )
    return np.asarray(cropped, np.uint8)


def _best(
    probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> list[list[str | float]]:
    return [
        [_labels[index], round(float(probabilities[index]) * 100, 2)]
        for index in np.argsort(probabilities)[:-4:-1]
    ]
