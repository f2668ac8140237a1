"""The usual way: the application and model in one `docker build`, then one `docker push`.

It has every advantage that these two commands allow: the same Dockerfile with its cache, the model
copied in below the code, and the model's files in place as hard links, while the suite fetches them
from its store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import meters
from bench.figures import Cost, Run
from bench.sandbox import Sandbox, label_stages
from deploy.model import manifest

_MARKER = "LABEL twinship.model=here"
_COPY_MODEL = "COPY model /model"


@dataclass(frozen=True)
class Baseline:
    """A build context of its own for a sandbox's application and model.

    Args:
        sandbox: has the application, the model and the registry.
        folder: the folder of the context.
    """

    sandbox: Sandbox
    folder: Path

    @classmethod
    def create(cls, sandbox: Sandbox, folder: Path) -> Baseline:
        """Return the context of the sandbox's checkout, with its locked packages."""
        folder.mkdir(parents=True)
        _link(sorted((sandbox.application.home / "wheels").rglob("*.whl")), folder / "wheels")
        baseline = cls(sandbox, folder)
        baseline.copy_code()
        return baseline

    def copy_code(self) -> None:
        """Copy the checkout's code and Dockerfile into the context."""
        checkout = self.sandbox.application.folder
        shutil.rmtree(self.folder / "app", ignore_errors=True)
        shutil.copytree(
            checkout / "app", self.folder / "app", ignore=shutil.ignore_patterns("__pycache__")
        )
        text = (checkout / "Dockerfile").read_text(encoding="utf-8")
        (self.folder / "Dockerfile").write_text(with_model(text), encoding="utf-8")
        # Another label than the suite's: neither finds the other's layers in the build cache.
        label_stages(self.folder / "Dockerfile", self.sandbox.label)

    def link_model(self, model: manifest.ModelManifest) -> None:
        """Link a model of the sandbox's store into the context, in the suite's form."""
        target = self.folder / "model"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / manifest.PUBLISHED_FILE).write_bytes(model.text)
        for entry in model.files:
            (target / entry.path).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.sandbox.stored_file(entry), target / entry.path)

    def build_cached_stages(self) -> None:
        """Build the stages that no release changes, so that both ways find them in the cache."""
        self._docker(
            "build",
            "--target",
            "dependencies",
            "--build-arg",
            f"BASE={self.sandbox.base_image}",
            ".",
        )

    def release(self, version: str) -> Run:
        """Build and push what is in the context now."""
        before = self.sandbox.read_counters()
        name = f"{self.sandbox.registry}/baseline:{version}"
        built = self._docker(
            "build", "--build-arg", f"BASE={self.sandbox.base_image}", "--tag", name, "."
        )
        pushed = self._docker("push", name)
        traffic = self.sandbox.read_counters() - before
        return Run(
            **dict(built + pushed),
            stored=traffic.stored,
            received=traffic.received,
            sent=traffic.sent,
            stages={"docker build": built.seconds, "docker push": pushed.seconds},
        )

    def _docker(self, *arguments: str) -> Cost:
        return meters.measure(("docker", *arguments), self.folder, {}).cost


def with_model(dockerfile: str) -> str:
    """Return the Dockerfile with the model copied in where the suite would join it.

    Raises:
        ValueError: the Dockerfile does not say where.
    """
    if _MARKER not in dockerfile:
        raise ValueError(f"the Dockerfile has no line {_MARKER!r}")
    return dockerfile.replace(_MARKER, _COPY_MODEL)


def _link(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
