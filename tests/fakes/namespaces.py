"""An environment on a cluster in memory, with deployers that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.records import Release, Rollout
from deploy.rollout import apply as rollout
from deploy.settings.environments import Kubernetes
from deploy.settings.reading import App
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.endpoint import EndpointFinder
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.render import TRACK_LABEL, Rendering, Track
from deploy.targets.kubernetes.state import ClusterState, DeploymentState
from deploy.targets.kubernetes.target import KubernetesTarget
from deploy.targets.kubernetes.writer import Writer
from tests.contracts.kubernetes_target import Deployer, environment
from tests.fakes.deployers import Mortal
from tests.fakes.engine import Script
from tests.fakes.kubernetes.api_server import FakeCluster, PodScript
from tests.fakes.proof import PROOF, FakePlayer
from tests.fakes.releases import release

NAME = "classifier-local"
MANIFESTS = templates.read_templates(templates.DEFAULT_FOLDER)
SIZE = 100_000_000
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "rolling"},
    {"strategy": "blue-green"},
    {"strategy": "canary", "canary": {"seconds": 3}},
]


class UncontestedLock(Lock):
    """A lease that nobody else wants; `asked` counts how often that was made sure of."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "held", {}, "local")
        self.checks = 0

    def require(self) -> None:
        self.checks += 1


