"""A copy of an application as a user would have it.

It has a git checkout, a configuration, a cache, a store and a port of its own.
"""

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
    """A task that must succeed has failed; its output is in the message."""


@dataclass(frozen=True)
class TaskResult:
    """The result of a task."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The task's output for scripts."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Application:
    """A checkout in a folder, released under a name of its own.

    Args:
        folder: the folder of its pipeline.toml, in the checkout.
        home: the folder of its cache.
        name: the application's name.
        port: the port of the proxy.
        under: words before each command, to run it with other rights or in another place.
    """

    folder: Path
    home: Path
    name: str
    port: int
    under: tuple[str, ...] = ()

    @classmethod
    def create(cls, folder: Path, within: str = "") -> Application:
        """Create a checkout below a folder, with one commit.

        Args:
            folder: an empty folder.
            within: the folder of another application of this repository, instead of the sample.
        """
        checkout = folder / "checkout"
        application = cls(checkout / within, folder / "home", f"e2e-{uuid4().hex[:8]}", free_port())
        for name in (*_SUITE, *([within] if within else _SAMPLE)):
            _copy(ROOT / name, checkout / name)
        application.set("app", "name", f'"{application.name}"')
        application.set("environments.local", "port", str(application.port))
        application.git("init", "-q", "-b", "main", str(checkout))
        application.commit("first")
        return application

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def git(self, *arguments: str) -> str:
        """Run git in the checkout."""
        identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.invalid")
        command = ("git", *identity, *arguments)
        completed = subprocess.run(  # noqa: S603 - a fixed command
            command, cwd=self.folder, capture_output=True, text=True, check=True
        )
        return completed.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything; return the revision."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a part of a file, which must exist."""
        text = (self.folder / path).read_text(encoding="utf-8")
        if old not in text:
            raise LookupError(f"{path} has no {old!r}")
        (self.folder / path).write_text(text.replace(old, new), encoding="utf-8")

    def set(self, section: str, key: str, value: str) -> None:
        """Write a setting, which must exist, into pipeline.toml."""
        path = self.folder / "pipeline.toml"
        pattern = (
            rf"(?m)(^\[{re.escape(section)}\]\n(?:[^\[\n].*\n|\n)*?{key} = )[^\n#]*?(?= *(?:#|$))"
        )
        text, found = re.subn(pattern, rf"\g<1>{value}", path.read_text(encoding="utf-8"))
        if found != 1:
            raise LookupError(f"pipeline.toml has no {section}.{key}")
        path.write_text(text, encoding="utf-8")

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a task in a process group of its own."""
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

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task and return its result."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=600)
        return TaskResult(process.returncode, out, err)

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task that must succeed.

        Raises:
            TaskFailed: the task failed.
        """
        result = self.invoke(*arguments, **variables)
        if result.code:
            output = f"{result.out}\n{result.err}"
            raise TaskFailed(f"invoke {' '.join(arguments)} ended with {result.code}\n{output}")
        return result

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> str:
        """Kill a task and all its processes, if it still runs; return what it had printed."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return "".join(process.communicate())

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the application's JSON response to a GET request."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:  # noqa: S310 - an address of this machine
            return json.load(response)

    def post(self, path: str, body: bytes) -> Any:  # noqa: ANN401 - JSON
        """Return the application's JSON response to a JSON document."""
        request = urllib.request.Request(  # noqa: S310 - as above
            self.url + path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return json.load(response)

    def top(self, picture: str) -> str:
        """Return the first label that the application gives a picture of the sample."""
        return str(self.post("/score", self.score_request(picture))["result"][0][0][0][0])

    @staticmethod
    def score_request(picture: str) -> bytes:
        """Return the body of a request that scores a picture."""
        data = base64.b64encode((ROOT / "sample" / "pictures" / picture).read_bytes()).decode()
        return json.dumps({"input": json.dumps([data])}).encode()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".twinship")
    shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy2(
        source, target
    )


def free_port() -> int:
    """Return a port on which no process listens, and which no other process of ours gets meanwhile.

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
