"""The in-memory cluster of the unit tests.

It fulfils the contract of clusters, and its controllers and nodes behave as real ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterForbidden, ClusterRefused, ClusterUnreachable, NamespaceMissing
from tests.contracts.cluster import ClusterContract, Write, settings
from tests.fakes.engine import Script
from tests.fakes.kubernetes.api_server import FakeCluster, PodScript

NEVER = Script(ready_after=None, says="waiting for a file that is not there")
PROBE = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1}


class TestFakeCluster(ClusterContract):
    """The contract, on the in-memory cluster."""

    @pytest.fixture
    def cluster(self) -> Cluster:
        """Return an empty namespace."""
        cluster = FakeCluster()
        cluster.unserved.add("PodDisruptionBudget")
        return cluster

    @pytest.fixture
    def other(self, cluster: FakeCluster) -> Write:
        """Return the write of another manager, which takes the fields over."""

        def write(item: Object, manager: str) -> None:
            cluster.apply_as(item, manager)

        return write

    @pytest.fixture
    def unserved(self) -> str:
        return "PodDisruptionBudget"


@pytest.fixture
def cluster() -> FakeCluster:
    """Return an empty namespace."""
    return FakeCluster()


def image(code: str) -> str:
    """Return a reference by digest."""
    return f"registry.example/app@sha256:{code}"


def web(
    code: str = "a",
    replicas: int | None = 2,
    *,
    container: Object | None = None,
    pod: Object | None = None,
    **spec: Any,
) -> Object:
    """Return a Deployment whose replicas have a readiness probe."""
    first_container = {
        "name": "app",
        "image": image(code),
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": PROBE,
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [first_container | (container or {})], **(pod or {})},
    }
    wanted = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template,
        **spec,
    }
    notes = {"annotations": {"release": code}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", **notes},
        "spec": wanted,
    }


def rolling(surge: int | str, away: int | str) -> Object:
    """Return a strategy of rolling updates."""
    return {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away},
        }
    }


def service(**spec: Any) -> Object:
    """Return a Service for the Deployment."""
    wanted = {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": wanted}


def daemons(code: str = "a") -> Object:
    """Return a DaemonSet whose pods only have to exist."""
    template = {
        "metadata": {"labels": {"app": "warm"}},
        "spec": {"containers": [{"name": "app", "image": image(code)}]},
    }
    template["spec"]["containers"][0]["command"] = ["sleep", "infinity"]  # type: ignore[index]  # JSON
    spec = {"selector": {"matchLabels": {"app": "warm"}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "warm"},
        "spec": spec,
    }


def pods(cluster: FakeCluster, app: str = "web") -> list[Object]:
    """Return the current pods, without a step of time."""
    return cluster.objects.find_all("Pod", {"app": app})


def codes(cluster: FakeCluster) -> list[str]:
    """Return what the pods run, without those that are terminating."""
    return sorted(
        pod["spec"]["containers"][0]["image"].rpartition(":")[2]
        for pod in pods(cluster)
        if "deletionTimestamp" not in pod["metadata"]
    )


def ready(cluster: FakeCluster) -> int:
    """Return the number of ready pods."""
    return sum(conditions(pod).get("Ready") == "True" for pod in pods(cluster))


def conditions(item: Object, what: str = "status") -> dict[str, str]:
    """Return the conditions of an object, or their reasons."""
    return {
        first_container["type"]: first_container.get(what, "")
        for first_container in item.get("status", {}).get("conditions", ())
    }


def container(pod: Object) -> Object:
    """Return the status of a pod's first container."""
    found: Object = pod["status"].get("containerStatuses", [{"state": {}}])[0]
    return found


def live(cluster: FakeCluster, kind: str = "Deployment", name: str = "web") -> Object:
    """Return the current object, without a step of time."""
    found = cluster.objects.get(kind, name)
    assert found is not None
    return found


def until(cluster: FakeCluster, reached: Callable[[], bool], steps: int = 60) -> int:
    """Let steps pass until a condition is true; return their number."""
    for step in range(steps):
        if reached():
            return step
        cluster.step()
    pytest.fail(f"not within {steps} steps")


def is_rolled_out(cluster: FakeCluster) -> bool:
    """Return whether the Deployment reports that its rollout is complete."""
    item = live(cluster)
    current = item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
    counts = (
        [
            item["status"].get(name, 0)
            for name in ("replicas", "updatedReplicas", "availableReplicas")
        ]
        if current
        else []
    )
    return counts == [item["spec"]["replicas"]] * 3


