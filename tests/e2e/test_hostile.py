"""Hostile and broken input as its user meets it: an error with an exit code of its own, and what serves is left alone.

All tests but the one with an engine of its own share an application that serves under load from the first to the last.
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
    "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
)


# --- an application that serves, and goes on serving


@pytest.fixture(scope="module", name="load")
def _load(serving: Application) -> Iterator[Load]:
    """Somebody who asks the front door for as long as these tests take."""
    with Load(
        "127.0.0.1", serving.port, serving.score_request("chelsea.jpg"), clients=1, pause=0.2
    ) as load:
        yield load


@pytest.fixture(name="victim")
def _victim(serving: Application, load: Load) -> Iterator[Application]:
    """The application; afterwards the same containers run, untouched, and not one request has failed."""
    before = _containers(serving)
    assert len(before) == 3
    yield serving
    assert _containers(serving) == before
    assert not load.failures, load.failures[:3]
    assert len(load.models) <= 1


def _containers(application: Application) -> list[str]:
    """What runs of an application, and since when; a lock, a trial or a half-made replica would be one too many."""
    form = "{{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
    label = f"label=dev.twinship.app={application.name}"
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
    ).stdout.split()
    shown = subprocess.run(
        ["docker", "inspect", "--format", form, *listed], capture_output=True, text=True, check=True
    )
    return sorted(shown.stdout.splitlines())


def refuses(
    application: Application,
    code: int,
    *words: str,
    task: tuple[str, ...] = ("release",),
    **variables: str,
) -> TaskResult:
    """Runs a task that must end with that code, and say what happened, on what, and what to do next."""
    return told(application.invoke(*task, **variables), code, *words)


def told(done: TaskResult, code: int, *words: str) -> TaskResult:
    """Looks at how a task that failed told it."""
    assert done.code == code, f"it ended with {done.code}\n{done.out}\n{done.err}"
    assert done.out == ""
    assert "Traceback" not in done.err
    assert re.search(
        rf"^error: .+\n   on: .+\n(?:.*\n)* next: .+\(exit code {code}\)$", done.err, re.MULTILINE
    ), done.err
    assert not [word for word in words if word not in done.err], done.err
    return done


# --- configuration


@pytest.fixture(name="settings")
def _settings(victim: Application) -> Iterator[Path]:
    """The application's pipeline.toml, which is as it was afterwards."""
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
    ids=["an unknown key", "a wrong type", "a bad digest", "an environment given twice", "no TOML"],
)
def test_a_broken_configuration_is_refused(
    victim: Application, settings: Path, old: str, new: str, words: str
) -> None:
    """By its key path, before anything else is looked at."""
    victim.edit("pipeline.toml", old, new)
    refuses(victim, 2, words, str(settings))


def test_a_configuration_that_may_not_be_read_is_refused(
    victim: Application, settings: Path
) -> None:
    """It is not taken for a missing one."""
    with rights.closed(settings):
        refuses(
            replace(victim, under=rights.owner_only()),
            2,
            "cannot be read: Permission denied",
            str(settings),
        )


# --- the model store


