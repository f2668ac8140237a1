"""Hostile and broken input has errors with exit codes, and the release keeps serving.

All tests share one application, which serves under load until the last test ends. Only the test
with a full engine uses another engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest

from bench.application import ROOT, Application, TaskResult, free_port
from bench.load import Load
from tests.e2e import rights
from tests.e2e.small_engine import SmallEngine, small_engine
from tests.fakes.http_registry import Act, Exchange, HttpRegistryServer, cut_after, refuse_with

REGISTRY = "TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY"
REPOSITORY = "TWINSHIP_ENVIRONMENTS__LOCAL__REPOSITORY"
PORT = "TWINSHIP_ENVIRONMENTS__LOCAL__PORT"
ADDRESS = "TWINSHIP_ENVIRONMENTS__LOCAL__ADDRESS"
STORE = "TWINSHIP_MODEL__STORE"
HOME = "TWINSHIP_HOME"
OFTEN = 10**6
MEASURED = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); "
    "sys.exit(code)"
)


# --- an application that keeps serving


@pytest.fixture(scope="module", name="load")
def _load(serving: Application) -> Iterator[Load]:
    """Run a client of the application while these tests run."""
    with Load(
        "127.0.0.1", serving.port, serving.score_request("chelsea.jpg"), clients=1, pause=0.2
    ) as load:
        yield load


@pytest.fixture(name="victim")
def _victim(serving: Application, load: Load) -> Iterator[Application]:
    """Return the application; check afterwards that no container changed and no request failed."""
    before = _containers(serving)
    assert len(before) == 3
    yield serving
    assert _containers(serving) == before
    assert not load.failures, load.failures[:3]
    assert len(load.models) <= 1


def _containers(application: Application) -> list[str]:
    """Return the containers of an application, with their starts and restarts.

    They include a lock, a throwaway container or an unfinished replica that was left.
    """
    form = "{{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
    label = f"label=dev.twinship.app={application.name}"
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
    ).stdout.split()
    shown = subprocess.run(
        ["docker", "inspect", "--format", form, *listed], capture_output=True, text=True, check=True
    )
    return sorted(shown.stdout.splitlines())


def assert_refused(
    application: Application,
    code: int,
    *words: str,
    task: tuple[str, ...] = ("release",),
    **variables: str,
) -> TaskResult:
    """Run a task that must fail with an exit code and a complete error message."""
    return assert_reported(application.invoke(*task, **variables), code, *words)


def assert_reported(result: TaskResult, code: int, *words: str) -> TaskResult:
    """Check that a failed task reports the error, its place and the next step."""
    assert result.code == code, f"it ended with {result.code}\n{result.out}\n{result.err}"
    assert result.out == ""
    assert "Traceback" not in result.err
    assert re.search(
        rf"^error: .+\n   on: .+\n(?:.*\n)* next: .+\(exit code {code}\)$", result.err, re.MULTILINE
    ), result.err
    assert not [word for word in words if word not in result.err], result.err
    return result


# --- configuration


@pytest.fixture(name="settings")
def _settings(victim: Application) -> Iterator[Path]:
    """Return the path of the application's pipeline.toml; restore the file afterwards."""
    path = victim.folder / "pipeline.toml"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "replicas = 2",
            "replicas = 2\nreplica = 3",
            "environments.local.replica: unknown key; did you mean 'replicas'?",
        ),
        ("replicas = 2", 'replicas = "two"', "environments.local.replicas: "),
        ("@sha256:a2", "@sha256:", "image.base: "),
        ("[environments.local]", "[environments.local]\n[environments.local]", "not TOML"),
        ("[app]", "\0", "not TOML"),
    ],
    ids=[
        "an unknown key",
        "a wrong type",
        "a bad digest",
        "an environment given twice",
        "not TOML",
    ],
)
def test_a_broken_configuration_is_refused(
    victim: Application, settings: Path, old: str, new: str, words: str
) -> None:
    """The error has the path of the key, and no later stage runs."""
    victim.edit("pipeline.toml", old, new)
    assert_refused(victim, 2, words, str(settings))


def test_an_unreadable_configuration_is_refused(victim: Application, settings: Path) -> None:
    """It does not count as a missing configuration."""
    with rights.closed(settings):
        assert_refused(
            replace(victim, under=rights.owner_only()),
            2,
            "cannot be read: Permission denied",
            str(settings),
        )


# --- the model store


