"""Pods as their status tells them."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.errors import ClusterForbidden
from deploy.targets.kubernetes.pods import (
    TEMPLATE_ANNOTATION,
    Pod,
    event_lines,
    image_digest,
    log_tail,
)
from deploy.targets.kubernetes.render import IMAGE_LABEL, TRACK_LABEL
from tests.fakes.kubernetes.api_server import FakeCluster

DIGEST = f"sha256:{'7' * 64}"
RUNS = {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(
    status: Any = None, containers: Any = (), conditions: Any = (SCHEDULED,), **metadata: Any
) -> Pod:
    """A pod of that status."""
    body = {"containerStatuses": list(containers), "conditions": list(conditions), **(status or {})}
    return Pod({"metadata": {"name": "shop-1", **metadata}, "status": body})


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    """The state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": reason}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    """The state of a container that waits."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


@pytest.mark.parametrize(
    ("found", "stage"),
    [
        (pod(conditions=()), ""),
        (
            pod(
                conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
            ),
            "",
        ),
        (pod(), "scheduled"),
        (pod(containers=[{"state": waits("ContainerCreating")}]), "scheduled"),
        (pod(containers=[{"state": RUNS, "started": False}]), "started"),
        (pod(containers=[{"state": RUNS}, {"state": waits("ContainerCreating")}]), "scheduled"),
        (pod(containers=[{"state": RUNS, "started": True}]), "loaded"),
        (
            pod(
                containers=[{"state": RUNS, "started": True}],
                conditions=[{"type": "Ready", "status": "True"}],
            ),
            "ready",
        ),
        (
            pod(
                {"initContainerStatuses": [{"state": ended(0), "ready": True}]},
                [{"state": RUNS, "started": True}],
            ),
            "loaded",
        ),
        (
            pod(
                {"initContainerStatuses": [{"state": RUNS}]}, [{"state": waits("PodInitializing")}]
            ),
            "scheduled",
        ),
    ],
)
def test_how_far_a_pod_has_come(found: Pod, stage: str) -> None:
    """From having a node over having started to taking requests; what only begins it does not count."""
    assert found.stage == stage


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"state": waits("ContainerCreating")}, ""),
        ({"state": waits("ErrImagePull", "connection reset")}, ""),
        (
            {"state": waits("ImagePullBackOff", "Back-off")},
            "a replica cannot start: ImagePullBackOff, Back-off",
        ),
        ({"state": waits("InvalidImageName")}, "a replica cannot start: InvalidImageName"),
        (
            {"state": waits("CreateContainerConfigError", "no secret")},
            "a replica cannot start: CreateContainerConfigError, no secret",
        ),
        ({"state": ended(3)}, "a replica ended with exit code 3 before it was ready"),
        (
            {"state": ended(137, "OOMKilled")},
            "a replica ended with exit code 137 (OOMKilled) before it was ready",
        ),
        (
            {"state": ended(0, "Completed")},
            "a replica ended with exit code 0 (Completed) before it was ready",
        ),
        (
            {"state": waits("CrashLoopBackOff"), "lastState": ended(3)},
            "a replica ended with exit code 3 before it was ready",
        ),
        (
            {"state": RUNS, "lastState": ended(3)},
            "a replica ended with exit code 3 before it was ready",
        ),
        ({"state": RUNS, "lastState": ended(3), "ready": True}, ""),
        ({"state": RUNS, "lastState": {}, "ready": False}, ""),
        ({"state": None, "lastState": None}, ""),
    ],
)
def test_what_waiting_does_not_help(state: dict[str, Any], problem: str) -> None:
    """A container that cannot start, or has ended; a first failure of a pull may be a passing one."""
    assert pod(containers=[state]).problem == problem


@pytest.mark.parametrize(
    ("before", "now", "is_new"),
    [
        (
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            False,
        ),
        ({"restartCount": 0, "state": ended(3)}, {"restartCount": 0, "state": ended(3)}, False),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            False,
        ),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 0, "state": waits("ErrImagePull"), "lastState": ended(3)},
            False,
        ),
        (
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            {"restartCount": 1, "state": ended(3), "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            {"restartCount": 2, "state": RUNS, "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 0, "state": RUNS},
            {"restartCount": 1, "state": RUNS, "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 0, "state": waits("CrashLoopBackOff"), "lastState": ended(3)},
            True,
        ),
    ],
)
def test_an_end_of_before_says_nothing(
    before: dict[str, Any], now: dict[str, Any], is_new: bool
) -> None:
    """But one that came since, or a container that is not started again for a while."""
    known = pod(
        containers=[{"name": "proxy", "restartCount": 5, "state": RUNS}, {"name": "app", **before}]
    ).exit_counts
    found = pod(
        containers=[{"name": "proxy", "restartCount": 5, "state": RUNS}, {"name": "app", **now}]
    )
    assert found.problem_since(known) == (
        "a replica ended with exit code 3 before it was ready" if is_new else ""
    )
    assert found.problem == "a replica ended with exit code 3 before it was ready"


def test_a_container_that_cannot_start_never_could() -> None:
    """Whatever was known of its ends."""
    found = pod(containers=[{"name": "app", "state": waits("InvalidImageName")}])
    assert found.problem_since(found.exit_counts) == "a replica cannot start: InvalidImageName"


