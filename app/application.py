"""The application put together: model, paths, errors and metrics."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Lifespan

from app import bundle, classifier, problems, routes
from app.bodies import Room
from app.middleware import ResponseMiddleware
from app.problems import RequestError
from app.scoring import Scorer
from app.service import Service
from app.settings import Settings
from app.telemetry import Telemetry
from app.workers import Workers


def load(settings: Settings) -> Service:
    """Load the model.

    Raises:
        ModelError: It cannot be served.
    """
    loaded = classifier.load(bundle.read(settings.model_dir))
    return Service(
        settings=settings,
        bundle=loaded.bundle,
        scorer=Scorer(loaded, settings),
        telemetry=Telemetry(loaded.bundle),
        room=Room(settings.max_held_bytes),
        # More at once would each take longer and hold their pixels for longer.
        workers=Workers(settings.slots or len(os.sched_getaffinity(0)), settings.max_waiting),
    )


def create_app(service: Service, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Return the application that serves a model."""
    app = Starlette(
        routes=routes.routes(service),
        exception_handlers={
            RequestError: problems.report_refusal,
            HTTPException: problems.report_http_error,
        },
        # Starlette's own layer for faults is outside of it, and so has none to handle.
        middleware=[Middleware(ResponseMiddleware, service)],
        lifespan=lifespan,
    )
    # A path is served as it is written or not at all.
    app.router.redirect_slashes = False
    return app