def is_prepulled(cluster: FakeCluster, generation: int) -> bool:
    """Return whether that generation of the DaemonSet has a ready pod on three nodes."""
    status = live(cluster, "DaemonSet", "warm")["status"]
    counts = [
        status.get(name) for name in ("observedGeneration", "updatedNumberScheduled", "numberReady")
    ]
    return counts == [generation, 3, 3]


def reasons(cluster: FakeCluster, name: str) -> list[str]:
    """Return the reasons of the events about an object."""
    return [event["reason"] for event in cluster.events(name)]


# --- pods


def test_a_pod_starts_step_by_step(cluster: FakeCluster) -> None:
    """It is scheduled, waits for its image, runs, and is ready once a probe has succeeded."""
    cluster.scripts["sha256:a"] = PodScript(ready_after=2, pulled_in=2, says="loading\nlistening")
    cluster.apply(web(replicas=1))
    observed: list[tuple[object, ...]] = []
    for _ in range(15):
        for pod in pods(cluster):
            state = next(iter(container(pod)["state"]), "")
            now = (
                pod["status"]["phase"],
                conditions(pod).get("PodScheduled", ""),
                state,
                conditions(pod).get("Ready", ""),
            )
            observed += [now] if now not in observed else []
        cluster.step()
    assert observed == [
        ("Pending", "True", "", ""),
        ("Pending", "True", "waiting", "False"),
        ("Running", "True", "running", "False"),
        ("Running", "True", "running", "True"),
    ]
    (pod,) = pods(cluster)
    assert pod["status"]["podIP"] != pod["status"]["hostIP"]
    assert container(pod)["state"]["running"]["startedAt"] >= pod["status"]["startTime"]
    assert cluster.log(pod["metadata"]["name"], 1) == "listening\n"
    assert sorted(reasons(cluster, pod["metadata"]["name"])) == [
        "Created",
        "Pulled",
        "Pulling",
        "Scheduled",
        "Started",
        "Unhealthy",
    ]


@pytest.mark.parametrize(
    ("script", "states", "events"),
    [
        (
            PodScript(unpullable="not found"),
            ["ContainerCreating", "ErrImagePull", "ImagePullBackOff"],
            {"Pulling", "Failed", "BackOff"},
        ),
        (
            PodScript(misconfigured='secret "key" not found'),
            ["ContainerCreating", "CreateContainerConfigError"],
            {"Pulled", "Failed"},
        ),
        (
            Script(exits=3),
            ["ContainerCreating", "CrashLoopBackOff"],
            {"Pulled", "Started", "BackOff"},
        ),
    ],
)
def test_a_pod_that_cannot_start_reports_its_reason(
    cluster: FakeCluster, script: Script, states: list[str], events: set[str]
) -> None:
    """The reason is in the waiting container, and in the events."""
    cluster.scripts["sha256:a"] = script
    cluster.apply(web(replicas=1))
    observed: list[str] = []
    for _ in range(30):
        found = [
            container(pod)["state"].get("waiting", {}).get("reason", "") for pod in pods(cluster)
        ]
        observed += [reason for reason in found if reason and reason not in observed]
        cluster.step()
    assert observed == states
    assert events <= set(reasons(cluster, pods(cluster)[0]["metadata"]["name"]))
    assert ready(cluster) == 0


def test_a_crashing_container_restarts_with_a_growing_delay(cluster: FakeCluster) -> None:
    """The last exit code stays visible; the delay is ten seconds at the second, then twenty."""
    cluster.scripts["sha256:a"] = Script(exits=3, says="out of memory")
    cluster.apply(web(replicas=1))
    starts: list[tuple[int, float]] = []
    for _ in range(400):
        for pod in pods(cluster):
            count = container(pod).get("restartCount", 0)
            starts += (
                [(count, cluster.seconds())] if count not in [known for known, _ in starts] else []
            )
        cluster.step()
    (pod,) = pods(cluster)
    times = [time for _, time in starts]
    assert [count for count, _ in starts] == [0, 1, 2, 3]
    assert [round(after - before, -1) for before, after in pairwise(times)][1:] == [10, 20]
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 3
    assert cluster.log(pod["metadata"]["name"], 10) == "out of memory\n"


def test_a_pod_without_room_waits_for_it(cluster: FakeCluster) -> None:
    """It has no node until another pod is gone."""
    cluster.world.max_pods = 1
    cluster.apply(web(replicas=2))
    cluster.step(10)
    waiting = next(pod for pod in pods(cluster) if "nodeName" not in pod["spec"])
    assert conditions(waiting, "reason")["PodScheduled"] == "Unschedulable"
    assert reasons(cluster, waiting["metadata"]["name"]) == ["FailedScheduling"]
    cluster.world.max_pods = 2
    until(cluster, lambda: ready(cluster) == 2)


