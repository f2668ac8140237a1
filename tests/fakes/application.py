"""An application in a folder, whose engine, cluster, registries and store are in memory."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from deploy import pipeline, stages
from deploy.clients.oci.protocol import Registry
from deploy.context import Clients, ReleaseContext
from deploy.model.publish import publish_model
from deploy.records import Image, Model, Rollout, Verdict
from deploy.rollout.target import Target
from deploy.settings.image import DEBIAN
from deploy.targets.opening import TARGETS, Kinds
from tests.fakes.azure.logins import http_to
from tests.fakes.azure.stand_in import StandIn
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.golden import FakePlayer
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.machine import MemoryMachine
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import MemoryStore
from tests.fakes.throwaway_containers import MemoryContainers

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
repository = "other/classifier"
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
    """An application, and fakes of all clients of its pipeline, which record their calls.

    It has two environments on the engine, `local` and `other`, and two on the cluster, `staging`
    and `production`; `production` has a registry of its own.

    Args:
        folder: an empty folder.

    Attributes:
        environment: the one that is used if none is named.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = "local"
        self.engine = FakeEngine()
        self.engine.add_image(DEBIAN, b"debian")
        self.cluster = FakeCluster()
        self.clock = self.cluster.clock
        self.machine = MemoryMachine(self.engine)
        self.machine.clusters[""] = self.cluster
        self.machine.registries |= {"registry.example", "far.example"}
        self.registry = MemoryRegistry()
        self.far = MemoryRegistry("far.example")
        self.store = MemoryStore()
        self.azure = StandIn()
        self.containers = MemoryContainers()
        self.play = FakePlayer()
        self.targets: Kinds = TARGETS
        self.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=""))
        self.write("Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY app /app\n")
        self.write("app/main.py", "print('one')\n")

    def write(self, path: str, text: str) -> None:
        """Write a file of the application."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def context(self, environment: str = "", registry: Registry | None = None) -> ReleaseContext:
        """Return the context that a new run has.

        Args:
            environment: the environment's name; empty for the one that is used now.
            registry: takes the place of the registry that several environments share.
        """
        registries: defaultdict[str, Registry] = defaultdict(
            lambda: registry or self.registry, {self.far.host: self.far}
        )
        clients = Clients(
            host=self.machine.host,
            open_store=lambda _location, _folder: self.store,
            open_registry=lambda host, _login: registries[host],
            start_container=self.containers,
            play=self.play,
            clock=self.clock,
            targets=self.targets,
            azure_http=http_to(self.azure),
        )
        return ReleaseContext(self.folder, environment or self.environment, clients)

    def target(self, environment: str = "") -> Target:
        """Return the target of an environment, as an inspection opens it."""
        return self.context(environment).inspect_target()

    def current(self, environment: str = "") -> Rollout:
        """Return the rollout whose release should serve in an environment."""
        return stages.current_rollout(self.target(environment))

    def verify(self, environment: str = "") -> Verdict:
        """Play the golden cases of what serves in an environment."""
        context = self.context(environment)
        return stages.verify(context.inspect_target(), context.repository, self.play)

    def create_image(self, environment: str = "", version: str = "latest") -> Image:
        """Run the stages of a release up to the joined image."""
        context = self.context(environment)
        layer = pipeline.fetch(context, version)
        return stages.join(pipeline.build(context), layer, context.repository)

    def publish(self, version: str, size: int = 5000, key: str = "") -> Model:
        """Publish a version of the model, whose golden case may have a header X-Key."""
        folder = self.folder / "models" / version
        (folder / "golden").mkdir(parents=True)
        headers = f'path = "/score", headers = {{ X-Key = "{key}" }}' if key else 'path = "/score"'
        text = MODEL.format(version=version).replace('path = "/score"', headers)
        (folder / "model.toml").write_text(text, encoding="utf-8")
        (folder / "labels.txt").write_text("three\n", encoding="utf-8")
        (folder / "golden" / "three.json").write_text("{}", encoding="utf-8")
        (folder / "model.onnx").write_bytes(b"\x08" + version.encode() * size)
        return publish_model(folder, self.store)

    def script_container(self, image: str, script: Script) -> None:
        """Make the containers of an image behave like that."""
        self.engine.scripts[image] = script

    def clear_records(self) -> None:
        """Clear the records of earlier calls."""
        for calls in (
            self.engine.built,
            self.engine.loaded,
            self.engine.events,
            self.cluster.requests,
            self.machine.actions,
            *(
                calls
                for registry in (self.registry, self.far)
                for calls in (registry.uploaded, registry.mounted, registry.stored_references)
            ),
            self.store.streamed,
            self.containers.images,
            self.play.played,
        ):
            calls.clear()

    @property
    def cluster_writes(self) -> list[tuple[str, str, str]]:
        """The changes of the cluster: verb, kind and name."""
        verbs = ("create", "patch", "update", "delete")
        return [request for request in self.cluster.requests if request[0] in verbs]

    def state(self) -> str:
        """Return the state of all fakes, to be compared with a later one."""
        pushed = [
            sorted(
                (repository, name)
                for shelf in (registry.blobs, registry.manifests)
                for repository, names in shelf.items()
                for name in names
            )
            for registry in (self.registry, self.far)
        ]
        return repr(
            (
                self.engine.state(),
                self.cluster_writes,
                pushed,
                sorted(self.store.files),
                self.machine.actions,
            )
        )
