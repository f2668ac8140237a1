"""Releases to a real cluster, by an account with no more permissions than it needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.application import Application
from bench.cluster import WRONG_ON_A_CLUSTER
from bench.load import Load
from tests.e2e import server
from tests.e2e.cluster import Namespace, until
from tests.e2e.halted import halted
from tests.e2e.planted import Secrets
from tests.missing import lacking

CRASHES = """

if 'KUBERNETES_SERVICE_HOST' in __import__('os').environ:
    print("no licence for clusters", flush=True)
    raise SystemExit(3)
"""
# Neither refuses what the load asks: not one of its requests may fail.
WRONG = WRONG_ON_A_CLUSTER
NEVER_READY = WRONG_ON_A_CLUSTER.replace("/score", "/readyz")
# A canary that is on hold until a command ends it.
CANARY = {
    "TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY": "canary",
    "TWINSHIP_ENVIRONMENTS__STAGING__CANARY__SECONDS": "600",
}


def _model(application: Application) -> str:
    return str(application.ok("status", "--env", "staging", "--json").json["serving"]["model"])


def _other_model(application: Application) -> str:
    """Return the one of the two models that does not serve."""
    return "imagenet@2" if _model(application) == "imagenet@1" else "imagenet@1"


def _hold_canary(application: Application, model: str) -> subprocess.Popen[str]:
    """Start the release of a model as a canary; return the process when it is on hold."""
    process = application.start("release", "--env", "staging", "--model", model, **CANARY)
    until(lambda: len(_serving_images(application)) == 2, "both releases serve")
    return process


def test_a_release_from_an_empty_namespace_ends_with_a_prediction(
    served: Application, cluster: Namespace
) -> None:
    """All replicas serve, with the account and the commit of the release."""
    done = served.ok("verify", "--env", "staging")
    assert "coffee" in done.out
    status = served.ok("status", "--env", "staging", "--json").json
    assert status["healthy"] is True
    assert [replica["state"] for replica in status["replicas"]] == ["serving", "serving"]
    assert status["serving"]["commit"] == served.git("log", "-1", "--format=%H", "--", "app")
    assert {pod.spec.service_account_name for pod in cluster.pods()} == {f"{served.name}-staging"}


def test_releasing_again_changes_nothing(served: Application, cluster: Namespace) -> None:
    """No pod is touched, and no attempt is added."""
    before = sorted(pod.metadata.name for pod in cluster.pods())
    done = served.ok("release", "--env", "staging", "--model", "imagenet@1", "--json").json
    assert done["changed"] is False
    assert sorted(pod.metadata.name for pod in cluster.pods()) == before


def test_model_and_code_are_released_and_rolled_back_separately(served: Application) -> None:
    """A new model keeps the code, new code keeps the model, and each can be rolled back alone."""
    first = served.git("log", "-1", "--format=%H", "--", "app")
    served.ok("release", "--env", "staging", "--model", "imagenet@2")
    assert _model(served) == "imagenet@2"
    served.edit("app/routes.py", '"Healthy', '"Healthy again')
    second = served.commit("new code")
    served.ok("release", "--env", "staging", "--model", "imagenet@2")

    served.ok("rollback", "--env", "staging", "--only", "model")
    now = served.ok("status", "--env", "staging", "--json").json["serving"]
    assert (now["model"], now["commit"]) == ("imagenet@1", second)
    served.ok("rollback", "--env", "staging", "--only", "code")
    now = served.ok("status", "--env", "staging", "--json").json["serving"]
    assert (now["model"], now["commit"]) == ("imagenet@1", first)


def test_the_cluster_shows_the_same_history(served: Application, cluster: Namespace) -> None:
    """The Deployment's revisions, as kubectl shows them, are the releases of the history."""
    history = served.ok("history", "--env", "staging", "--json").json
    name = f"{served.name}-staging"
    deployment = cluster.deployment(name)
    assert (
        json.loads(deployment.metadata.annotations["twinship.dev/release"])["id"]
        == history[0]["id"]
    )
    assert deployment.spec.template.spec.containers[0].image == history[0]["reference"]
    newest = cluster.replica_sets(name)[-1]
    assert newest.spec.template.spec.containers[0].image == history[0]["reference"]
    cause = newest.metadata.annotations["kubernetes.io/change-cause"]
    assert cause == deployment.metadata.annotations["kubernetes.io/change-cause"]
    assert (
        f"{history[0]['trigger']} {history[0]['id']}: commit {history[0]['commit'][:12]}"
        in newest.metadata.annotations["kubernetes.io/change-cause"]
    )
    images = {item.spec.template.spec.containers[0].image for item in cluster.replica_sets(name)}
    assert images == {item["reference"] for item in history}