@pytest.fixture(scope="module", name="published")
def _published(serving: Application, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one small model, version 9, under the name of the application's."""
    store = tmp_path_factory.mktemp("published") / "store"
    author = authored(tmp_path_factory.mktemp("author"), "9")
    serving.ok("model.publish", "--directory", str(author), **{STORE: str(store)})
    return store


def authored(folder: Path, version: str, old: str = "", new: str = "") -> Path:
    """An author's directory: the digits model under the application's name, with a piece of its description replaced."""
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


class Damaged:
    """A copy of a store, to be damaged."""

    def __init__(self, published: Path, folder: Path) -> None:
        self.root = folder / "damaged"
        shutil.copytree(published, self.root)
        self.manifest = self.root / "models" / "imagenet" / "9" / "manifest.json"
        self.document: dict[str, Any] = json.loads(self.manifest.read_bytes())

    @property
    def weights(self) -> dict[str, Any]:
        """What the manifest says of the weights."""
        found: dict[str, Any] = next(
            file for file in self.document["files"] if file["path"] == "model.onnx"
        )
        return found

    @property
    def blob(self) -> Path:
        """Where the weights are."""
        return self.root / "blobs" / "sha256" / str(self.weights["sha256"])

    def write(self) -> None:
        """Writes the manifest, in its one form."""
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.manifest.write_text(text + "\n", encoding="utf-8")

    def add(self, **file: object) -> None:
        """Adds a file to the manifest."""
        self.document["files"].append({"sha256": "0" * 64, "size": 1, **file})
        self.write()

    def tamper(self) -> None:
        """Changes one byte in the middle of the weights."""
        data = bytearray(self.blob.read_bytes())
        data[len(data) // 2] ^= 1
        self.blob.write_bytes(data)

    def lie(self) -> None:
        """Has the manifest promise a byte more."""
        self.weights["size"] += 1
        self.write()

    def pickle(self) -> None:
        """Puts a pickle in the place of the weights, and the manifest agrees."""
        data = b"\x80\x04\x95\x10\0\0\0\0\0\0\0cposix\nsystem\n."
        self.weights.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.blob.write_bytes(data)
        self.write()

    def instead(self, path: Path, make: Callable[[Path], None]) -> None:
        """Puts something else in the place of a file."""
        path.unlink()
        make(path)


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (
            Damaged.tamper,
            22,
            ("not the one that was published", "model.onnx of imagenet@9", "expected", "actual"),
        ),
        (lambda store: store.blob.unlink(), 22, ("missing", "model.onnx of imagenet@9")),
        (Damaged.lie, 22, ("not the one that was published", "expected 9954 bytes")),
        (
            lambda store: store.instead(store.blob, lambda path: path.symlink_to("/etc/passwd")),
            22,
            ("not the one that was published",),
        ),
        (lambda store: store.instead(store.blob, os.mkfifo), 25, ("it is not a file",)),
        (lambda store: store.instead(store.manifest, os.mkfifo), 25, ("it is not a file",)),
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
        (Damaged.pickle, 23, ("the file is a pickle", "80 04 95")),
    ],
    ids=[
        "a tampered byte",
        "a missing file",
        "a lie about a size",
        "a link in the place of a file",
        "a pipe in the place of a file",
        "a pipe in the place of the manifest",
        "a path that climbs",
        "an absolute path",
        "a link in the manifest",
        "a pickle",
    ],
)
def test_a_damaged_store_is_refused(
    victim: Application,
    published: Path,
    tmp_path: Path,
    damage: Callable[[Damaged], None],
    code: int,
    words: tuple[str, ...],
) -> None:
    """Nothing of what it holds gets any further."""
    store = Damaged(published, tmp_path)
    damage(store)
    refuses(victim, code, *words, task=("release", "--model", "@9"), **{STORE: str(store.root)})


@pytest.mark.parametrize("name", ["models/imagenet/9/manifest.json", "models/imagenet/latest.json"])
def test_a_manifest_of_100_mb_costs_no_memory(
    victim: Application, published: Path, tmp_path: Path, name: str
) -> None:
    """It is refused by its size: the suite needs no more memory than for any other."""
    store = Damaged(published, tmp_path)
    (store.root / name).write_bytes(b'{"a":"' + b"x" * 100_000_000 + b'"}')
    measured = replace(victim, under=(shutil.which("python3") or "python3", "-c", MEASURED))
    version = "@9" if "9" in name else "@latest"
    done = refuses(
        measured, 21, name, task=("release", "--model", version), **{STORE: str(store.root)}
    )
    assert int(done.err.rpartition("peak ")[2]) * 1024 < 100_000_000


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
def test_what_is_no_model_is_not_published(
    victim: Application,
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    """The store is as it was: it was not even made."""
    author = authored(tmp_path, "10")
    (author / name).unlink()
    make(author / name)
    refuses(
        victim,
        code,
        words,
        task=("model.publish", "--directory", str(author)),
        **{STORE: str(tmp_path / "store")},
    )
    assert not (tmp_path / "store").exists()


def outside(location: str) -> Callable[[Path], None]:
    """Has the first weights of a model lie in another file."""

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
        ("", "", outside("../../etc/passwd"), "External data path"),
        ("", "", outside("/etc/passwd"), "external data"),
        ('name = "picture"', 'name = "image"', None, "inputs: expected only image, found picture"),
        (
            'equals = "three"',
            'equals = "eight"',
            None,
            "three: /result/0/0/0/0: expected 'eight', got 'three'",
        ),
    ],
    ids=[
        "no ONNX",
        "weights outside of the bundle",
        "weights at an absolute path",
        "a wrong interface",
        "a golden case that is missed",
    ],
)
def test_a_model_that_does_not_do_what_it_says_is_not_pushed(
    victim: Application,
    tmp_path: Path,
    old: str,
    new: str,
    change: Callable[[Path], None] | None,
    words: str,
) -> None:
    """What can only be seen when the model runs is seen when it is tried out; the container's own words are shown."""
    author = authored(tmp_path, "11", old, new)
    if change:
        change(author)
    store = {STORE: str(tmp_path / "store")}
    victim.ok("model.publish", "--directory", str(author), **store)
    done = refuses(
        victim, 40, words, "nothing was pushed", task=("release", "--model", "@11"), **store
    )
    assert "· push" not in done.err


