"""The life of an application, in order: each test continues from the state after the previous."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
from typing import Any

import pytest

from bench.application import Application, TaskResult
from bench.rollouts import WRONG_BEHIND_A_PROXY
from tests.e2e.containers import Container, docker
from tests.e2e.halted import halted
from tests.e2e.labels import EGYPTIAN_CAT, TIGER_CAT


def test_a_first_release_ends_with_the_url_and_a_prediction(application: Application) -> None:
    """One command leads from an empty store and no image to a response of the application."""
    done = application.ok("release")

    assert done.out.startswith(f"{application.url}  coffee → n07920052 espresso")
    assert application.top("chelsea.jpg") == TIGER_CAT
    steps = ("publishing the sample model", "building", "smoke", "proven at")
    assert all(step in done.err for step in steps)


def test_version_names_commit_and_model(application: Application) -> None:
    """A replica reports the commit, the model and the digests of its release."""
    version = _version(application)

    assert version["commit"] == application.git("rev-parse", "HEAD")
    assert (version["model"]["name"], version["model"]["version"]) == ("imagenet", "1")
    serving = application.ok("status", "--json").json["serving"]
    assert version["model"]["digest"] == serving["model_digest"]
    assert version["image"] == {"app": serving["app_digest"], "model": serving["model_digest"]}


def test_replicas_run_without_privileges(application: Application) -> None:
    """Replicas and proxy are non-root, read-only and limited, without capabilities."""
    for container in _containers(application):
        host = container["HostConfig"]

        assert container["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges" in host["SecurityOpt"]
        assert host["RestartPolicy"]["Name"] == "always"
        assert host["Memory"] >= 1 << 30
        assert 0 < host["PidsLimit"] <= 2048


def test_releasing_again_changes_nothing(application: Application) -> None:
    """Without a change, nothing is built, sent or replaced."""
    before = [container["Id"] for container in _containers(application)]
    done = application.ok("release", "--json")

    assert done.json["changed"] is False
    assert [container["Id"] for container in _containers(application)] == before
    assert "nothing to fetch" in done.err
    assert "nothing to build" in done.err
    assert "the registry lacked" not in done.err


def test_a_dry_run_prints_the_plan_and_changes_nothing(application: Application) -> None:
    """The plan has the new model with its size, and the model is not released."""
    application.ok("model.publish", "--sample", "2")
    steps = {step["stage"]: step for step in application.ok("release", "--dry-run", "--json").json}

    assert steps["fetch"]["runs"]
    assert steps["fetch"]["moves"] > 20_000_000
    assert steps["build"]["runs"] is False
    assert application.top("chelsea.jpg") == TIGER_CAT
    assert len(_history(application)) == 1


def test_a_new_model_moves_only_its_layer(application: Application) -> None:
    """Another model responds, and only its bytes were sent."""
    before = _history(application)[0]
    done = application.ok("release")
    after = _history(application)[0]

    assert application.top("chelsea.jpg") == EGYPTIAN_CAT
    assert after["app_digest"] == before["app_digest"]
    assert after["model"] == "imagenet@2"
    assert "nothing to build" in done.err
    assert "push   21.7 MB in" in done.err


def test_new_code_moves_no_model_byte(application: Application) -> None:
    """The changed file is the reason for the build, and only small layers are sent and loaded."""
    application.edit("app/routes.py", '"Healthy"', '"Healthy, and newer"')
    commit = application.commit("newer code")
    done = application.ok("release", "--json")

    assert "app/routes.py changed" in done.err
    assert done.json["commit"] == commit
    assert done.json["model"] == "imagenet@2"
    moved = [
        line
        for line in done.err.splitlines()
        if "loading into the engine" in line or "pushing" in line
    ]
    assert moved
    assert all("kB in" in line for line in moved), "a code change moved megabytes"


def test_rolling_back_the_model_keeps_the_newer_code(application: Application) -> None:
    """The older model serves with a commit with which it never served before."""
    newer = application.git("rev-parse", "HEAD")
    application.ok("rollback", "--only", "model")

    assert application.top("chelsea.jpg") == TIGER_CAT
    assert _version(application)["commit"] == newer
    latest = _history(application)[0]
    assert (latest["trigger"], latest["model"], latest["commit"], latest["outcome"]) == (
        "rollback",
        "imagenet@1",
        newer,
        "succeeded",
    )


def test_rolling_back_the_code_keeps_the_model(application: Application) -> None:
    """The older code serves again, with the current model."""
    newer = application.git("rev-parse", "HEAD")
    application.ok("rollback", "--only", "code")

    assert _version(application)["commit"] != newer
    assert application.top("chelsea.jpg") == TIGER_CAT


def test_rolling_back_to_a_release_by_its_number(application: Application) -> None:
    """Any release that served can serve again."""
    second = next(item for item in _history(application) if item["id"] == 2)
    application.ok("rollback", "--to", "2")

    assert _history(application)[0]["digest"] == second["digest"]
    assert application.top("chelsea.jpg") == EGYPTIAN_CAT


def test_stages_pass_records_as_files(application: Application) -> None:
    """The same release runs in single steps, as in a CI system."""
    records = application.folder / ".twinship" / "records"
    missing = application.invoke("push")
    assert missing.code == 3
    assert "invoke smoke" in missing.err

    for stage in ("fetch", "build", "smoke", "push", "deploy"):
        application.ok(stage)

    assert {path.name for path in records.iterdir()} == {
        "app.json",
        "model.json",
        "image.json",
        "release.json",
        "rollout.json",
    }
    assert application.ok("verify", "--json").json["passed"] is True
    assert _version(application)["commit"] == application.git("rev-parse", "HEAD")


def test_code_that_fails_its_smoke_test_is_not_pushed(application: Application) -> None:
    """The error has the container's log, and the release that serves is not touched."""
    before = _history(application)
    application.edit("app/routes.py", "Healthy, and newer", "Healthy, and broken")
    scoring = application.folder / "app" / "scoring.py"
    scoring.write_text(
        scoring.read_text(encoding="utf-8") + "\nraise RuntimeError('this code cannot start')\n",
        encoding="utf-8",
    )
    application.commit("broken code")
    done = application.invoke("release")

    assert done.code == 40, done.err
    assert "this code cannot start" in done.err
    assert "next:" in done.err
    assert _history(application) == before
    assert application.ok("verify").code == 0
    application.git("revert", "--no-edit", "HEAD")


