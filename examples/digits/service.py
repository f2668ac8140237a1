"""A service that recognises the digit in a picture of 8x8 grey levels.

`POST /predict` takes a list of eight rows of levels from 0 to 16. If the variable `API_KEY` is set,
a request needs that key in the header `X-Api-Key`.

The model is the published bundle in the folder `MODEL`; its manifest names the files of the weights
and of the digits' names.
"""

# ruff: noqa: INP001 - a program, not part of a package

from __future__ import annotations

import hmac
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # it carries no types
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

MODEL = Path(os.environ.get("MODEL", "/opt/model"))
KEY = os.environ.get("API_KEY", "")
MAX_BYTES = 4096


class Unreadable(ValueError):
    """A request body that is not a picture; the message says why."""


class Recogniser:
    """A network and the names of its digits.

    Args:
        folder: the folder of a published model.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_bytes())
        interface = self.manifest["interface"]
        self._side = interface["picture"]["side"]
        self._largest = interface["picture"]["largest"]
        self._names = (folder / interface["names"]).read_text(encoding="utf-8").split()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            folder / interface["model"], options, providers=["CPUExecutionProvider"]
        )

    def read(self, body: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the picture in a body.

        Raises:
            Unreadable: the body is not a picture.
        """
        try:
            picture = np.asarray(json.loads(body), np.float32)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise Unreadable("the body is not a JSON list of rows of numbers") from None
        if picture.shape != (self._side, self._side):
            raise Unreadable(
                f"the picture has the shape {list(picture.shape)}, not {[self._side, self._side]}"
            )
        if not ((picture >= 0) & (picture <= self._largest)).all():
            raise Unreadable(f"a grey level is not from 0 to {self._largest}")
        return picture

    def recognise(self, picture: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
        """Return the most likely digit, its name, and its probability."""
        probabilities = np.asarray(self._session.run(None, {"picture": picture[None]})[0])[0]
        digit = int(probabilities.argmax())
        return {
            "digit": digit,
            "name": self._names[digit],
            "probability": round(float(probabilities[digit]), 4),
        }


async def predict(request: Request) -> Response:
    """Return the digit of one picture."""
    key = request.headers.get("x-api-key", "")
    if KEY and not hmac.compare_digest(key.encode(), KEY.encode()):
        return JSONResponse({"error": "the key in X-Api-Key is missing or wrong"}, 401)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            return JSONResponse({"error": f"the body has more than {MAX_BYTES} bytes"}, 413)
    try:
        return JSONResponse(recogniser.recognise(recogniser.read(body)))
    except Unreadable as error:
        return JSONResponse({"error": str(error)}, 400)


async def ready(_: Request) -> Response:
    """Report that the model is loaded; it is before the first connection is accepted."""
    return PlainTextResponse("ready")


async def about(_: Request) -> Response:
    """Return which code and which model answer here."""
    model = {key: recogniser.manifest[key] for key in ("name", "version", "metadata")}
    return JSONResponse({"commit": os.environ.get("TWINSHIP_COMMIT", "unknown"), "model": model})


recogniser = Recogniser(MODEL)
app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        Route("/ready", ready),
        Route("/about", about),
    ]
)