# --- the registry


@pytest.fixture(name="registry")
def _registry() -> Iterator[HttpRegistryServer]:
    """A registry on this machine that fails as it is told."""
    with HttpRegistryServer().serve() as serving:
        yield serving


def fails(
    registry: HttpRegistryServer,
    act: Act,
    times: int = OFTEN,
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT"),
) -> None:
    """Has something happen to all that is asked of images."""
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
        (lambda registry: fails(registry, refuse_with(403)), 51, ("403 Forbidden", "REFUSED")),
        (
            lambda registry: fails(registry, refuse_with(404), methods=("POST",)),
            52,
            ("404 Not Found", "check registry and repository"),
        ),
        (
            lambda registry: fails(registry, refuse_with(413), methods=("PUT",)),
            53,
            ("413", "limits the body"),
        ),
        (
            lambda registry: setattr(registry, "lies", True),
            54,
            ("stored other bytes than were sent", "sent   sha256:"),
        ),
    ],
    ids=["401", "403", "404", "413", "a lying digest"],
)
def test_a_registry_that_refuses_is_told(
    victim: Application,
    published: Path,
    registry: HttpRegistryServer,
    fault: Callable[[HttpRegistryServer], None],
    code: int,
    words: tuple[str, ...],
) -> None:
    """Its words and the cure are shown; nothing that could be pulled has come to be there."""
    fault(registry)
    variables = {REGISTRY: registry.host, STORE: str(published)}
    refuses(victim, code, *words, registry.host, task=("release", "--model", "@9"), **variables)
    assert not registry.manifests


@pytest.fixture(scope="module", name="joined")
def _joined(serving: Application, published: Path) -> Application:
    """The application with the record of an image that passed its smoke test, ready to be pushed."""
    for stage in (("fetch", "--model", "@9"), ("build",), ("smoke",)):
        serving.ok(*stage, **{STORE: str(published)})
    return serving


def test_a_registry_that_stays_away_is_given_up(joined: Application, victim: Application) -> None:
    """Down, too many requests, its own errors and resets without end: each is tried for a while, and told as what it is."""
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
            fails(registry, faults[name][0])
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
            told(ended[name], code, words)
        assert not [registry.host for registry in hosts.values() if registry.manifests]