@pytest.fixture(scope="module", name="small_store")
def _small_store(serving: Application, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a small model, version 9, under the name of the application's model."""
    store = tmp_path_factory.mktemp("published") / "store"
    author = write_author_directory(tmp_path_factory.mktemp("author"), "9")
    serving.ok("model.publish", "--directory", str(author), **{STORE: str(store)})
    return store


def write_author_directory(folder: Path, version: str, old: str = "", new: str = "") -> Path:
    """Write the digits model under the name of the application's model.

    Args:
        folder: the folder in which the author's directory is made.
        version: the version of the model.
        old: a part of its model.toml to replace.
        new: the replacement.
    """
    author = folder / f"author-{version}"
    shutil.copytree(ROOT / "tests" / "models" / "digits", author)
    path = author / "model.toml"
    text = path.read_text(encoding="utf-8")
    for before, after in (
        ('name = "digits"', 'name = "imagenet"'),
        ('version = "1"', f'version = "{version}"'),
        (old, new),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    path.write_text(text, encoding="utf-8")
    return author


class DamagedStore:
    """A copy of a store that a test damages."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root = folder / "damaged"
        shutil.copytree(source, self.root)
        self.manifest = self.root / "models" / "imagenet" / "9" / "manifest.json"
        self.document: dict[str, Any] = json.loads(self.manifest.read_bytes())

    @property
    def weights(self) -> dict[str, Any]:
        """The entry of the weights in the model manifest."""
        found: dict[str, Any] = next(
            file for file in self.document["files"] if file["path"] == "model.onnx"
        )
        return found

    @property
    def blob(self) -> Path:
        """The path of the weights."""
        return self.root / "blobs" / "sha256" / str(self.weights["sha256"])

    def write(self) -> None:
        """Write the model manifest in its canonical form."""
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.manifest.write_text(text + "\n", encoding="utf-8")

    def add(self, **file: object) -> None:
        """Add a file to the model manifest."""
        self.document["files"].append({"sha256": "0" * 64, "size": 1, **file})
        self.write()

    def tamper(self) -> None:
        """Change one byte in the middle of the weights."""
        data = bytearray(self.blob.read_bytes())
        data[len(data) // 2] ^= 1
        self.blob.write_bytes(data)

    def misstate_size(self) -> None:
        """Add one byte to the size of the weights in the model manifest."""
        self.weights["size"] += 1
        self.write()

    def pickle(self) -> None:
        """Replace the weights by a pickle, with a matching model manifest."""
        data = b"\x80\x04\x95\x10\0\0\0\0\0\0\0cposix\nsystem\n."
        self.weights.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.blob.write_bytes(data)
        self.write()

    def replace(self, path: Path, make: Callable[[Path], None]) -> None:
        """Replace a file by something else."""
        path.unlink()
        make(path)


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (
            DamagedStore.tamper,
            22,
            ("not the one that was published", "model.onnx of imagenet@9", "expected", "actual"),
        ),
        (lambda store: store.blob.unlink(), 22, ("missing", "model.onnx of imagenet@9")),
        (DamagedStore.misstate_size, 22, ("not the one that was published", "expected 9954 bytes")),
        (
            lambda store: store.replace(store.blob, lambda path: path.symlink_to("/etc/passwd")),
            22,
            ("not the one that was published",),
        ),
        (lambda store: store.replace(store.blob, os.mkfifo), 25, ("it is not a file",)),
        (lambda store: store.replace(store.manifest, os.mkfifo), 25, ("it is not a file",)),
        (
            lambda store: store.add(path="../../etc/cron.d/x"),
            21,
            ("'../../etc/cron.d/x' is not a plain relative path",),
        ),
        (
            lambda store: store.add(path="/etc/passwd"),
            21,
            ("'/etc/passwd' is not a plain relative path",),
        ),
        (lambda store: store.add(path="x", link="/etc/passwd"), 21, ("files.4.link",)),
        (DamagedStore.pickle, 23, ("the file is a pickle", "80 04 95")),
    ],
    ids=[
        "a tampered byte",
        "a missing file",
        "a wrong size",
        "a link instead of a file",
        "a pipe instead of a file",
        "a pipe instead of the manifest",
        "a path outside of the bundle",
        "an absolute path",
        "a link in the manifest",
        "a pickle",
    ],
)
def test_a_damaged_store_is_refused(
    victim: Application,
    small_store: Path,
    tmp_path: Path,
    damage: Callable[[DamagedStore], None],
    code: int,
    words: tuple[str, ...],
) -> None:
    """The release stops before it uses the model."""
    store = DamagedStore(small_store, tmp_path)
    damage(store)
    assert_refused(
        victim, code, *words, task=("release", "--model", "@9"), **{STORE: str(store.root)}
    )


@pytest.mark.parametrize("name", ["models/imagenet/9/manifest.json", "models/imagenet/latest.json"])
def test_a_manifest_of_100_mb_costs_no_memory(
    victim: Application, small_store: Path, tmp_path: Path, name: str
) -> None:
    """It is refused because of its size, so the task needs no more memory than usual."""
    store = DamagedStore(small_store, tmp_path)
    (store.root / name).write_bytes(b'{"a":"' + b"x" * 100_000_000 + b'"}')
    measured = replace(victim, under=(shutil.which("python3") or "python3", "-c", MEASURED))
    version = "@9" if "9" in name else "@latest"
    result = assert_refused(
        measured, 21, name, task=("release", "--model", version), **{STORE: str(store.root)}
    )
    assert int(result.err.rpartition("peak ")[2]) * 1024 < 100_000_000


@pytest.mark.parametrize(
    ("name", "make", "code", "words"),
    [
        ("model.onnx", lambda path: path.write_bytes(b"\x80\x04\x95"), 23, "the file is a pickle"),
        ("model.onnx", lambda path: path.symlink_to("/etc/passwd"), 21, "plain files and folders"),
        (
            "labels.txt",
            lambda path: None,
            21,
            "'labels.txt' is used but is not one of the files",
        ),
    ],
    ids=["a pickle", "a link", "a missing file"],
)
def test_an_invalid_model_is_not_published(
    victim: Application,
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    """The store is not created."""
    author = write_author_directory(tmp_path, "10")
    (author / name).unlink()
    make(author / name)
    assert_refused(
        victim,
        code,
        words,
        task=("model.publish", "--directory", str(author)),
        **{STORE: str(tmp_path / "store")},
    )
    assert not (tmp_path / "store").exists()


def move_weights(location: str) -> Callable[[Path], None]:
    """Return a change that makes a model read its first weights from another file."""

    def change(author: Path) -> None:
        found = onnx.load(author / "model.onnx")
        tensor = found.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        (author / "model.onnx").write_bytes(found.SerializeToString())

    return change


@pytest.mark.parametrize(
    ("old", "new", "change", "words"),
    [
        (
            "",
            "",
            lambda author: (author / "model.onnx").write_bytes(
                b"\x08\x07" + bytes(range(256)) * 20
            ),
            "expected an ONNX model",
        ),
        ("", "", move_weights("../../etc/passwd"), "External data path"),
        ("", "", move_weights("/etc/passwd"), "external data"),
        ('name = "picture"', 'name = "image"', None, "inputs: expected only image, found picture"),
        (
            'equals = "three"',
            'equals = "eight"',
            None,
            "three: /result/0/0/0/0: expected 'eight', got 'three'",
        ),
    ],
    ids=[
        "not ONNX",
        "weights outside of the bundle",
        "weights at an absolute path",
        "a wrong interface",
        "a golden case that fails",
    ],
)
def test_a_model_that_fails_the_smoke_test_is_not_pushed(
    victim: Application,
    tmp_path: Path,
    old: str,
    new: str,
    change: Callable[[Path], None] | None,
    words: str,
) -> None:
    """The smoke test finds errors that only a run of the model shows, and prints them."""
    author = write_author_directory(tmp_path, "11", old, new)
    if change:
        change(author)
    store = {STORE: str(tmp_path / "store")}
    victim.ok("model.publish", "--directory", str(author), **store)
    result = assert_refused(
        victim, 40, words, "nothing was pushed", task=("release", "--model", "@11"), **store
    )
    assert "· push" not in result.err


# --- the registry


@pytest.fixture(name="registry")
def _registry() -> Iterator[HttpRegistryServer]:
    """Run a registry on this machine whose failures a test sets."""
    with HttpRegistryServer().serve() as serving:
        yield serving


def fail_requests(
    registry: HttpRegistryServer,
    act: Act,
    times: int = OFTEN,
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT"),
) -> None:
    """Apply a fault to all requests for blobs and image manifests."""
    for method in methods:
        for text in ("blobs", "manifests"):
            registry.on(method, text, act, times)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (
            lambda registry: setattr(registry, "auth", "basic"),
            51,
            ("401 Unauthorized", "docker login"),
        ),
        (
            lambda registry: fail_requests(registry, refuse_with(403)),
            51,
            ("403 Forbidden", "REFUSED"),
        ),
        (
            lambda registry: fail_requests(registry, refuse_with(404), methods=("POST",)),
            52,
            ("404 Not Found", "check registry and repository"),
        ),
        (
            lambda registry: fail_requests(registry, refuse_with(413), methods=("PUT",)),
            53,
            ("413", "limits the body"),
        ),
        (
            lambda registry: setattr(registry, "lies", True),
            54,
            ("stored other bytes than were sent", "sent   sha256:"),
        ),
    ],
    ids=["401", "403", "404", "413", "a wrong digest"],
)
def test_a_refusal_of_the_registry_is_reported(
    victim: Application,
    small_store: Path,
    registry: HttpRegistryServer,
    fault: Callable[[HttpRegistryServer], None],
    code: int,
    words: tuple[str, ...],
) -> None:
    """The error has the registry's message and the next step, and nothing can be pulled."""
    fault(registry)
    variables = {REGISTRY: registry.host, STORE: str(small_store)}
    assert_refused(
        victim, code, *words, registry.host, task=("release", "--model", "@9"), **variables
    )
    assert not registry.manifests


@pytest.fixture(scope="module", name="tested")
def _tested(serving: Application, small_store: Path) -> Application:
    """Return the application with an image that passed its smoke test and is not pushed."""
    for stage in (("fetch", "--model", "@9"), ("build",), ("smoke",)):
        serving.ok(*stage, **{STORE: str(small_store)})
    return serving


def test_a_push_to_an_unavailable_registry_fails(tested: Application, victim: Application) -> None:
    """The push retries for some time, and then the error says what the registry did."""
    faults = {
        "429": (refuse_with(429), 53, "run again later"),
        "503": (refuse_with(503), 53, "503"),
        "reset": (cut_after(0), 50, "no answer"),
    }
    with (
        HttpRegistryServer().serve() as many,
        HttpRegistryServer().serve() as broken,
        HttpRegistryServer().serve() as cutting,
    ):
        hosts = dict(zip(faults, (many, broken, cutting), strict=True))
        for name, registry in hosts.items():
            fail_requests(registry, faults[name][0])
        pushes = {
            name: victim.start("push", **{REGISTRY: registry.host})
            for name, registry in hosts.items()
        }
        pushes["down"] = victim.start(
            "push", **{REGISTRY: f"{own_address()}:{free_port()}", "NO_PROXY": "*"}
        )
        ended = {
            name: TaskResult(process.wait(), *map(str, process.communicate()))
            for name, process in pushes.items()
        }
        for name, (_, code, words) in {**faults, "down": (None, 50, "no answer")}.items():
            assert_reported(ended[name], code, words)
        assert not [registry.host for registry in hosts.values() if registry.manifests]


def own_address() -> str:
    """Return an address of this machine that is not the loopback address, without any packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def delay(exchange: Exchange) -> bool:
    """Delay a request, and let it pass."""
    exchange.registry.stopping.wait(0.1)
    return False


def test_a_push_waits_for_a_registry_that_recovers(
    tested: Application, victim: Application, registry: HttpRegistryServer
) -> None:
    """Some errors, broken connections and slow responses only delay a push."""
    for act, times in ((refuse_with(503), 1), (cut_after(1000), 1), (delay, OFTEN)):
        fail_requests(registry, act, times)
    result = victim.ok("push", **{REGISTRY: registry.host})
    assert result.out.strip().rpartition("@")[2] in {
        reference for _, reference in registry.manifests
    }


def test_a_full_disk_of_the_registry_is_reported(victim: Application, small_store: Path) -> None:
    """The error of a real registry is about its disk, and the push does not retry."""
    port = free_port()
    image = _services_image()
    disk = ("--read-only", "--tmpfs", "/var/lib/registry:size=20m,uid=10001,gid=10001")
    command = ("docker-registry", "serve", "/etc/docker/registry/config.yml")
    started = subprocess.run(
        ["docker", "run", "-d", "--rm", *disk, "-p", f"127.0.0.1:{port}:5000", image, *command],
        capture_output=True,
        text=True,
        check=True,
    )
    try:
        variables = {REGISTRY: f"127.0.0.1:{port}", STORE: str(small_store)}
        _wait_for_registry(port)
        assert_refused(
            victim,
            53,
            "the registry has no space left",
            "free some space",
            task=("release", "--model", "@9"),
            **variables,
        )
    finally:
        subprocess.run(
            ["docker", "rm", "-f", started.stdout.strip()], capture_output=True, check=True
        )


def _services_image() -> str:
    """Return the image of the proxy and the registry, which a release has built."""
    listed = subprocess.run(
        ["docker", "images", "-q", "twinship/parts"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]


def _wait_for_registry(port: int) -> None:
    """Wait until a registry responds."""
    curl = [
        "curl",
        "-sf",
        "--retry",
        "50",
        "--retry-delay",
        "0",
        "--retry-all-errors",
        "--retry-max-time",
        "20",
    ]
    subprocess.run([*curl, f"http://127.0.0.1:{port}/v2/"], check=True, capture_output=True)


# --- the engine, and this machine


def test_a_missing_engine_is_reported(victim: Application, tmp_path: Path) -> None:
    """The error has the address of the engine."""
    assert_refused(
        victim,
        70,
        "no container engine answers",
        str(tmp_path),
        DOCKER_HOST=f"unix://{tmp_path}/docker.sock",
    )


def test_an_engine_that_refuses_the_user_is_reported(victim: Application, tmp_path: Path) -> None:
    """The user is not in the engine's group; the error has the command that adds the user."""
    assert_refused(
        replace(victim, under=rights.stranger()),
        71,
        "this user may not use it",
        "usermod -aG docker",
        HOME=str(tmp_path),
    )


@pytest.mark.parametrize("variable", [PORT, REGISTRY])
def test_a_used_port_is_reported(victim: Application, small_store: Path, variable: str) -> None:
    """A web server uses the port of the proxy or the local registry; the proxy keeps serving."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        variables = {
            variable: str(other.server_port) if variable == PORT else address,
            STORE: str(small_store),
        }
        assert_refused(
            victim,
            72,
            "another program listens",
            address,
            task=("release", "--model", "@9"),
            **variables,
        )
        other.shutdown()


def test_an_address_of_another_machine_is_reported(victim: Application, small_store: Path) -> None:
    """The proxy keeps serving: it is not replaced by one that cannot listen."""
    assert_refused(
        victim,
        2,
        "192.0.2.1",
        task=("release", "--model", "@9"),
        **{ADDRESS: "192.0.2.1", STORE: str(small_store)},
    )


@pytest.mark.parametrize(
    ("size", "variables"),
    [("1m", {}), ("40m", {REPOSITORY: "fresh"})],
    ids=["for the model", "for the packages"],
)
def test_a_cache_without_space_is_reported(
    victim: Application, tmp_path: Path, size: str, variables: dict[str, str]
) -> None:
    """On a real full disk, the cache has only complete files, and no temporary file is left."""
    with rights.small_disk(tmp_path / "home", size) as home:
        assert_refused(
            victim,
            74,
            "no space is left",
            str(home),
            task=("release", "--model", "@2"),
            **{HOME: str(home)},
            **variables,
        )
        assert not list((home / "tmp").iterdir())
        for path in (home / "blobs" / "sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_store_without_space_is_reported(victim: Application, tmp_path: Path) -> None:
    """The store has no incomplete version."""
    with rights.small_disk(tmp_path / "disk", "1m") as disk:
        variables = {STORE: str(disk / "store")}
        assert_refused(
            victim,
            74,
            "no space is left",
            str(disk),
            task=("model.publish", "--sample"),
            **variables,
        )
        assert victim.ok("model.list", "--json", **variables).json == []


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("home", 76, "may not write"),
        ("store", 25, "ermission"),
        ("checkout/app/routes.py", 10, "ermission"),
    ],
)
def test_a_path_without_permission_is_reported(
    victim: Application, place: str, code: int, words: str
) -> None:
    """The cache, the store and a file of the application have different errors, with the path."""
    path = victim.folder / ".twinship" / "store" if place == "store" else victim.home.parent / place
    with rights.closed(path):
        assert_refused(replace(victim, under=rights.owner_only()), code, words, str(path))


# --- git


@pytest.fixture(name="clone")
def _clone(victim: Application, tmp_path: Path) -> Application:
    """Return another checkout of the application, with only its last commit."""
    victim.git("clone", "-q", "--depth=1", victim.folder.as_uri(), str(tmp_path / "clone"))
    shutil.copytree(
        victim.folder / ".twinship" / "store",
        tmp_path / "clone" / ".twinship" / "store",
        copy_function=os.link,
    )
    return replace(victim, folder=tmp_path / "clone")


def test_a_shallow_clone_has_a_warning(clone: Application) -> None:
    """Nothing is built, because the files are the same; the warning is about the revision."""
    result = clone.ok("release", "--dry-run", "--json")
    assert "! this clone is shallow" in result.err
    assert next(step for step in result.json if step["stage"] == "build")["runs"] is False


@pytest.mark.parametrize(
    ("broken", "words"), [("PATH", "git is not installed"), ("folder", "no git repository here")]
)
def test_without_git_a_release_is_marked(clone: Application, broken: str, words: str) -> None:
    """The release works with a warning; its image differs from that of the commit."""
    if broken == "folder":
        shutil.rmtree(clone.folder / ".git")
    result = clone.ok(
        "release",
        "--dry-run",
        "--json",
        **({"PATH": str(clone.folder)} if broken == "PATH" else {}),
    )
    assert f"! {words}: the release is marked unversioned" in result.err
    build = next(step for step in result.json if step["stage"] == "build")
    assert (build["runs"], build["why"]) == (True, "the revision changed")


def test_a_dirty_checkout_is_marked(clone: Application) -> None:
    """An image of files that are not committed is marked wherever its commit is shown."""
    clone.edit("app/routes.py", '"Healthy"', '"Healthy, and dirty"')
    result = clone.ok("build")
    commit = clone.git("rev-parse", "HEAD")
    assert f"{commit[:12]}-dirty" in result.out
    record = json.loads(
        (clone.folder / ".twinship" / "records" / "app.json").read_text(encoding="utf-8")
    )
    assert record["commit"] == {"revision": commit, "dirty": True}


def damage_objects(folder: Path) -> None:
    """Overwrite what a clone has of its repository's objects."""
    for pack in (folder / ".git" / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(b"nonsense")


@pytest.mark.parametrize(
    ("damage", "variables", "words"),
    [
        (damage_objects, {}, "packfile"),
        (lambda folder: None, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "safe.directory"),
    ],
    ids=["damaged", "of another user"],
)
def test_a_repository_that_git_refuses_is_reported(
    clone: Application, damage: Callable[[Path], object], variables: dict[str, str], words: str
) -> None:
    """It does not count as a missing repository; the error has git's message."""
    damage(clone.folder)
    assert_refused(
        clone, 10, "git cannot read this repository", words, task=("release",), **variables
    )


# --- an engine with a full disk


def test_an_engine_without_space_keeps_the_release(victim: Application) -> None:
    """If the disk is full at any stage of a release, the previous release keeps serving."""
    with small_engine("900m") as engine:
        there = replace(victim, under=engine.within)
        at = {"DOCKER_HOST": engine.host}
        there.ok("release", "--model", "@1", **at)
        first = serving_digest(there, engine)

        engine.fill(left=4 << 20)
        assert_refused(
            there, 74, "the engine has no space left", task=("release", "--model", "@2"), **at
        )
        assert serving_digest(there, engine) == first

        engine.fill(left=200 << 20)
        there.ok("release", "--model", "@2", **at)
        second = serving_digest(there, engine)
        assert second != first
        for left in (0, 60_000):
            engine.fill(left)
            result = there.invoke("release", "--model", "@1", **at)
            if result.code:
                assert_reported(result, 74, "no space left")
            assert serving_digest(there, engine) == (second if result.code else first)

        engine.fill(left=200 << 20)
        there.ok("release", "--model", "@1", **at)
        assert serving_digest(there, engine) == first
        there.ok("verify", **at)


def serving_digest(application: Application, engine: SmallEngine) -> str:
    """Return the digest of the release that serves on an engine, which must be healthy."""
    status = application.ok("status", "--json", DOCKER_HOST=engine.host).json
    assert status["healthy"], status
    return str(status["serving"]["digest"])


# --- after all other tests


def test_the_first_release_still_serves(victim: Application, load: Load) -> None:
    """The history has one attempt, its model sent all responses, and a release changes nothing."""
    (only,) = victim.ok("history", "--json").json
    assert (only["id"], only["outcome"]) == (1, "succeeded")
    assert set(load.models) == {only["model_digest"]}
    assert len(load.answers) > 100
    result = victim.ok("release", "--model", "@1", "--json").json
    assert (result["changed"], result["model"]) == (False, "imagenet@1")
    assert not list((victim.home / "tmp").iterdir())
