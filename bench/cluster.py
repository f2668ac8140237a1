"""Rollouts on a Kubernetes cluster: what clients see of ten in a row by all strategies, and how a new replica's time is spent."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import rollouts
from bench.application import Done
from bench.figures import Arrival, Clustered
from bench.ground import Ground
from bench.load import Load
from bench.rollouts import Deployer, Step
from deploy.clients.kubernetes.client import KubeCluster, connect

log = logging.getLogger(__name__)

ENVIRONMENT = "staging"
NAMESPACE = "default"
# Right in the smoke test and wrong on a cluster, for the golden cases alone: clients keep their answers.
WRONG_ON_A_CLUSTER = rollouts.WRONG_BEHIND_A_PROXY.replace(
    'b"x-forwarded-for" in headers',
    '"KUBERNETES_SERVICE_HOST" in __import__("os").environ',
)
# The pause before a replica is told to stop, and what it then gives connections that clients keep.
LINGERS = 10.0
_KEY = "TWINSHIP_ENVIRONMENTS__STAGING__"
_READY = re.compile(r"^\W*pod +\S+ ready: (?P<steps>.*)$", re.MULTILINE)
_STEP = re.compile(r"(?P<stage>started|loaded|ready) after (?P<seconds>[0-9.]+) s")
_MADE = ("Deployment", "Service", "ServiceAccount", "Ingress", "ConfigMap", "Lease")


@dataclass(frozen=True)
class Plan:
    """How many clients ask, with what pause; the rest before the first rollout; how many rollouts; how many are looked at closely."""

    clients: int
    pause: float
    rest: float
    steps: int
    arrivals: int


@contextmanager
def served(made: Ground, kubeconfig: str) -> Iterator[Deployer]:
    """A ground's application, on the cluster of a kubeconfig, with the first model; all of it is gone afterwards."""
    cluster = connect(kubeconfig, "", NAMESPACE)
    variables = made.variables | {
        f"{_KEY}REGISTRY": made.registry,
        f"{_KEY}KUBECONFIG": kubeconfig,
        f"{_KEY}NAMESPACE": NAMESPACE,
        f"{_KEY}RESOURCES__CPU": "50m",
        f"{_KEY}STANDBY": "false",
        f"{_KEY}CANARY__SECONDS": "5",
    }
    body = made.application.scored(rollouts.PICTURE)
    deployer = Deployer(
        made.application, body, variables, ("--env", ENVIRONMENT), WRONG_ON_A_CLUSTER
    )
    try:
        deployer.release(1)
        yield deployer
    finally:
        _removed(cluster, made.application.name)


def measured(made: Ground, kubeconfig: str, plan: Plan) -> Clustered:
    """Takes ten rollouts under load, then some with nobody asking, whose replicas are timed."""
    with served(made, kubeconfig) as deployer:
        host, port = _way_in(
            connect(kubeconfig, "", NAMESPACE), f"{made.application.name}-{ENVIRONMENT}"
        )
        load = Load(
            host,
            port,
            deployer.body,
            clients=plan.clients,
            pause=plan.pause,
            kept=rollouts.first_label,
        )
        rolled = rollouts.under(
            load,
            "kubernetes",
            "steady",
            mixed(deployer)[: plan.steps],
            plan.rest,
            lambda _: LINGERS,
        )
        log.info("    replicas of rollouts at rest")
        arrivals = tuple(
            found for number in range(plan.arrivals) for found in _arrived(deployer, 1 + number % 2)
        )
    return Clustered(rolled=rolled, arrivals=arrivals)


def mixed(deployer: Deployer) -> tuple[Step, ...]:
    """Ten rollouts from the first model on, by all strategies: new models, new code, ways back, and two that undo themselves."""
    rolling, green, canary = (
        {f"{_KEY}STRATEGY": name} for name in ("rolling", "blue-green", "canary")
    )
    return (
        Step("new model, rolling", lambda: deployer.release(2, **rolling)),
        Step("new code, blue-green", lambda: deployer.change(2, "new code", **green)),
        Step(
            "new model and code, canary", lambda: deployer.change(1, "new model and code", **canary)
        ),
        Step("model taken back, rolling", lambda: deployer.back("--only", "model", **rolling)),
        Step("code taken back, blue-green", lambda: deployer.back("--only", "code", **green)),
        Step("wrong, canary, undone", lambda: deployer.fail(**canary)),
        Step("older model, newest code, rolling", lambda: deployer.release(1, **rolling)),
        Step("both taken back, blue-green", lambda: deployer.back(**green)),
        Step("wrong again, rolling, undone", lambda: deployer.fail(**rolling)),
        Step("newest of both, rolling", lambda: deployer.release(2, **rolling)),
    )


def _arrived(deployer: Deployer, version: int) -> Iterator[Arrival]:
    """The replicas of a rollout of new code, which no node has, with a model."""
    variables = {**deployer.variables, f"{_KEY}STRATEGY": "blue-green"}
    said: list[str] = []
    listening = replace(
        deployer, application=_Listening(deployer.application, said), variables=variables
    )
    began = time.monotonic()
    listening.change(version, f"arrival {version}")
    log.info("    one of them took %.1f s in all", time.monotonic() - began)
    yield from arrivals("\n".join(said))


def arrivals(said: str) -> Iterator[Arrival]:
    """What a release says of the replicas that became ready."""
    for line in _READY.finditer(said):
        found = {step["stage"]: float(step["seconds"]) for step in _STEP.finditer(line["steps"])}
        if found.keys() == {"started", "loaded", "ready"}:
            yield Arrival(started=found["started"], loaded=found["loaded"], ready=found["ready"])


@dataclass(frozen=True)
class _Listening:
    """An application of which all that its tasks say is kept."""

    application: rollouts.Released
    said: list[str]

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.application.folder

    def commit(self, message: str) -> str:
        """Commits them."""
        return self.application.commit(message)

    def ok(self, *arguments: str, **variables: str) -> Done:
        """Runs a task that must succeed."""
        done = self.application.ok(*arguments, **variables)
        self.said.append(done.err)
        return done

    def invoke(self, *arguments: str, **variables: str) -> Done:
        """Runs a task to its end."""
        return self.application.invoke(*arguments, **variables)


def _way_in(cluster: KubeCluster, name: str) -> tuple[str, int]:
    """The address of a node that runs replicas, and the port that leads to the Service."""
    service = cluster.find("Service", name) or {}
    pods = cluster.list("Pod", service["spec"]["selector"])
    return str(pods[0]["status"]["hostIP"]), int(service["spec"]["ports"][0]["nodePort"])


def _removed(cluster: KubeCluster, name: str) -> None:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "twinship"}
    for kind in _MADE:
        for item in cluster.list(kind, labels):
            cluster.delete(kind, item["metadata"]["name"])
