"""The traces of faults of the program: files for its authors, without secrets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.cli.traces import explain_fault, write_trace

LOCAL = "a local variable"


def fail(secret: str) -> Exception:
    """Return an error that was raised where a variable has a secret, with a cause."""
    message = f"no response from https://ada:{secret}@registry.example/v2/?sig={secret} for {LOCAL}"
    try:
        disconnect(message)
    except LookupError as error:
        return error
    return ValueError("nothing was raised")


def disconnect(message: str) -> None:
    """Raise an error with a cause."""
    held = message.upper()
    try:
        raise ConnectionError(message)  # noqa: TRY301 - the error needs a cause
    except ConnectionError as cause:
        raise LookupError(len(held)) from cause


def test_a_trace_has_the_lines_and_the_causes(tmp_path: Path) -> None:
    """Authors find the place."""
    text = write_trace(fail("s3cr3t"), tmp_path / "new" / "traces", {}).read_text(encoding="utf-8")
    assert "ConnectionError: no response from https://" in text
    assert "LookupError: " in text
    assert "in disconnect" in text


def test_a_trace_has_no_secret(tmp_path: Path) -> None:
    """Values of variables, of either kind, and logins and queries of URLs stay private."""
    environ = {"REGISTRY_PASSWORD": "s3cr3t", "HOME": "/home/ada", "TOKEN": ""}
    text = write_trace(fail("s3cr3t"), tmp_path, environ).read_text(encoding="utf-8")
    assert "s3cr3t" not in text.lower()
    assert "/home/ada" not in text
    assert "https://***@registry.example/v2/?*** for" in text


def test_a_trace_has_no_part_of_a_secret(tmp_path: Path) -> None:
    """One secret may begin like another, and a password in a URL may have an @."""
    error = ValueError("s3cr3t of https://ada:p@ss@registry.example/v2/")
    environ = {"A_TOKEN": "s3cr", "B_TOKEN": "s3cr3t"}
    text = write_trace(error, tmp_path, environ).read_text(encoding="utf-8")
    assert "ValueError: … of https://***@registry.example/v2/" in text


def test_only_its_user_can_read_a_trace(tmp_path: Path) -> None:
    """A message may have what concerns no other user."""
    path = write_trace(fail("x"), tmp_path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_trace_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Processes that run at once do not overwrite each other's."""
    assert write_trace(fail("x"), tmp_path, {}) != write_trace(fail("x"), tmp_path, {})


def test_a_trace_that_cannot_be_written_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is still explained."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("TWINSHIP_HOME", str(file))
    error = explain_fault(ZeroDivisionError())
    assert error.what == "this program has a fault: ZeroDivisionError"
    assert error.on.startswith("no trace could be written: ")


def test_a_user_without_a_home_folder_gets_the_fault_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no cache for the trace then."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TWINSHIP_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    error = explain_fault(ZeroDivisionError())
    assert error.what == "this program has a fault: ZeroDivisionError"
    assert error.on.startswith("no trace could be written: this user has no home folder")
