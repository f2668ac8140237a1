"""The pods of a cluster in memory: how they shall behave, and how their containers are."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.clients.kubernetes.protocol import Object
from tests.fakes.engine import Script


@dataclass(frozen=True)
class PodScript(Script):
    """How the pods of an image behave.

    A container that only sleeps does so whatever its image would do.

    Args:
        pulled_in: how many steps the pull takes.
        unpullable: why it cannot be pulled, as the registry says it; empty if it can.
        unschedulable: why no node takes its pods, as the scheduler says it.
        misconfigured: why its containers cannot be made, such as `secret "key" not found`.
    """

    pulled_in: int = 1
    unpullable: str = ""
    unschedulable: str = ""
    misconfigured: str = ""


@dataclass
class FakeContainer:
    """A container of a pod, as it changes; `first` says that the others wait for its end."""

    spec: Object
    script: PodScript
    is_init: bool
    state: Object
    stage: str = "waiting"
    last_state: Object = field(default_factory=dict)
    steps_left: int = 0
    restarts: int = 0
    checks: int = 0
    started: bool = False
    ready: bool = False
    log: str = ""

    @property
    def has_probes(self) -> bool:
        """Whether anybody asks it how it is."""
        return not self.is_init and ("readinessProbe" in self.spec or "startupProbe" in self.spec)

    @property
    def exits(self) -> int | None:
        """The code with which it ends as soon as it was started."""
        if self.is_init:
            return 0
        return None if self.spec.get("command", ("",))[0] == "sleep" else self.script.exits

    @property
    def completed(self) -> bool:
        """Whether it has ended well."""
        return bool(self.state.get("terminated", {}).get("exitCode") == 0)

    def status(self) -> Object:
        """As a pod's status has it."""
        image = self.spec["image"]
        shown: Object = {
            "name": self.spec["name"],
            "image": image,
            "imageID": image,
            "restartCount": self.restarts,
        }
        shown |= {"state": self.state, "lastState": self.last_state}
        return shown | (
            {"ready": self.completed}
            if self.is_init
            else {"ready": self.ready, "started": self.started}
        )


def is_ready(pod: Object) -> bool:
    """Whether a pod gets requests."""
    conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", ())}
    return conditions.get("Ready") == "True"


def pinned_node(pod: Object) -> str:
    """The only node that a pod may run on; empty if it may run on any."""
    affinity = (
        pod["spec"]
        .get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    fields = [
        field
        for term in affinity.get("nodeSelectorTerms", ())
        for field in term.get("matchFields", ())
    ]
    return next(
        (str(field["values"][0]) for field in fields if field["key"] == "metadata.name"), ""
    )


def is_restarted(pod: Object, run: FakeContainer) -> bool:
    """Whether a container that has ended is started again, sooner or later."""
    policy = pod["spec"].get("restartPolicy", "Always")
    return not (run.is_init and run.completed) and (
        policy == "Always" or (policy == "OnFailure" and not run.completed)
    )


def phase(pod: Object, runs: list[FakeContainer]) -> str:
    """How far a pod is, in one word."""
    if runs and all(
        run.stage == "ended" and "terminated" in run.state and not is_restarted(pod, run)
        for run in runs
    ):
        return "Succeeded" if all(run.completed for run in runs) else "Failed"
    return "Running" if any(run.stage in {"running", "ended"} for run in runs) else "Pending"
