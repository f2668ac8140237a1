"""An application in a folder, released to an engine, a registry and a store in memory."""

from __future__ import annotations

from pathlib import Path

from deploy import model
from deploy.records import Model
from deploy.settings import DEBIAN
from deploy.site import Site
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.machine import MemoryMachine
from tests.fakes.proof import FakePlayer
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import MemoryStore
from tests.fakes.trials import MemoryTrials

PIPELINE = """\
[app]
name = "classifier"

[model]
name = "digits"
{sample}

[image]
base = "{base}"
builder = "classic"

[environments.local]
registry = "registry.example"
ready_within = 0.3
drain_within = 0.3
lock_wait = 0.0

[environments.other]
registry = "registry.example"
repository = "elsewhere/classifier"
port = 9000
"""

MODEL = """\
name = "digits"
version = "{version}"
format = "onnx"

[interface]
model = "model.onnx"
labels = "labels.txt"
input = {{ name = "picture" }}
output = {{ name = "logits" }}
preprocessing = {{}}

[[golden]]
name = "three"
request = {{ method = "POST", path = "/score", body = "golden/three.json" }}
expect = {{}}
"""


class Application:
    """An application, the clients of its pipeline, and what they were asked for.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = FakeEngine()
        self.engine.hold_image(DEBIAN, b"debian")
        self.machine = MemoryMachine(self.engine)
        self.registry = MemoryRegistry()
        self.store = MemoryStore()
        self.trials = MemoryTrials()
        self.play = FakePlayer()
        self.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=""))
        self.write("Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY app /app\n")
        self.write("app/main.py", "print('one')\n")

    def write(self, path: str, text: str) -> None:
        """Changes a file of the application."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def site(self, environment: str = "local") -> Site:
        """The application as a new run sees it."""
        site = Site(self.folder, environment, self.machine.host)
        site.registry, site.store = self.registry, self.store
        site.trials, site.play = self.trials, self.play
        return site

    def publish(self, version: str, size: int = 5000) -> Model:
        """Publishes a version of the model."""
        folder = self.folder / "models" / version
        (folder / "golden").mkdir(parents=True)
        (folder / "model.toml").write_text(MODEL.format(version=version), encoding="utf-8")
        (folder / "labels.txt").write_text("three\n", encoding="utf-8")
        (folder / "golden" / "three.json").write_text("{}", encoding="utf-8")
        (folder / "model.onnx").write_bytes(b"\x08" + version.encode() * size)
        return model.publish(folder, self.store)

    def scripted(self, image: str, script: Script) -> None:
        """Has the containers of an image behave like that."""
        self.engine.scripts[image] = script

    def state(self) -> str:
        """All that the fakes hold, to be compared with what they hold later."""
        shelves = (*self.registry.blobs.items(), *self.registry.manifests.items())
        pushed = sorted((repository, name) for repository, held in shelves for name in held)
        return repr((self.engine.state(), pushed, sorted(self.store.held), self.machine.happened))