def test_another_machine_sees_and_rolls_back_the_same(served: Application, tmp_path: Path) -> None:
    """A clone with an empty cache needs only access to the cluster."""
    shutil.copytree(served.folder.parent, tmp_path / "clone")
    other = replace(served, folder=tmp_path / "clone" / served.folder.name, home=tmp_path / "home")
    before = other.ok("history", "--env", "staging", "--json").json
    assert before == served.ok("history", "--env", "staging", "--json").json
    other.ok("rollback", "--env", "staging", "--to", str(before[-2]["id"]))
    assert (
        served.ok("status", "--env", "staging", "--json").json["serving"]["digest"]
        == before[-2]["digest"]
    )


def test_pods_get_variables_that_a_rollback_takes_back(
    served: Application, cluster: Namespace
) -> None:
    """The secret is in an object of its own, and nothing else shows it."""
    before = served.ok("status", "--env", "staging", "--json").json["serving"]
    prefix = "TWINSHIP_ENVIRONMENTS__STAGING"
    settings = {
        f"{prefix}__ENV__APP_MAX_PICTURES": "31",
        f"{prefix}__SECRETS__API_KEY": "KEY_OF_STAGING",
        "KEY_OF_STAGING": "planted-one",
    }
    command = ("release", "--env", "staging", "--model", before["model"])
    done = [served.ok(*command, **settings)]
    name = f"{served.name}-staging-"
    (pod, _) = [pod for pod in cluster.pods() if pod.metadata.name.startswith(name)]
    assert cluster.environment(pod.metadata.name) >= {
        "APP_MAX_PICTURES=31",
        "API_KEY=planted-one",
    }
    done.append(served.ok(*command, "--dry-run", **settings | {"KEY_OF_STAGING": "planted-two"}))
    assert "changed variables: API_KEY" in done[-1].out
    done.append(served.ok("verify", "--env", "staging"))
    done.append(served.ok("rollback", "--env", "staging", "--to", str(before["id"])))
    (pod, _) = [pod for pod in cluster.pods() if pod.metadata.name.startswith(name)]
    assert not [item for item in cluster.environment(pod.metadata.name) if "API_KEY" in item]

    secrets = Secrets()
    shown = "".join(f"{result.out}{result.err}" for result in done)
    assert secrets.find((shown + cluster.describe_state()).encode()) == ""
    assert secrets.find_in_folder(served.home) == {}