def test_an_image_may_make_its_pods_unschedulable(cluster: FakeCluster) -> None:
    """The condition has the scheduler's message."""
    cluster.scripts["sha256:a"] = PodScript(
        unschedulable="0/1 nodes are available: 1 Insufficient memory."
    )
    cluster.apply(web(replicas=1))
    cluster.step(5)
    assert conditions(pods(cluster)[0], "message") == {
        "PodScheduled": "0/1 nodes are available: 1 Insufficient memory."
    }
    del cluster.scripts["sha256:a"]
    until(cluster, lambda: ready(cluster) == 1)


def test_a_container_is_restarted_when_its_startup_probe_fails(cluster: FakeCluster) -> None:
    """It has as long as the probe allows."""
    cluster.scripts["sha256:a"] = NEVER
    cluster.apply(web(replicas=1, container={"startupProbe": {**PROBE, "failureThreshold": 4}}))
    cluster.step(40)
    assert (
        container(pods(cluster)[0])["restartCount"],
        container(pods(cluster)[0])["started"],
    ) == (0, False)
    cluster.step(20)
    assert container(pods(cluster)[0])["lastState"]["terminated"]["exitCode"] == 137
    assert "Killing" in reasons(cluster, pods(cluster)[0]["metadata"]["name"])


def test_a_running_replica_may_die(cluster: FakeCluster) -> None:
    """It is restarted in its place, and becomes ready again."""
    cluster.scripts["sha256:a"] = Script(dies_after=3)
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    until(cluster, lambda: ready(cluster) == 0)
    until(cluster, lambda: ready(cluster) == 1)
    assert container(pods(cluster)[0])["restartCount"] == 1


def test_the_cluster_recovers_from_a_crash_and_a_lost_pod(cluster: FakeCluster) -> None:
    """The node restarts a container; a new pod replaces a lost one."""
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    name = pods(cluster)[0]["metadata"]["name"]
    cluster.crash(name, 1)
    assert ready(cluster) == 0
    until(cluster, lambda: ready(cluster) == 1)
    assert pods(cluster)[0]["metadata"]["name"] == name
    cluster.lose(name)
    assert pods(cluster) == []
    until(cluster, lambda: ready(cluster) == 1)
    assert pods(cluster)[0]["metadata"]["name"] != name


def test_a_container_with_a_command_does_not_run_its_image(cluster: FakeCluster) -> None:
    """It keeps running, whatever the image would do; the image must exist nevertheless."""
    cluster.world.scripts |= {
        "sha256:a": Script(exits=1),
        "sha256:b": PodScript(unpullable="not found"),
    }
    cluster.apply(daemons("a"))
    until(
        cluster,
        lambda: (
            all(conditions(pod).get("Ready") == "True" for pod in pods(cluster, "warm"))
            and bool(pods(cluster, "warm"))
        ),
    )
    cluster.delete("DaemonSet", "warm")
    cluster.apply(daemons("b"))
    cluster.step(10)
    assert container(pods(cluster, "warm")[0])["state"]["waiting"]["reason"] == "ErrImagePull"


