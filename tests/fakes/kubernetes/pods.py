"""The pods of a cluster in memory: their scripts and their containers."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.clients.kubernetes.protocol import Object
from deploy.clients.log_lines import TimedLine
from tests.fakes.engine import Script


@dataclass(frozen=True)
class PodScript(Script):
    """The behaviour of an image's pods.

    A container with the command `sleep` sleeps whatever the script says.

    Args:
        pulled_in: how many steps the pull takes.
        unpullable: the registry's reason why it cannot be pulled; empty if it can.
        unschedulable: the scheduler's reason why no node takes its pods.
        misconfigured: why its containers cannot be created, such as `secret "key" not found`.
    """

    pulled_in: int = 1
    unpullable: str = ""
    unschedulable: str = ""
    misconfigured: str = ""


@dataclass
class FakeContainer:
    """A container of a pod; the others wait until an init container has ended."""

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
    log: list[TimedLine] = field(default_factory=list)
    last_log: list[TimedLine] = field(default_factory=list)

    @property
    def has_probes(self) -> bool:
        """Whether it has a probe."""
        return not self.is_init and ("readinessProbe" in self.spec or "startupProbe" in self.spec)

    @property
    def exits(self) -> int | None:
        """The code with which it exits right after its start."""
        if self.is_init:
            return 0
        return None if self.spec.get("command", ("",))[0] == "sleep" else self.script.exits

    @property
    def completed(self) -> bool:
        """Whether it has ended without an error."""
        return bool(self.state.get("terminated", {}).get("exitCode") == 0)

    def status(self) -> Object:
        """Return its entry in the pod's status."""
        image = self.spec["image"]
        entry: Object = {
            "name": self.spec["name"],
            "image": image,
            "imageID": image,
            "restartCount": self.restarts,
        }
        entry |= {"state": self.state, "lastState": self.last_state}
        return entry | (
            {"ready": self.completed}
            if self.is_init
            else {"ready": self.ready, "started": self.started}
        )


def is_ready(pod: Object) -> bool:
    """Return whether a pod gets requests."""
    conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", ())}
    return conditions.get("Ready") == "True"


def pinned_node(pod: Object) -> str:
    """Return the only node on which a pod may run; empty if any will do."""
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


def is_restarted(pod: Object, container: FakeContainer) -> bool:
    """Return whether an ended container is restarted at some time."""
    policy = pod["spec"].get("restartPolicy", "Always")
    return not (container.is_init and container.completed) and (
        policy == "Always" or (policy == "OnFailure" and not container.completed)
    )


def phase(pod: Object, containers: list[FakeContainer]) -> str:
    """Return the phase of a pod."""
    if containers and all(
        container.stage == "ended"
        and "terminated" in container.state
        and not is_restarted(pod, container)
        for container in containers
    ):
        return "Succeeded" if all(container.completed for container in containers) else "Failed"
    return (
        "Running"
        if any(container.stage in {"running", "ended"} for container in containers)
        else "Pending"
    )
