"""The search for BuildKit, and builds with it; `docker` is a script here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.clients.docker import buildkit
from deploy.errors import BuildFailed
from tests.fakes.programs import write_program

Install = Callable[..., None]

SCRIPT = """
case "$1 $2" in
"buildx version") {buildx} ;;
"version --format") {version} ;;
*)
    printf '%s\\n' "$@" > {folder}/arguments
    env | grep -E '^(DOCKER|BUILD)' > {folder}/variables
    cat > {folder}/context
    {build}
esac"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that puts a docker command line first on the path."""

    def write(
        version: str = "echo 20.10.24+dfsg1", buildx: str = "exit 1", build: str = "echo done"
    ) -> None:
        script = SCRIPT.format(version=version, buildx=buildx, build=build, folder=tmp_path)
        write_program(tmp_path / "docker", script)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return write


def build(on_line: Callable[[str], None] = lambda _: None) -> None:
    """Build an image."""
    with (Path(__file__)).open("rb") as context:
        buildkit.build(
            context,
            dockerfile="Dockerfile",
            args={"BASE": "debian@sha256:1", "EMPTY": ""},
            tag="one/two:three",
            on_line=on_line,
        )


@pytest.mark.parametrize(
    ("version", "buildx", "words"),
    [
        ("echo 17.12.1-ce", "exit 1", None),
        ("echo 18.06.3-ce", "exit 1", None),
        ("echo 18.09.0", "exit 1", ["build"]),
        ("echo 20.10.24+dfsg1", "exit 1", ["build"]),
        ("echo 23.0.0", "exit 1", None),
        ("echo 28.2.2", "exit 1", None),
        (
            "echo 28.2.2",
            "echo github.com/docker/buildx v0.13.1",
            ["buildx", "build", "--builder=default", "--load"],
        ),
        ("echo 20.10.24; echo 'cannot connect to the engine' >&2; exit 1", "exit 1", ["build"]),
        ("exit 1", "exit 1", None),
        ("echo nonsense", "exit 1", None),
    ],
)
def test_buildkit_is_found_in_the_client_or_its_plug_in(
    install: Install, version: str, buildx: str, words: list[str] | None
) -> None:
    """Some versions contain it, others have a plug-in; the engine need not run."""
    install(version, buildx)
    found = buildkit.find_command()
    assert (found[1:] if found else None) == words


def test_without_a_docker_command_line_there_is_no_buildkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build names the package and the setting."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert buildkit.find_command() is None
    with pytest.raises(BuildFailed) as caught:
        build()
    assert "docker-buildx" in caught.value.detail
    assert "classic" in caught.value.detail


@pytest.mark.parametrize("buildx", ["exit 1", "echo v0.13.1"])
def test_a_build_gets_exactly_the_context_and_the_arguments(
    install: Install, tmp_path: Path, buildx: str
) -> None:
    """The context is the standard input; only the plug-in has the option for provenance."""
    install(buildx=buildx)
    build()
    words = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert (tmp_path / "context").read_bytes() == Path(__file__).read_bytes()
    assert words[-1] == "-"
    assert words[words.index("-t") + 1] == "one/two:three"
    assert words[words.index("-f") + 1] == "Dockerfile"
    assert [after for word, after in pairwise(words) if word == "--build-arg"] == [
        "BASE=debian@sha256:1",
        "EMPTY=",
    ]
    assert ("--provenance=false" in words) == (buildx != "exit 1")


@pytest.mark.parametrize("buildx", ["exit 1", "echo v0.13.1"])
def test_a_build_is_the_work_of_the_engines_own_builder(
    install: Install, tmp_path: Path, buildx: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another builder that a user or a CI system has chosen does not see the base image."""
    for name, value in {
        "DOCKER_HOST": "unix:///engine.sock",
        "DOCKER_CONTEXT": "another",
        "DOCKER_BUILDKIT": "0",
        "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
        "DOCKER_CONTENT_TRUST": "1",
        "BUILDX_BUILDER": "builder-of-ci",
        "BUILDX_CONFIG": str(tmp_path / "buildx"),
        "BUILDKIT_PROGRESS": "rawjson",
    }.items():
        monkeypatch.setenv(name, value)
    install(buildx=buildx)
    build()
    lines = (tmp_path / "variables").read_text(encoding="utf-8").splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert variables.pop("DOCKER_CONFIG") != str(tmp_path)
    assert variables == {"DOCKER_HOST": "unix:///engine.sock", "DOCKER_BUILDKIT": "1"}
    words = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert ("--builder=default" in words) == (buildx != "exit 1")


def test_the_output_of_a_build_is_reported(install: Install) -> None:
    """Each line is reported, also bytes that are not text."""
    install(build=r"printf '#1 first\n  #2 second\n\377\n'; echo third >&2")
    lines: list[str] = []
    build(lines.append)
    assert sorted(lines) == sorted(["#1 first", "#2 second", "\N{REPLACEMENT CHARACTER}", "third"])


def test_a_failed_build_shows_the_end_of_its_output(install: Install) -> None:
    """The first of many lines are left out."""
    install(build="for i in $(seq 100); do echo line $i; done; exit 7")
    with pytest.raises(BuildFailed) as caught:
        build()
    assert "line 100" in caught.value.detail
    assert "line 50\n" not in caught.value.detail
    assert caught.value.on == "Dockerfile"