def test_init_containers_end_before_the_others_start(cluster: FakeCluster) -> None:
    """The pod waits for them, and they count as ready when they have succeeded."""
    cluster.apply(
        web(replicas=1, pod={"initContainers": [{"name": "first", "image": image("first")}]})
    )
    waits = until(
        cluster,
        lambda: (
            bool(pods(cluster)) and container(pods(cluster)[0])["state"].get("waiting", {}) != {}
        ),
    )
    assert container(pods(cluster)[0])["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert until(cluster, lambda: ready(cluster) == 1) > waits
    (first,) = pods(cluster)[0]["status"]["initContainerStatuses"]
    assert (first["ready"], first["state"]["terminated"]["exitCode"]) == (True, 0)


def test_the_schedulers_events_have_another_time_field(cluster: FakeCluster) -> None:
    """They have no count, and their time is in a field that is empty in others."""
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    events = {
        event["reason"]: event for event in cluster.events(pods(cluster)[0]["metadata"]["name"])
    }
    assert events["Scheduled"]["lastTimestamp"] is None
    assert events["Scheduled"]["eventTime"]
    assert (events["Started"]["count"], events["Started"]["eventTime"]) == (1, None)


# --- termination


def test_a_deleted_pod_may_terminate_slowly(cluster: FakeCluster) -> None:
    """It gets no requests, and is gone after as many steps as the test sets."""
    cluster.apply(service())
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    cluster.world.termination_steps = 4
    cluster.apply(web(replicas=0))
    until(cluster, lambda: "deletionTimestamp" in pods(cluster)[0]["metadata"])
    assert cluster.answers("web") == set()
    assert live(cluster)["spec"]["replicas"] == 0
    assert until(cluster, lambda: pods(cluster) == []) in {3, 4}


def test_the_dependents_of_a_deployment_are_deleted_with_it(cluster: FakeCluster) -> None:
    """ReplicaSets are deleted at once, and pods after their termination."""
    cluster.apply(web())
    until(cluster, lambda: ready(cluster) == 2)
    cluster.world.termination_steps = 2
    cluster.delete("Deployment", "web")
    assert cluster.objects.find_all("ReplicaSet") == []
    assert all("deletionTimestamp" in pod["metadata"] for pod in pods(cluster))
    until(cluster, lambda: pods(cluster) == [])


# --- Deployments


@pytest.mark.parametrize(
    ("surge", "away"), [(1, 0), (0, 1), ("25%", "25%"), (3, 0), ("100%", 0), (2, 2)]
)
def test_a_rolling_update_keeps_to_its_bounds(
    cluster: FakeCluster, surge: int | str, away: int | str
) -> None:
    """There are never more pods, or fewer ready ones, than the strategy allows."""
    max_pods = {1: 5, 3: 7, 2: 6, "25%": 5, "100%": 8}.get(surge, 4)
    min_ready = {1: 3, "25%": 3, 2: 2}.get(away, 4)
    cluster.apply(web(replicas=4, **rolling(surge, away)))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.apply(web("b", replicas=4, **rolling(surge, away)))
    fewest = 4
    highest = 0
    while not is_rolled_out(cluster):
        cluster.step()
        fewest = min(fewest, ready(cluster))
        highest = max(highest, len(codes(cluster)))
    assert codes(cluster) == ["b"] * 4
    assert (fewest, highest) == (min_ready, max_pods)


def test_a_failed_rollout_leaves_the_old_replicas(cluster: FakeCluster) -> None:
    """They serve until a new one works; the Deployment reports that its deadline has passed."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web(**rolling(1, 0)))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.apply(web("b", progressDeadlineSeconds=20, **rolling(1, 0)))
    cluster.step(10)
    assert conditions(live(cluster), "reason")["Progressing"] == "ReplicaSetUpdated"
    cluster.step(19, seconds=1)
    assert conditions(live(cluster))["Progressing"] == "True"
    cluster.step(4, seconds=1)
    assert conditions(live(cluster), "reason")["Progressing"] == "ProgressDeadlineExceeded"
    assert conditions(live(cluster)) == {"Available": "True", "Progressing": "False"}
    assert codes(cluster) == ["a", "a", "b"]


def test_the_deadline_of_a_rollout_counts_from_its_last_progress(cluster: FakeCluster) -> None:
    """A rollout that progresses is not late, however long it takes."""
    cluster.scripts["sha256:a"] = Script(ready_after=15)
    cluster.apply(web(replicas=4, progressDeadlineSeconds=25))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.scripts["sha256:b"] = Script(ready_after=15)
    cluster.apply(web("b", replicas=4, progressDeadlineSeconds=25, **rolling(1, 0)))
    start = cluster.seconds()
    while not is_rolled_out(cluster):
        cluster.step(seconds=1)
        assert conditions(live(cluster))["Progressing"] == "True"
    assert cluster.seconds() - start > 60


def test_unready_replicas_are_removed_first_when_scaling_in(cluster: FakeCluster) -> None:
    """Their order does not matter."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.scripts["sha256:a"] = NEVER
    crashed = pods(cluster)[1]["metadata"]["name"]
    cluster.crash(crashed)
    cluster.apply(web(replicas=2))
    cluster.step(2)
    assert len(pods(cluster)) == 2
    assert crashed not in [pod["metadata"]["name"] for pod in pods(cluster)]


def test_unready_replicas_are_removed_first_when_a_template_returns(cluster: FakeCluster) -> None:
    """None of a failed rollout remain, and the others are never touched."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web())
    until(cluster, lambda: is_rolled_out(cluster))
    before = [pod["metadata"]["name"] for pod in pods(cluster)]
    cluster.apply(web("b"))
    cluster.step(10)
    cluster.apply(web())
    until(cluster, lambda: is_rolled_out(cluster))
    assert [pod["metadata"]["name"] for pod in pods(cluster)] == before


def test_an_old_template_returns_with_its_replicaset(cluster: FakeCluster) -> None:
    """It gets the highest revision, keeps its former one, and has the current annotations."""
    for code in ("a", "b", "a"):
        cluster.apply(web(code))
        until(cluster, lambda: is_rolled_out(cluster))
    notes = {
        item["metadata"]["annotations"]["release"]: item["metadata"]["annotations"]
        for item in cluster.objects.find_all("ReplicaSet")
    }
    revision = "deployment.kubernetes.io/revision"
    assert {release: found[revision] for release, found in notes.items()} == {"a": "3", "b": "2"}
    assert notes["a"][f"{revision}-history"] == "1"
    assert live(cluster)["metadata"]["annotations"][revision] == "3"
    annotated = web()
    annotated["metadata"]["annotations"]["release"] = "a again"
    cluster.apply(annotated)
    cluster.step()
    assert {
        item["metadata"]["annotations"]["release"]
        for item in cluster.objects.find_all("ReplicaSet")
    } == {"a again", "b"}


def test_the_last_rollout_is_reported_until_the_next_one_progresses(cluster: FakeCluster) -> None:
    """After a return to an old template a Deployment reports for a moment that it is complete."""
    for code in ("a", "b"):
        cluster.apply(web(code))
        until(cluster, lambda: is_rolled_out(cluster))
    cluster.apply(web())
    assert live(cluster)["status"]["observedGeneration"] < live(cluster)["metadata"]["generation"]
    cluster.step()
    status = live(cluster)["status"]
    assert (status["observedGeneration"], status.get("updatedReplicas", 0)) == (
        live(cluster)["metadata"]["generation"],
        0,
    )
    assert conditions(live(cluster), "reason")["Progressing"] == "NewReplicaSetAvailable"
    until(
        cluster, lambda: conditions(live(cluster), "reason")["Progressing"] == "ReplicaSetUpdated"
    )


def test_the_number_of_old_revisions_is_limited(cluster: FakeCluster) -> None:
    """The oldest are deleted when a rollout is complete."""
    for code in "abcde":
        cluster.apply(web(code, revisionHistoryLimit=2))
        until(cluster, lambda: is_rolled_out(cluster))
    cluster.step()
    releases = {
        item["metadata"]["annotations"]["release"]
        for item in cluster.objects.find_all("ReplicaSet")
    }
    assert releases == {"c", "d", "e"}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_deployment_is_scaled(cluster: FakeCluster, count: int) -> None:
    """It has the same ReplicaSet and keeps the pods that it can."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: is_rolled_out(cluster))
    before = {pod["metadata"]["name"] for pod in pods(cluster)}
    cluster.apply(web(replicas=count))
    until(cluster, lambda: is_rolled_out(cluster))
    after = {pod["metadata"]["name"] for pod in pods(cluster)}
    assert len(after) == count
    assert len(after & before) == min(count, 3)
    assert len(cluster.objects.find_all("ReplicaSet")) == 1


def test_scaling_during_a_rollout_is_proportional(cluster: FakeCluster) -> None:
    """Both ReplicaSets grow, and the rollout continues from there."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web(replicas=4, **rolling("50%", 0)))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.apply(web("b", replicas=4, **rolling("50%", 0)))
    cluster.step(5)
    assert codes(cluster) == [*"aaaabb"]
    cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 8}}, "autoscaler"
    )
    cluster.step(10)
    assert codes(cluster) == [*"aaaaaaaabbbb"]
    cluster.scripts["sha256:b"] = Script()
    until(cluster, lambda: is_rolled_out(cluster))
    assert codes(cluster) == [*"bbbbbbbb"]


def test_a_deployment_that_is_recreated_is_away_for_some_time(cluster: FakeCluster) -> None:
    """All old pods are gone before a new one is created."""
    cluster.world.termination_steps = 2
    recreate: Object = {"strategy": {"type": "Recreate"}}
    for code in "ab":
        cluster.apply(web(code, **recreate))
        observed = set()
        while not is_rolled_out(cluster):
            cluster.step()
            observed.add("".join(codes(cluster)))
    assert "" in observed
    assert "ab" not in {"".join(sorted(set(found))) for found in observed}


def test_pods_beyond_the_quota_are_not_created(cluster: FakeCluster) -> None:
    """The ReplicaSet has the event, the Deployment the condition; the rollout continues later."""
    cluster.apply(web(**rolling(1, 0)))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.world.quota = 2
    cluster.apply(web("b", **rolling(1, 0)))
    cluster.step(5)
    assert conditions(live(cluster), "reason")["ReplicaFailure"] == "FailedCreate"
    assert "exceeded quota" in conditions(live(cluster), "message")["ReplicaFailure"]
    new = next(
        item
        for item in cluster.objects.find_all("ReplicaSet")
        if item["metadata"]["annotations"]["release"] == "b"
    )
    assert "FailedCreate" in reasons(cluster, new["metadata"]["name"])
    cluster.world.quota = None
    until(cluster, lambda: is_rolled_out(cluster))
    assert "ReplicaFailure" not in conditions(live(cluster))


def test_a_replica_is_available_after_its_minimum_ready_time(cluster: FakeCluster) -> None:
    """It is ready before that."""
    cluster.apply(web(replicas=1, minReadySeconds=5))
    until(cluster, lambda: ready(cluster) == 1)
    cluster.step(10)
    assert "availableReplicas" not in live(cluster)["status"]
    assert live(cluster)["status"]["readyReplicas"] == 1
    cluster.step(6, seconds=1)
    assert live(cluster)["status"]["availableReplicas"] == 1


def test_new_annotations_of_a_deployment_increase_its_generation(cluster: FakeCluster) -> None:
    """Its controller has to observe it again."""
    before = cluster.apply(web())["metadata"]["generation"]
    with_value = web()
    with_value["metadata"]["annotations"]["release"] = "other"
    assert cluster.apply(with_value)["metadata"]["generation"] == before + 1


def test_a_number_of_replicas_without_an_owner_is_one(cluster: FakeCluster) -> None:
    """If another manager has taken it, its value stays."""
    cluster.apply(web(replicas=3))
    assert cluster.apply(web(replicas=None))["spec"]["replicas"] == 1
    cluster.apply(web(replicas=3))
    cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 3}}, "autoscaler"
    )
    assert cluster.apply(web(replicas=None))["spec"]["replicas"] == 3


# --- DaemonSets, and the images of nodes


def test_every_node_has_a_pod_of_a_daemonset(cluster: FakeCluster) -> None:
    """It is there however full the node is, and counts once the controller has observed it."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: is_rolled_out(cluster))
    cluster.world.nodes += ["node-2", "node-3"]
    first = cluster.apply(daemons())["status"]
    assert (first["desiredNumberScheduled"], first.get("observedGeneration")) == (0, None)
    until(cluster, lambda: is_prepulled(cluster, 1))
    assert sorted(pod["spec"]["nodeName"] for pod in pods(cluster, "warm")) == [
        "node-1",
        "node-2",
        "node-3",
    ]
    cluster.apply(daemons("b"))
    until(cluster, lambda: is_prepulled(cluster, 2))
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(cluster, "warm")} == {image("b")}
    cluster.delete("DaemonSet", "warm")
    assert pods(cluster, "warm") == []


