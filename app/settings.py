"""The settings of one replica, read once from the environment. Imports nothing of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DIGITS = 12


class SettingsError(ValueError):
    """Variables of the environment that are out of their bounds, one clause for each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one replica; every field has a default that serves.

    Attributes:
        model_dir: Directory of the published model, with `manifest.json` in it.
        port: TCP port to listen on.
        slots: Requests that decode and classify at the same time; 0 for one a core. More only adds
            memory.
        max_waiting: Most requests that wait for a slot; more are answered with 503.
        max_body_bytes: Largest body of a request.
        max_held_bytes: Most bytes of bodies in memory, of all requests that are read or wait to be
            scored.
        max_pictures: Most pictures in a request.
        max_pixels: Most pixels in all pictures of a request together, before anything is decoded.
        read_seconds: How long a client may take to send the body of a request.
        grace_seconds: How long requests in flight may take to finish after a stop was asked for.
        drain_seconds: How long new connections are still accepted after a stop was asked for, while
            `/readyz` answers 503.
        access_log: Write one line of JSON a request to stdout.
        commit: Commit of the application, for `/version`.
        app_digest: Digest of the application's image without a model, for `/version`.
        model_digest: Digest of the model that the image was joined with, for `/version`.
    """

    model_dir: Path = Path("/model")
    port: int = 8080
    slots: int = 0
    max_waiting: int = 64
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
        default = cls()
        settings = cls(
            model_dir=Path(reader.text("APP_MODEL_DIR", str(default.model_dir))),
            port=reader.whole("APP_PORT", default.port, 1, 65_535),
            slots=reader.whole("APP_SLOTS", default.slots, 0, 256),
            max_waiting=reader.whole("APP_MAX_WAITING", default.max_waiting, 0, 10_000),
            max_body_bytes=reader.whole("APP_MAX_BODY_BYTES", default.max_body_bytes, 1, 2**31 - 1),
            max_held_bytes=reader.whole("APP_MAX_HELD_BYTES", default.max_held_bytes, 1, 2**40),
            max_pictures=reader.whole("APP_MAX_PICTURES", default.max_pictures, 1, 10_000),
            max_pixels=reader.whole("APP_MAX_PIXELS", default.max_pixels, 1, 178_000_000),
            read_seconds=reader.whole("APP_READ_SECONDS", default.read_seconds, 1, 3600),
            grace_seconds=reader.whole("APP_GRACE_SECONDS", default.grace_seconds, 0, 3600),
            drain_seconds=reader.whole("APP_DRAIN_SECONDS", default.drain_seconds, 0, 3600),
            access_log=bool(reader.whole("APP_ACCESS_LOG", int(default.access_log), 0, 1)),
            commit=reader.text("TWINSHIP_COMMIT", default.commit),
            app_digest=reader.text("TWINSHIP_APP_DIGEST", default.app_digest),
            model_digest=reader.text("TWINSHIP_MODEL_DIGEST", default.model_digest),
        )
        if reader.faults:
            raise SettingsError("; ".join(reader.faults))
        return settings


class _Reader:
    """A source of typed values that keeps its faults, so that all are reported at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.faults: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name) or default

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self._environment.get(name)
        if not text:
            return default
        # The length is checked first because int() refuses thousands of digits with another error.
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