@pytest.mark.parametrize(
    ("strategy", "code", "ends", "says"),
    [
        ("rolling", WRONG, 60, "418"),
        ("blue-green", WRONG, 60, "418"),
        ("canary", WRONG, 60, "418"),
        ("rolling", CRASHES, 61, "no licence for clusters"),
        ("rolling", NEVER_READY, 61, "statuscode: 418"),
        ("canary", NEVER_READY, 61, "statuscode: 418"),
    ],
    ids=[
        "wrong",
        "wrong, blue-green",
        "wrong, canary",
        "crashes",
        "never ready",
        "never ready, canary",
    ],
)
def test_a_release_that_fails_on_the_cluster_is_undone(
    served: Application, cluster: Namespace, strategy: str, code: str, ends: int, says: str
) -> None:
    """The previous release keeps serving, and the error and the history give the reason."""
    settings = {
        "TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY": strategy,
        # A canary that is good is not what is looked at here.
        "TWINSHIP_ENVIRONMENTS__STAGING__CANARY__SECONDS": "3",
    }
    if code == NEVER_READY:
        # Enough for a good replica, and no more is wasted on a bad one.
        settings["TWINSHIP_ENVIRONMENTS__STAGING__READY_WITHIN"] = "15"
    served.ok("release", "--env", "staging", **settings)
    before = served.ok("status", "--env", "staging", "--json", **settings).json["serving"]
    path = served.folder / "app" / "application.py"
    good = path.read_text(encoding="utf-8")
    body = served.score_request("chelsea.jpg")
    path.write_text(good + code.replace("%d", str(len(body))), encoding="utf-8")
    with Load(
        cluster.host(), cluster.port(f"{served.name}-staging"), body, clients=2, pause=0.1
    ) as load:
        done = served.invoke("release", "--env", "staging", **settings)
    path.write_text(good, encoding="utf-8")

    assert done.code == ends, done.err
    assert says in done.err
    after = served.ok("status", "--env", "staging", "--json", **settings).json
    assert after["serving"] == before
    assert after["healthy"] is True
    last = after["last"]
    assert last["outcome"] == "undone"
    assert code == NEVER_READY or says in json.dumps([last["misses"], last["log"]])
    assert not load.failures, load.failures[:5]


def test_the_last_words_of_releases_that_failed_are_among_the_logs(served: Application) -> None:
    """Their pods are gone; those that serve are enough for a monitor."""
    served.ok("status", "--env", "staging", "--check")
    written = served.ok("logs", "--env", "staging", "--since", "1h", "--json").out.splitlines()
    assert any("no licence for clusters" in json.loads(line)["text"] for line in written)


def test_an_image_that_does_not_exist_is_undone(served: Application, tmp_path: Path) -> None:
    """A record that was edited names an image that no registry has."""
    served.ok("release", "--env", "staging")
    before = served.ok("status", "--env", "staging", "--json").json["serving"]
    records = tmp_path / "records"
    for stage in ("fetch", "build", "smoke", "push"):
        served.ok(stage, "--env", "staging", "--records", str(records))
    text = (records / "release.json").read_text(encoding="utf-8")
    digest = json.loads(text)["image"]["manifest"]["digest"]
    (records / "release.json").write_text(
        text.replace(digest, f"sha256:{'5' * 64}"), encoding="utf-8"
    )
    done = served.invoke("deploy", "--env", "staging", "--records", str(records))
    assert done.code == 61, done.err
    assert "ImagePullBackOff" in done.err
    after = served.ok("status", "--env", "staging", "--json").json
    assert (after["serving"], after["healthy"]) == (before, True)


def test_a_release_is_promoted_as_it_is(served: Application, cluster: Namespace) -> None:
    """The same digest serves in production, from another repository, without a container engine."""
    staged = served.ok("status", "--env", "staging", "--json").json["serving"]
    done = served.ok(
        "promote",
        "--from",
        "staging",
        "--to",
        "production",
        "--json",
        DOCKER_HOST="tcp://127.0.0.1:9",
    ).json
    assert done["digest"] == staged["digest"]
    assert done["reference"].startswith(f"127.0.0.1:5000/{served.name}-production@")
    assert done["trigger"] == "promote"
    assert (
        served.ok("promote", "--from", "staging", "--to", "production", "--json").json["changed"]
        is False
    )
    assert {
        pod.spec.containers[0].image
        for pod in cluster.pods()
        if f"{served.name}-production" in pod.metadata.name
    } == {done["reference"]}


def test_a_rollback_to_the_standby_replicas_starts_no_pod(
    served: Application, cluster: Namespace
) -> None:
    """A blue-green release keeps the replicas of the previous one running."""
    model = _other_model(served)
    served.ok("release", "--env", "production", "--model", model)
    before = {pod.metadata.name for pod in cluster.pods()}
    served.ok("rollback", "--env", "production")
    assert {pod.metadata.name for pod in cluster.pods()} == before
    assert served.ok("status", "--env", "production", "--json").json["healthy"] is True