def test_an_image_that_a_node_has_is_not_pulled_again(cluster: FakeCluster) -> None:
    """A pod of it starts sooner."""
    cluster.scripts["sha256:a"] = PodScript(pulled_in=30)
    cluster.apply(web(replicas=1))
    assert until(cluster, lambda: ready(cluster) == 1) > 30
    cluster.lose(pods(cluster)[0]["metadata"]["name"])
    assert until(cluster, lambda: ready(cluster) == 1) < 10
    assert "Pulling" not in reasons(cluster, pods(cluster)[0]["metadata"]["name"])


# --- Services


def test_requests_go_to_the_pods_that_are_selected_and_ready(cluster: FakeCluster) -> None:
    """Pods that are not ready are listed separately; the port is found by its name."""
    cluster.response_texts["sha256:a"] = "hello"
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(service())
    cluster.apply(web(**rolling(1, 0)))
    until(cluster, lambda: is_rolled_out(cluster))
    assert cluster.answers("web") == {"hello"}
    cluster.apply(web("b", **rolling(1, 0)))
    cluster.step(10)
    (subset,) = live(cluster, "Endpoints")["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (2, 1)
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert subset["addresses"][0]["targetRef"]["name"] in {
        pod["metadata"]["name"] for pod in pods(cluster)
    }
    (in_slice,) = cluster.list("EndpointSlice", {"kubernetes.io/service-name": "web"})
    assert sorted(one["conditions"]["ready"] for one in in_slice["endpoints"]) == [
        False,
        True,
        True,
    ]
    cluster.scripts["sha256:c"] = Script()
    cluster.apply(web("c", **rolling(1, 0)))
    until(cluster, lambda: is_rolled_out(cluster))
    assert cluster.answers("web") == {"sha256:c"}
    assert {
        text for pod in pods(cluster) for text in cluster.answers(pod["metadata"]["name"], "Pod")
    } == {"sha256:c"}
    cluster.apply(service(selector={"app": "none"}))
    cluster.step()
    assert cluster.answers("web") == set()
    cluster.delete("Service", "web")
    assert cluster.find("Endpoints", "web") is None
    assert cluster.list("EndpointSlice", {"kubernetes.io/service-name": "web"}) == []


def test_a_service_has_the_ports_and_addresses_of_its_type(cluster: FakeCluster) -> None:
    """Its node port stays the same, and a test sets its address."""
    assert "nodePort" not in cluster.apply(service())["spec"]["ports"][0]
    port = cluster.apply(service(type="NodePort"))["spec"]["ports"][0]["nodePort"]
    assert cluster.apply(service(type="LoadBalancer"))["spec"]["ports"][0]["nodePort"] == port
    cluster.step()
    assert live(cluster, "Service")["status"] == {"loadBalancer": {}}
    cluster.world.addresses["web"] = "203.0.113.9"
    cluster.step()
    assert live(cluster, "Service")["status"] == {
        "loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}
    }
    cluster.world.addresses["web"] = "lb.example"
    cluster.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "web"},
            "spec": {"rules": []},
        }
    )
    cluster.step()
    assert live(cluster, "Ingress")["status"] == {
        "loadBalancer": {"ingress": [{"hostname": "lb.example"}]}
    }
    assert "nodePort" not in cluster.apply(service())["spec"]["ports"][0]