def test_a_release_with_wrong_answers_behind_the_proxy_is_undone(
    application: Application,
) -> None:
    """The golden cases run again behind the proxy; if one fails, the previous release returns."""
    before = application.ok("status", "--json").json["serving"]
    _break_behind_the_proxy(application)
    application.commit("code that is wrong behind a proxy")
    done = application.invoke("release")

    assert done.code == 60, done.err
    assert "smoke  2 golden cases passed" in done.err
    assert "expected status 200, got 418" in done.err
    status = application.ok("status", "--json").json
    assert status["healthy"] is True
    assert status["serving"]["id"] == before["id"]
    assert status["last"]["outcome"] == "undone"
    assert "expected status 200, got 418" in " ".join(status["last"]["misses"].values())
    assert "no licence for proxies" in {line["text"] for line in status["last"]["log"]}
    assert application.top("chelsea.jpg") == EGYPTIAN_CAT
    application.git("revert", "--no-edit", "HEAD")


def test_what_is_asked_at_night_takes_one_command_each(application: Application) -> None:
    """What serves, what was written, why a release was undone, and what changed."""
    undone, serving, *_ = _history(application)
    application.ok("status", "--check")
    application.top("coffee.jpg")
    written = application.ok("logs", "--since", "1h", "--json").out.splitlines()
    requests = [line["text"] for line in map(json.loads, written) if line["source"] == "proxy"]
    assert any(re.search(r" POST /score 200, \d+ bytes in \d+ ms", line) for line in requests)
    kept = application.ok("logs", "--release", str(undone["id"])).out
    assert re.search(rf" of {undone['id']}  .*  no licence for proxies$", kept, re.MULTILINE)
    compared = application.ok("diff", str(serving["id"]), str(undone["id"])).out
    assert "code that is wrong behind a proxy" in compared
    assert "M app/application.py" in compared


