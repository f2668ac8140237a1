"""The cluster in memory that unit tests run on: it keeps the contract, and its controllers and nodes do as real ones do."""

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
    """The cluster in memory keeps the contract."""

    @pytest.fixture
    def cluster(self) -> Cluster:
        """An empty namespace."""
        made = FakeCluster()
        made.unserved.add("PodDisruptionBudget")
        return made

    @pytest.fixture
    def other(self, cluster: FakeCluster) -> Write:
        """Another manager, who takes what he wants."""

        def written(item: Object, manager: str) -> None:
            cluster.apply_as(item, manager)

        return written

    @pytest.fixture
    def unserved(self) -> str:
        return "PodDisruptionBudget"


@pytest.fixture
def cluster() -> FakeCluster:
    """An empty namespace."""
    return FakeCluster()


def image(code: str) -> str:
    """A reference by digest."""
    return f"registry.example/app@sha256:{code}"


def web(
    code: str = "a",
    replicas: int | None = 2,
    *,
    container: Object | None = None,
    pod: Object | None = None,
    **spec: Any,
) -> Object:
    """A Deployment whose replicas are asked whether they are ready."""
    one = {
        "name": "app",
        "image": image(code),
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": PROBE,
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [one | (container or {})], **(pod or {})},
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


def surging(surge: int | str, away: int | str) -> Object:
    """A strategy."""
    return {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away},
        }
    }


