"""Pods as their status describes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.errors import ClusterForbidden
from deploy.targets.kubernetes.pods import (
    TEMPLATE_ANNOTATION,
    Pod,
    event_lines,
    find_probe_failure,
    image_digest,
    log_tail,
)
from deploy.targets.kubernetes.render import IMAGE_LABEL, TRACK_LABEL
from tests.fakes.kubernetes.api_server import FakeCluster

DIGEST = f"sha256:{'7' * 64}"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(
    status: Any = None, containers: Any = (), conditions: Any = (SCHEDULED,), **metadata: Any
) -> Pod:
    """Return a pod with that status."""
    body = {"containerStatuses": list(containers), "conditions": list(conditions), **(status or {})}
    return Pod({"metadata": {"name": "shop-1", **metadata}, "status": body})


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": reason}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """Return the state of a container that waits."""
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
        (pod(containers=[{"state": waiting("ContainerCreating")}]), "scheduled"),
        (pod(containers=[{"state": RUNNING, "started": False}]), "started"),
        (
            pod(containers=[{"state": RUNNING}, {"state": waiting("ContainerCreating")}]),
            "scheduled",
        ),
        (pod(containers=[{"state": RUNNING, "started": True}]), "loaded"),
        (
            pod(
                containers=[{"state": RUNNING, "started": True}],
                conditions=[{"type": "Ready", "status": "True"}],
            ),
            "ready",
        ),
        (
            pod(
                {"initContainerStatuses": [{"state": ended(0), "ready": True}]},
                [{"state": RUNNING, "started": True}],
            ),
            "loaded",
        ),
        (
            pod(
                {"initContainerStatuses": [{"state": RUNNING}]},
                [{"state": waiting("PodInitializing")}],
            ),
            "scheduled",
        ),
    ],
)
def test_the_stage_of_a_pod(found: Pod, stage: str) -> None:
    """It goes from having a node to getting requests; init containers do not count."""
    assert found.stage == stage


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"state": waiting("ContainerCreating")}, ""),
        ({"state": waiting("ErrImagePull", "connection reset")}, ""),
        (
            {"state": waiting("ImagePullBackOff", "Back-off")},
            "a replica cannot start: ImagePullBackOff, Back-off",
        ),
        ({"state": waiting("InvalidImageName")}, "a replica cannot start: InvalidImageName"),
        (
            {"state": waiting("CreateContainerConfigError", "no secret")},
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
            {"state": waiting("CrashLoopBackOff"), "lastState": ended(3)},
            "a replica ended with exit code 3 before it was ready",
        ),
        (
            {"state": RUNNING, "lastState": ended(3)},
            "a replica ended with exit code 3 before it was ready",
        ),
        ({"state": RUNNING, "lastState": ended(3), "ready": True}, ""),
        ({"state": RUNNING, "lastState": {}, "ready": False}, ""),
        ({"state": None, "lastState": None}, ""),
    ],
)
def test_a_pod_that_cannot_become_ready_has_a_problem(state: dict[str, Any], problem: str) -> None:
    """A container cannot start or has ended; a first failure of a pull may be temporary."""
    assert pod(containers=[state]).problem == problem


@pytest.mark.parametrize(
    ("before", "now", "is_new"),
    [
        (
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            False,
        ),
        ({"restartCount": 0, "state": ended(3)}, {"restartCount": 0, "state": ended(3)}, False),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            False,
        ),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 0, "state": waiting("ErrImagePull"), "lastState": ended(3)},
            False,
        ),
        (
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            {"restartCount": 1, "state": ended(3), "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            {"restartCount": 2, "state": RUNNING, "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 0, "state": RUNNING},
            {"restartCount": 1, "state": RUNNING, "lastState": ended(3)},
            True,
        ),
        (
            {"restartCount": 0, "state": ended(3)},
            {"restartCount": 0, "state": waiting("CrashLoopBackOff"), "lastState": ended(3)},
            True,
        ),
    ],
)
def test_an_exit_that_was_already_counted_is_no_problem(
    before: dict[str, Any], now: dict[str, Any], is_new: bool
) -> None:
    """A later exit is one, and so is the back-off of a restart."""
    known = pod(
        containers=[
            {"name": "proxy", "restartCount": 5, "state": RUNNING},
            {"name": "app", **before},
        ]
    ).exit_counts
    found = pod(
        containers=[{"name": "proxy", "restartCount": 5, "state": RUNNING}, {"name": "app", **now}]
    )
    assert found.problem_since(known) == (
        "a replica ended with exit code 3 before it was ready" if is_new else ""
    )
    assert found.problem == "a replica ended with exit code 3 before it was ready"


def test_a_container_that_cannot_start_is_always_a_problem() -> None:
    """Its exits do not matter."""
    found = pod(containers=[{"name": "app", "state": waiting("InvalidImageName")}])
    assert found.problem_since(found.exit_counts) == "a replica cannot start: InvalidImageName"


def test_an_init_container_may_end_without_an_error() -> None:
    """If it ends with one, that is a problem."""
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
def test_an_inactive_pod_gets_no_requests(found: Pod) -> None:
    """It was deleted, was evicted or has ended; its condition may still say that it is ready."""
    found.item["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert not found.is_active
    assert not found.ready


def test_an_evicted_pod_is_not_terminating() -> None:
    """A deleted pod is, for its grace period."""
    assert not pod({"phase": "Failed", "reason": "Evicted"}).is_terminating
    going = pod(deletionTimestamp="2026-01-01T12:00:00Z", deletionGracePeriodSeconds=35)
    assert (going.is_terminating, going.grace_period) == (True, 35.0)
    assert (pod().is_terminating, pod().grace_period) == (False, 0.0)


def test_a_pod_with_container_states_is_known_to_its_node() -> None:
    """The containers may not have been created yet."""
    assert not pod().is_known_to_node
    assert pod(containers=[{"state": waiting("ContainerCreating")}]).is_known_to_node


def test_a_pod_without_a_node_has_a_scheduling_problem() -> None:
    """It is the message of the scheduler, if there is one."""
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


def test_the_restarts_of_all_containers_count() -> None:
    """Those of init containers count too."""
    assert (
        pod({"initContainerStatuses": [{"restartCount": 1}]}, [{"restartCount": 2}, {}]).restarts
        == 3
    )
    assert pod().restarts == 0


def test_the_properties_of_a_pod() -> None:
    """Image, track and template are read from labels and annotations."""
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


def test_the_image_of_a_pod_counts_more_than_its_annotation() -> None:
    """A person may have set another image or removed the annotation."""
    found = pod(annotations={IMAGE_LABEL: DIGEST})
    found.item["spec"] = {"containers": [{"image": "shop.example/app:latest"}]}
    assert found.image == "shop.example/app:latest"
    bare = pod(annotations=None, labels=None)
    bare.item["spec"] = {"containers": [{"image": f"shop.example/app@{DIGEST}"}]}
    assert (bare.image, bare.track, bare.pod_template) == (DIGEST, "", "")


def test_a_new_pod_has_empty_properties() -> None:
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
    """It is the last part of the image's name."""
    assert image_digest({"image": image}) == expected


