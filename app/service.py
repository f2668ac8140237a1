"""What the paths of the application work with."""

from __future__ import annotations

from dataclasses import dataclass

from app.bodies import Room
from app.bundle import Bundle
from app.scoring import Scorer
from app.settings import Settings
from app.telemetry import Telemetry
from app.workers import Workers


@dataclass(slots=True)
class Service:
    """A loaded model and all that serves it.

    Attributes:
        stopping: Whether a stop was asked for.
    """

    settings: Settings
    bundle: Bundle
    scorer: Scorer
    telemetry: Telemetry
    room: Room
    workers: Workers
    stopping: bool = False