# --- the API server


def with_value(item: Object, value: object, *path: str) -> Object:
    """Return the object with another value at a path."""
    holder = item
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return item


@pytest.mark.parametrize(
    "item",
    [
        with_value(web(), "extensions/v1beta1", "apiVersion"),
        with_value(web(), "Not_A_Name", "metadata", "name"),
        with_value(web(), {"release": "x" * 64}, "metadata", "labels"),
        with_value(web(), {"app": "other"}, "spec", "template", "metadata", "labels"),
        with_value(
            web(), {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}, "spec", "strategy"
        ),
    ],
)
def test_an_invalid_object_is_refused(cluster: FakeCluster, item: Object) -> None:
    """It is not created."""
    with pytest.raises(ClusterRefused):
        cluster.apply(item)
    assert cluster.find("Deployment", item["metadata"]["name"]) is None


def test_a_selector_cannot_be_changed(cluster: FakeCluster) -> None:
    """A strategy of Recreate is refused too while bounds of a rolling update remain."""
    cluster.apply(web())
    other = with_value(web(), {"app": "other"}, "spec", "template", "metadata", "labels")
    with pytest.raises(ClusterRefused, match="422"):
        cluster.apply(with_value(other, {"matchLabels": {"app": "other"}}, "spec", "selector"))
    with pytest.raises(ClusterRefused, match="422"):
        cluster.apply(web(strategy={"type": "Recreate"}))
    assert live(cluster)["spec"]["strategy"]["type"] == "RollingUpdate"


