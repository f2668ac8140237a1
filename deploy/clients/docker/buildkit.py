"""BuildKit, through the Docker command line: the SDK speaks to the classic builder only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import IO

from deploy.clients.docker.errors import build_error

_INTEGRATED_SINCE = (18, 9)
_SEPARATE_SINCE = (23, 0)


def find_command() -> list[str] | None:
    """How to build with BuildKit here, or None if the command line cannot."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    if _said(docker, "buildx", "version"):
        return [docker, "buildx", "build", "--load"]
    version = _said(docker, "version", "--format", "{{.Client.Version}}").split("+")[0].split(".")
    numbers = tuple(int(part) for part in version[:2] if part.isdecimal())
    # Between these versions the client brought BuildKit along; since then it is the buildx plug-in.
    return [docker, "build"] if _INTEGRATED_SINCE <= numbers < _SEPARATE_SINCE else None


def build(
    context: IO[bytes],
    *,
    dockerfile: str,
    args: Mapping[str, str],
    tag: str,
    said: Callable[[str], None],
) -> None:
    """Builds a context (a tar) and has the engine hold the image under a tag.

    Raises:
        BuildFailed: it did not build, or BuildKit is not here.
    """
    program = find_command()
    if program is None:
        raise build_error(
            dockerfile,
            [
                'the docker command line has no BuildKit; install docker-buildx or set builder = "classic" in [image]'
            ],
        )
    given = [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
    line = [
        *program,
        "--progress=plain",
        "--provenance=false",
        "-f",
        dockerfile,
        "-t",
        tag,
        *given,
        "-",
    ]
    if program[1] == "build":
        line.remove("--provenance=false")
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the user's own docker
        line,
        stdin=context,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for output in process.stdout:
            lines.append(output.rstrip())
            said(output.strip())
    if process.returncode != 0:
        raise build_error(dockerfile, lines)


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own docker
    return done.stdout.strip() if done.returncode == 0 or done.stdout.strip() else ""
