"""Builds with a real buildx, where the docker command line has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.archive import pack_files
from deploy.clients.docker import buildkit
from deploy.clients.docker.client import DockerEngine

pytestmark = pytest.mark.integration

BUILDX = ("docker", "buildx")


@pytest.fixture
def chosen_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose a builder in a container of its own, as CI systems do."""
    if subprocess.run([*BUILDX, "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the docker command line has no buildx; Debian's package is docker-buildx")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    create = (*BUILDX, "create", "--driver=docker-container", "--name=of-ci", "--use")
    subprocess.run(create, capture_output=True, check=True)
    monkeypatch.setenv("BUILDX_BUILDER", "of-ci")
    return "of-ci"


@pytest.mark.usefixtures("chosen_builder")
def test_a_builder_that_ci_has_chosen_is_not_used(
    engine: DockerEngine, prefix: str, parts_image: str, tmp_path: Path
) -> None:
    """It would not see the base image, which only the engine has."""
    lines: list[str] = []
    dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY hello /hello\n"
    files = {"Dockerfile": dockerfile.encode(), "hello": prefix.encode()}
    with (tmp_path / "context.tar").open("w+b") as file:
        buildkit.build(
            pack_files(files, file),
            dockerfile="Dockerfile",
            args={"BASE": parts_image},
            tag=f"{prefix}:built",
            on_line=lines.append,
        )
    assert engine.image_id(f"{prefix}:built")
    assert not [line for line in lines if "moby/buildkit" in line]
