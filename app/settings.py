"""The settings of one replica, read once from the environment. Imports nothing of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DIGITS = 12


class SettingsError(ValueError):
    """One or more variables of the environment hold what they must not; the text has one clause for each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one replica is told from outside; every field has a default that serves.

    Attributes:
        model_dir: Directory of the published model, with ``manifest.json`` in it.
        port: TCP port to listen on.
        threads: Requests read and answered at the same time; at most half of them score pictures or wait to.
        slots: Requests that decode and classify at the same time; 0 for one a core. More only adds memory.
        max_body_bytes: Largest body of a request.
        max_held_bytes: Most bytes of bodies in memory, of all requests that are read or wait to be scored.
        max_pictures: Most pictures in a request.
        max_pixels: Most pixels in all pictures of a request together, before anything is decoded.
        read_seconds: How long a client may take to send a request, and to take its answer.
        grace_seconds: How long requests in flight may take to finish after a stop was asked for.
        drain_seconds: How long new connections are still accepted after a stop was asked for, while ``/readyz`` says 503.
        access_log: Write one line of JSON a request to stdout.
        commit: Commit of the application, for ``/version``.
        app_digest: Digest of the application's image without a model, for ``/version``.
        model_digest: Digest of the model that the image was joined with, for ``/version``.
    """

    model_dir: Path = Path("/model")
    port: int = 8080
    threads: int = 128
    slots: int = 0
    max_body_bytes: int = 10 * 1024 * 1024
    max_held_bytes: int = 160 * 1024 * 1024
    max_pictures: int = 32
    max_pixels: int = 25_000_000
    read_seconds: int = 20
    grace_seconds: int = 20
    drain_seconds: int = 0
    access_log: bool = False
    commit: str = "unknown"
    app_digest: str = "unknown"
    model_digest: str = "unknown"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; a variable that is absent or empty leaves its default.

        Raises:
            SettingsError: Some variables are out of their bounds; all of them are named.
        """
        reader = _Reader(environment)
        settings = cls(
            model_dir=Path(reader.text("APP_MODEL_DIR", "/model")),
            port=reader.whole("APP_PORT", 8080, 1, 65_535),
            threads=reader.whole("APP_THREADS", 128, 1, 1024),
            slots=reader.whole("APP_SLOTS", 0, 0, 256),
            max_body_bytes=reader.whole("APP_MAX_BODY_BYTES", 10 * 1024 * 1024, 1, 2**31 - 1),
            max_held_bytes=reader.whole("APP_MAX_HELD_BYTES", 160 * 1024 * 1024, 1, 2**40),
            max_pictures=reader.whole("APP_MAX_PICTURES", 32, 1, 10_000),
            max_pixels=reader.whole("APP_MAX_PIXELS", 25_000_000, 1, 178_000_000),
            read_seconds=reader.whole("APP_READ_SECONDS", 20, 1, 3600),
            grace_seconds=reader.whole("APP_GRACE_SECONDS", 20, 0, 3600),
            drain_seconds=reader.whole("APP_DRAIN_SECONDS", 0, 0, 3600),
            access_log=bool(reader.whole("APP_ACCESS_LOG", 0, 0, 1)),
            commit=reader.text("TWINSHIP_COMMIT", "unknown"),
            app_digest=reader.text("TWINSHIP_APP_DIGEST", "unknown"),
            model_digest=reader.text("TWINSHIP_MODEL_DIGEST", "unknown"),
        )
        if reader.faults:
            raise SettingsError("; ".join(reader.faults))
        return settings


class _Reader:
    """Takes typed values from an environment and keeps the faults, so that all are reported at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.faults: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name) or default

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self._environment.get(name)
        if not text:
            return default
        # The length is looked at first because int() refuses thousands of digits with another error.
        if (
            text.isascii()
            and text.isdigit()
            and len(text) <= _MOST_DIGITS
            and least <= int(text) <= most
        ):
            return int(text)
        self.faults.append(
            f"{name}: expected a whole number from {least} to {most}, found {text[:40]!r}"
        )
        return default