def test_a_container_that_only_begins_a_pod_may_fail_but_not_end_well() -> None:
    """The first is a problem, the second what is expected."""
    assert (
        pod({"initContainerStatuses": [{"state": ended(0, "Completed"), "ready": True}]}).problem
        == ""
    )
    assert pod({"initContainerStatuses": [{"state": ended(1), "ready": False}]}).problem.startswith(
        "a replica ended with exit code 1"
    )


@pytest.mark.parametrize(
    "found",
    [
        pod(deletionTimestamp="2026-01-01T12:00:00Z"),
        pod({"phase": "Failed", "reason": "Evicted"}),
        pod({"phase": "Succeeded"}),
    ],
)
def test_a_pod_that_goes_takes_no_requests(found: Pod) -> None:
    """Though it may say that it is ready: it was asked to go, was evicted, or has ended."""
    found.item["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert not found.is_active
    assert not found.ready


def test_a_pod_that_was_evicted_has_left() -> None:
    """One that was asked to go takes its time, as much as it was given."""
    assert not pod({"phase": "Failed", "reason": "Evicted"}).is_terminating
    going = pod(deletionTimestamp="2026-01-01T12:00:00Z", deletionGracePeriodSeconds=35)
    assert (going.is_terminating, going.grace_period) == (True, 35.0)
    assert (pod().is_terminating, pod().grace_period) == (False, 0.0)


def test_a_node_takes_notice_of_its_pods() -> None:
    """It says how their containers are, also of those that it is only about to make."""
    assert not pod().is_known_to_node
    assert pod(containers=[{"state": waits("ContainerCreating")}]).is_known_to_node


def test_a_pod_without_a_node_says_why() -> None:
    """In the scheduler's words, if it has any."""
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    assert (
        pod(
            conditions=[{**unscheduled, "message": "0/3 nodes: Insufficient cpu"}]
        ).scheduling_problem
        == "0/3 nodes: Insufficient cpu"
    )
    assert pod(conditions=[unscheduled]).scheduling_problem == "no node fits"
    assert pod().scheduling_problem == ""
    assert pod(conditions=[]).scheduling_problem == ""


def test_starts_of_all_containers_count() -> None:
    """Those that only begin a pod, too."""
    assert (
        pod({"initContainerStatuses": [{"restartCount": 1}]}, [{"restartCount": 2}, {}]).restarts
        == 3
    )
    assert pod().restarts == 0


def test_what_a_pod_is() -> None:
    """Its image, side and making, from what it carries."""
    found = pod(
        labels={TRACK_LABEL: "twin"}, annotations={IMAGE_LABEL: DIGEST, TEMPLATE_ANNOTATION: "77"}
    )
    found.item["spec"] = {
        "containers": [{"image": "mesh.example/proxy:1"}, {"image": f"shop.example/app@{DIGEST}"}]
    }
    found.item["status"]["hostIP"] = "192.0.2.1"
    assert (found.image, found.track, found.pod_template, found.node_address) == (
        DIGEST,
        "twin",
        "77",
        "192.0.2.1",
    )


def test_what_a_pod_runs_counts_more_than_what_is_noted() -> None:
    """Somebody may have set another image by hand, or taken the notes away."""
    found = pod(annotations={IMAGE_LABEL: DIGEST})
    found.item["spec"] = {"containers": [{"image": "shop.example/app:latest"}]}
    assert found.image == "shop.example/app:latest"
    bare = pod(annotations=None, labels=None)
    bare.item["spec"] = {"containers": [{"image": f"shop.example/app@{DIGEST}"}]}
    assert (bare.image, bare.track, bare.pod_template) == (DIGEST, "", "")


def test_a_pod_that_was_only_just_made_says_nothing_yet() -> None:
    """It has no status, and that is no error."""
    found = Pod({"metadata": {"name": "shop-1"}})
    assert (
        found.stage,
        found.problem,
        found.node_address,
        found.image,
        found.scheduling_problem,
    ) == (
        "",
        "",
        "",
        "",
        "",
    )
    assert (found.ready, found.is_active, found.restarts) == (False, True, 0)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (f"shop.example:5000/app@{DIGEST}", DIGEST),
        ("shop.example/app:1", "shop.example/app:1"),
        ("", ""),
    ],
)
def test_the_digest_of_a_container(image: str, expected: str) -> None:
    """What its image's name ends with."""
    assert image_digest({"image": image}) == expected


def test_events_are_told_a_line_each() -> None:
    """The last ones; whatever is in their messages."""
    events = [{"reason": f"Event{number}", "message": "one\n  two"} for number in range(9)] + [{}]
    lines = event_lines(events).splitlines()
    assert lines[0] == "    Event4: one two"
    assert len(lines) == 6
    assert event_lines([]) == ""


def test_the_end_of_a_log_is_told() -> None:
    """Or that there is none, or why it cannot be read."""
    cluster = FakeCluster()
    assert log_tail(cluster, pod()) == "    (nothing)"
    cluster.failures["get", "Pod/log"] = [
        ClusterForbidden("this account may not get pods/log", on="shop", next="add the rule")
    ]
    assert log_tail(cluster, pod()) == "    (cannot be read: this account may not get pods/log)"
