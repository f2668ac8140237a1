"""An environment in a namespace of a cluster in memory, with its deployers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, cast

import pytest

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.records import Release, Rollout
from deploy.rollout import apply as rollout
from deploy.settings.app import App
from deploy.settings.environments import Kubernetes
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.endpoint import EndpointFinder
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.render import TRACK_LABEL, Rendering, Track
from deploy.targets.kubernetes.state import ClusterState, DeploymentState
from deploy.targets.kubernetes.target import KubernetesTarget
from deploy.targets.kubernetes.writer import Writer
from deploy.variables import NO_VARIABLES, Variables
from tests.contracts.kubernetes_target import Deployer, environment
from tests.fakes.deployers import Mortal
from tests.fakes.engine import Script
from tests.fakes.golden import GOLDEN_SET, FakePlayer
from tests.fakes.kubernetes.api_server import FakeCluster, PodScript
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
    """A lock that no other deployer wants.

    Attributes:
        checks: how often it was required.
    """

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
        cluster: the cluster in memory.
        player: plays golden cases; tests make it find mistakes.
        metrics: returns the metrics of a replica.
        reachable: hosts that can be reached from here, and host names that DNS resolves.
        uncontested_lock: the lock of its writers.
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
        """Return the rendering of the environment, with some settings changed."""
        env = Kubernetes(**environment(replicas=replicas, **{**self.settings, **changed}))
        return Rendering(App(name="classifier"), "local", env, manifests)

    def target(self, *, replicas: int = 2, **changed: Any) -> Deployer:
        """Return the environment's target, which acquires the lock for each change by itself."""
        read_variables = _pop_variables(changed)
        rendering = self.rendering(replicas=replicas, **changed)
        return Deployer(
            self.cluster,
            rendering,
            lambda _: SIZE,
            self.endpoint_finder(rendering),
            self.cluster.clock,
            self._read_metrics,
            variables=read_variables,
        )

    def deployer(
        self,
        is_killed: Callable[[str], bool] = lambda _: False,
        *,
        replicas: int = 2,
        **changed: Any,
    ) -> KubernetesTarget:
        """Return the environment's target of another process, which may be killed by a request."""
        read_variables = _pop_variables(changed)
        cluster = cast("Cluster", Mortal(self.cluster, is_killed))
        rendering = self.rendering(replicas=replicas, **{"lock_wait": 60.0, **changed})
        return KubernetesTarget(
            cluster,
            rendering,
            lambda _: SIZE,
            self.endpoint_finder(rendering),
            self.cluster.clock,
            self._read_metrics,
            variables=read_variables,
        )

    def endpoint_finder(self, rendering: Rendering) -> EndpointFinder:
        """Return what finds the environment's endpoint."""
        return EndpointFinder(
            self.cluster,
            rendering,
            lambda host, _port: host in self.reachable,
            lambda host, _at: host in self.reachable,
        )

    def writer(self, named: tuple[str, str] = ("classifier", "local"), **changed: Any) -> Writer:
        """Return a writer of the environment, or of another application and environment."""
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
        deployment = self.state().deployment(track)
        assert deployment
        return deployment

    def _read_metrics(self, endpoint: Endpoint, path: str) -> str:
        return self.metrics(endpoint, path)

    def release(self, code: str, script: Script | None = None) -> Release:
        """Return a release whose replicas answer with that text and follow the script."""
        made = release(code)
        script = script or Script()
        self.cluster.scripts[made.image.digest] = (
            script if isinstance(script, PodScript) else PodScript(**vars(script))
        )
        self.cluster.response_texts[made.image.digest] = code
        return made

    def apply(
        self, expected: Release, target: KubernetesTarget | None = None, **options: Any
    ) -> Rollout:
        """Roll out a release as the pipeline does."""
        named = {"trigger": "release", "by": "ada", **options}
        return rollout.apply(
            expected, target or self.deployer(), GOLDEN_SET, play=self.player, **named
        )

    def fail_golden_cases(self, url_part: str, expected: Release) -> None:
        """Let golden cases fail at URLs with that part, while that release is the last attempt."""

        def problem() -> str:
            latest = self.deployer().history()[-1].attempt.release
            return (
                "expected 3, got 8"
                if url_part in self.player.played[-1][0] and latest == expected
                else ""
            )

        self.player.problem = problem

    def answers(self, **changed: object) -> set[str]:
        """Return the texts that the Service answers now."""
        return self.cluster.answers(NAME)

    def scale(self, count: int, name: str = NAME, by: str = "kubectl") -> None:
        """Let another manager set the number of replicas."""
        self.cluster.apply_as(
            {"kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": count}}, by
        )

    def environments(self) -> list[dict[str, str]]:
        """Return the variables of each active pod."""
        return [self.cluster.environment(self.get("Pod", name)) for name in self.pods()]

    def lose(self, replica: str) -> None:
        """Remove a replica."""
        self.cluster.lose(replica)

    def get(self, kind: str, name: str = NAME) -> Object:
        """Return an object as it is now, without moving the cluster a step."""
        return self.cluster.objects.get(kind, name) or {}

    def pods(self, code: str = "") -> set[str]:
        """Return the names of the active pods, or of those that answer with that text."""
        pods = {
            str(pod["metadata"]["name"]): pod
            for pod in self.cluster.objects.find_all("Pod", self.rendering().labels)
        }
        return {
            name
            for name, pod in pods.items()
            if code in ("", self.cluster.response_text(pod))
            and "deletionTimestamp" not in pod["metadata"]
        }

    def summary(self) -> dict[str, Any]:
        """Return what must be the same after any sequence of events."""
        deployments = [self.get("Deployment", name) for name in (NAME, f"{NAME}-twin")]
        return {
            "deployments": [
                (item["spec"]["replicas"], _image(item) if item["spec"]["replicas"] else "")
                if item
                else (0, "")
                for item in deployments
            ],
            "track": self.get("Service")["spec"]["selector"].get(TRACK_LABEL),
            "scaled": self.get("HorizontalPodAutoscaler")
            .get("spec", {})
            .get("scaleTargetRef", {})
            .get("name"),
            "answers": self.answers(),
            "prepulls": [
                item["metadata"]["name"] for item in self.cluster.objects.find_all("DaemonSet")
            ],
            "lock": self.get("Lease", f"{NAME}-deployer")["spec"]["holderIdentity"],
            "outcome": self.deployer().history()[-1].outcome,
        }


def _pop_variables(changed: dict[str, Any]) -> Callable[[], Variables]:
    """Take the variables out of changed settings, or what reads them; return what reads them."""
    given: Any = changed.pop("variables", NO_VARIABLES)
    return (lambda: given) if isinstance(given, Variables) else given


def _image(item: Object) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


def is_write(operation: str) -> bool:
    """Return whether an operation of a cluster changes anything."""
    return operation in ("apply", "create", "replace", "delete")


def before_write(number: int) -> Callable[[str], bool]:
    """Return whether an operation is the write that comes after so many others."""
    writes = count()
    return lambda operation: is_write(operation) and next(writes) == number


def observe_responses(namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Record the texts that the Service answers after each step from now on."""
    seen: list[set[str]] = []
    step = namespace.cluster.step

    def observed_step(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        seen.append(namespace.answers())

    monkeypatch.setattr(namespace.cluster, "step", observed_step)
    return seen
