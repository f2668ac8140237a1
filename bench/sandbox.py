"""A sandbox to measure in: a checkout, a cache, a port and a registry that nothing else uses.

All of it is removed afterwards. What is created in the engine has the label `dev.twinship.bench`,
so that the remains of a killed run can be found.
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
from deploy.clients.stores.protocol import Store, open_store
from deploy.image import wheels
from deploy.machine import host, services
from deploy.machine.base_image import ensure_base_image
from deploy.machine.labels import APP, LABEL
from deploy.model import manifest
from deploy.model.fetch import find_cached_layer
from deploy.model.manifest import LATEST
from deploy.model.versions import read_model_manifest
from deploy.settings.reading import Settings

BENCH_LABEL = "dev.twinship.bench"
_STORAGE = "/var/lib/registry"
_REGISTRY_TIMEOUT = 60.0
_ROUNDS = 5
# Without a label, both ways find them in the build cache: no release changes them.
_SHARED_STAGES = "python|dependencies"


@dataclass(frozen=True)
class RegistryCounters:
    """The bytes in a registry's storage, and those in and out of its network interface."""

    stored: int
    received: int
    sent: int

    def __sub__(self, other: RegistryCounters) -> RegistryCounters:
        return RegistryCounters(
            self.stored - other.stored, self.received - other.received, self.sent - other.sent
        )


@dataclass(frozen=True)
class Sandbox:
    """An application that is released to a registry of its own.

    Args:
        application: the application.
        engine: the container engine.
        label: the value of BENCH_LABEL on all that is created here.
        registry: the registry's host and port.
        registry_container: the id of its container.
    """

    application: Application
    engine: Engine
    label: str
    registry: str
    registry_container: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make the suite use this sandbox."""
        return {
            "TWINSHIP_HOME": str(self.application.home),
            "TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY": self.registry,
        }

    @property
    def settings(self) -> Settings:
        """The application's settings."""
        return Settings.read(self.application.folder, {})

    def invoke(self, *arguments: str) -> meters.CommandResult:
        """Run a task of the suite and measure it."""
        return meters.measure(
            (sys.executable, "-m", "invoke", *arguments), self.application.folder, self.variables
        )

    @property
    def base_image(self) -> str:
        """The base image of the application's image."""
        return ensure_base_image(self.engine, self.settings.image)

    def model_manifest(self, version: str = LATEST) -> manifest.ModelManifest:
        """Return the manifest of a version of the model in the sandbox's store."""
        return read_model_manifest(self.settings.model.name, version, self._store)

    def stored_file(self, entry: manifest.ModelFile) -> Path:
        """Return the path of a model's file in the store."""
        return (
            self.application.folder / self.settings.model.store / "blobs" / "sha256" / entry.sha256
        )

    def cached_layer(self, model: manifest.ModelManifest) -> Path:
        """Return the path of the layer of a released model in the cache."""
        cache = Cache(self.application.home)
        layer = find_cached_layer(model.model, cache, self.settings.model.mount)
        if layer is None:
            raise LookupError(f"{model.model} was never fetched")
        return cache.path(layer.digest)

    @property
    def _store(self) -> Store:
        return open_store(self.settings.model.store, self.application.folder)

    def read_counters(self) -> RegistryCounters:
        """Return the registry's current counters."""
        code, text = self.engine.execute(
            self.registry_container, ("sh", "-c", f"du -sb {_STORAGE} && cat /proc/net/dev")
        )
        if code:
            raise RuntimeError(f"the registry's counters cannot be read: {text}")
        return parse_counters(text)

    def replicas(self) -> list[Container]:
        """Return the replicas that serve now."""
        return self.engine.containers(
            {LABEL: "yes", APP: self.application.name, "dev.twinship.role": "replica"}
        )

    def proxy(self) -> Container:
        """Return the container of the proxy."""
        return self.engine.containers(
            {LABEL: "yes", APP: self.application.name, "dev.twinship.role": "door"}
        )[0]


def parse_counters(text: str) -> RegistryCounters:
    """Return the counters in the output of `du -sb` and /proc/net/dev."""
    network = re.search(r"^\s*eth0:\s*(\d+)(?:\s+\d+){7}\s+(\d+)", text, re.MULTILINE)
    if network is None:
        raise ValueError(f"no network interface in {text!r}")
    return RegistryCounters(int(text.split(maxsplit=1)[0]), int(network[1]), int(network[2]))


@contextmanager
def sandbox(folder: Path, packages: Path) -> Iterator[Sandbox]:
    """Create a sandbox below a folder, with the locked packages; remove all of it afterwards.

    Args:
        folder: an empty folder.
        packages: the cache that `download_packages` filled.
    """
    application = Application.create(folder)
    label = application.name
    engine = host.connect_engine()
    try:
        label_stages(application.folder / "Dockerfile", label)
        application.commit("labelled")
        shutil.copytree(packages / "wheels", application.home / "wheels", copy_function=os.link)
        address, container = _start_registry(engine, application, label)
        yield Sandbox(application, engine, label, address, container)
    finally:
        engine.remove_labelled({LABEL: "yes", APP: application.name})
        engine.remove_labelled({BENCH_LABEL: label})
        _remove_images(label)
        shutil.rmtree(folder, ignore_errors=True)


def download_packages(folder: Path, application: Path) -> Path:
    """Download an application's locked packages once, into a cache for all sandboxes."""
    settings = Settings.read(application, {})
    if settings.image.wheels:
        wheels.download_wheels(
            settings.image.wheels,
            application,
            settings.image.platform or host.engine_platform(host.THIS_MACHINE),
            Cache(folder),
        )
    return folder


def label_stages(dockerfile: Path, label: str) -> None:
    """Label the stages of a Dockerfile that have the application.

    Its images can be found by the label, and share no layers with others.
    """
    text = dockerfile.read_text(encoding="utf-8")
    labelled, count = re.subn(
        rf"^FROM (?!.* AS (?:{_SHARED_STAGES})$).*$",
        lambda line: f"{line[0]}\nLABEL {BENCH_LABEL}={label}",
        text,
        flags=re.MULTILINE,
    )
    if not count:
        raise ValueError(f"{dockerfile} has no stage to be labelled")
    dockerfile.write_text(labelled, encoding="utf-8")


def _start_registry(engine: Engine, application: Application, label: str) -> tuple[str, str]:
    """Start an empty registry; return its address and its container."""
    settings = Settings.read(application.folder, {})
    port = free_port()
    labels = {BENCH_LABEL: label}
    name = f"twinship-bench-{label}"
    engine.ensure_volume(name, labels)
    container = engine.create(
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
    engine.start(container.id)
    address = f"127.0.0.1:{port}"
    deadline = time.monotonic() + _REGISTRY_TIMEOUT
    while not host.THIS_MACHINE.registry_answers(address):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the registry on {address} did not start: {engine.logs(container.id, 5)}"
            )
        time.sleep(0.05)
    return address, container.id


def _remove_images(label: str) -> None:
    """Remove the images with a label; an image on which others are based needs another round."""
    for _ in range(_ROUNDS):
        images = docker("image", "ls", "-q", "--filter", f"label={BENCH_LABEL}={label}").split()
        if not images:
            return
        docker("image", "rm", "-f", *dict.fromkeys(images))


def docker(*arguments: str) -> str:
    """Run the Docker command line and return its output, whether or not it succeeded."""
    completed = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)  # noqa: S603, S607 - the user's own docker
    return completed.stdout
