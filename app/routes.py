"""The paths that the application serves, described in `openapi.json`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app import bodies, scoring
from app.problems import Problem, RequestError
from app.service import Service
from app.telemetry import CONTENT_TYPE
from app.workers import FullError, GoneError

OPENAPI = Path(__file__).with_name("openapi.json")


def routes(service: Service) -> list[Route]:
    """Return the routes over one service."""
    description = OPENAPI.read_bytes()
    views: dict[str, Callable[[], Response]] = {
        "/": lambda: PlainTextResponse("Healthy"),
        "/healthz": lambda: PlainTextResponse("alive"),
        "/readyz": lambda: _ready(service),
        "/version": lambda: JSONResponse(_version(service)),
        "/metrics": lambda: Response(service.telemetry.text(), media_type=CONTENT_TYPE),
        "/openapi.json": lambda: Response(description, media_type="application/json"),
    }
    found = [Route(path, _get(view), methods=["GET"]) for path, view in views.items()]
    return [*found, Route("/score", functools.partial(_score, service), methods=["POST"])]


def _get(view: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that runs in the event loop, as no view waits for anything."""

    async def endpoint(_: Request) -> Response:
        return view()

    return endpoint


def _ready(service: Service) -> Response:
    # There is no service before its model is loaded and has run once: only a stop makes it unready.
    if service.stopping:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "This replica is stopping.")
    return PlainTextResponse("ready")


def _version(service: Service) -> dict[str, object]:
    bundle = service.bundle
    settings = service.settings
    return {
        "commit": settings.commit,
        "model": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
        "image": {"app": settings.app_digest, "model": settings.model_digest},
    }


async def _score(service: Service, request: Request) -> Response:
    with service.room.share() as share:
        body = await bodies.read(request, share, service.settings)
        # The body is parsed in a thread as well: its values take more memory than its bytes.
        work = functools.partial(service.scorer.score, body)
        try:
            # After the body, the next message says that the client has gone.
            scores = await service.workers.run(work, request.receive)
        except (FullError, GoneError):
            detail = "Too many requests wait to be scored."
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=1) from None
    service.telemetry.count_pictures(len(scores.guesses), scores.milliseconds)
    return JSONResponse(scoring.format_scores(scores))