def test_own_fields_of_an_update_conflict_with_an_apply(cluster: FakeCluster) -> None:
    """Updates and applies are different owners."""
    cluster.create(settings("one", key="value"))
    cluster.apply(settings("one", key="value"))
    with pytest.raises(Exception, match="twinship owns"):
        cluster.apply(settings("one", key="other"))


def owners(cluster: FakeCluster, *path: str) -> set[tuple[str, str]]:
    """Return the owners of a field of the Deployment, with their operations."""

    def owns(fields: Object) -> bool:
        for step in path:
            fields = fields.get(step, {}) if step in fields else {"": None}
        return fields == {}

    entries = live(cluster)["metadata"]["managedFields"]
    return {(entry["manager"], entry["operation"]) for entry in entries if owns(entry["fieldsV1"])}


def test_the_owners_of_a_field_can_be_read(cluster: FakeCluster) -> None:
    """Managers that apply the same value share it; another value has one owner.

    A replacement makes it an update.
    """
    cluster.apply(web(replicas=2))
    assert owners(cluster, "f:spec", "f:replicas") == {("twinship", "Apply")}
    item = {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2}}
    cluster.apply_as(item, "autoscaler")
    assert owners(cluster, "f:spec", "f:replicas") == {
        ("twinship", "Apply"),
        ("autoscaler", "Apply"),
    }
    cluster.apply_as(with_value(item, 3, "spec", "replicas"), "autoscaler")
    assert owners(cluster, "f:spec", "f:replicas") == {("autoscaler", "Apply")}
    found = cluster.find("Deployment", "web") or {}
    assert cluster.replace(
        with_value(found | {"metadata": live(cluster)["metadata"]}, 4, "spec", "replicas")
    )
    assert owners(cluster, "f:spec", "f:replicas") == {("twinship", "Update")}


