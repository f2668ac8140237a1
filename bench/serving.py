"""The served application under load, beside two servers of the usual kind with the same model, in turns.

All run in containers of one image on this machine and are reached over published ports of the loopback address.
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
from bench.ground import BENCH, Ground
from bench.load import Load, summed
from deploy.clients.docker.protocol import Spec
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
# What these servers need and the image does not have. All of it works as plain Python, from a zip file.
_PACKAGES = ("blinker", "flask", "gunicorn", "itsdangerous", "jinja2", "markupsafe", "werkzeug")
_WITHIN = 60.0
_WARM_UP = 2


@dataclass(frozen=True)
class Server:
    """Something that answers /score. `only` makes the next load reach as many replicas as it shall."""

    name: str
    port: int
    only: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Plan:
    """How much load: clients at once, seconds of each burst, and how many bursts of each kind."""

    clients: tuple[int, ...]
    seconds: float
    turns: int


def loaded(ground: Ground, plan: Plan) -> tuple[Served, ...]:
    """Puts every server under the same loads.

    Args:
        ground: its application serves the sample model.
        plan: how much load.
    """
    bodies = {
        "small JPEG, 256 x 256": Application.scored("coffee.jpg"),
        "camera JPEG, 4000 x 3000": body_of(camera()),
    }
    with _servers(ground) as servers:
        return tuple(
            found
            for picture, body in bodies.items()
            for found in _under(servers, picture, body, plan)
        )


def _under(servers: Sequence[Server], picture: str, body: bytes, plan: Plan) -> Iterator[Served]:
    for clients in plan.clients:
        bursts: dict[str, list[Burst]] = {server.name: [] for server in servers}
        for turn in range(plan.turns):
            for server in servers if turn % 2 else reversed(servers):
                server.only()
                _warm(server, body)
                bursts[server.name].append(burst(server.port, body, clients, plan.seconds))
        for server in servers:
            found = Served(
                server=server.name,
                picture=picture,
                body=len(body),
                clients=clients,
                bursts=tuple(bursts[server.name]),
            )
            rate = statistics.median(item.rate for item in found.bursts)
            log.info("    %s, %s, %d clients: %.1f a second", server.name, picture, clients, rate)
            yield found


def _warm(server: Server, body: bytes) -> None:
    with Load("127.0.0.1", server.port, body, clients=1, pause=0.0) as load:
        while len(load.answers) < _WARM_UP:
            time.sleep(0.005)


def burst(port: int, body: bytes, clients: int, seconds: float) -> Burst:
    """Has clients ask as fast as they are answered, for a while."""
    started = time.monotonic()
    with Load("127.0.0.1", port, body, clients=clients, pause=0.0) as load:
        time.sleep(seconds)
    return summed(load.answers, time.monotonic() - started)


@contextmanager
def _servers(ground: Ground) -> Iterator[tuple[Server, ...]]:
    """The front door as it is, and beside it containers of the image that serves there."""
    image = ground.replicas()[0].image
    replicas = ground.settings.environment("local").replicas
    door = Proxy(ground.engine, ground.door().id)
    slots = [number for number, slot in door.slots().items() if slot.admitted]
    labels = {BENCH: ground.label, "dev.twinship.bench.kind": "server"}
    ports = {name: free_port() for name in ("one replica, no proxy", *_COMMANDS)}
    try:
        for name, port in ports.items():
            _start(ground, image, labels, name, port)
        for port in ports.values():
            _wait(port)
        yield (
            Server(
                f"front door, {replicas} replicas",
                ground.application.port,
                lambda: _admit(door, slots, len(slots)),
            ),
            Server(
                "front door, 1 replica", ground.application.port, lambda: _admit(door, slots, 1)
            ),
            *(Server(name, port) for name, port in ports.items()),
        )
    finally:
        _admit(door, slots, len(slots))
        ground.engine.remove_labelled(labels)


def _admit(door: Proxy, slots: Sequence[int], count: int) -> None:
    """Lets requests into that many of the slots."""
    for index, slot in enumerate(slots):
        door.admit(slot, "ready" if index < count else "drain")


def _start(ground: Ground, image: str, labels: dict[str, str], name: str, port: int) -> None:
    command = (
        ("env", "PYTHONPATH=/bench/packages.zip", "python", "-m", *_COMMANDS[name])
        if name in _COMMANDS
        else ()
    )
    unique = f"twinship-bench-{ground.label}-{port}"
    ground.engine.ensure_volume(unique, labels)
    inside = _PLAIN_PORT if command else _APP_PORT
    spec = Spec(
        name=unique,
        image=image,
        labels=labels,
        command=command,
        network="bridge",
        ports={inside: ("127.0.0.1", port)},
        volumes={unique: ("/bench", False)},
    )
    made = ground.engine.create(spec)
    ground.engine.put_file(made.id, "/bench/plain.py", _PLAIN.read_bytes())
    ground.engine.put_file(made.id, "/bench/packages.zip", _packages())
    ground.engine.start(made.id)


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
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"no server came up on port {port}")


def camera() -> bytes:
    """A picture of the size and weight that a camera of 12 megapixels writes: the sample's coffee, enlarged, with a sensor's noise."""
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


def body_of(picture: bytes) -> bytes:
    """The request that has a picture scored."""
    return json.dumps({"input": json.dumps([base64.b64encode(picture).decode()])}).encode()
