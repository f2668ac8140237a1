"""A deployer to a cluster is killed in any phase: the next run finishes its work."""

from __future__ import annotations

import subprocess
from collections.abc import Collection

import pytest

from bench.application import Application
from bench.load import Load
from deploy.machine.process import ProcessId
from tests.e2e.cluster import Namespace, until

# The number of no process, as the holder of a free lock.
NO_PROCESS = -1
LOCK = "the lock is acquired"
# The moments at which a deployer is killed: it has the lock, or it has printed such a line.
MOMENTS = (LOCK, "scheduled", "started", " ready", "proven", "· serves ")


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_a_release_killed_in_any_phase_is_finished_by_the_next_run(
    served: Application, cluster: Namespace, strategy: str
) -> None:
    """No request fails; afterwards only one release serves, and the lock is free."""
    settings = {
        "TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY": strategy,
        "TWINSHIP_ENVIRONMENTS__STAGING__STANDBY": "false",
    }
    service = f"{served.name}-staging"
    with Load(
        cluster.host(),
        cluster.port(service),
        served.score_request("chelsea.jpg"),
        clients=3,
        pause=0.1,
    ) as load:
        killed = {NO_PROCESS}
        for number, moment in enumerate(MOMENTS):
            model = f"imagenet@{2 - number % 2}"
            process = served.start("release", "--env", "staging", "--model", model, **settings)
            _wait_for(moment, process, served, cluster)
            served.kill(process)
            killed.add(process.pid)
            if number % 2:
                result = served.ok(
                    "release", "--env", "staging", "--model", model, "--json", **settings
                ).json
                assert result["model"] == model
                # Where nothing is left to do, the next run does not take the lock, which still has
                # the number of the deployer that was killed.
                holders = {NO_PROCESS} if result["changed"] else killed
                _assert_clean(served, cluster, settings, holders)
    assert not load.failures, load.failures[:5]


def test_an_undo_that_is_killed_is_finished_by_the_next_run(
    served: Application, cluster: Namespace
) -> None:
    """The undo of a release that crashes on the cluster is killed at its start and halfway."""
    path = served.folder / "app" / "application.py"
    good = path.read_text(encoding="utf-8")
    before = served.ok("status", "--env", "staging", "--json").json["serving"]["digest"]
    deployment = f"{served.name}-staging"
    image = cluster.image(deployment)
    path.write_text(
        good
        + '\nimport os\n\nif "KUBERNETES_SERVICE_HOST" in os.environ:\n    raise SystemExit(3)\n',
        encoding="utf-8",
    )
    for halfway in (False, True):
        process = served.start("release", "--env", "staging")
        _wait_for("restoring release", process, served, cluster)
        if halfway:
            until(lambda: cluster.image(deployment) == image, "the previous image is back")
        served.kill(process)
    result = served.invoke("release", "--env", "staging")
    assert result.code == 61, result.err
    assert served.ok("status", "--env", "staging", "--json").json["serving"]["digest"] == before
    path.write_text(good, encoding="utf-8")
    served.ok("release", "--env", "staging")
    _assert_clean(served, cluster, {})


def _wait_for(
    moment: str, process: subprocess.Popen[str], application: Application, cluster: Namespace
) -> None:
    """Wait until a release is at a moment, or has ended: its model may serve already."""
    if moment == LOCK:
        until(
            lambda: _holder(application, cluster) == process.pid or process.poll() is not None,
            moment,
        )
        return
    for line in process.stderr or ():
        if moment in line:
            return


def _holder(application: Application, cluster: Namespace) -> int:
    """Return the number of the process that holds the lock."""
    holder = cluster.lease(f"{application.name}-staging-deployer")
    return ProcessId.parse(holder).pid if holder else NO_PROCESS


def _assert_clean(
    application: Application,
    cluster: Namespace,
    settings: dict[str, str],
    holders: Collection[int] = (NO_PROCESS,),
) -> None:
    status = application.ok("status", "--env", "staging", "--json", **settings).json
    assert status["healthy"] is True
    assert [replica["state"] for replica in status["replicas"]] == ["serving", "serving"]
    assert (
        len(
            [
                pod
                for pod in cluster.pods()
                if pod.metadata.name.startswith(f"{application.name}-staging")
            ]
        )
        == 2
    )
    assert _holder(application, cluster) in holders