def test_a_list_item_stays_while_another_manager_owns_it(cluster: FakeCluster) -> None:
    """An item without another owner is removed as a whole, with the changes of others in it."""
    first_container = {"name": "A", "value": "1"}
    two = {"name": "B", "value": "1"}
    cluster.apply(web(container={"env": [first_container, two]}))
    theirs = {"containers": [{"name": "app", "env": [two]}]}
    cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": theirs}}},
        "mesh",
    )
    assert cluster.replace(web(container={"env": [{"name": "A", "value": "2"}, two]}))
    assert cluster.apply(web())["spec"]["template"]["spec"]["containers"][0]["env"] == [two]
    entries = live(cluster)["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in entries] == [
        ("mesh", "Apply"),
        ("twinship", "Apply"),
    ]


def test_a_map_without_fields_is_removed(cluster: FakeCluster) -> None:
    """A field that a replacement leaves out has no owner any more."""
    bare = with_value(web(), {}, "metadata", "annotations")
    del bare["metadata"]["annotations"]
    cluster.apply(web())
    assert "annotations" not in cluster.apply(bare)["metadata"]
    cluster.apply(web(paused=True))
    assert owners(cluster, "f:spec", "f:paused") == {("twinship", "Apply")}
    assert cluster.replace(web())
    assert owners(cluster, "f:spec", "f:paused") == set()


def test_errors_are_raised_one_by_one(cluster: FakeCluster) -> None:
    """Each call of that verb and kind raises the next one; a gap and the end raise none."""
    error = ClusterUnreachable("no answer", on="", next="")
    cluster.failures["get", "Lease"] = [error, None, error]
    answers: list[object] = []
    for _ in range(4):
        try:
            answers.append(cluster.find("Lease", "one"))
        except ClusterUnreachable as caught:
            answers.append(caught)
    assert answers == [error, None, error, None]
    assert cluster.find("ConfigMap", "one") is None


def test_a_denied_verb_is_refused_and_reviewed(cluster: FakeCluster) -> None:
    """Verbs are denied by kind, or by subresource."""
    cluster.forbidden |= {("patch", "Deployment"), ("get", "Pod/log")}
    with pytest.raises(ClusterForbidden):
        cluster.apply(web())
    with pytest.raises(ClusterForbidden):
        cluster.log("any", 1)
    assert not cluster.is_allowed("patch", "Deployment")
    assert cluster.is_allowed("get", "Deployment")
    assert not cluster.is_allowed("get", "Pod", "log")
    assert cluster.is_allowed("get", "Pod")


def test_in_a_missing_namespace_nothing_is_created(cluster: FakeCluster) -> None:
    """Reads are no error there: they find nothing."""
    cluster.missing = True
    for write in (cluster.apply, cluster.create):
        with pytest.raises(NamespaceMissing):
            write(settings("one"))
    with pytest.raises(NamespaceMissing):
        cluster.require_access()
    assert not cluster.replace(settings("one"))
    assert cluster.find("ConfigMap", "one") is None
    assert cluster.list("ConfigMap", {}) == []


def test_a_read_returns_the_state_before_its_step(cluster: FakeCluster) -> None:
    """A caller that waits by reads moves time; a caller that only writes does not."""
    cluster.apply(web())
    cluster.apply(service())
    assert cluster.list("Pod", {}) == []
    assert len(cluster.list("Pod", {})) == 2
    assert cluster.requests == [
        ("patch", "Deployment", "web"),
        ("patch", "Service", "web"),
        ("list", "Pod", ""),
        ("list", "Pod", ""),
    ]


def test_a_sleep_moves_the_clusters_time(cluster: FakeCluster) -> None:
    """Each second that has begun is a step; no real time passes."""
    cluster.apply(web())
    cluster.clock.sleep(0.25)
    assert cluster.clock.now() == pytest.approx(0.25)
    assert len(pods(cluster)) == 2
    assert ready(cluster) == 0
    cluster.clock.sleep(3600)
    assert cluster.clock.now() == pytest.approx(3600.25)
    assert ready(cluster) == 2
