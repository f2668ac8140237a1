"""The served application under load, next to two usual servers with the same model, in turns.

All run in containers of one image on this machine, and are reached over published ports of the
loopback address.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import statistics
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from bench.application import ROOT, Application, free_port
from bench.figures import Burst, Served
from bench.load import Load, summarise
from bench.sandbox import BENCH_LABEL, Sandbox
from deploy.clients.docker.protocol import Spec
from deploy.settings.environments import Docker
from deploy.targets.docker.proxy import Proxy

log = logging.getLogger(__name__)

CAMERA = (4000, 3000)
_NOISE = 12.0
_QUALITY = 92
_PLAIN = Path(__file__).with_name("plain.py")
_PLAIN_PORT = 8000
_APP_PORT = 8080
_COMMANDS = {
    "gunicorn, one sync worker": (
        "gunicorn",
        "--chdir",
        "/bench",
        "-w",
        "1",
        "-b",
        f"0.0.0.0:{_PLAIN_PORT}",
        "plain:app",
    ),
    "Flask's development server": (
        "flask",
        "--app",
        "/bench/plain.py",
        "run",
        "--host",
        "0.0.0.0",  # noqa: S104 - in a container
        "--port",
        f"{_PLAIN_PORT}",
    ),
}
# What these servers need and the image does not have. All of it runs from a zip file.
_PACKAGES = ("blinker", "flask", "gunicorn", "itsdangerous", "jinja2", "markupsafe", "werkzeug")
_START_TIMEOUT = 60.0
_WARM_UP = 2


@dataclass(frozen=True)
class Server:
    """A server that answers /score; `only` prepares the number of replicas for the next load."""

    name: str
    port: int
    only: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        clients: the numbers of clients.
        seconds: the length of each burst.
        turns: the number of bursts of each kind.
    """

    clients: tuple[int, ...]
    seconds: float
    turns: int


def measure(sandbox: Sandbox, plan: Plan) -> tuple[Served, ...]:
    """Put the same loads on every server.

    Args:
        sandbox: its application serves the sample model.
        plan: the extent of the load.
    """
    bodies = {
        "small JPEG, 256 x 256": Application.score_request("coffee.jpg"),
        "camera JPEG, 4000 x 3000": score_request(camera_picture()),
    }
    with _servers(sandbox) as servers:
        return tuple(
            result
            for picture, body in bodies.items()
            for result in _bursts(servers, picture, body, plan)
        )


def _bursts(servers: Sequence[Server], picture: str, body: bytes, plan: Plan) -> Iterator[Served]:
    for clients in plan.clients:
        bursts: dict[str, list[Burst]] = {server.name: [] for server in servers}
        for turn in range(plan.turns):
            for server in servers if turn % 2 else reversed(servers):
                server.only()
                _warm(server, body)
                bursts[server.name].append(burst(server.port, body, clients, plan.seconds))
        for server in servers:
            result = Served(
                server=server.name,
                picture=picture,
                body=len(body),
                clients=clients,
                bursts=tuple(bursts[server.name]),
            )
            rate = statistics.median(item.rate for item in result.bursts)
            log.info("    %s, %s, %d clients: %.1f a second", server.name, picture, clients, rate)
            yield result


def _warm(server: Server, body: bytes) -> None:
    with Load("127.0.0.1", server.port, body, clients=1, pause=0.0) as load:
        while len(load.answers) < _WARM_UP:
            time.sleep(0.005)


def burst(port: int, body: bytes, clients: int, seconds: float) -> Burst:
    """Return the figures of clients that send as fast as they get responses, for some seconds."""
    started = time.monotonic()
    with Load("127.0.0.1", port, body, clients=clients, pause=0.0) as load:
        time.sleep(seconds)
    return summarise(load.answers, time.monotonic() - started)


@contextmanager
def _servers(sandbox: Sandbox) -> Iterator[tuple[Server, ...]]:
    """Yield the proxy, and next to it containers of the image that serves there."""
    image = sandbox.replicas()[0].image
    replicas = sandbox.settings.environment("local").replicas
    proxy = Proxy(sandbox.engine, sandbox.proxy().id)
    slots = [number for number, slot in proxy.slots().items() if slot.admitted]
    labels = {BENCH_LABEL: sandbox.label, "dev.twinship.bench.kind": "server"}
    ports = {name: free_port() for name in ("one replica, no proxy", *_COMMANDS)}
    try:
        for name, port in ports.items():
            _start(sandbox, image, labels, name, port)
        for port in ports.values():
            _wait(port)
        yield (
            Server(
                f"proxy, {replicas} replicas",
                sandbox.application.port,
                lambda: _admit(proxy, slots, len(slots)),
            ),
            Server("proxy, 1 replica", sandbox.application.port, lambda: _admit(proxy, slots, 1)),
            *(Server(name, port) for name, port in ports.items()),
        )
    finally:
        _admit(proxy, slots, len(slots))
        sandbox.engine.remove_labelled(labels)


def _admit(proxy: Proxy, slots: Sequence[int], count: int) -> None:
    """Admit requests to that many of the slots."""
    for index, slot in enumerate(slots):
        proxy.admit(slot, "ready" if index < count else "drain")


def _start(sandbox: Sandbox, image: str, labels: dict[str, str], name: str, port: int) -> None:
    served = _COMMANDS.get(name)
    command = ("env", "PYTHONPATH=/bench/packages.zip", "python", "-m", *served) if served else ()
    unique = f"twinship-bench-{sandbox.label}-{port}"
    sandbox.engine.ensure_volume(unique, labels)
    inside = _PLAIN_PORT if command else _APP_PORT
    spec = Spec(
        name=unique,
        image=image,
        labels=labels,
        command=command,
        network="bridge",
        ports={inside: ("127.0.0.1", port)},
        volumes={unique: ("/bench", False)},
        limits=Docker().limits(0),
    )
    container = sandbox.engine.create(spec)
    sandbox.engine.put_file(container.id, "/bench/plain.py", _PLAIN.read_bytes())
    sandbox.engine.put_file(container.id, "/bench/packages.zip", _packages())
    sandbox.engine.start(container.id)


def _packages() -> bytes:
    """Return a zip file of the packages of the usual servers, as they are installed here."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        files = [path for name in _PACKAGES for path in metadata.files(name) or []]
        wanted = [path for path in files if path.suffix == ".py" or path.name == "METADATA"]
        # A package without `__init__.py` is only found if its folder is an entry.
        for folder in {path.parent for path in wanted}:
            packed.mkdir(str(folder))
        for path in wanted:
            packed.write(path.locate(), str(path))
    return target.getvalue()


def _wait(port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"no server started on port {port}")


def camera_picture() -> bytes:
    """Return a picture with the size and weight of a 12-megapixel camera's.

    It is the sample's coffee, enlarged, with the noise of a sensor.
    """
    with Image.open(ROOT / "sample" / "pictures" / "coffee.jpg") as small:
        large = np.asarray(small.resize(CAMERA, Image.Resampling.BICUBIC), np.float32)
    noise = (
        np.random.default_rng(1)
        .normal(0.0, _NOISE, (CAMERA[1] // 2, CAMERA[0] // 2, 1))
        .astype(np.float32)
    )
    noisy = large + noise.repeat(2, axis=0).repeat(2, axis=1)
    target = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()


def score_request(picture: bytes) -> bytes:
    """Return the body of a request that scores a picture."""
    return json.dumps({"input": json.dumps([base64.b64encode(picture).decode()])}).encode()
