"""The paths that the application serves, described in ``openapi.json``."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from app import problems, scoring
from app.problems import RequestError
from app.telemetry import CONTENT_TYPE, Telemetry
from app.turns import CrowdedError, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.bundle import Bundle
    from app.patience import Room, Share
    from app.scoring import Scorer
    from app.settings import Settings

OPENAPI = Path(__file__).with_name("openapi.json")
# Under these keys the server may leave functions in the environ of a request: to be told how many bytes of the body have come, and
# when it is whole; and to tell whether the client has closed its side of the connection.
BODY_MOVED, BODY_READ, CLIENT_GONE = "app.body_moved", "app.body_read", "app.client_gone"
_PIECE = 32 * 1024


@dataclass(frozen=True, slots=True)
class Service:
    """What the paths work with. ``stopping`` is set once a stop was asked for."""

    settings: Settings
    bundle: Bundle
    scorer: Scorer
    telemetry: Telemetry
    room: Room
    turns: Turns
    stopping: threading.Event = field(default_factory=threading.Event)


def blueprint(service: Service) -> Blueprint:
    """Make the routes over one service."""
    routes = Blueprint("routes", __name__)
    views: dict[str, Callable[[], Response]] = {
        "/": lambda: _text("Healthy"),
        "/healthz": lambda: _text("alive"),
        "/readyz": lambda: _ready(service),
        "/version": lambda: jsonify(_version(service)),
        "/metrics": lambda: Response(service.telemetry.text(), content_type=CONTENT_TYPE),
        "/openapi.json": lambda: Response(OPENAPI.read_bytes(), content_type="application/json"),
    }
    for path, view in views.items():
        routes.add_url_rule(
            path, path.strip("/").replace(".", "_") or "index", view, methods=["GET"]
        )
    routes.add_url_rule("/score", "score", lambda: _score(service), methods=["POST"])

    @routes.after_app_request
    def name_model(response: Response) -> Response:
        response.headers["X-Model-Digest"] = service.bundle.digest
        return response

    return routes


def _text(words: str) -> Response:
    return Response(words, content_type="text/plain; charset=utf-8")


def _ready(service: Service) -> Response:
    # There is no service before its model is loaded and warmed up, so only a stop can make it unready.
    if service.stopping.is_set():
        return problems.answer(HTTPStatus.SERVICE_UNAVAILABLE, "This replica is stopping.")
    return _text("ready")


def _version(service: Service) -> dict[str, object]:
    bundle, settings = service.bundle, service.settings
    return {
        "commit": settings.commit,
        "model": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
        "image": {"app": settings.app_digest, "model": settings.model_digest},
    }


def _score(service: Service) -> Response:
    with service.room.share() as share:
        body = _body(share)
        # It is taken apart in its turn only: the values in it take more memory than its bytes.
        with _turn(service.turns):
            texts = scoring.read_body(body, service.settings.max_pictures)
            del body
            guesses, milliseconds = service.scorer.score(texts)
    service.telemetry.scored(len(texts), milliseconds)
    return jsonify(scoring.answer(guesses, milliseconds))


@contextmanager
def _turn(turns: Turns) -> Iterator[None]:
    try:
        with turns.turn(request.environ.get(CLIENT_GONE, lambda: False)):
            yield
    except CrowdedError:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests wait to be scored.", retry_after=1
        ) from None


def _body(share: Share) -> bytes:
    if request.mimetype != "application/json":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The Content-Type must be application/json."
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "No Content-Encoding is understood.")
    body, moved = bytearray(), request.environ.get(BODY_MOVED, lambda _: None)
    for piece in _pieces():
        if not share.take(len(piece)):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too many bytes wait to be scored.", retry_after=1
            )
        body += piece
        moved(len(piece))
    if share.taken < (request.content_length or 0):
        raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive whole and in time.")
    request.environ.get(BODY_READ, lambda: None)()
    return bytes(body)


def _pieces() -> Iterator[bytes]:
    left = request.content_length
    try:
        while left != 0 and (piece := request.stream.read(_PIECE)):
            left = left and left - len(piece)
            yield piece
    except RequestEntityTooLarge:
        raise
    except (
        Exception
    ) as error:  # The server's readers have no common base for what a client can do wrong.
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "The body could not be read as its headers announce it."
        ) from error
