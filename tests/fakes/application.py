"""An application in a folder, released to an engine, a cluster, registries and a store in memory."""

from __future__ import annotations

from pathlib import Path

from deploy.context import ReleaseContext
from deploy.model import fetch as model
from deploy.records import Model
from deploy.settings.reading import DEBIAN
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.machine import MemoryMachine
from tests.fakes.proof import FakePlayer
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import MemoryStore
from tests.fakes.trials import MemoryContainers

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

[environments.staging]
target = "kubernetes"
registry = "registry.example"
namespace = "shop"
lock_wait = 0.0

[environments.production]
target = "kubernetes"
registry = "far.example"
repository = "live/classifier"
namespace = "shop"
lock_wait = 0.0
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

    It has two environments on the engine, `local` and `other`, and two on the cluster, `staging` and `production`, of which
    `production` has a registry of its own.

    Args:
        folder: an empty folder.

    Attributes:
        environment: the one that is meant where none is named.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = "local"
        self.engine = FakeEngine()
        self.engine.hold_image(DEBIAN, b"debian")
        self.cluster = FakeCluster()
        self.clock = self.cluster.clock
        self.architecture = MemoryMachine(self.engine)
        self.architecture.clusters[""] = self.cluster
        self.architecture.registries |= {"registry.example", "far.example"}
        self.registry = MemoryRegistry()
        self.far = MemoryRegistry("far.example")
        self.store = MemoryStore()
        self.trials = MemoryContainers()
        self.play = FakePlayer()
        self.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=""))
        self.write("Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY app /app\n")
        self.write("app/main.py", "print('one')\n")

    def write(self, path: str, text: str) -> None:
        """Changes a file of the application."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def context(self, environment: str = "") -> ReleaseContext:
        """The application as a new run sees it, and one of its environments: without a name the one that is worked with now."""
        site = ReleaseContext(self.folder, environment or self.environment, self.architecture.host)
        site.registry = self.far if site.env.registry == self.far.host else self.registry
        site.store = self.store
        site.trials = self.trials
        site.play = self.play
        site.clock = self.clock
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

    def forget(self) -> None:
        """Clears what was noted of earlier runs."""
        for noted in (
            self.engine.built,
            self.engine.loaded,
            self.engine.happened,
            self.cluster.requests,
            self.architecture.happened,
            *(
                noted
                for registry in (self.registry, self.far)
                for noted in (registry.sent, registry.mounted, registry.put)
            ),
            self.store.streamed,
            self.trials.tried,
            self.play.played,
        ):
            noted.clear()

    @property
    def written(self) -> list[tuple[str, str, str]]:
        """What the cluster was asked to change: verb, kind and name."""
        return [
            asked
            for asked in self.cluster.requests
            if asked[0] in ("create", "patch", "update", "delete")
        ]

    def state(self) -> str:
        """All that the fakes hold, to be compared with what they hold later."""
        pushed = [
            sorted(
                (repository, name)
                for shelf in (registry.blobs, registry.manifests)
                for repository, held in shelf.items()
                for name in held
            )
            for registry in (self.registry, self.far)
        ]
        return repr(
            (
                self.engine.state(),
                self.written,
                pushed,
                sorted(self.store.held),
                self.architecture.happened,
            )
        )
