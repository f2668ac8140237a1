"""What the application tells of itself while it runs: metrics for Prometheus and, if asked for, a line a request.

Each application has a registry of its own, so that two in one process do not count together.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from app.bundle import Bundle

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A method that a client made up must not become a series of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Telemetry:
    """The metrics of one application."""

    def __init__(self, bundle: Bundle) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "app_requests",
            "Requests answered.",
            ("path", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "app_request_seconds",
            "Time from the head of a request to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge(
            "app_requests_running", "Requests being answered.", registry=self.registry
        )
        self.pictures = Counter("app_pictures", "Pictures scored.", registry=self.registry)
        self.scoring = Histogram(
            "app_scoring_seconds",
            "Time to decode and classify the pictures of a request.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        model = Gauge(
            "app_model_info",
            "The model that is served.",
            ("name", "version", "digest"),
            registry=self.registry,
        )
        model.labels(bundle.name, bundle.version, bundle.digest).set(1)

    def scored(self, pictures: int, milliseconds: float) -> None:
        """Count the pictures of one request."""
        self.pictures.inc(pictures)
        self.scoring.observe(milliseconds / 1000)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def register(app: Flask, telemetry: Telemetry, *, access_log: bool) -> None:
    """Have each request of an application counted and timed, and logged to stdout if wanted."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()
        telemetry.running.inc()

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        telemetry.running.dec()

    @app.after_request
    def count(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        path = request.url_rule.rule if request.url_rule else "other"
        method = request.method if request.method in _METHODS else "other"
        telemetry.requests.labels(path, method, response.status_code).inc()
        telemetry.seconds.labels(path).observe(seconds)
        if access_log:
            _log(response, seconds)
        return response


def _log(response: Response, seconds: float) -> None:
    line = {
        "at": round(time.time(), 3),
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "ms": round(1000 * seconds, 1),
        "received": request.content_length,
        "client": request.remote_addr,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
