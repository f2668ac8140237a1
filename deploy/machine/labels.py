"""The labels by which everything of an environment is found on a Docker host."""

from __future__ import annotations

LABEL = "dev.twinship.docker"
APP = "dev.twinship.app"
ENVIRONMENT = "dev.twinship.environment"
ROLE = "dev.twinship.role"
SLOT = "dev.twinship.slot"
IMAGE = "dev.twinship.image"
