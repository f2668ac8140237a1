"""The nodes of a cluster in memory: pods are scheduled, pulled, started and probed, a step at a time, as their scripts say."""

from __future__ import annotations

from deploy.clients.kubernetes.protocol import Object
from tests.fakes.engine import Script
from tests.fakes.kubernetes.objects import Objects, is_terminating
from tests.fakes.kubernetes.pods import FakeContainer, PodScript, is_restarted, phase, pinned_node

BACK_OFF = 10
"""For how many seconds a container is not started again after a second crash; twice as many after each further one."""


class Kubelet:
    """Schedules the pods, and runs them on their nodes.

    Attributes:
        pulled: the images that nodes have, as (node, image).
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.world = objects.world
        self.pulled: set[tuple[str, str]] = set()
        self._runs: dict[str, list[FakeContainer]] = {}

    def script(self, image: str) -> PodScript:
        """How the containers of an image behave."""
        scripts = self.world.scripts
        found = scripts.get(image) or scripts.get(image.rpartition("@")[2], Script())
        return found if isinstance(found, PodScript) else PodScript(**vars(found))

    def containers(self, pod: Object) -> list[FakeContainer]:
        """The containers of a pod, those first that the others wait for."""
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
        """The lines that a pod has written."""
        return [line for run in self.containers(pod) for line in run.log.splitlines()]

    def crash(self, pod: Object, code: int) -> None:
        """Ends the processes of a pod."""
        for run in self.containers(pod):
            self._ends(run, code)
        self._tell(pod)

    def step(self) -> None:
        """Moves every pod a step."""
        self.objects.end_pods()
        for pod in self.objects.find_all("Pod"):
            if is_terminating(pod):
                self._stop(pod)
            elif not pod["spec"].get("nodeName"):
                self._schedule(pod)
            elif pod["spec"]["nodeName"] not in self.world.lost_nodes:
                self._work(pod)

    # --- the scheduler

    def _schedule(self, pod: Object) -> None:
        """Gives a pod a node, or says why it has none."""
        nodes = self.world.nodes
        taken = [
            other["spec"]["nodeName"]
            for other in self.objects.find_all("Pod")
            if other["spec"].get("nodeName")
        ]
        said = [self.script(run.spec["image"]).unschedulable for run in self.containers(pod)]
        why = next(filter(None, said), "")
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
        """Sets a condition of a pod; whether it has changed."""
        known = {one["type"]: one for one in pod["status"].get("conditions", ())}
        old = known.get(kind, {})
        told = {"type": kind, "status": str(value), **why}
        if told.items() <= old.items():
            return False
        since = (
            old["lastTransitionTime"] if old.get("status") == told["status"] else self.objects.time
        )
        conditions = known | {kind: {**told, "lastProbeTime": None, "lastTransitionTime": since}}
        return self.objects.change(
            pod, "status", {**pod["status"], "conditions": list(conditions.values())}
        )

    # --- a node

    def _stop(self, pod: Object) -> None:
        """A pod that was asked to go takes requests until its processes have ended, in its last step but one."""
        if self.objects.ending[pod["metadata"]["name"]] == 1:
            for run in self.containers(pod):
                self._ends(run, 0)
            self._tell(pod)

    def _work(self, pod: Object) -> None:
        """Moves the containers of a pod a step."""
        if "podIP" in pod["status"]:
            first = [run for run in self.containers(pod) if run.is_init and not run.completed]
            for run in first[:1] or [run for run in self.containers(pod) if not run.is_init]:
                self._advance(pod, run)
        self._tell(pod)

    def _tell(self, pod: Object) -> None:
        """Says how the containers of a pod are."""
        first, runs = (
            [run for run in self.containers(pod) if run.is_init is which] for which in (True, False)
        )
        node = self.world.nodes.index(pod["spec"]["nodeName"])
        status = {**pod["status"], "phase": phase(pod, runs), "hostIP": f"192.0.2.{1 + node}"}
        if "podIP" not in status:
            number = self.objects.number()
            status |= {
                "podIP": f"10.1.{number // 250}.{number % 250 + 1}",
                "startTime": self.objects.time,
            }
        if first:
            status["initContainerStatuses"] = [run.status() for run in first]
        status["containerStatuses"] = [run.status() for run in runs]
        self.objects.change(pod, "status", status)
        self._summed_up(
            pod,
            "Initialized",
            "ContainersNotInitialized",
            "incomplete",
            [run for run in first if not run.completed],
        )
        for kind in ("Ready", "ContainersReady"):
            self._summed_up(
                pod, kind, "ContainersNotReady", "unready", [run for run in runs if not run.ready]
            )

    def _summed_up(
        self, pod: Object, kind: str, reason: str, word: str, lacking: list[FakeContainer]
    ) -> None:
        names = " ".join(run.spec["name"] for run in lacking)
        why = (
            {"reason": reason, "message": f"containers with {word} status: [{names}]"}
            if lacking
            else {}
        )
        self._condition(pod, kind, value=not lacking, **why)

    def _advance(self, pod: Object, run: FakeContainer) -> None:
        """Moves a container a step."""
        run.script = self.script(run.spec["image"])
        {
            "waiting": self._wait,
            "pulling": self._pull,
            "running": self._probe,
            "ended": self._again,
        }[run.stage](pod, run)

    def _wait(self, pod: Object, run: FakeContainer) -> None:
        image = run.spec["image"]
        node = pod["spec"]["nodeName"]
        if (node, image) in self.pulled and run.spec.get("imagePullPolicy") != "Always":
            self.objects.event(
                pod, "Pulled", f'Container image "{image}" already present on machine'
            )
            self._start(pod, run)
            return
        self.objects.event(pod, "Pulling", f'Pulling image "{image}"')
        run.stage = "pulling"
        run.steps_left = run.script.pulled_in

    def _pull(self, pod: Object, run: FakeContainer) -> None:
        image = run.spec["image"]
        run.steps_left = run.steps_left - 1
        if why := run.script.unpullable or self.world.unpullable.get(pod["spec"]["nodeName"], ""):
            self._pull_fails(pod, run, why)
        elif run.steps_left <= 0:
            self.pulled.add((pod["spec"]["nodeName"], image))
            self.objects.event(
                pod, "Pulled", f'Successfully pulled image "{image}" in {run.script.pulled_in}s'
            )
            self._start(pod, run)

    def _pull_fails(self, pod: Object, run: FakeContainer, said: str) -> None:
        """Tells of a pull that failed, and then that it is not tried again for a while."""
        image = run.spec["image"]
        if run.state["waiting"]["reason"] != "ErrImagePull":
            why = f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": {said}'
            run.state = {"waiting": {"reason": "ErrImagePull", "message": why}}
            run.steps_left = 3
            self.objects.event(pod, "Failed", f'Failed to pull image "{image}": {why}', "Warning")
            self.objects.event(pod, "Failed", "Error: ErrImagePull", "Warning")
        elif run.steps_left <= 0:
            run.state = {
                "waiting": {
                    "reason": "ImagePullBackOff",
                    "message": f'Back-off pulling image "{image}"',
                }
            }
            run.steps_left = BACK_OFF
            self.objects.event(pod, "BackOff", f'Back-off pulling image "{image}"')
            self.objects.event(pod, "Failed", "Error: ImagePullBackOff", "Warning")

    def _start(self, pod: Object, run: FakeContainer) -> None:
        name = run.spec["name"]
        if run.script.misconfigured:
            run.stage = "waiting"
            run.state = {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": run.script.misconfigured,
                }
            }
            self.objects.event(pod, "Failed", f"Error: {run.script.misconfigured}", "Warning")
            return
        self.objects.event(pod, "Created", f"Created container {name}")
        self.objects.event(pod, "Started", f"Started container {name}")
        run.stage = "running"
        run.checks = 0
        run.log = run.script.says
        run.state = {"running": {"startedAt": self.objects.time}}
        run.started = "startupProbe" not in run.spec
        run.ready = not run.is_init and not run.has_probes and run.exits is None

    def _probe(self, pod: Object, run: FakeContainer) -> None:
        """Lets a running container end, or be probed."""
        after = run.script.ready_after
        dies = run.script.dies_after
        run.checks += 1
        if run.exits is not None:
            self._ends(run, run.exits)
        elif not run.has_probes or (after is not None and run.checks > after):
            run.started = run.ready = True
            if dies is not None and run.checks > (after or 0) + dies:
                self._ends(run, 1)
        else:
            self._fails(pod, run)

    def _fails(self, pod: Object, run: FakeContainer) -> None:
        """Tells of a probe that has failed; a start is not waited for for ever."""
        probe = run.spec.get("startupProbe")
        kind = "Startup" if probe else "Readiness"
        self.objects.event(
            pod,
            "Unhealthy",
            f"{kind} probe failed: HTTP probe failed with statuscode: 503",
            "Warning",
        )
        patience = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10) if probe else 0
        if probe and self.objects.since(run.state["running"]["startedAt"]) > patience:
            self.objects.event(
                pod,
                "Killing",
                f"Container {run.spec['name']} failed startup probe, will be restarted",
            )
            self._ends(run, 137)

    def _ends(self, run: FakeContainer, code: int) -> None:
        """Ends the process of a container, if there is one."""
        if run.stage != "running":
            return
        told = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            **run.state["running"],
            "finishedAt": self.objects.time,
        }
        run.state = {"terminated": told}
        run.stage = "ended"
        run.ready = False
        run.started = False

    def _again(self, pod: Object, run: FakeContainer) -> None:
        """Starts a container that has ended again, at once for the first time and then after a while."""
        if "terminated" in run.state:
            if not is_restarted(pod, run):
                return
            run.last_state = {"terminated": run.state["terminated"]}
            back_off = BACK_OFF * 2 ** min(run.restarts - 1, 5) if run.restarts else 0
        else:
            back_off = run.steps_left
        if self.objects.since(run.last_state["terminated"]["finishedAt"]) < back_off:
            self._backs_off(pod, run, back_off)
            return
        run.restarts += 1
        self._start(pod, run)

    def _backs_off(self, pod: Object, run: FakeContainer, seconds: int) -> None:
        metadata = pod["metadata"]
        where = f"pod={metadata['name']}_{self.objects.namespace}({metadata['uid']})"
        told = f"back-off {seconds}s restarting failed container={run.spec['name']} {where}"
        if "terminated" in run.state:
            self.objects.event(pod, "BackOff", "Back-off restarting failed container", "Warning")
        run.state = {"waiting": {"reason": "CrashLoopBackOff", "message": told}}
        run.steps_left = seconds
