"""The usual way: the same application and model in one `docker build`, and one `docker push` to the same registry.

It is given every advantage that can be had without leaving those two commands: the same Dockerfile with its cache, the model
copied in below the code, and the model's files already at hand as hard links, while the suite fetches them from its store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import meters
from bench.figures import Cost, Run
from bench.ground import Ground, mark
from deploy.model import manifest

_MARKER = "LABEL twinship.model=here"
_COPIES_THE_MODEL = "COPY model /model"


@dataclass(frozen=True)
class Baseline:
    """A build context of its own beside a ground.

    Args:
        ground: whose application, model and registry.
        folder: the context.
    """

    ground: Ground
    folder: Path

    @classmethod
    def made(cls, ground: Ground, folder: Path) -> Baseline:
        """The context of what the ground's checkout holds now, with its locked packages."""
        folder.mkdir(parents=True)
        _linked(sorted((ground.application.home / "wheels").rglob("*.whl")), folder / "wheels")
        made = cls(ground, folder)
        made.lay_code()
        return made

    def lay_code(self) -> None:
        """Brings the checkout's code and Dockerfile into the context."""
        checkout = self.ground.application.folder
        shutil.rmtree(self.folder / "app", ignore_errors=True)
        shutil.copytree(
            checkout / "app", self.folder / "app", ignore=shutil.ignore_patterns("__pycache__")
        )
        text = (checkout / "Dockerfile").read_text(encoding="utf-8")
        (self.folder / "Dockerfile").write_text(with_model(text), encoding="utf-8")
        # Another label than the suite's, so that neither finds the other's layers in the build cache.
        mark(self.folder / "Dockerfile", self.ground.label)

    def lay_model(self, found: manifest.ModelManifest) -> None:
        """Brings a model of the ground's store into the context, in the form that the suite ships."""
        target = self.folder / "model"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / manifest.PUBLISHED_FILE).write_bytes(found.text)
        for entry in found.files:
            (target / entry.path).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.ground.file(entry), target / entry.path)

    def warm(self) -> None:
        """Builds the stages that no release changes, which both ways then take from the engine's cache."""
        self._docker(
            "build", "--target", "dependencies", "--build-arg", f"BASE={self.ground.base}", "."
        )

    def release(self, version: str) -> Run:
        """Builds and pushes what the context holds now."""
        before = self.ground.tally()
        name = f"{self.ground.registry}/baseline:{version}"
        built = self._docker("build", "--build-arg", f"BASE={self.ground.base}", "--tag", name, ".")
        pushed = self._docker("push", name)
        moved = self.ground.tally() - before
        return Run(
            **dict(built + pushed),
            stored=moved.stored,
            received=moved.received,
            sent=moved.sent,
            stages={"docker build": built.seconds, "docker push": pushed.seconds},
        )

    def _docker(self, *arguments: str) -> Cost:
        return meters.measured(("docker", *arguments), self.folder, {}).cost


def with_model(dockerfile: str) -> str:
    """The Dockerfile that copies the model in where the suite would join it.

    Raises:
        ValueError: it does not say where.
    """
    if _MARKER not in dockerfile:
        raise ValueError(f"the Dockerfile has no line {_MARKER!r}")
    return dockerfile.replace(_MARKER, _COPIES_THE_MODEL)


def _linked(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
