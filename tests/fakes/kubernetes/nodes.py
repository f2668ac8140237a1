"""The nodes of a cluster in memory, which run pods a step at a time as their scripts say."""

from __future__ import annotations

from deploy.clients.kubernetes.protocol import Object
from deploy.clients.log_lines import TimedLine
from tests.fakes.engine import Script
from tests.fakes.kubernetes.objects import Objects, is_terminating
from tests.fakes.kubernetes.pods import FakeContainer, PodScript, is_restarted, phase, pinned_node

BACK_OFF = 10
"""The seconds before a restart after a second crash; twice as many after each further one."""


class Kubelet:
    """The scheduler and the kubelets of all nodes.

    Attributes:
        pulled: the images that nodes have, as (node, image).
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.world = objects.world
        self.pulled: set[tuple[str, str]] = set()
        self._runs: dict[str, list[FakeContainer]] = {}

    def script(self, image: str) -> PodScript:
        """Return the script of an image."""
        scripts = self.world.scripts
        found = scripts.get(image) or scripts.get(image.rpartition("@")[2], Script())
        return found if isinstance(found, PodScript) else PodScript(**vars(found))

    def containers(self, pod: Object) -> list[FakeContainer]:
        """Return the containers of a pod, init containers first."""
        uid = pod["metadata"]["uid"]
        spec = pod["spec"]
        if uid not in self._runs:
            first = spec.get("initContainers", [])
            reason = "PodInitializing" if first else "ContainerCreating"
            specs = [*((one, True) for one in first), *((one, False) for one in spec["containers"])]
            self._runs[uid] = [
                FakeContainer(
                    one, self.script(one["image"]), is_first, {"waiting": {"reason": reason}}
                )
                for one, is_first in specs
            ]
        return self._runs[uid]

    def log_lines(self, pod: Object) -> list[str]:
        """Return the log of a pod."""
        return [line for container in self.containers(pod) for _, line in container.log]

    def timed_lines(self, pod: Object, lines: int | None) -> list[TimedLine]:
        """Return the logs of the last run and of the present one, the last lines of each."""
        last = None if lines is None else -lines
        return [
            line
            for container in self.containers(pod)
            for run in (container.last_log, container.log)
            for line in run[last:]
        ]

    def write(self, pod: Object, *lines: str) -> None:
        """Write lines to the log of a pod."""
        self.write_line(self.containers(pod)[-1], *lines)

    def write_line(self, container: FakeContainer, *lines: str) -> None:
        """Write lines to the log of a container."""
        container.log += [(self.objects.now, line) for line in lines]

    def crash(self, pod: Object, code: int) -> None:
        """End the processes of a pod."""
        for container in self.containers(pod):
            self._end(container, code)
        self._update_status(pod)

    def step(self) -> None:
        """Move every pod a step."""
        self.objects.end_pods()
        for pod in self.objects.find_all("Pod"):
            if is_terminating(pod):
                self._stop(pod)
            elif not pod["spec"].get("nodeName"):
                self._schedule(pod)
            elif pod["spec"]["nodeName"] not in self.world.lost_nodes:
                self._run(pod)

    # --- the scheduler

    def _schedule(self, pod: Object) -> None:
        """Assign a node to a pod, or record why there is none."""
        nodes = self.world.nodes
        taken = [
            other["spec"]["nodeName"]
            for other in self.objects.find_all("Pod")
            if other["spec"].get("nodeName")
        ]
        reasons = [
            self.script(container.spec["image"]).unschedulable for container in self.containers(pod)
        ]
        why = next(filter(None, reasons), "")
        if not why and self.world.max_pods is not None and len(taken) >= self.world.max_pods:
            why = f"0/{len(nodes)} nodes are available: {len(nodes)} Too many pods."
        if why:
            if self._condition(
                pod, "PodScheduled", value=False, reason="Unschedulable", message=why
            ):
                self.objects.event(pod, "FailedScheduling", why, "Warning")
            return
        node = pinned_node(pod) or min(
            (one for one in nodes if one not in self.world.lost_nodes), key=taken.count
        )
        pod["spec"]["nodeName"] = node
        name = pod["metadata"]["name"]
        self.objects.event(
            pod, "Scheduled", f"Successfully assigned {self.objects.namespace}/{name} to {node}"
        )
        self._condition(pod, "PodScheduled", value=True)

    def _condition(self, pod: Object, kind: str, *, value: bool, **why: str) -> bool:
        """Set a condition of a pod; return whether it has changed."""
        known = {one["type"]: one for one in pod["status"].get("conditions", ())}
        old = known.get(kind, {})
        condition = {"type": kind, "status": str(value), **why}
        if condition.items() <= old.items():
            return False
        since = (
            old["lastTransitionTime"]
            if old.get("status") == condition["status"]
            else self.objects.time
        )
        conditions = known | {
            kind: {**condition, "lastProbeTime": None, "lastTransitionTime": since}
        }
        return self.objects.change(
            pod, "status", {**pod["status"], "conditions": list(conditions.values())}
        )

    # --- a node

    def _stop(self, pod: Object) -> None:
        """End the processes of a terminating pod in its last step but one."""
        if self.objects.ending[pod["metadata"]["name"]] == 1:
            for container in self.containers(pod):
                self._end(container, 0)
            self._update_status(pod)

    def _run(self, pod: Object) -> None:
        """Move the containers of a pod a step."""
        if "podIP" in pod["status"]:
            first = [
                container
                for container in self.containers(pod)
                if container.is_init and not container.completed
            ]
            for container in first[:1] or [
                container for container in self.containers(pod) if not container.is_init
            ]:
                self._advance(pod, container)
        self._update_status(pod)

    def _update_status(self, pod: Object) -> None:
        """Update the status of a pod from its containers."""
        first, containers = (
            [container for container in self.containers(pod) if container.is_init is which]
            for which in (True, False)
        )
        node = self.world.nodes.index(pod["spec"]["nodeName"])
        status = {**pod["status"], "phase": phase(pod, containers), "hostIP": f"192.0.2.{1 + node}"}
        if "podIP" not in status:
            number = self.objects.number()
            status |= {
                "podIP": f"10.1.{number // 250}.{number % 250 + 1}",
                "startTime": self.objects.time,
            }
        if first:
            status["initContainerStatuses"] = [container.status() for container in first]
        status["containerStatuses"] = [container.status() for container in containers]
        self.objects.change(pod, "status", status)
        self._set_summary(
            pod,
            "Initialized",
            "ContainersNotInitialized",
            "incomplete",
            [container for container in first if not container.completed],
        )
        for kind in ("Ready", "ContainersReady"):
            self._set_summary(
                pod,
                kind,
                "ContainersNotReady",
                "unready",
                [container for container in containers if not container.ready],
            )

    def _set_summary(
        self, pod: Object, kind: str, reason: str, word: str, lacking: list[FakeContainer]
    ) -> None:
        names = " ".join(container.spec["name"] for container in lacking)
        why = (
            {"reason": reason, "message": f"containers with {word} status: [{names}]"}
            if lacking
            else {}
        )
        self._condition(pod, kind, value=not lacking, **why)

    def _advance(self, pod: Object, container: FakeContainer) -> None:
        """Move a container a step."""
        container.script = self.script(container.spec["image"])
        {
            "waiting": self._wait,
            "pulling": self._pull,
            "running": self._probe,
            "ended": self._restart,
        }[container.stage](pod, container)

    def _wait(self, pod: Object, container: FakeContainer) -> None:
        image = container.spec["image"]
        node = pod["spec"]["nodeName"]
        if (node, image) in self.pulled and container.spec.get("imagePullPolicy") != "Always":
            self.objects.event(
                pod, "Pulled", f'Container image "{image}" already present on machine'
            )
            self._start(pod, container)
            return
        self.objects.event(pod, "Pulling", f'Pulling image "{image}"')
        container.stage = "pulling"
        container.steps_left = container.script.pulled_in

    def _pull(self, pod: Object, container: FakeContainer) -> None:
        image = container.spec["image"]
        container.steps_left = container.steps_left - 1
        if why := container.script.unpullable or self.world.unpullable.get(
            pod["spec"]["nodeName"], ""
        ):
            self._fail_pull(pod, container, why)
        elif container.steps_left <= 0:
            self.pulled.add((pod["spec"]["nodeName"], image))
            self.objects.event(
                pod,
                "Pulled",
                f'Successfully pulled image "{image}" in {container.script.pulled_in}s',
            )
            self._start(pod, container)

    def _fail_pull(self, pod: Object, container: FakeContainer, reasons: str) -> None:
        """Record a failed pull, and then its back-off."""
        image = container.spec["image"]
        if container.state["waiting"]["reason"] != "ErrImagePull":
            why = (
                "rpc error: code = NotFound desc = "
                f'failed to pull and unpack image "{image}": {reasons}'
            )
            container.state = {"waiting": {"reason": "ErrImagePull", "message": why}}
            container.steps_left = 3
            self.objects.event(pod, "Failed", f'Failed to pull image "{image}": {why}', "Warning")
            self.objects.event(pod, "Failed", "Error: ErrImagePull", "Warning")
        elif container.steps_left <= 0:
            container.state = {
                "waiting": {
                    "reason": "ImagePullBackOff",
                    "message": f'Back-off pulling image "{image}"',
                }
            }
            container.steps_left = BACK_OFF
            self.objects.event(pod, "BackOff", f'Back-off pulling image "{image}"')
            self.objects.event(pod, "Failed", "Error: ImagePullBackOff", "Warning")

    def _start(self, pod: Object, container: FakeContainer) -> None:
        name = container.spec["name"]
        why = container.script.misconfigured or self._missing_secret(container.spec)
        if why:
            container.stage = "waiting"
            container.state = {"waiting": {"reason": "CreateContainerConfigError", "message": why}}
            self.objects.event(pod, "Failed", f"Error: {why}", "Warning")
            return
        self.objects.event(pod, "Created", f"Created container {name}")
        self.objects.event(pod, "Started", f"Started container {name}")
        container.stage = "running"
        container.checks = 0
        container.last_log = container.log
        container.log = []
        self.write_line(container, *container.script.says.splitlines())
        container.state = {"running": {"startedAt": self.objects.time}}
        container.started = "startupProbe" not in container.spec
        container.ready = (
            not container.is_init and not container.has_probes and container.exits is None
        )

    def _missing_secret(self, container: Object) -> str:
        """Return that a Secret of a container's variables does not exist; empty if all do."""
        named = (
            entry.get("valueFrom", {}).get("secretKeyRef") for entry in container.get("env", ())
        )
        missing = (
            wanted["name"]
            for wanted in filter(None, named)
            if not self.objects.get("Secret", wanted["name"])
        )
        return next((f'secret "{name}" not found' for name in missing), "")

    def _probe(self, pod: Object, container: FakeContainer) -> None:
        """End a running container, or probe it."""
        after = container.script.ready_after
        dies = container.script.dies_after
        container.checks += 1
        if container.exits is not None:
            self._end(container, container.exits)
        elif not container.has_probes or (after is not None and container.checks > after):
            container.started = container.ready = True
            if dies is not None and container.checks > (after or 0) + dies:
                self._end(container, 1)
        else:
            self._fail_probe(pod, container)

    def _fail_probe(self, pod: Object, container: FakeContainer) -> None:
        """Record a failed probe; restart a container that does not start in time."""
        probe = container.spec.get("startupProbe")
        kind = "Startup" if probe else "Readiness"
        self.objects.event(
            pod,
            "Unhealthy",
            f"{kind} probe failed: HTTP probe failed with statuscode: 503",
            "Warning",
        )
        patience = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10) if probe else 0
        if probe and self.objects.since(container.state["running"]["startedAt"]) > patience:
            self.objects.event(
                pod,
                "Killing",
                f"Container {container.spec['name']} failed startup probe, will be restarted",
            )
            self._end(container, 137)

    def _end(self, container: FakeContainer, code: int) -> None:
        """End the process of a container, if there is one."""
        if container.stage != "running":
            return
        condition = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            **container.state["running"],
            "finishedAt": self.objects.time,
        }
        container.state = {"terminated": condition}
        container.stage = "ended"
        container.ready = False
        container.started = False

    def _restart(self, pod: Object, container: FakeContainer) -> None:
        """Restart an ended container, at once for the first time and then after a back-off."""
        if "terminated" in container.state:
            if not is_restarted(pod, container):
                return
            container.last_state = {"terminated": container.state["terminated"]}
            back_off = BACK_OFF * 2 ** min(container.restarts - 1, 5) if container.restarts else 0
        else:
            back_off = container.steps_left
        if self.objects.since(container.last_state["terminated"]["finishedAt"]) < back_off:
            self._back_off(pod, container, back_off)
            return
        container.restarts += 1
        self._start(pod, container)

    def _back_off(self, pod: Object, container: FakeContainer, seconds: int) -> None:
        metadata = pod["metadata"]
        where = f"pod={metadata['name']}_{self.objects.namespace}({metadata['uid']})"
        condition = (
            f"back-off {seconds}s restarting failed container={container.spec['name']} {where}"
        )
        if "terminated" in container.state:
            self.objects.event(pod, "BackOff", "Back-off restarting failed container", "Warning")
        container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": condition}}
        container.steps_left = seconds
