"""The labels by which everything of an environment is found on a Docker host."""

from __future__ import annotations

LABEL = "dev.twinship.docker"
APP = "dev.twinship.app"
ENVIRONMENT = "dev.twinship.environment"
ROLE = "dev.twinship.role"
SLOT = "dev.twinship.slot"
IMAGE = "dev.twinship.image"
ATTEMPT = "dev.twinship.attempt"
"""On a replica: the number of the attempt that started it."""
VALUES = "dev.twinship.env"
"""On a replica: the names of the variables that settings gave it, with commas."""
SECRETS = "dev.twinship.secrets"
"""On a replica: the names of those of its variables that are secret, with commas."""
