"""Builds with BuildKit through the Docker command line; the SDK has the classic builder only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import IO

from deploy.clients.docker.address import find_engine_address, program_variables
from deploy.clients.docker.errors import build_error
from deploy.clients.programs import run_program

_INTEGRATED_SINCE = (18, 9)
_SEPARATE_SINCE = (23, 0)


def find_command() -> list[str] | None:
    """Return the command that builds with BuildKit, or None if this machine has none."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    with program_variables(find_engine_address()) as variables:
        if _output_of(variables, docker, "buildx", "version"):
            # The engine's own builder: another one, in a container, does not see the base image.
            return [docker, "buildx", "build", "--builder=default", "--load"]
        output = _output_of(variables, docker, "version", "--format", "{{.Client.Version}}")
    version = output.split("+")[0].split(".")
    numbers = tuple(int(part) for part in version[:2] if part.isdecimal())
    # Between these versions the client contains BuildKit; later ones have it in the buildx plug-in.
    return [docker, "build"] if _INTEGRATED_SINCE <= numbers < _SEPARATE_SINCE else None


def build(
    context: IO[bytes],
    *,
    dockerfile: str,
    args: Mapping[str, str],
    tag: str,
    platform: str = "",
    on_line: Callable[[str], None],
) -> None:
    """Build an image and store it in the engine.

    Args:
        context: The build context, as a tar.
        dockerfile: The path of the Dockerfile in it.
        args: The build arguments.
        tag: The name of the image.
        platform: The platform of the image; the engine's own if empty.
        on_line: Receives each line of output.

    Raises:
        BuildFailed: The build failed, or this machine has no BuildKit.
    """
    program = find_command()
    if program is None:
        missing = (
            "the docker command line has no BuildKit; install docker-buildx "
            'or set builder = "classic" in [image]'
        )
        raise build_error(dockerfile, [missing])
    command = [
        *program,
        "--progress=plain",
        # The integrated BuildKit does not know this option.
        *(["--provenance=false"] if program[1] == "buildx" else []),
        *([f"--platform={platform}"] if platform else []),
        "-f",
        dockerfile,
        "-t",
        tag,
        *(word for item in args.items() for word in ("--build-arg", "=".join(item))),
        "-",
    ]
    with program_variables(find_engine_address()) as variables:
        done = run_program(
            command, on_line, stdin=context, environment={**variables, "DOCKER_BUILDKIT": "1"}
        )
    if done.exit_code != 0:
        raise build_error(dockerfile, done.lines)


def _output_of(variables: Mapping[str, str], *command: str) -> str:
    """Return what a program writes to its standard output, also if it fails."""
    done = subprocess.run(  # noqa: S603 - the user's own docker
        command, capture_output=True, text=True, check=False, env=variables
    )
    return done.stdout.strip()
