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
    """Put a shell script in place of this interpreter and its pip."""

    def write(script: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return write


def download(lock: Path, target: Path) -> None:
    """Download the packages of a lock file."""
    pip.download_locked(lock, target, python="3.13", platforms=["manylinux_2_17_x86_64", "any"])


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
    assert caught.value.on == str(lock)
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
