"""A piece of ground to measure on: a checkout, a cache, a port and a registry that nobody else uses, all gone afterwards.

What is made in the engine carries the label `dev.twinship.bench`, so that the leavings of a killed run can be found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import meters
from bench.application import Application, free_port
from deploy.cache import Cache
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.clients.stores import object_store as store
from deploy.image import wheels
from deploy.machine import host, services
from deploy.model import fetch as model
from deploy.model import manifest
from deploy.settings.reading import Settings
from deploy.targets.docker.state import APP, LABEL

BENCH = "dev.twinship.bench"
_STORAGE = "/var/lib/registry"
_WITHIN = 60.0
_ROUNDS = 5
# Left as they are, so that both ways find in the engine's build cache what never changes from release to release.
_SHARED_STAGES = "python|dependencies"


@dataclass(frozen=True)
class Tally:
    """What a registry holds and has moved: bytes of storage, and bytes in and out of its network interface."""

    stored: int
    received: int
    sent: int

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.stored - other.stored, self.received - other.received, self.sent - other.sent
        )


@dataclass(frozen=True)
class Ground:
    """An application that is released to a registry of its own.

    Args:
        application: the checkout.
        engine: the container engine.
        label: the value of BENCH on all that is made here.
        registry: host and port.
        registry_container: its id.
    """

    application: Application
    engine: Engine
    label: str
    registry: str
    registry_container: str

    @property
    def variables(self) -> dict[str, str]:
        """What the suite's environment needs to be at home here."""
        return {
            "TWINSHIP_HOME": str(self.application.home),
            "TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY": self.registry,
        }

    @property
    def settings(self) -> Settings:
        """The application's configuration."""
        return Settings.read(self.application.folder, {})

    def invoke(self, *arguments: str) -> meters.Ended:
        """Runs a task of the suite to its end, measured."""
        return meters.measured(
            (sys.executable, "-m", "invoke", *arguments), self.application.folder, self.variables
        )

    @property
    def base(self) -> str:
        """The image that the application's image is built from."""
        return services.ensure_base_image(self.engine, self.settings.image)

    def published(self, version: str = model.LATEST) -> manifest.ModelManifest:
        """The manifest of a version of the model in the ground's store."""
        return model.read_manifest(self._store, self.settings.model.name, version)

    def file(self, entry: manifest.ModelFile) -> Path:
        """Where the store keeps a file of a model."""
        return (
            self.application.folder / self.settings.model.store / "blobs" / "sha256" / entry.sha256
        )

    def layer(self, found: manifest.ModelManifest) -> Path:
        """Where the cache keeps the layer of a model that was released."""
        cache = Cache(self.application.home)
        known = model.find_cached_layer(found.model, cache, self.settings.model.mount)
        if known is None:
            raise LookupError(f"{found.model} was never fetched")
        return cache.path(known.digest)

    @property
    def _store(self) -> store.Store:
        return store.open_store(self.settings.model.store, self.application.folder)

    def tally(self) -> Tally:
        """What the registry holds and has moved until now."""
        code, text = self.engine.execute(
            self.registry_container, ("sh", "-c", f"du -sb {_STORAGE} && cat /proc/net/dev")
        )
        if code:
            raise RuntimeError(f"the registry's counters cannot be read: {text}")
        return tallied(text)

    def replicas(self) -> list[Container]:
        """The replicas that serve now."""
        return self.engine.containers(
            {LABEL: "yes", APP: self.application.name, "dev.twinship.role": "replica"}
        )

    def door(self) -> Container:
        """The proxy before them."""
        return self.engine.containers(
            {LABEL: "yes", APP: self.application.name, "dev.twinship.role": "door"}
        )[0]


def tallied(text: str) -> Tally:
    """Reads the sizes that `du -sb` and /proc/net/dev print."""
    network = re.search(r"^\s*eth0:\s*(\d+)(?:\s+\d+){7}\s+(\d+)", text, re.MULTILINE)
    if network is None:
        raise ValueError(f"no network interface in {text!r}")
    return Tally(int(text.split(maxsplit=1)[0]), int(network[1]), int(network[2]))


@contextmanager
def ground(folder: Path, packages: Path) -> Iterator[Ground]:
    """Makes a ground below a folder, with the locked packages already downloaded; removes all of it in the end.

    Args:
        folder: an empty one.
        packages: the cache that `packages_of` filled.
    """
    application = Application.made(folder)
    label = application.name
    engine = host.connect()
    try:
        mark(application.folder / "Dockerfile", label)
        application.commit("marked")
        shutil.copytree(packages / "wheels", application.home / "wheels", copy_function=os.link)
        address, container = _registry(engine, application, label)
        yield Ground(application, engine, label, address, container)
    finally:
        engine.remove_labelled({LABEL: "yes", APP: application.name})
        engine.remove_labelled({BENCH: label})
        _remove_images(label)
        shutil.rmtree(folder, ignore_errors=True)


def packages_of(folder: Path, application: Path) -> Path:
    """Downloads an application's locked packages once, into a cache for all grounds."""
    settings = Settings.read(application, {})
    if settings.image.wheels:
        wheels.download(
            settings.image.wheels, application, host.connect().architecture, Cache(folder)
        )
    return folder


def mark(dockerfile: Path, label: str) -> None:
    """Labels the stages of a Dockerfile that hold the application, so that its images are found and no one else's are shared."""
    text = dockerfile.read_text(encoding="utf-8")
    marked, count = re.subn(
        rf"^FROM (?!.* AS (?:{_SHARED_STAGES})$).*$",
        lambda line: f"{line[0]}\nLABEL {BENCH}={label}",
        text,
        flags=re.MULTILINE,
    )
    if not count:
        raise ValueError(f"{dockerfile} has no stage to be labelled")
    dockerfile.write_text(marked, encoding="utf-8")


def _registry(engine: Engine, application: Application, label: str) -> tuple[str, str]:
    """Starts a registry with nothing in it."""
    settings = Settings.read(application.folder, {})
    port = free_port()
    labels = {BENCH: label}
    name = f"twinship-bench-{label}"
    engine.volume(name, labels)
    made = engine.create(
        Spec(
            name=name,
            image=services.ensure_services_image(engine, settings.image),
            labels=labels,
            command=("docker-registry", "serve", "/etc/docker/registry/config.yml"),
            network="bridge",
            ports={5000: ("127.0.0.1", port)},
            volumes={name: (_STORAGE, False)},
        )
    )
    engine.start(made.id)
    address = f"127.0.0.1:{port}"
    deadline = time.monotonic() + _WITHIN
    while not host.registry_answers(address):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the registry on {address} did not come up: {engine.logs(made.id, 5)}"
            )
        time.sleep(0.05)
    return address, made.id


def _remove_images(label: str) -> None:
    """Removes the images that carry a label; those made of others are found when those are gone."""
    for _ in range(_ROUNDS):
        listed = docker("image", "ls", "-q", "--filter", f"label={BENCH}={label}").split()
        if not listed:
            return
        docker("image", "rm", "-f", *dict.fromkeys(listed))


def docker(*arguments: str) -> str:
    """Runs the Docker command line and returns what it printed, whether or not it succeeded."""
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)  # noqa: S603, S607 - the user's own
    return done.stdout