class FakeNamespace:
    """An environment named `local` on a cluster in memory.

    Args:
        settings: keys of its table, for all its deployers.

    Attributes:
        cluster: where it is.
        play: answers golden cases; tests make it find mistakes.
        metrics: what a replica says of itself.
        reachable: hosts that can be reached from here, and host names that the DNS knows.
    """

    def __init__(self, **settings: Any) -> None:
        self.cluster = FakeCluster()
        self.settings = settings
        self.player = FakePlayer()
        self.reachable: set[str] = set()
        self.uncontested_lock = UncontestedLock(self.cluster)
        self.metrics: Callable[[Endpoint, str], str] = lambda _endpoint, _path: ""

    def rendering(
        self, *, replicas: int = 2, manifests: Mapping[str, Object] = MANIFESTS, **changed: Any
    ) -> Rendering:
        """The environment's objects, with settings that may have changed."""
        env = Kubernetes(**environment(replicas=replicas, **{**self.settings, **changed}))
        return Rendering(App(name="classifier"), "local", env, manifests)

    def target(self, *, replicas: int = 2, **changed: Any) -> Deployer:
        """The environment's target, which takes the lease for each change by itself."""
        rendering = self.rendering(replicas=replicas, **changed)
        return Deployer(
            self.cluster,
            rendering,
            lambda _: SIZE,
            self.endpoint_finder(rendering),
            self.cluster.clock,
            self._read,
        )

    def deployer(
        self, dies: Callable[[str], bool] = lambda _: False, *, replicas: int = 2, **changed: Any
    ) -> KubernetesTarget:
        """The environment's target as another process makes it, which may be killed by what it asks of the cluster."""
        cluster = cast("Cluster", Mortal(self.cluster, dies))
        rendering = self.rendering(replicas=replicas, **{"lock_wait": 60.0, **changed})
        return KubernetesTarget(
            cluster,
            rendering,
            lambda _: SIZE,
            self.endpoint_finder(rendering),
            self.cluster.clock,
            self._read,
        )

    def endpoint_finder(self, rendering: Rendering) -> EndpointFinder:
        """The environment's front door."""
        return EndpointFinder(
            self.cluster,
            rendering,
            lambda host, _port: host in self.reachable,
            lambda host, _at: host in self.reachable,
        )

    def writer(self, named: tuple[str, str] = ("classifier", "local"), **changed: Any) -> Writer:
        """What changes the environment, or another of that application and name, with a lease that is held."""
        rendering = replace(self.rendering(**changed), app=App(name=named[0]), environment=named[1])
        return Writer(
            self.cluster,
            rendering,
            ClusterState(self.cluster, rendering),
            self.uncontested_lock,
            lambda _: SIZE,
            self.cluster.clock,
        )

    def state(self) -> ClusterState:
        """Return a reader of the environment's state."""
        return ClusterState(self.cluster, self.rendering())

    def deployment(self, track: Track = "main") -> DeploymentState:
        """Return the Deployment of a track as it is now."""
        found = self.state().deployment(track)
        assert found
        return found

    def _read(self, endpoint: Endpoint, path: str) -> str:
        return self.metrics(endpoint, path)

    def release(self, code: str, script: Script | None = None) -> Release:
        """A release whose replicas answer with that text, and behave like that script."""
        made = release(code)
        script = script or Script()
        self.cluster.scripts[made.image.digest] = (
            script if isinstance(script, PodScript) else PodScript(**vars(script))
        )
        self.cluster.response_texts[made.image.digest] = code
        return made

    def apply(self, wanted: Release, target: KubernetesTarget | None = None, **how: Any) -> Rollout:
        """Rolls a release out as the pipeline does."""
        named = {"trigger": "release", "by": "ada", **how}
        return rollout.apply(wanted, target or self.deployer(), PROOF, play=self.player, **named)

    def fail_golden_cases(self, where: str, wanted: Release) -> None:
        """Has golden cases missed where the URL has that in it, while that release is the last that was begun."""

        def problem() -> str:
            begun = self.deployer().history()[-1].attempt.release
            return (
                "expected 3, got 8"
                if where in self.player.played[-1][0] and begun == wanted
                else ""
            )

        self.player.problem = problem

    def answers(self, **changed: object) -> set[str]:
        """The texts that are answered at the front door now."""
        return self.cluster.answers(NAME)

    def scale(self, count: int, name: str = NAME, by: str = "kubectl") -> None:
        """Somebody chooses the number of replicas."""
        self.cluster.apply_as(
            {"kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": count}}, by
        )

    def lose(self, replica: str) -> None:
        """A replica goes."""
        self.cluster.lose(replica)

    def get(self, kind: str, name: str = NAME) -> Object:
        """An object of the environment as it is now; nothing moves because of the look."""
        return self.cluster.objects.get(kind, name) or {}

    def pods(self, code: str = "") -> set[str]:
        """The names of the pods, or of those that answer with that text."""
        found = {
            str(pod["metadata"]["name"]): pod
            for pod in self.cluster.objects.find_all("Pod", self.rendering().labels)
        }
        return {
            name
            for name, pod in found.items()
            if code in ("", self.cluster.response_text(pod))
            and "deletionTimestamp" not in pod["metadata"]
        }

    def summary(self) -> dict[str, Any]:
        """How things stand, in all that must be the same however it came to that."""
        sides = [self.get("Deployment", name) for name in (NAME, f"{NAME}-twin")]
        return {
            "sides": [
                (item["spec"]["replicas"], _image(item) if item["spec"]["replicas"] else "")
                if item
                else (0, "")
                for item in sides
            ],
            "led to": self.get("Service")["spec"]["selector"].get(TRACK_LABEL),
            "scaled": self.get("HorizontalPodAutoscaler")
            .get("spec", {})
            .get("scaleTargetRef", {})
            .get("name"),
            "answers": self.answers(),
            "warmed": [
                item["metadata"]["name"] for item in self.cluster.objects.find_all("DaemonSet")
            ],
            "held by": self.get("Lease", f"{NAME}-deployer")["spec"]["holderIdentity"],
            "last": self.deployer().history()[-1].outcome,
        }


def _image(item: Object) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


def is_write(operation: str) -> bool:
    """Whether an operation of a cluster changes anything."""
    return operation in ("apply", "create", "replace", "delete")


def observe_responses(place: FakeNamespace, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What is answered after each step from now on."""
    seen: list[set[str]] = []
    step = place.cluster.step

    def watched(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        seen.append(place.answers())

    monkeypatch.setattr(place.cluster, "step", watched)
    return seen