def own_address() -> str:
    """An address of this machine that is not the loopback one; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def slowly(exchange: Exchange) -> bool:
    """The request waits, and then goes on."""
    exchange.registry.stopping.wait(0.1)
    return False


def test_a_registry_that_comes_back_is_waited_for(
    joined: Application, victim: Application, registry: HttpRegistryServer
) -> None:
    """A burst of errors, broken connections and slowness delay a push, and no more."""
    for act, times in ((refuse_with(503), 1), (cut_after(1000), 1), (slowly, OFTEN)):
        fails(registry, act, times)
    done = victim.ok("push", **{REGISTRY: registry.host})
    assert done.out.strip().rpartition("@")[2] in {reference for _, reference in registry.manifests}


def test_a_registry_whose_disk_is_full_is_told(victim: Application, published: Path) -> None:
    """A real one: the error speaks of its disk, and it is not waited for what will not come."""
    port = free_port()
    parts = _parts()
    disk = ("--read-only", "--tmpfs", "/var/lib/registry:size=20m,uid=10001,gid=10001")
    command = ("docker-registry", "serve", "/etc/docker/registry/config.yml")
    started = subprocess.run(
        ["docker", "run", "-d", "--rm", *disk, "-p", f"127.0.0.1:{port}:5000", parts, *command],
        capture_output=True,
        text=True,
        check=True,
    )
    try:
        variables = {REGISTRY: f"127.0.0.1:{port}", STORE: str(published)}
        _answers(port)
        refuses(
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


def _parts() -> str:
    """The image of the proxy and the registry; a release has made it."""
    listed = subprocess.run(
        ["docker", "images", "-q", "twinship/parts"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]


def _answers(port: int) -> None:
    """Waits until a registry answers."""
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


def test_an_engine_that_is_not_there_is_told(victim: Application, tmp_path: Path) -> None:
    """By the place that was asked."""
    refuses(
        victim,
        70,
        "no container engine answers",
        str(tmp_path),
        DOCKER_HOST=f"unix://{tmp_path}/docker.sock",
    )


def test_an_engine_that_this_user_may_not_use_is_told(victim: Application, tmp_path: Path) -> None:
    """A real user outside of the engine's group; the command that lets them in is shown."""
    refuses(
        replace(victim, under=rights.stranger()),
        71,
        "this user may not use it",
        "usermod -aG docker",
        HOME=str(tmp_path),
    )


@pytest.mark.parametrize("variable", [PORT, REGISTRY])
def test_a_port_that_is_taken_is_told(victim: Application, published: Path, variable: str) -> None:
    """The front door's, or the local registry's, by a web server: the old door serves on."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        variables = {
            variable: str(other.server_port) if variable == PORT else address,
            STORE: str(published),
        }
        refuses(
            victim,
            72,
            "another program listens",
            address,
            task=("release", "--model", "@9"),
            **variables,
        )
        other.shutdown()


def test_an_address_of_another_machine_is_told(victim: Application, published: Path) -> None:
    """The door that serves is not given up for one that could never open."""
    refuses(
        victim,
        2,
        "192.0.2.1",
        task=("release", "--model", "@9"),
        **{ADDRESS: "192.0.2.1", STORE: str(published)},
    )


@pytest.mark.parametrize(
    ("size", "variables"),
    [("1m", {}), ("40m", {REPOSITORY: "fresh"})],
    ids=["for the model", "for the packages"],
)
def test_a_cache_without_space_is_told(
    victim: Application, tmp_path: Path, size: str, variables: dict[str, str]
) -> None:
    """A real disk: what is in the cache afterwards is whole, and nothing half-made is left."""
    with rights.small_disk(tmp_path / "home", size) as home:
        refuses(
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


def test_a_store_without_space_is_told(victim: Application, tmp_path: Path) -> None:
    """No version is there that is not whole."""
    with rights.small_disk(tmp_path / "disk", "1m") as disk:
        variables = {STORE: str(disk / "store")}
        refuses(
            victim,
            74,
            "no space is left",
            str(disk),
            task=("model.publish", "--sample"),
            **variables,
        )
        assert victim.ok("model.list", "--json", **variables).json == []


@pytest.mark.parametrize(
    ("place", "code"), [("home", 76), ("store", 25), ("checkout/app/routes.py", 10)]
)
def test_a_place_that_may_not_be_used_is_told(victim: Application, place: str, code: int) -> None:
    """The cache, the store, a file of the application: each is an error of its own, with the path."""
    path = victim.folder / ".twinship" / "store" if place == "store" else victim.home.parent / place
    with rights.closed(path):
        refuses(replace(victim, under=rights.owner_only()), code, "ermission", str(path))


# --- git


@pytest.fixture(name="clone")
def _clone(victim: Application, tmp_path: Path) -> Application:
    """Another checkout of the application, which knows its last commit alone."""
    victim.git("clone", "-q", "--depth=1", victim.folder.as_uri(), str(tmp_path / "clone"))
    shutil.copytree(
        victim.folder / ".twinship" / "store",
        tmp_path / "clone" / ".twinship" / "store",
        copy_function=os.link,
    )
    return replace(victim, folder=tmp_path / "clone")


def test_a_shallow_clone_is_warned_of(clone: Application) -> None:
    """The same files are the same image, so nothing is built; that the revision may be a later one is said."""
    done = clone.ok("release", "--dry-run", "--json")
    assert "! this clone is shallow" in done.err
    assert next(step for step in done.json if step["stage"] == "build")["runs"] is False


@pytest.mark.parametrize(
    ("broken", "words"), [("PATH", "git is not installed"), ("folder", "no git repository here")]
)
def test_without_git_a_release_is_marked(clone: Application, broken: str, words: str) -> None:
    """It is possible, and says what it lacks; its image is another one than that of the commit."""
    if broken == "folder":
        shutil.rmtree(clone.folder / ".git")
    done = clone.ok(
        "release",
        "--dry-run",
        "--json",
        **({"PATH": str(clone.folder)} if broken == "PATH" else {}),
    )
    assert f"! {words}: the release is marked unversioned" in done.err
    build = next(step for step in done.json if step["stage"] == "build")
    assert (build["runs"], build["why"]) == (True, "the revision changed")


def test_a_dirty_checkout_is_marked(clone: Application) -> None:
    """What was built from files that nobody has committed says so wherever its commit is shown."""
    clone.edit("app/routes.py", '"Healthy"', '"Healthy, and dirty"')
    done = clone.ok("build")
    commit = clone.git("rev-parse", "HEAD")
    assert f"{commit[:12]}-dirty" in done.out
    record = json.loads(
        (clone.folder / ".twinship" / "records" / "app.json").read_text(encoding="utf-8")
    )
    assert record["commit"] == {"revision": commit, "dirty": True}


@pytest.mark.parametrize(
    ("damage", "variables", "words"),
    [
        (lambda folder: (folder / ".git" / "index").write_bytes(b"nonsense"), {}, "index"),
        (lambda folder: None, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "safe.directory"),
    ],
    ids=["a damaged one", "somebody else's"],
)
def test_a_repository_that_git_will_not_read_is_told(
    clone: Application, damage: Callable[[Path], object], variables: dict[str, str], words: str
) -> None:
    """It is not taken for none; git's own words are shown."""
    damage(clone.folder)
    refuses(clone, 10, "git cannot read this repository", words, task=("release",), **variables)


