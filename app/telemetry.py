"""The metrics of the application, for Prometheus.

Each application has a registry of its own, so that two in one process do not count together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
            "Time from the head of a request to its response.",
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

    def count_response(self, path: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request; `path` is None if none serves it."""
        known = path or "other"
        self.requests.labels(known, method if method in _METHODS else "other", status).inc()
        self.seconds.labels(known).observe(seconds)

    def count_pictures(self, pictures: int, milliseconds: float) -> None:
        """Count the pictures of one request."""
        self.pictures.inc(pictures)
        self.scoring.observe(milliseconds / 1000)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
