"""A container that counts as another application, so that the local registry is never stopped.

`invoke down` stops the registry together with the last application. Tests that run at the same
time push to that registry, and each of them ends with `invoke down`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from bench.application import ROOT
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec
from deploy.machine import services
from deploy.machine.labels import APP, LABEL
from deploy.settings.reading import Settings


@contextmanager
def registry_kept() -> Iterator[None]:
    """Keep the registry from being stopped while a `with` block lasts.

    The container ends with this process, even if the process is killed.
    """
    engine = DockerEngine()
    name = f"e2e-keeper-{secrets.token_hex(4)}"
    image = services.ensure_services_image(engine, Settings.read(ROOT, {}).image)
    labels = {LABEL: "yes", APP: name}
    started = engine.start_tied(Spec(name=name, image=image, labels=labels, command=("cat",)))
    try:
        yield
    finally:
        engine.end_tied(started)
