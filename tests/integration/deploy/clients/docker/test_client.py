"""The Docker engine of this machine: the contract, and tests that need a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Engine, Limits, Spec
from deploy.clients.oci.client import MANIFEST, HttpRegistry
from deploy.errors import EngineDenied, EngineFailed, EngineUnavailable
from deploy.image.export import export_image
from tests.contracts.engine import EngineContract, ImageOf, pack_context, wait_until
from tests.fakes.engine import Script

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[5]
UNPRIVILEGED = 65534
HOLDER = """
import sys, time
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec

name, image, label = sys.argv[1:]
labels = {"dev.twinship.test": label}
handle = DockerEngine().start_tied(Spec(name=name, image=image, labels=labels, command=("cat",)))
print("started" if handle else "taken", flush=True)
time.sleep(600)
"""


def shell(script: Script) -> str:
    """Return a script as a shell command."""
    said = "".join(f"echo '{line}'\n" for line in script.says.splitlines())
    traps = "".join(
        f"trap 'exit {code}' {name.removeprefix('SIG')}\n"
        for name, code in script.on_signal.items()
    )
    fills = f"full=$(head -c {script.needs} /dev/zero | tr '\\0' a)\n" if script.needs else ""
    # It speaks when it handles signals, and has what it needs.
    return (
        traps
        + fills
        + said
        + ("while :; do sleep 0.05; done" if script.exits is None else f"exit {script.exits}")
    )


class TestDockerEngine(EngineContract):
    """The real engine keeps the contract."""

    @pytest.fixture
    def engine(self, engine: DockerEngine) -> Engine:
        """Return the engine of this machine."""
        return engine

    @pytest.fixture
    def prefix(self, prefix: str) -> str:
        """Return a prefix whose objects are removed afterwards."""
        return prefix

    @pytest.fixture
    def port(self, free_port: Callable[[], int]) -> int:
        """Return a free port."""
        return free_port()

    @pytest.fixture
    def image_of(self, parts_image: str) -> ImageOf:
        """Return a function that gives a shell in the services image."""
        return lambda script: (parts_image, ("sh", "-c", shell(script)))

    @pytest.fixture
    def missing(self, registry_host: str, prefix: str) -> str:
        """Return a digest that the local registry does not have."""
        return f"{registry_host}/{prefix}@sha256:{'0' * 64}"


def test_a_pulled_image_is_the_one_that_was_pushed(
    engine: DockerEngine, prefix: str, registry_host: str, tmp_path: Path
) -> None:
    """The engine gets exactly the pushed config or image manifest by its digest."""
    context = pack_context({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": prefix})
    engine.build(
        context, dockerfile="Dockerfile", args={}, tag=f"{prefix}:small", on_line=lambda _: None
    )
    config, layers = export_image(engine.save(f"{prefix}:small"), cache := Cache(tmp_path), prefix)
    engine._api.remove_image(f"{prefix}:small")
    remote = HttpRegistry(registry_host)
    for item in (config, *layers):
        remote.upload(
            prefix,
            item.digest,
            item.size,
            lambda item=item: cache.open(item.digest),  # type: ignore[misc]  # a default argument binds the value
            lambda _: None,
        )
    listed = [
        {"mediaType": item.media_type, "digest": item.digest, "size": item.size}
        for item in (config, *layers)
    ]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": listed[0], "layers": listed[1:]}
    ).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    remote.put_manifest(prefix, digest, manifest)
    said: list[str] = []
    engine.pull(reference := f"{registry_host}/{prefix}@{digest}", None, said.append)
    try:
        assert engine.image_id(reference) == (
            config.digest if engine.image_id(config.digest) else digest
        )
        assert any(digest in line for line in said)
    finally:
        engine._api.remove_image(reference, force=True)
        remote._http.send("DELETE", f"/v2/{prefix}/manifests/{digest}", prefix, expect=(202, 405))


@pytest.fixture
def holder(prefix: str, parts_image: str) -> Iterator[subprocess.Popen[str]]:
    """Start another process that has a tied container."""
    command = [sys.executable, "-c", HOLDER, f"{prefix}-lock", parts_image, prefix]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process
        with suppress(ProcessLookupError):
            process.kill()


def test_the_name_of_a_killed_process_is_free_within_seconds(
    engine: DockerEngine, holder: subprocess.Popen[str], prefix: str, parts_image: str
) -> None:
    """The engine ends the container of a killed process, so no lock stays behind."""
    spec = Spec(
        name=f"{prefix}-lock",
        image=parts_image,
        labels={"dev.twinship.test": prefix},
        command=("cat",),
    )
    assert engine.start_tied(spec) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    taken: list[object] = []

    def is_taken() -> bool:
        taken.append(engine.start_tied(spec))
        return taken[-1] is not None

    wait_until(is_taken, "the name is free")
    engine.end_tied(taken[-1])


def test_a_tied_container_ends_without_a_grace_period(
    engine: DockerEngine, prefix: str, parts_image: str
) -> None:
    """A killed engine ends the lock before it starts the replicas, and must not wait for it."""
    held = engine.start_tied(
        Spec(
            name=f"{prefix}-lock",
            image=parts_image,
            labels={"dev.twinship.test": prefix},
            command=("cat",),
        )
    )
    assert engine._api.inspect_container(f"{prefix}-lock")["Config"]["StopSignal"] == "SIGKILL"
    engine.end_tied(held)


def test_a_probe_network_of_a_killed_process_is_removed(engine: DockerEngine, prefix: str) -> None:
    """The probe network of a killed process is removed by the next call."""
    engine._api.create_network(f"{prefix}-probe", labels={"dev.twinship.test": prefix})
    engine.ensure_network(prefix, {"dev.twinship.test": prefix})
    listed = engine._api.networks(filters={"label": f"dev.twinship.test={prefix}"})
    assert [network["Name"] for network in listed] == [prefix]


def test_containers_cannot_write_or_gain_rights(
    engine: DockerEngine, prefix: str, parts_image: str
) -> None:
    """A container has no capabilities, cannot gain any, and can write to memory only."""
    made = engine.create(
        Spec(
            name=prefix,
            image=parts_image,
            labels={"dev.twinship.test": prefix},
            command=("sleep", "600"),
            user="0:0",
            writable=("/tmp",),
        )
    )
    engine.start(made.id)
    assert engine.execute(made.id, ("sh", "-c", "echo 1 > /file"))[0] != 0
    assert engine.execute(made.id, ("sh", "-c", "echo 1 > /tmp/file && cat /tmp/file")) == (
        0,
        "1\n",
    )
    _, status = engine.execute(made.id, ("cat", "/proc/self/status"))
    shown = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (shown["NoNewPrivs"], shown["CapEff"].strip("0"), shown["CapBnd"].strip("0")) == (
        "1",
        "",
        "",
    )


def test_a_removed_container_leaves_no_anonymous_volume(
    engine: DockerEngine, prefix: str, parts_image: str
) -> None:
    """Each `VOLUME` of a Dockerfile makes one for each container; a named volume stays."""
    labels = {"dev.twinship.test": prefix}
    engine.build(
        pack_context({"Dockerfile": "ARG BASE\nFROM ${BASE}\nVOLUME /data /more\n"}),
        dockerfile="Dockerfile",
        args={"BASE": parts_image},
        tag=f"{prefix}:volumes",
        on_line=lambda _: None,
    )
    engine.ensure_volume(prefix, labels)
    made = engine.create(
        Spec(
            name=prefix,
            image=f"{prefix}:volumes",
            labels=labels,
            volumes={prefix: ("/kept", False)},
        )
    )
    mounts = engine._api.inspect_container(made.id)["Mounts"]
    engine.remove(made.id)
    left = {volume["Name"] for volume in engine._api.volumes()["Volumes"]}
    assert len(mounts) == 3
    assert left & {mount["Name"] for mount in mounts} == {prefix}


def test_the_engine_reports_its_version_and_architecture(engine: DockerEngine) -> None:
    """It reports its version and architecture, and shares this machine's ports."""
    assert engine.version[0].isdigit()
    assert engine.architecture in ("amd64", "arm64")
    assert engine.is_local