# --- an engine whose disk is full, on which the application itself serves


def test_an_engine_without_space_keeps_what_serves(victim: Application) -> None:
    """A real engine with a small disk: whatever a release gets to before the disk is full, the one before serves on."""
    with small_engine("900m") as engine:
        there = replace(victim, under=engine.within)
        at = {"DOCKER_HOST": engine.host}
        there.ok("release", "--model", "@1", **at)
        first = serves(there, engine)

        engine.fill(left=4 << 20)
        refuses(there, 74, "the engine has no space left", task=("release", "--model", "@2"), **at)
        assert serves(there, engine) == first

        engine.fill(left=200 << 20)
        there.ok("release", "--model", "@2", **at)
        second = serves(there, engine)
        assert second != first
        for left in (0, 60_000):
            engine.fill(left)
            done = there.invoke("release", "--model", "@1", **at)
            if done.code:
                told(done, 74, "no space left")
            assert serves(there, engine) == (second if done.code else first)

        engine.fill(left=200 << 20)
        there.ok("release", "--model", "@1", **at)
        assert serves(there, engine) == first
        there.ok("verify", **at)


def serves(application: Application, engine: SmallEngine) -> str:
    """The digest of the release that serves, as it should, on an engine."""
    status = application.ok("status", "--json", DOCKER_HOST=engine.host).json
    assert status["healthy"], status
    return str(status["serving"]["digest"])


# --- after all of that


def test_what_served_at_first_serves_at_last(victim: Application, load: Load) -> None:
    """One attempt is in the history, its answers were the only ones, and the next release finds everything in order."""
    (only,) = victim.ok("history", "--json").json
    assert (only["id"], only["outcome"]) == (1, "succeeded")
    assert set(load.models) == {only["model_digest"]}
    assert len(load.answers) > 100
    done = victim.ok("release", "--model", "@1", "--json").json
    assert (done["changed"], done["model"]) == (False, "imagenet@1")
    assert not list((victim.home / "tmp").iterdir())