def door(**spec: Any) -> Object:
    """A Service in front of it."""
    wanted = {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": wanted}


def daemons(code: str = "a") -> Object:
    """A DaemonSet whose pods only have to be there."""
    template = {
        "metadata": {"labels": {"app": "warm"}},
        "spec": {"containers": [{"name": "app", "image": image(code)}]},
    }
    template["spec"]["containers"][0]["command"] = ["sleep", "infinity"]  # type: ignore[index]
    spec = {"selector": {"matchLabels": {"app": "warm"}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "warm"},
        "spec": spec,
    }


def pods(cluster: FakeCluster, app: str = "web") -> list[Object]:
    """The pods as they are, without letting time pass."""
    return cluster.objects.find_all("Pod", {"app": app})


def codes(cluster: FakeCluster) -> list[str]:
    """What the pods run that were not asked to go."""
    return sorted(
        pod["spec"]["containers"][0]["image"].rpartition(":")[2]
        for pod in pods(cluster)
        if "deletionTimestamp" not in pod["metadata"]
    )


def ready(cluster: FakeCluster) -> int:
    """How many pods are ready."""
    return sum(conditions(pod).get("Ready") == "True" for pod in pods(cluster))


def conditions(item: Object, what: str = "status") -> dict[str, str]:
    """The conditions of an object, or their reasons."""
    return {one["type"]: one.get(what, "") for one in item.get("status", {}).get("conditions", ())}


def container(pod: Object) -> Object:
    """The state of a pod's first container."""
    found: Object = pod["status"].get("containerStatuses", [{"state": {}}])[0]
    return found


def live(cluster: FakeCluster, kind: str = "Deployment", name: str = "web") -> Object:
    """An object as it is, without letting time pass."""
    found = cluster.objects.get(kind, name)
    assert found is not None
    return found


def until(cluster: FakeCluster, reached: Callable[[], bool], steps: int = 60) -> int:
    """Lets steps pass until something is so; how many it took."""
    for step in range(steps):
        if reached():
            return step
        cluster.step()
    pytest.fail(f"not within {steps} steps")


def rolled(cluster: FakeCluster) -> bool:
    """Whether the Deployment says that its rollout is over."""
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


def warmed(cluster: FakeCluster, generation: int) -> bool:
    """Whether that generation of the DaemonSet has a ready pod on three nodes."""
    status = live(cluster, "DaemonSet", "warm")["status"]
    counts = [
        status.get(name) for name in ("observedGeneration", "updatedNumberScheduled", "numberReady")
    ]
    return counts == [generation, 3, 3]


def reasons(cluster: FakeCluster, name: str) -> list[str]:
    """What events tell about a thing."""
    return [event["reason"] for event in cluster.events(name)]


# --- pods


def test_a_pod_comes_up_step_by_step(cluster: FakeCluster) -> None:
    """It is scheduled, waits for its image, runs, and is ready once a probe has passed."""
    cluster.scripts["sha256:a"] = PodScript(ready_after=2, pulled_in=2, says="loading\nlistening")
    cluster.apply(web(replicas=1))
    seen: list[tuple[object, ...]] = []
    for _ in range(15):
        for pod in pods(cluster):
            state = next(iter(container(pod)["state"]), "")
            now = (
                pod["status"]["phase"],
                conditions(pod).get("PodScheduled", ""),
                state,
                conditions(pod).get("Ready", ""),
            )
            seen += [now] if now not in seen else []
        cluster.step()
    assert seen == [
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
def test_a_pod_that_cannot_start_says_what_it_waits_for(
    cluster: FakeCluster, script: Script, states: list[str], events: set[str]
) -> None:
    """As the reason of a waiting container, and in its events."""
    cluster.scripts["sha256:a"] = script
    cluster.apply(web(replicas=1))
    seen: list[str] = []
    for _ in range(30):
        found = [
            container(pod)["state"].get("waiting", {}).get("reason", "") for pod in pods(cluster)
        ]
        seen += [reason for reason in found if reason and reason not in seen]
        cluster.step()
    assert seen == states
    assert events <= set(reasons(cluster, pods(cluster)[0]["metadata"]["name"]))
    assert ready(cluster) == 0


def test_a_crash_is_remembered_and_tried_again_less_and_less_often(cluster: FakeCluster) -> None:
    """The last end's code stays to be seen; the second crash is followed by ten seconds of waiting, the third by twenty."""
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


def test_a_pod_for_which_there_is_no_room_waits_for_it(cluster: FakeCluster) -> None:
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
    """With what the scheduler says of it."""
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


def test_a_start_is_waited_for_as_long_as_its_probe_allows(cluster: FakeCluster) -> None:
    """Then the container is killed and started again."""
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


def test_a_replica_may_die_later(cluster: FakeCluster) -> None:
    """It is started again in its place, and is ready again."""
    cluster.scripts["sha256:a"] = Script(dies_after=3)
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    until(cluster, lambda: ready(cluster) == 0)
    until(cluster, lambda: ready(cluster) == 1)
    assert container(pods(cluster)[0])["restartCount"] == 1


def test_a_crash_and_a_loss_are_mended(cluster: FakeCluster) -> None:
    """The first by the node, the second by another pod."""
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


def test_a_container_that_only_sleeps_is_not_its_image(cluster: FakeCluster) -> None:
    """It stays, whatever the image's own program would do; the image must still be there."""
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


def test_first_containers_end_before_the_others_begin(cluster: FakeCluster) -> None:
    """A pod waits for them, and they count as ready when they have ended well."""
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


def test_the_scheduler_s_events_have_times_of_another_kind(cluster: FakeCluster) -> None:
    """They are counted by nobody, and have a time only where others have none."""
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    events = {
        event["reason"]: event for event in cluster.events(pods(cluster)[0]["metadata"]["name"])
    }
    assert events["Scheduled"]["lastTimestamp"] is None
    assert events["Scheduled"]["eventTime"]
    assert (events["Started"]["count"], events["Started"]["eventTime"]) == (1, None)


# --- going


def test_a_pod_that_goes_may_linger(cluster: FakeCluster) -> None:
    """It is told as terminating, gets no requests, and is gone after as many steps as the test wants."""
    cluster.apply(door())
    cluster.apply(web(replicas=1))
    until(cluster, lambda: ready(cluster) == 1)
    cluster.world.termination_steps = 4
    cluster.apply(web(replicas=0))
    until(cluster, lambda: "deletionTimestamp" in pods(cluster)[0]["metadata"])
    assert cluster.answers("web") == set()
    assert live(cluster)["spec"]["replicas"] == 0
    assert until(cluster, lambda: pods(cluster) == []) in {3, 4}


def test_what_a_deployment_made_goes_with_it(cluster: FakeCluster) -> None:
    """ReplicaSets at once, and pods as they do."""
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
    """At no time are there more pods, or fewer that work, than the strategy allows."""
    most = {1: 5, 3: 7, 2: 6, "25%": 5, "100%": 8}.get(surge, 4)
    least = {1: 3, "25%": 3, 2: 2}.get(away, 4)
    cluster.apply(web(replicas=4, **surging(surge, away)))
    until(cluster, lambda: rolled(cluster))
    cluster.apply(web("b", replicas=4, **surging(surge, away)))
    fewest = 4
    highest = 0
    while not rolled(cluster):
        cluster.step()
        fewest = min(fewest, ready(cluster))
        highest = max(highest, len(codes(cluster)))
    assert codes(cluster) == ["b"] * 4
    assert (fewest, highest) == (least, most)


def test_a_rollout_that_fails_leaves_the_old_replicas(cluster: FakeCluster) -> None:
    """They serve until a new one works, however long that is; after its deadline the Deployment says so."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web(**surging(1, 0)))
    until(cluster, lambda: rolled(cluster))
    cluster.apply(web("b", progressDeadlineSeconds=20, **surging(1, 0)))
    cluster.step(10)
    assert conditions(live(cluster), "reason")["Progressing"] == "ReplicaSetUpdated"
    cluster.step(19, seconds=1)
    assert conditions(live(cluster))["Progressing"] == "True"
    cluster.step(4, seconds=1)
    assert conditions(live(cluster), "reason")["Progressing"] == "ProgressDeadlineExceeded"
    assert conditions(live(cluster)) == {"Available": "True", "Progressing": "False"}
    assert codes(cluster) == ["a", "a", "b"]


def test_a_rollout_has_its_time_for_each_replica(cluster: FakeCluster) -> None:
    """One that gets on is not late, however long all of it takes."""
    cluster.scripts["sha256:a"] = Script(ready_after=15)
    cluster.apply(web(replicas=4, progressDeadlineSeconds=25))
    until(cluster, lambda: rolled(cluster))
    cluster.scripts["sha256:b"] = Script(ready_after=15)
    cluster.apply(web("b", replicas=4, progressDeadlineSeconds=25, **surging(1, 0)))
    began = cluster.seconds()
    while not rolled(cluster):
        cluster.step(seconds=1)
        assert conditions(live(cluster))["Progressing"] == "True"
    assert cluster.seconds() - began > 60


def test_of_too_many_replicas_those_go_that_do_not_work(cluster: FakeCluster) -> None:
    """Whichever they are."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: rolled(cluster))
    cluster.scripts["sha256:a"] = NEVER
    crashed = pods(cluster)[1]["metadata"]["name"]
    cluster.crash(crashed)
    cluster.apply(web(replicas=2))
    cluster.step(2)
    assert len(pods(cluster)) == 2
    assert crashed not in [pod["metadata"]["name"] for pod in pods(cluster)]


def test_replicas_that_do_not_work_go_first(cluster: FakeCluster) -> None:
    """Of a failed rollout nothing is left once the old template is back, and the others were never touched."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web())
    until(cluster, lambda: rolled(cluster))
    before = [pod["metadata"]["name"] for pod in pods(cluster)]
    cluster.apply(web("b"))
    cluster.step(10)
    cluster.apply(web())
    until(cluster, lambda: rolled(cluster))
    assert [pod["metadata"]["name"] for pod in pods(cluster)] == before


def test_an_old_template_comes_back_with_its_replicaset(cluster: FakeCluster) -> None:
    """It gets the highest revision, keeps a note of its former one, and has the Deployment's annotations of now."""
    for code in ("a", "b", "a"):
        cluster.apply(web(code))
        until(cluster, lambda: rolled(cluster))
    notes = {
        item["metadata"]["annotations"]["release"]: item["metadata"]["annotations"]
        for item in cluster.objects.find_all("ReplicaSet")
    }
    revision = "deployment.kubernetes.io/revision"
    assert {release: found[revision] for release, found in notes.items()} == {"a": "3", "b": "2"}
    assert notes["a"][f"{revision}-history"] == "1"
    assert live(cluster)["metadata"]["annotations"][revision] == "3"
    again = web()
    again["metadata"]["annotations"]["release"] = "a again"
    cluster.apply(again)
    cluster.step()
    assert {
        item["metadata"]["annotations"]["release"]
        for item in cluster.objects.find_all("ReplicaSet")
    } == {"a again", "b"}


def test_the_end_of_the_last_rollout_is_told_until_the_next_one_moves(cluster: FakeCluster) -> None:
    """After a return to an old template a Deployment says for a moment that all is done, with no new pod there yet."""
    for code in ("a", "b"):
        cluster.apply(web(code))
        until(cluster, lambda: rolled(cluster))
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


def test_only_so_many_old_revisions_are_kept(cluster: FakeCluster) -> None:
    """The oldest go when a rollout is over."""
    for code in "abcde":
        cluster.apply(web(code, revisionHistoryLimit=2))
        until(cluster, lambda: rolled(cluster))
    cluster.step()
    kept = {
        item["metadata"]["annotations"]["release"]
        for item in cluster.objects.find_all("ReplicaSet")
    }
    assert kept == {"c", "d", "e"}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_deployment_is_scaled(cluster: FakeCluster, count: int) -> None:
    """Without another ReplicaSet, and with the pods that can stay."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: rolled(cluster))
    before = {pod["metadata"]["name"] for pod in pods(cluster)}
    cluster.apply(web(replicas=count))
    until(cluster, lambda: rolled(cluster))
    after = {pod["metadata"]["name"] for pod in pods(cluster)}
    assert len(after) == count
    assert len(after & before) == min(count, 3)
    assert len(cluster.objects.find_all("ReplicaSet")) == 1


def test_scaling_in_mid_rollout_is_shared_out(cluster: FakeCluster) -> None:
    """Both ReplicaSets grow in proportion, and the rollout goes on from there."""
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(web(replicas=4, **surging("50%", 0)))
    until(cluster, lambda: rolled(cluster))
    cluster.apply(web("b", replicas=4, **surging("50%", 0)))
    cluster.step(5)
    assert codes(cluster) == [*"aaaabb"]
    cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 8}}, "autoscaler"
    )
    cluster.step(10)
    assert codes(cluster) == [*"aaaaaaaabbbb"]
    cluster.scripts["sha256:b"] = Script()
    until(cluster, lambda: rolled(cluster))
    assert codes(cluster) == [*"bbbbbbbb"]


def test_a_deployment_that_is_recreated_is_away_for_a_while(cluster: FakeCluster) -> None:
    """All old pods are gone before a new one is made."""
    cluster.world.termination_steps = 2
    recreate: Object = {"strategy": {"type": "Recreate"}}
    for code in "ab":
        cluster.apply(web(code, **recreate))
        seen = set()
        while not rolled(cluster):
            cluster.step()
            seen.add("".join(codes(cluster)))
    assert "" in seen
    assert "ab" not in {"".join(sorted(set(found))) for found in seen}


def test_pods_beyond_the_quota_are_not_made(cluster: FakeCluster) -> None:
    """The ReplicaSet has the event, the Deployment the condition; when there is room, all goes on."""
    cluster.apply(web(**surging(1, 0)))
    until(cluster, lambda: rolled(cluster))
    cluster.world.quota = 2
    cluster.apply(web("b", **surging(1, 0)))
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
    until(cluster, lambda: rolled(cluster))
    assert "ReplicaFailure" not in conditions(live(cluster))


def test_a_replica_counts_as_available_only_after_a_while_if_so_asked(cluster: FakeCluster) -> None:
    """It is ready before that."""
    cluster.apply(web(replicas=1, minReadySeconds=5))
    until(cluster, lambda: ready(cluster) == 1)
    cluster.step(10)
    assert "availableReplicas" not in live(cluster)["status"]
    assert live(cluster)["status"]["readyReplicas"] == 1
    cluster.step(6, seconds=1)
    assert live(cluster)["status"]["availableReplicas"] == 1


def test_annotations_of_a_deployment_are_a_change_of_it(cluster: FakeCluster) -> None:
    """Its controller has to look at it again."""
    before = cluster.apply(web())["metadata"]["generation"]
    changed = web()
    changed["metadata"]["annotations"]["release"] = "other"
    assert cluster.apply(changed)["metadata"]["generation"] == before + 1


def test_a_number_of_replicas_that_is_given_up_is_one(cluster: FakeCluster) -> None:
    """Unless somebody else has taken it: then it is his."""
    cluster.apply(web(replicas=3))
    assert cluster.apply(web(replicas=None))["spec"]["replicas"] == 1
    cluster.apply(web(replicas=3))
    cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 3}}, "autoscaler"
    )
    assert cluster.apply(web(replicas=None))["spec"]["replicas"] == 3


# --- DaemonSets, and what nodes hold


def test_every_node_has_a_pod_of_a_daemonset(cluster: FakeCluster) -> None:
    """Its own one, however full it is, and it is counted when its controller has seen it."""
    cluster.apply(web(replicas=3))
    until(cluster, lambda: rolled(cluster))
    cluster.world.nodes += ["node-2", "node-3"]
    first = cluster.apply(daemons())["status"]
    assert (first["desiredNumberScheduled"], first.get("observedGeneration")) == (0, None)
    until(cluster, lambda: warmed(cluster, 1))
    assert sorted(pod["spec"]["nodeName"] for pod in pods(cluster, "warm")) == [
        "node-1",
        "node-2",
        "node-3",
    ]
    cluster.apply(daemons("b"))
    until(cluster, lambda: warmed(cluster, 2))
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(cluster, "warm")} == {image("b")}
    cluster.delete("DaemonSet", "warm")
    assert pods(cluster, "warm") == []


def test_an_image_that_a_node_has_is_not_pulled_again(cluster: FakeCluster) -> None:
    """So a pod of it comes up sooner."""
    cluster.scripts["sha256:a"] = PodScript(pulled_in=30)
    cluster.apply(web(replicas=1))
    assert until(cluster, lambda: ready(cluster) == 1) > 30
    cluster.lose(pods(cluster)[0]["metadata"]["name"])
    assert until(cluster, lambda: ready(cluster) == 1) < 10
    assert "Pulling" not in reasons(cluster, pods(cluster)[0]["metadata"]["name"])


# --- Services


def test_requests_go_to_the_pods_that_are_selected_and_ready(cluster: FakeCluster) -> None:
    """Those that are not ready are told apart; the port is found by its name."""
    cluster.response_texts["sha256:a"] = "hello"
    cluster.scripts["sha256:b"] = NEVER
    cluster.apply(door())
    cluster.apply(web(**surging(1, 0)))
    until(cluster, lambda: rolled(cluster))
    assert cluster.answers("web") == {"hello"}
    cluster.apply(web("b", **surging(1, 0)))
    cluster.step(10)
    (subset,) = live(cluster, "Endpoints")["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (2, 1)
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert subset["addresses"][0]["targetRef"]["name"] in {
        pod["metadata"]["name"] for pod in pods(cluster)
    }
    cluster.scripts["sha256:c"] = Script()
    cluster.apply(web("c", **surging(1, 0)))
    until(cluster, lambda: rolled(cluster))
    assert cluster.answers("web") == {"sha256:c"}
    assert {
        text for pod in pods(cluster) for text in cluster.answers(pod["metadata"]["name"], "Pod")
    } == {"sha256:c"}
    cluster.apply(door(selector={"app": "nobody"}))
    cluster.step()
    assert cluster.answers("web") == set()
    cluster.delete("Service", "web")
    assert cluster.find("Endpoints", "web") is None


def test_a_service_has_the_ways_in_of_its_type(cluster: FakeCluster) -> None:
    """A port of the nodes that stays the same, and the address that the test gives it."""
    assert "nodePort" not in cluster.apply(door())["spec"]["ports"][0]
    port = cluster.apply(door(type="NodePort"))["spec"]["ports"][0]["nodePort"]
    assert cluster.apply(door(type="LoadBalancer"))["spec"]["ports"][0]["nodePort"] == port
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
    assert "nodePort" not in cluster.apply(door())["spec"]["ports"][0]


# --- the API server


def changed(item: Object, value: object, *path: str) -> Object:
    """The object with another value somewhere."""
    holder = item
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return item


@pytest.mark.parametrize(
    "item",
    [
        changed(web(), "extensions/v1beta1", "apiVersion"),
        changed(web(), "Not_A_Name", "metadata", "name"),
        changed(web(), {"release": "x" * 64}, "metadata", "labels"),
        changed(web(), {"app": "other"}, "spec", "template", "metadata", "labels"),
        changed(web(), {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}, "spec", "strategy"),
    ],
)
def test_what_is_invalid_is_refused(cluster: FakeCluster, item: Object) -> None:
    """Nothing is made of it."""
    with pytest.raises(ClusterRefused):
        cluster.apply(item)
    assert cluster.find("Deployment", item["metadata"]["name"]) is None


def test_what_selects_the_pods_cannot_be_changed(cluster: FakeCluster) -> None:
    """Nor can a Deployment be told to recreate its pods while bounds of a rolling update are left over."""
    cluster.apply(web())
    other = changed(web(), {"app": "other"}, "spec", "template", "metadata", "labels")
    with pytest.raises(ClusterRefused, match="422"):
        cluster.apply(changed(other, {"matchLabels": {"app": "other"}}, "spec", "selector"))
    with pytest.raises(ClusterRefused, match="422"):
        cluster.apply(web(strategy={"type": "Recreate"}))
    assert live(cluster)["spec"]["strategy"]["type"] == "RollingUpdate"


def test_what_one_made_oneself_by_another_way_is_a_conflict_too(cluster: FakeCluster) -> None:
    """Making and replacing own fields as an update, which is another owner than applying."""
    cluster.create(settings("one", key="value"))
    cluster.apply(settings("one", key="value"))
    with pytest.raises(Exception, match="twinship owns"):
        cluster.apply(settings("one", key="other"))


def owners(cluster: FakeCluster, *path: str) -> set[tuple[str, str]]:
    """Who owns a field of the Deployment, and by which operation."""

    def owns(fields: Object) -> bool:
        for step in path:
            fields = fields.get(step, {}) if step in fields else {"": None}
        return fields == {}

    entries = live(cluster)["metadata"]["managedFields"]
    return {(entry["manager"], entry["operation"]) for entry in entries if owns(entry["fieldsV1"])}


def test_who_owns_a_field_can_be_read(cluster: FakeCluster) -> None:
    """Several who say the same own it together; who says something else has it alone, and who replaces it owns it as an update."""
    cluster.apply(web(replicas=2))
    assert owners(cluster, "f:spec", "f:replicas") == {("twinship", "Apply")}
    item = {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2}}
    cluster.apply_as(item, "autoscaler")
    assert owners(cluster, "f:spec", "f:replicas") == {
        ("twinship", "Apply"),
        ("autoscaler", "Apply"),
    }
    cluster.apply_as(changed(item, 3, "spec", "replicas"), "autoscaler")
    assert owners(cluster, "f:spec", "f:replicas") == {("autoscaler", "Apply")}
    found = cluster.find("Deployment", "web") or {}
    assert cluster.replace(
        changed(found | {"metadata": live(cluster)["metadata"]}, 4, "spec", "replicas")
    )
    assert owners(cluster, "f:spec", "f:replicas") == {("twinship", "Update")}


def test_a_list_s_item_stays_as_long_as_somebody_else_owns_it(cluster: FakeCluster) -> None:
    """One that nobody else made goes whole, with what others have changed in it."""
    one = {"name": "A", "value": "1"}
    two = {"name": "B", "value": "1"}
    cluster.apply(web(container={"env": [one, two]}))
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


def test_what_is_empty_without_a_field_goes_with_it(cluster: FakeCluster) -> None:
    """A map that was never given is not there; what a replacement leaves out is nobody's any more."""
    bare = changed(web(), {}, "metadata", "annotations")
    del bare["metadata"]["annotations"]
    cluster.apply(web())
    assert "annotations" not in cluster.apply(bare)["metadata"]
    cluster.apply(web(paused=True))
    assert owners(cluster, "f:spec", "f:paused") == {("twinship", "Apply")}
    assert cluster.replace(web())
    assert owners(cluster, "f:spec", "f:paused") == set()


def test_errors_are_raised_one_by_one(cluster: FakeCluster) -> None:
    """Each by one call of that verb and kind; a gap lets a call pass, and so does the end."""
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


def test_what_is_denied_is_refused_and_can_be_asked_for(cluster: FakeCluster) -> None:
    """By verb and kind, or part of a kind."""
    cluster.forbidden |= {("patch", "Deployment"), ("get", "Pod/log")}
    with pytest.raises(ClusterForbidden):
        cluster.apply(web())
    with pytest.raises(ClusterForbidden):
        cluster.log("any", 1)
    assert not cluster.may("patch", "Deployment")
    assert cluster.may("get", "Deployment")
    assert not cluster.may("get", "Pod", "log")
    assert cluster.may("get", "Pod")


def test_in_a_namespace_that_is_missing_nothing_is_made(cluster: FakeCluster) -> None:
    """To look there is no error: nothing is found."""
    cluster.missing = True
    for write in (cluster.apply, cluster.create):
        with pytest.raises(NamespaceMissing):
            write(settings("one"))
    with pytest.raises(NamespaceMissing):
        cluster.require()
    assert not cluster.replace(settings("one"))
    assert cluster.find("ConfigMap", "one") is None
    assert cluster.list("ConfigMap", {}) == []


def test_a_look_shows_what_was_and_lets_a_step_pass(cluster: FakeCluster) -> None:
    """Whoever waits by looking gets on; whoever only writes does not."""
    cluster.apply(web())
    cluster.apply(door())
    assert cluster.list("Pod", {}) == []
    assert len(cluster.list("Pod", {})) == 2
    assert cluster.requests == [
        ("patch", "Deployment", "web"),
        ("patch", "Service", "web"),
        ("list", "Pod", ""),
        ("list", "Pod", ""),
    ]


def test_to_sleep_is_to_let_the_cluster_s_time_pass(cluster: FakeCluster) -> None:
    """All of it, with a step for each second that has begun, and none of this machine's."""
    cluster.apply(web())
    cluster.clock.sleep(0.25)
    assert cluster.clock.now() == pytest.approx(0.25)
    assert len(pods(cluster)) == 2
    assert ready(cluster) == 0
    cluster.clock.sleep(3600)
    assert cluster.clock.now() == pytest.approx(3600.25)
    assert ready(cluster) == 2
