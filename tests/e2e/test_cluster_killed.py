"""A deployer to a cluster that is killed in any phase: what serves goes on serving, and the next run converges."""

from __future__ import annotations

import time

import pytest

from bench.application import Application
from bench.load import Load
from deploy.machine.process import ProcessId
from tests.e2e.cluster import Namespace

# The number of no process.
NOBODY = -1
# The line after which the deployer is killed, and how many seconds later.
MOMENTS = [
    ("push   127", 0.4),
    ("scheduled", 0.0),
    ("started", 0.0),
    (" ready", 0.0),
    ("proven", 0.0),
    ("proven", 0.3),
]


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_a_release_killed_in_any_phase_is_finished_by_the_next_run(
    served: Application, cluster: Namespace, strategy: str
) -> None:
    """Not one request fails; afterwards one release serves, alone, and nobody holds the lease, but one who was killed with all done."""
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
        for number, (line, delay) in enumerate(MOMENTS):
            model = f"imagenet@{2 - number % 2}"
            killed = _killed(served, model, line, delay, settings)
            if number % 2:
                done = served.ok(
                    "release", "--env", "staging", "--model", model, "--json", **settings
                ).json
                assert done["model"] == model
                # Killed after its last word, a deployer leaves nothing to be done, and so nobody who takes its lease over.
                _assert_clean(served, cluster, settings, left=NOBODY if done["changed"] else killed)
    assert not load.failures, load.failures[:5]


def test_an_undo_that_is_killed_is_finished_by_the_next_run(
    served: Application, cluster: Namespace
) -> None:
    """A release that crashes on the cluster, killed while it is being taken back."""
    path = served.folder / "app" / "application.py"
    good = path.read_text(encoding="utf-8")
    before = served.ok("status", "--env", "staging", "--json").json["serving"]["digest"]
    path.write_text(
        good
        + '\nimport os\n\nif "KUBERNETES_SERVICE_HOST" in os.environ:\n    raise SystemExit(3)\n',
        encoding="utf-8",
    )
    for delay in (0.0, 0.3):
        _killed(served, "latest", "restoring release", delay, {})
    done = served.invoke("release", "--env", "staging")
    assert done.code == 61, done.err
    assert served.ok("status", "--env", "staging", "--json").json["serving"]["digest"] == before
    path.write_text(good, encoding="utf-8")
    served.ok("release", "--env", "staging")
    _assert_clean(served, cluster, {})


def _killed(
    application: Application, model: str, line: str, delay: float, settings: dict[str, str]
) -> int:
    """Starts a release and kills it some time after it said something; the number of its process."""
    named = [] if model == "latest" else ["--model", model]
    process = application.start("release", "--env", "staging", *named, **settings)
    for said in process.stderr or ():
        if line in said:
            break
    time.sleep(delay)
    application.kill(process)
    return process.pid


def _assert_clean(
    application: Application, cluster: Namespace, settings: dict[str, str], left: int = NOBODY
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
    holder = cluster.lease(f"{application.name}-staging-deployer")
    assert not holder or ProcessId.parse(holder).pid == left
