"""Rollouts on a Kubernetes cluster: ten in a row, and how long new replicas take to start.

The rollouts use all strategies, and are seen as clients see them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import rollouts
from bench.application import TaskResult
from bench.figures import Arrival, Clustered
from bench.load import Load
from bench.rollouts import Deployer, Step
from bench.sandbox import Sandbox
from deploy.clients.kubernetes.client import KubeCluster, connect

log = logging.getLogger(__name__)

ENVIRONMENT = "staging"
NAMESPACE = "default"
# Correct in the smoke test and wrong on a cluster, for golden cases alone, not for the load.
WRONG_ON_A_CLUSTER = rollouts.WRONG_BEHIND_A_PROXY.replace(
    'b"x-forwarded-for" in headers',
    '"KUBERNETES_SERVICE_HOST" in __import__("os").environ',
)
# The time before a replica is asked to stop, and the time it gives kept-alive connections.
DRAIN_SECONDS = 10.0
_KEY = "TWINSHIP_ENVIRONMENTS__STAGING__"
_READY = re.compile(r"^\W*pod +\S+ ready: (?P<steps>.*)$", re.MULTILINE)
_STEP = re.compile(r"(?P<stage>started|loaded|ready) after (?P<seconds>[0-9.]+) s")
_KINDS = ("Deployment", "Service", "ServiceAccount", "Ingress", "ConfigMap", "Lease")


@dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        clients: the number of clients.
        pause: seconds between a response and the same client's next request.
        rest: seconds of load before the first rollout.
        steps: the number of rollouts under load.
        arrivals: the number of rollouts without load, whose replicas are timed.
    """

    clients: int
    pause: float
    rest: float
    steps: int
    arrivals: int


@contextmanager
def deployer_on_cluster(sandbox: Sandbox, kubeconfig: str) -> Iterator[Deployer]:
    """Serve a sandbox's application on the cluster of a kubeconfig; remove all of it afterwards."""
    cluster = connect(kubeconfig, "", NAMESPACE)
    variables = sandbox.variables | {
        f"{_KEY}REGISTRY": sandbox.registry,
        f"{_KEY}KUBECONFIG": kubeconfig,
        f"{_KEY}NAMESPACE": NAMESPACE,
        f"{_KEY}RESOURCES__CPU": "50m",
        f"{_KEY}STANDBY": "false",
        f"{_KEY}CANARY__SECONDS": "5",
    }
    body = sandbox.application.score_request(rollouts.PICTURE)
    deployer = Deployer(
        sandbox.application, body, variables, ("--env", ENVIRONMENT), WRONG_ON_A_CLUSTER
    )
    try:
        deployer.release(1)
        yield deployer
    finally:
        _remove(cluster, sandbox.application.name)


def measure(sandbox: Sandbox, kubeconfig: str, plan: Plan) -> Clustered:
    """Measure ten rollouts under load, then the replicas of some rollouts without load."""
    with deployer_on_cluster(sandbox, kubeconfig) as deployer:
        host, port = _node_port(
            connect(kubeconfig, "", NAMESPACE), f"{sandbox.application.name}-{ENVIRONMENT}"
        )
        load = Load(
            host,
            port,
            deployer.body,
            clients=plan.clients,
            pause=plan.pause,
            extractor=rollouts.first_label,
        )
        result = rollouts.measure(
            load,
            "kubernetes",
            "steady",
            ten_rollouts(deployer)[: plan.steps],
            plan.rest,
            lambda _: DRAIN_SECONDS,
        )
        log.info("    replicas of rollouts without load")
        arrivals = tuple(
            seconds
            for number in range(plan.arrivals)
            for seconds in _start_times(deployer, 1 + number % 2)
        )
    return Clustered(rolled=result, arrivals=arrivals)


def ten_rollouts(deployer: Deployer) -> tuple[Step, ...]:
    """Return ten rollouts by all strategies, which start from the first model.

    They are new models, new code, rollbacks, and two wrong releases that undo themselves.
    """
    rolling, green, canary = (
        {f"{_KEY}STRATEGY": name} for name in ("rolling", "blue-green", "canary")
    )
    return (
        Step("new model, rolling", lambda: deployer.release(2, **rolling)),
        Step("new code, blue-green", lambda: deployer.change(2, "new code", **green)),
        Step(
            "new model and code, canary", lambda: deployer.change(1, "new model and code", **canary)
        ),
        Step("model taken back, rolling", lambda: deployer.roll_back("--only", "model", **rolling)),
        Step("code taken back, blue-green", lambda: deployer.roll_back("--only", "code", **green)),
        Step("wrong, canary, undone", lambda: deployer.release_wrong_code(**canary)),
        Step("older model, newest code, rolling", lambda: deployer.release(1, **rolling)),
        Step("both taken back, blue-green", lambda: deployer.roll_back(**green)),
        Step("wrong again, rolling, undone", lambda: deployer.release_wrong_code(**rolling)),
        Step("newest of both, rolling", lambda: deployer.release(2, **rolling)),
    )


def _start_times(deployer: Deployer, version: int) -> Iterator[Arrival]:
    """Yield the start times of the replicas of a rollout of new code, which no node has."""
    variables = {**deployer.variables, f"{_KEY}STRATEGY": "blue-green"}
    output: list[str] = []
    recorded = replace(
        deployer,
        application=_RecordedApplication(deployer.application, output),
        variables=variables,
    )
    start = time.monotonic()
    recorded.change(version, f"arrival {version}")
    log.info("    one of them took %.1f s in all", time.monotonic() - start)
    yield from arrivals("\n".join(output))


def arrivals(output: str) -> Iterator[Arrival]:
    """Yield the start times of the replicas that a release reports as ready."""
    for line in _READY.finditer(output):
        seconds = {step["stage"]: float(step["seconds"]) for step in _STEP.finditer(line["steps"])}
        if seconds.keys() == {"started", "loaded", "ready"}:
            yield Arrival(
                started=seconds["started"], loaded=seconds["loaded"], ready=seconds["ready"]
            )


@dataclass(frozen=True)
class _RecordedApplication:
    """An application that keeps all output of its tasks."""

    application: rollouts.Releasable
    output: list[str]

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.application.folder

    def commit(self, message: str) -> str:
        """Commit the files."""
        return self.application.commit(message)

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task that must succeed."""
        done = self.application.ok(*arguments, **variables)
        self.output.append(done.err)
        return done

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task and return its result."""
        return self.application.invoke(*arguments, **variables)


def _node_port(cluster: KubeCluster, name: str) -> tuple[str, int]:
    """Return the address of a node that runs replicas, and the port of the Service there."""
    service = cluster.find("Service", name) or {}
    pods = cluster.list("Pod", service["spec"]["selector"])
    return str(pods[0]["status"]["hostIP"]), int(service["spec"]["ports"][0]["nodePort"])


def _remove(cluster: KubeCluster, name: str) -> None:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "twinship"}
    for kind in _KINDS:
        for item in cluster.list(kind, labels):
            cluster.delete(kind, item["metadata"]["name"])
