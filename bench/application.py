"""A copy of an application as a user would have it: a git checkout, a configuration, a cache, a store and a port of its own."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).parents[1]
_SUITE = ("deploy", "tasks.py", ".gitignore")
_SAMPLE = ("app", "sample", "Dockerfile", "pipeline.toml", ".dockerignore")


class TaskFailed(Exception):
    """A task that must succeed did not; what it said is in the text."""


@dataclass(frozen=True)
class Done:
    """How a task ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """What it printed for scripts."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Application:
    """A checkout in a folder, released under a name of its own.

    Args:
        folder: where its pipeline.toml is, in the checkout.
        home: the cache of this "machine".
        port: the front door's.
        under: words before every command, for one that is run with other rights or in another place.
    """

    folder: Path
    home: Path
    name: str
    port: int
    under: tuple[str, ...] = ()

    @classmethod
    def made(cls, folder: Path, within: str = "") -> Application:
        """A new checkout below a folder, with one commit.

        Args:
            folder: an empty one.
            within: the folder of another application of this repository, instead of the sample's.
        """
        checkout = folder / "checkout"
        made = cls(checkout / within, folder / "home", f"e2e-{uuid4().hex[:8]}", free_port())
        for name in (*_SUITE, *([within] if within else _SAMPLE)):
            _copy(ROOT / name, checkout / name)
        made.set("app", "name", f'"{made.name}"')
        made.set("environments.local", "port", str(made.port))
        made.git("init", "-q", "-b", "main", str(checkout))
        made.commit("first")
        return made

    @property
    def url(self) -> str:
        """The front door."""
        return f"http://127.0.0.1:{self.port}"

    def git(self, *arguments: str) -> str:
        """Runs git in the checkout."""
        identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.invalid")
        command = ("git", *identity, *arguments)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)  # noqa: S603 - our own words
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commits everything; returns the revision."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces a piece of a file, which must be there."""
        text = (self.folder / path).read_text(encoding="utf-8")
        if old not in text:
            raise LookupError(f"{path} has no {old!r}")
        (self.folder / path).write_text(text.replace(old, new), encoding="utf-8")

    def set(self, section: str, key: str, value: str) -> None:
        """Writes a setting, which must be there, into pipeline.toml."""
        path = self.folder / "pipeline.toml"
        wanted = (
            rf"(?m)(^\[{re.escape(section)}\]\n(?:[^\[\n].*\n|\n)*?{key} = )[^\n#]*?(?= *(?:#|$))"
        )
        text, found = re.subn(wanted, rf"\g<1>{value}", path.read_text(encoding="utf-8"))
        if found != 1:
            raise LookupError(f"pipeline.toml has no {section}.{key}")
        path.write_text(text, encoding="utf-8")

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Starts a task as a person would, in a process group of its own."""
        command = [*self.under, sys.executable, "-m", "invoke", *arguments]
        environment = {**os.environ, "TWINSHIP_HOME": str(self.home), **variables}
        return subprocess.Popen(  # noqa: S603 - the suite's own tasks
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def invoke(self, *arguments: str, **variables: str) -> Done:
        """Runs a task to its end."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=600)
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str, **variables: str) -> Done:
        """Runs a task that must succeed.

        Raises:
            TaskFailed: it did not.
        """
        done = self.invoke(*arguments, **variables)
        if done.code:
            raise TaskFailed(
                f"invoke {' '.join(arguments)} ended with {done.code}\n{done.out}\n{done.err}"
            )
        return done

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> str:
        """Kills a task and all it started, at once; returns what it had said."""
        os.killpg(process.pid, signal.SIGKILL)
        return "".join(process.communicate())

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """A JSON answer of the front door."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:  # noqa: S310 - an address of this machine
            return json.load(response)

    def post(self, path: str, body: bytes) -> Any:  # noqa: ANN401 - JSON
        """The front door's JSON answer to a JSON document."""
        request = urllib.request.Request(  # noqa: S310 - as above
            self.url + path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return json.load(response)

    def top(self, picture: str) -> str:
        """The first label that the front door gives a picture of the sample."""
        return str(self.post("/score", self.scored(picture))["result"][0][0][0][0])

    @staticmethod
    def scored(picture: str) -> bytes:
        """The body of a request that has a picture scored."""
        data = base64.b64encode((ROOT / "sample" / "pictures" / picture).read_bytes()).decode()
        return json.dumps({"input": json.dumps([data])}).encode()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns("__pycache__", "*.pyc", ".twinship")
    shutil.copytree(source, target, ignore=left_out) if source.is_dir() else shutil.copy2(
        source, target
    )


def free_port() -> int:
    """Return a port on which nobody listens, and which no other process of ours gets meanwhile.

    It may take a while until something listens there, and several tests run at a time. So this
    process keeps the UDP port of the same number, which stands for the TCP port between them.
    """
    while True:
        with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as kept:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with suppress(OSError):
                kept.bind(("127.0.0.1", port))
                kept.detach()
                return port