def test_a_service_inside_the_cluster_is_verified_through_the_api_server(
    served: Application, cluster: Namespace
) -> None:
    """The nodes have pulled the image before, and no object of the pre-pull stays."""
    done = served.ok("release", "--env", "inside")
    service = cluster.core.read_namespaced_service(f"{served.name}-inside", cluster.name)
    assert service.spec.type == "ClusterIP"
    assert re.search(
        rf"· proven at https://\S+/namespaces/{cluster.name}/services/"
        rf"{served.name}-inside:\w+/proxy: ",
        done.err,
    ), done.err
    assert re.search(r"· pull   [1-9]\d* nodes? pulled the image", done.err), done.err
    assert "DaemonSet" not in {pod.metadata.owner_references[0].kind for pod in cluster.pods()}
    assert served.ok("verify", "--env", "inside", "--json").json["passed"] is True


@pytest.mark.parametrize(
    ("command", "ends", "outcome"), [("promote-canary", 0, "succeeded"), ("abort", 66, "undone")]
)
def test_a_canary_on_hold_is_promoted_or_aborted_by_a_command(
    served: Application, command: str, ends: int, outcome: str
) -> None:
    """A command in another terminal ends the hold at once."""
    model = _other_model(served)
    process = _hold_canary(served, model)
    ended = served.ok(command, "--env", "staging", "--json", **CANARY).json
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == ends, printed
    assert ended["outcome"] == outcome
    assert (_model(served) == model) is (ends == 0)


@pytest.mark.parametrize(
    ("command", "outcome"), [("promote-canary", "succeeded"), ("abort", "undone")]
)
def test_a_canary_without_its_deployer_is_promoted_or_aborted_by_a_command(
    served: Application, command: str, outcome: str
) -> None:
    """After the deployer was killed, the command does the work itself."""
    model = _other_model(served)
    process = _hold_canary(served, model)
    served.kill(process)
    assert served.ok(command, "--env", "staging", "--json", **CANARY).json["outcome"] == outcome
    status = served.ok("status", "--env", "staging", "--json", **CANARY).json
    assert status["healthy"] is True
    assert (status["serving"]["model"] == model) is (outcome == "succeeded")


def test_two_deployers_at_once_are_kept_apart(served: Application) -> None:
    """The second learns who holds the lock; the first is not disturbed."""
    model = _other_model(served)
    process = served.start("release", "--env", "staging", "--model", model)
    _await_a_pod(process)
    with halted(process):
        second = served.invoke(
            "rollback",
            "--env",
            "staging",
            "--to",
            "1",
            TWINSHIP_ENVIRONMENTS__STAGING__LOCK_WAIT="0",
        )
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == 0, printed
    assert second.code == 63, second.err
    assert f"(process {process.pid})" in second.err
    assert _model(served) == model


def test_the_api_server_may_restart_during_a_rollout(served: Application) -> None:
    """The rollout waits for the API server and continues."""
    api = server.find_api_server()
    if api is None:
        lacking("the API server is not on this machine", "run on a cluster that was started here")
    model = _other_model(served)
    process = served.start("release", "--env", "staging", "--model", model)
    _await_a_pod(process)
    api.restart()
    printed = process.communicate(timeout=180)[1]
    assert process.returncode == 0, printed
    assert _model(served) == model
    assert served.ok("status", "--env", "staging", "--json").json["healthy"] is True


def _await_a_pod(process: subprocess.Popen[str]) -> None:
    """Wait until a release prints a line about one of its pods."""
    assert any("· pod " in line for line in process.stderr or ()), "it ended without a pod"


def _serving_images(application: Application) -> set[str]:
    replicas = application.ok("status", "--env", "staging", "--json", **CANARY).json["replicas"]
    return {item["image"] for item in replicas if item["state"] == "serving"}
