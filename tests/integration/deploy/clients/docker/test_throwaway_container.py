"""A throwaway container runs an image as in a release, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.docker.address import find_engine_address
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Limits, Spec
from deploy.clients.docker.throwaway_container import LABEL, MACHINE, throwaway_container
from deploy.errors import EngineFailed, ReleaseError
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.machine.base_image import ensure_base_image
from deploy.machine.process import ProcessId, machine_id
from deploy.settings.reading import Settings
from tests.fakes.halves import digest
from tests.integration.deploy.tiny import LABEL as OURS
from tests.integration.deploy.tiny import MOUNT, PORT, TinyApplication, create_cache
from tests.missing import lacking

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[5]
# A process of its own: testcontainers reads its variables when it is imported.
SCRIPT = """
import os, sys
from deploy.clients.docker.protocol import Limits
from deploy.clients.docker.throwaway_container import throwaway_container
from deploy.errors import ReleaseError

before = dict(os.environ)
try:
    with throwaway_container(sys.argv[1], int(sys.argv[2]), Limits()) as running:
        assert running.is_running()
    print("ran")
except ReleaseError as error:
    print(error.what, "on", error.on, "next", error.next)
assert dict(os.environ) == before
"""


@pytest.fixture(scope="module")
def tiny(
    engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TinyApplication]:
    """Create a tiny application."""
    try:
        base = ensure_base_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(error.what, error.next)
    made = TinyApplication(engine, base, create_cache(tmp_path_factory.mktemp("container")))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def serving(tiny: TinyApplication) -> str:
    """Return the id of an image that serves."""
    joined = join_image(tiny.app(), tiny.model(), MOUNT, tiny.cache)
    return load_image(joined, tiny.engine, tiny.cache, lambda _: None).id


def ours(engine: DockerEngine, image: str) -> list[dict[str, Any]]:
    """Return the engine's data of this process's throwaway containers of an image."""
    found = [
        container
        for container in engine.containers({LABEL: str(ProcessId.current())})
        if container.image == image
    ]
    return [engine._api.inspect_container(container.id) for container in found]


def test_a_throwaway_container_is_hardened_like_a_replica(
    engine: DockerEngine, serving: str
) -> None:
    """It is read-only, without capabilities, on the loopback address, with a small /tmp."""
    with throwaway_container(serving, PORT, Limits(memory=1 << 29, pids=99)) as running:
        (found,) = ours(engine, serving)
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert list(host["Tmpfs"]) == ["/tmp"]
        assert (host["Memory"], host["PidsLimit"]) == (1 << 29, 99)
        published = found["NetworkSettings"]["Ports"][f"{PORT}/tcp"]
        assert [binding["HostIp"] for binding in published] == ["127.0.0.1"]
        assert running.url == f"http://127.0.0.1:{published[0]['HostPort']}"
        assert running.is_running()
    assert not ours(engine, serving)


def test_a_failed_block_leaves_no_container(engine: DockerEngine, serving: str) -> None:
    """Any error can end the block."""

    def fail() -> None:
        with throwaway_container(serving, PORT, Limits()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not ours(engine, serving)


def test_an_image_that_the_engine_does_not_hold_cannot_be_tried(engine: DockerEngine) -> None:
    """The detail has the engine's reason."""
    with (
        pytest.raises(EngineFailed) as caught,
        throwaway_container(digest(b"nothing"), PORT, Limits()),
    ):
        pass
    assert caught.value.on == digest(b"nothing")


def test_leftovers_of_killed_processes_are_removed_by_the_next_start(
    engine: DockerEngine, tiny: TinyApplication, serving: str
) -> None:
    """Containers of running processes stay, also those of other machines."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = str(ProcessId("ada", socket.gethostname(), process.pid, "1"))
    left = {
        "dead": (dead, machine_id()),
        "other-machine": (dead, "another machine"),
        "mine": (str(ProcessId.current()), machine_id()),
    }
    made = {
        name: engine.create(
            Spec(
                name=f"{tiny.name}-{name}",
                image=serving,
                labels={LABEL: owner, MACHINE: on, OURS: tiny.name},
            )
        )
        for name, (owner, on) in left.items()
    }
    try:
        with throwaway_container(serving, PORT, Limits()):
            found = {container.id for container in engine.containers({OURS: tiny.name})}
            on = [running["Config"]["Labels"].get(MACHINE) for running in ours(engine, serving)]
        assert on == [machine_id()] * 2
        assert found == {made["other-machine"].id, made["mine"].id}
    finally:
        for container in made.values():
            engine.remove(container.id)


def run_elsewhere(image: str, *under: str, **variables: str) -> str:
    """Run an image in another process; return what that prints."""
    done = subprocess.run(
        [*under, sys.executable, "-c", SCRIPT, image, str(PORT)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_settings_for_tests_of_the_user_do_not_matter(
    serving: str, tmp_path: Path, engine: DockerEngine
) -> None:
    """Mirrors, hosts, logins and times are for the user's own tests with testcontainers."""
    (tmp_path / ".testcontainers.properties").write_text(
        "tc.host=tcp://127.0.0.1:1\nryuk.container.privileged=true\n", encoding="utf-8"
    )
    (tmp_path / ".netrc").write_text("default login a password b\n", encoding="utf-8")
    printed = run_elsewhere(
        serving,
        DOCKER_HOST=find_engine_address().url,
        HOME=str(tmp_path),
        TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX="mirror.example/",
        TESTCONTAINERS_HOST_OVERRIDE="other.example",
        TESTCONTAINERS_CONNECTION_MODE="nonsense",
        TESTCONTAINERS_RYUK_DISABLED="false",
        TC_HOST="other.example",
        TC_POOLING_INTERVAL="200ms",
        TC_MAX_TRIES="many",
        DOCKER_AUTH_CONFIG='{"auths": {"images.example": {"auth": "dXNlcjpwYXNz"}}}',
        DOCKER_API_VERSION="1.12",
        ALL_PROXY="socks5://127.0.0.1:9",
        REQUESTS_CA_BUNDLE="/nowhere",
    )
    assert printed == "ran"
    assert not ours(engine, serving)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_an_engine_outside_of_this_network_is_named_within_seconds(serving: str) -> None:
    """A job in a container may use the engine of its host."""
    printed = run_elsewhere(serving, "unshare", "--net")
    assert printed.startswith("what the engine publishes cannot be reached from here on 127.0.0.1:")
    assert "--network host" in printed