# --- an engine that fails


class Daemon:
    """A socket that answers like an engine until `stop`.

    Args:
        path: The path of the socket.
        loaded: Its output for a loaded image.
        component: The name of the first part of it.
    """

    def __init__(self, path: Path, loaded: bytes = b"", component: str = "Engine") -> None:
        self._loaded = loaded
        version = {"ApiVersion": "1.41", "Version": "4.9", "Components": [{"Name": component}]}
        self._version = json.dumps(version).encode()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    request = connection.recv(65536)
                    body = b"OK"
                    if b"/version" in request:
                        body = self._version
                    if b"/images/load" in request:
                        body = self._loaded
                        while not request.endswith(b"0\r\n\r\n"):
                            request += connection.recv(65536)
                    head = (
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Connection: close\r\nContent-Length: %d\r\n\r\n"
                    )
                    connection.sendall(head % len(body) + body)

    def stop(self) -> None:
        """Stop answering."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_a_missing_engine_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the address, what names it, and the fix."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(EngineUnavailable) as caught:
        DockerEngine()
    assert str(tmp_path) in caught.value.on
    assert "unset DOCKER_HOST" in caught.value.next


@pytest.mark.parametrize(
    ("component", "product"), [("Engine", "Docker"), ("Podman Engine", "Podman")]
)
def test_an_engine_has_its_own_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, component: str, product: str
) -> None:
    """Another engine with the same protocol is not called Docker."""
    daemon = Daemon(tmp_path / "docker.sock", component=component)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    engine = DockerEngine()
    assert (engine.product, engine.version) == (product, "4.9")
    daemon.stop()


def test_the_engine_of_a_context_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It need not be the one of this machine."""
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": f"unix://{tmp_path}/far.sock"}
    (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": endpoint}}))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(EngineUnavailable) as caught:
        DockerEngine()
    assert "'far'" in caught.value.on
    daemon = Daemon(tmp_path / "far.sock")
    assert DockerEngine().version == "4.9"
    daemon.stop()


def test_an_engine_that_stops_answering_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An engine that ends between two calls gives this project's error for every call."""
    daemon = Daemon(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    engine = DockerEngine()
    daemon.stop()
    for ask in (
        lambda: engine.containers({}),
        lambda: engine.diff_ids("a"),
        lambda: engine.start("a"),
        lambda: engine.put_file("a", "/b/c", b""),
        lambda: engine.ensure_network("a", {}),
        lambda: engine.start_tied(Spec(name="a", image="b", labels={})),
        lambda: b"".join(engine.save("a")),
    ):
        with pytest.raises(EngineUnavailable):
            ask()


def test_an_image_that_an_engine_cannot_unpack_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Newer engines with containerd's image store report it like any other line."""
    daemon = Daemon(
        tmp_path / "docker.sock",
        b'{"stream": "Error unpacking image app:1: content digest sha256:00: not found\\n"}\n',
    )
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(EngineFailed) as caught:
        DockerEngine().load(iter([b"an archive"]))
    assert "not found" in caught.value.detail
    daemon.stop()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Take the rights of root away during a `with` block."""
    groups = os.getgroups()
    group = os.getegid()
    os.setgroups([])
    os.setegid(UNPRIVILEGED)
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="only root can become a user who may not use the engine: run as root",
)
def test_a_user_without_access_to_the_engine_is_an_error_of_its_own(engine: DockerEngine) -> None:
    """It is another error than a missing engine, with another fix."""
    with unprivileged(), pytest.raises(EngineDenied) as caught:
        DockerEngine()
    assert "usermod -aG docker" in caught.value.next


def test_the_number_of_processes_of_a_container_is_limited(
    engine: DockerEngine, prefix: str, parts_image: str
) -> None:
    """Whatever it starts, the host and other containers have processes left."""
    spec = Spec(
        name=prefix,
        image=parts_image,
        labels={"dev.twinship.test": prefix},
        command=("sh", "-c", "for each in $(seq 99); do sleep 60 & done; wait"),
        limits=Limits(pids=20),
    )
    made = engine.create(spec)
    engine.start(made.id)
    wait_until(lambda: "fork" in engine.logs(made.id, 5), "it can start no more")