def test_each_event_is_one_line() -> None:
    """Only the last ones are returned; line breaks are removed."""
    events = [{"reason": f"Event{number}", "message": "one\n  two"} for number in range(9)] + [{}]
    lines = event_lines(events).splitlines()
    assert lines[0] == "    Event4: one two"
    assert len(lines) == 6
    assert event_lines([]) == ""


def test_the_tail_of_a_log_is_returned() -> None:
    """If there is none, or if it cannot be read, the text says so."""
    cluster = FakeCluster()
    assert log_tail(cluster, pod()) == "    (nothing)"
    cluster.failures["get", "Pod/log"] = [
        ClusterForbidden("this account may not get pods/log", on="shop", next="add the rule")
    ]
    assert log_tail(cluster, pod()) == "    (cannot be read: this account may not get pods/log)"


def test_the_last_failed_probe_is_found() -> None:
    """Its message has what the path answered; other events have nothing to do with it."""
    events = [
        {"reason": "Unhealthy", "message": "Startup probe failed: connection refused"},
        {"reason": "Unhealthy", "message": "Startup probe failed:\nstatuscode: 404"},
        {"reason": "Killing", "message": "Stopping"},
    ]
    assert find_probe_failure(events) == "Startup probe failed: statuscode: 404"
    assert find_probe_failure(events[2:]) == ""


def at(seconds: float) -> str:
    """Return the time so many seconds after noon."""
    return (NOON + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("restarts", "last_run", "started", "is_looping"),
    [
        (2, (0, 30), 40, True),
        (9, (0, 599), 900, True),
        (1, (0, 30), 40, False),
        (2, (0, 600), 640, False),
        (2, (0, 30), 400, False),
    ],
    ids=["twice", "often", "once", "after a long run", "long ago"],
)
def test_a_container_that_ends_again_and_again_is_in_a_crash_loop(
    restarts: int, last_run: tuple[float, float], started: float, *, is_looping: bool
) -> None:
    """It may be ready between two crashes; after ten minutes without one it is over."""
    begin, end = map(at, last_run)
    status = {
        "ready": True,
        "restartCount": restarts,
        "state": {"running": {"startedAt": at(started)}},
        "lastState": {"terminated": {"exitCode": 1, "startedAt": begin, "finishedAt": end}},
    }
    now = NOON + timedelta(seconds=1000 if started > 300 else 100)
    assert pod(containers=[status]).is_crash_looping(now) is is_looping


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"restartCount": 5},
        {"restartCount": 5, "state": waiting("CrashLoopBackOff"), "lastState": ended(1)},
    ],
)
def test_a_container_that_does_not_run_is_not_between_two_crashes(status: Any) -> None:
    """It is not ready, which has a reason of its own."""
    assert not pod(containers=[status]).is_crash_looping(NOON)


def test_a_pod_shows_when_its_process_started_and_how_the_last_one_ended() -> None:
    """Also while it waits for its next start."""
    killed = {
        "terminated": {
            "exitCode": 137,
            "reason": "OOMKilled",
            "finishedAt": "2026-01-01T11:59:00Z",
        }
    }
    running = pod(containers=[{"state": RUNNING, "lastState": killed, "restartCount": 2}])
    backing_off = pod(containers=[{"state": waiting("CrashLoopBackOff"), "lastState": killed}])
    assert running.started == NOON
    assert backing_off.started is None
    for found in (running, backing_off):
        assert found.last_exit
        assert str(found.last_exit) == "exit code 137 (OOMKilled)"
        assert found.last_exit.at == NOON - timedelta(minutes=1)


def test_a_pod_whose_process_never_ended_has_no_last_exit() -> None:
    """Nor has one without containers; `Error` says no more than the code."""
    assert pod(containers=[{"state": RUNNING}]).last_exit is None
    assert (pod().last_exit, pod().started) == (None, None)
    assert str(pod(containers=[{"state": ended(3)}]).last_exit) == "exit code 3"