def test_logs_are_followed_until_an_interruption(application: Application) -> None:
    """A request that comes meanwhile has its line; the exit code is that of Ctrl-C."""
    follower = application.start("logs", "--follow", "--since", "1m")
    assert follower.stdout is not None
    with pytest.raises(urllib.error.HTTPError, match="404"):
        application.get("/nowhere?token=secret")
    line = next(line for line in follower.stdout if "/nowhere" in line)
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert "secret" not in line


def _break_behind_the_proxy(application: Application) -> None:
    """Make the application respond 418 to every picture that comes through a proxy."""
    path = application.folder / "app" / "application.py"
    said = 'print("no licence for proxies", flush=True)\n'
    text = path.read_text(encoding="utf-8") + WRONG_BEHIND_A_PROXY % 0 + said
    path.write_text(text, encoding="utf-8")


def test_two_releases_at_once_end_in_one_order(application: Application) -> None:
    """The second waits, or refuses and names the first; the application serves afterwards."""
    first = application.start("release", "--model", "imagenet@1")
    second = application.start("release", "--model", "imagenet@2")
    ended = [
        TaskResult(process.wait(600), *map(str, process.communicate()))
        for process in (first, second)
    ]

    assert all(done.code in (0, 63) for done in ended), [done.err for done in ended]
    assert any(done.code == 0 for done in ended)
    assert application.ok("status", "--json").json["healthy"] is True


def test_a_second_release_that_may_not_wait_names_the_holder(application: Application) -> None:
    """The error has the other deployer and its start, and nothing is changed."""
    before = _history(application)
    serving = application.ok("status", "--json").json["serving"]["model"]
    model = "imagenet@2" if serving == "imagenet@1" else "imagenet@1"
    holder = application.start("release", "--model", model)
    while not _is_locked(application):
        assert holder.poll() is None, holder.communicate()
        time.sleep(0.05)
    with halted(holder):
        other = application.invoke(
            "rollback", "--to", "1", TWINSHIP_ENVIRONMENTS__LOCAL__LOCK_WAIT="0"
        )
    printed = holder.communicate()[1]

    assert other.code == 63, other.err
    assert f"(process {holder.pid}), since " in other.err
    assert holder.returncode == 0, printed
    after = _history(application)
    assert (len(after), after[0]["model"]) == (len(before) + 1, model)
    assert application.ok("status", "--json").json["healthy"] is True


def _is_locked(application: Application) -> bool:
    """Return whether a deployer holds the lock: the lock's container runs."""
    return bool(docker("ps", "-q", "--filter", f"name=^/?twinship-{application.name}-local-lock$"))


def test_history_has_every_attempt(application: Application) -> None:
    """Each has person, time, commit, model, digest, URL and outcome; the newest is first."""
    history = _history(application)

    assert [item["id"] for item in history] == sorted(
        (item["id"] for item in history), reverse=True
    )
    for item in history:
        assert item["by"]
        assert item["at"]
        assert item["commit"]
        assert item["model"].startswith("imagenet@")
        assert item["digest"].startswith("sha256:")
        assert item["url"] == application.url
        assert item["outcome"] in ("succeeded", "undone")
    assert {"release", "rollback"} == {item["trigger"] for item in history}


def test_down_stops_and_release_starts_again(application: Application) -> None:
    """An application that was stopped serves again, with its history."""
    before = _history(application)
    application.ok("down")
    assert not [
        container for container in _containers(application) if container["State"]["Running"]
    ]
    application.ok("release", "--model", "imagenet@1")

    assert len(_history(application)) >= len(before)
    assert application.top("chelsea.jpg") == TIGER_CAT


def _version(application: Application) -> Any:
    """Return what a replica says of itself, at a path that clients cannot request."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        application.get("/version")
    replica = application.ok("status", "--json").json["replicas"][0]["name"]
    return Container(replica).get("/version")


def _history(application: Application) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = application.ok("history", "--json").json
    return found


def _containers(application: Application) -> list[dict[str, Any]]:
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=dev.twinship.app={application.name}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not listed:
        return []
    inspected = subprocess.run(
        ["docker", "inspect", *listed], capture_output=True, text=True, check=True
    ).stdout
    found: list[dict[str, Any]] = json.loads(inspected)
    return sorted(found, key=lambda container: str(container["Name"]))
