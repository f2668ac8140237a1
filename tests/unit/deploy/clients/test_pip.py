"""Failures of pip become errors of this project; `pip` is a script here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import progress
from deploy.clients import pip
from deploy.errors import DiskFull, WheelsUnavailable
from tests.fakes.programs import write_program

Install = Callable[[str], None]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Write a lock file of one package, without a hash."""
    path = tmp_path / "requirements.txt"
    path.write_text("plain-thing==1.0\n", encoding="utf-8")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return a folder for wheels that does not exist yet."""
    return tmp_path / "temporary" / "wheels"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a shell script in place of this interpreter's `pip download`."""
    real = sys.executable

    def write(script: str) -> None:
        program = tmp_path / "python"
        write_program(program, f'if [ "$3" = config ]; then exec {real} "$@"; fi\n{script}')
        monkeypatch.setattr(sys, "executable", str(program))

    return write


def download(lock: Path, target: Path) -> None:
    """Download the packages of a lock file."""
    pip.download_locked(
        lock,
        target,
        python="3.13",
        platforms=["manylinux_2_17_x86_64", "any"],
        on="the lock file",
    )


class InterruptingDisplay(progress.QuietDisplay):
    """A display whose user presses Ctrl-C at the first line."""

    def report(self, text: str) -> None:
        raise KeyboardInterrupt


def test_a_failed_download_shows_the_end_of_the_output(
    lock: Path, target: Path, install: Install
) -> None:
    """The error names the lock file."""
    install("for i in $(seq 100); do echo line $i; done; exit 1")
    with pytest.raises(WheelsUnavailable) as caught:
        download(lock, target)
    assert caught.value.on == "the lock file"
    assert caught.value.detail.splitlines() == [f"  line {number}" for number in range(93, 101)]


def test_pip_gets_every_platform(
    lock: Path, target: Path, tmp_path: Path, install: Install
) -> None:
    """A wheel may have any of them."""
    install(f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    download(lock, target)
    words = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert words[:3] == ["-m", "pip", "download"]
    assert words[-2:] == ["--platform=manylinux_2_17_x86_64", "--platform=any"]
    assert {"--require-hashes", "--python-version=3.13"} <= set(words)


def test_a_download_ends_with_the_process_that_wants_it(
    lock: Path, target: Path, tmp_path: Path, install: Install
) -> None:
    """A signal to this process alone does not reach pip."""
    number = tmp_path / "number"
    install(f"echo $$ >{number}\necho Collecting\nexec sleep 60")
    with progress.use_display(InterruptingDisplay()), pytest.raises(KeyboardInterrupt):
        download(lock, target)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text(encoding="utf-8")), 0)


def test_a_full_disk_is_not_taken_for_a_missing_network(
    lock: Path, target: Path, install: Install
) -> None:
    """Pip fails as for any other reason; its message tells, and the error names the folders."""
    install(
        """echo "OSError: [Errno 28] No space left on device: 'a.whl'"\necho and more\nexit 2"""
    )
    with pytest.raises(DiskFull) as caught:
        download(lock, target)
    assert str(target.parent) in caught.value.on


@pytest.fixture
def variables(
    lock: Path, target: Path, tmp_path: Path, install: Install
) -> Callable[[], dict[str, str]]:
    """Return a function that runs a download and returns the variables of pip in it."""
    install(f"env | grep ^PIP_ >{tmp_path}/variables")

    def run() -> dict[str, str]:
        download(lock, target)
        lines = (tmp_path / "variables").read_text(encoding="utf-8").splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    return run


def test_pip_gets_only_the_variables_that_say_from_where_it_downloads(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would put files elsewhere, take other ones, or refuse to run."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    wanted = {"PIP_INDEX_URL": "https://user:pass@mirror.example/simple", "PIP_CERT": "/ca.pem"}
    others = ("TARGET", "USER", "REQUIREMENT", "NO_BINARY", "CONSTRAINT", "PLATFORM", "ABI")
    for name, value in (wanted | {f"PIP_{name}": "1" for name in others}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "true")
    assert variables() == wanted | {"PIP_CONFIG_FILE": os.devnull}


def test_pip_gets_the_same_of_its_configuration_files(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables go before files, and the section of the command before the one for all."""
    folder = Path.home() / ".config" / "pip"
    folder.mkdir(parents=True)
    (folder / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nrequire-virtualenv = true\n"
        "timeout = 7\nretries = 1\nno-binary = :all:\n"
        "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
        "[install]\nproxy = http://not.example:1\n[download]\nretries = 2\nconstraint = c.txt\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    monkeypatch.setenv("PIP_INDEX_URL", "")
    found = variables()
    assert "PIP_EXTRA_INDEX_URL" in found
    assert {name: found[name] for name in ("PIP_INDEX_URL", "PIP_TIMEOUT", "PIP_RETRIES")} == {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_TIMEOUT": "9",
        "PIP_RETRIES": "2",
    }
    ignored = ("PROXY", "NO_BINARY", "CONSTRAINT", "REQUIRE_VIRTUALENV")
    assert not {f"PIP_{name}" for name in ignored} & found.keys()
    assert found["PIP_CONFIG_FILE"] == os.devnull


def test_a_damaged_configuration_of_pip_is_its_own_error(
    lock: Path, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pip's message names the file."""
    (tmp_path / "pip.conf").write_text("nonsense\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(WheelsUnavailable) as caught:
        download(lock, target)
    assert str(tmp_path / "pip.conf") in caught.value.detail
