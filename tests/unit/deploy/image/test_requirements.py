"""The lines of a lock file are chosen for the image's Python, not for the one that runs this."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import WheelsUnavailable
from deploy.image.requirements import select_requirements

HASH = f"--hash=sha256:{'0' * 64}"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Return the path of a lock file."""
    return tmp_path / "requirements.txt"


def select(lock: Path, text: str, python: str = "3.13", platform: str = "linux/amd64") -> list[str]:
    """Return the lines of a lock file with that text that an image needs."""
    lock.write_text(text, encoding="utf-8")
    return select_requirements(lock, python, platform).splitlines()


@pytest.mark.parametrize(
    ("marker", "python", "platform", "is_needed"),
    [
        ('python_full_version >= "3.12"', "3.13", "linux/amd64", True),
        ('python_full_version >= "3.12"', "3.11", "linux/amd64", False),
        ("python_version < '3.9'", "3.10", "linux/amd64", False),
        ("python_version >= '3.9'", "3.10", "linux/amd64", True),
        ("python_version in '3.12 3.13'", "3.12", "linux/amd64", True),
        ('platform_machine == "aarch64"', "3.13", "linux/arm64", True),
        ('platform_machine == "aarch64"', "3.13", "linux/amd64", False),
        ('sys_platform == "linux" and os_name == "posix"', "3.13", "linux/amd64", True),
        ('sys_platform == "win32" or platform_system == "Darwin"', "3.13", "linux/amd64", False),
        ("platform_python_implementation != 'PyPy'", "3.13", "linux/amd64", True),
        ("implementation_name == 'pypy'", "3.13", "linux/amd64", False),
        ('extra == "test"', "3.13", "linux/amd64", False),
    ],
)
def test_a_marker_is_evaluated_for_the_image(
    lock: Path, marker: str, python: str, platform: str, is_needed: bool
) -> None:
    """What is needed has no marker any more, so that pip does not evaluate it again."""
    lines = select(lock, f"thing[fast]==1.0 ; {marker} \\\n    {HASH}\n", python, platform)
    assert lines == ([f"thing[fast]==1.0 {HASH}"] if is_needed else [])


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        ('python_full_version >= "3.13.2"', "the patch of Python 3.13"),
        ('python_full_version == "3.13.7"', "the patch of Python 3.13"),
        ('implementation_version < "3.13.7"', "the patch of Python 3.13"),
        ('platform_release >= "6"', "the kernel"),
        ('"Ubuntu" in platform_version', "the kernel"),
        ('python_version ~= "three"', "cannot be evaluated"),
    ],
)
def test_a_marker_whose_value_is_not_known_is_refused(lock: Path, marker: str, reason: str) -> None:
    """The error names the lock file, the marker and the reason."""
    with pytest.raises(WheelsUnavailable) as caught:
        select(lock, f"thing==1.0 ; {marker} {HASH}\n")
    assert caught.value.on == str(lock)
    assert reason in caught.value.detail


def test_other_lines_stay_as_they_are(lock: Path) -> None:
    """Pip reads them, or says what it cannot read."""
    text = (
        "# a comment\n--index-url https://example.com/simple\n\n"
        f"thing==1.0 {HASH}  # via other\n./local-1.0-py3-none-any.whl {HASH}\n"
        f"named @ https://example.com/named-1.0.whl ; python_version >= '3' {HASH}\n"
    )
    assert select(lock, text) == [
        "--index-url https://example.com/simple",
        f"thing==1.0 {HASH}",
        f"./local-1.0-py3-none-any.whl {HASH}",
        f"named @ https://example.com/named-1.0.whl {HASH}",
    ]


def test_a_lock_may_include_another(lock: Path) -> None:
    """Its path is relative to the file that names it."""
    (lock.parent / "more").mkdir()
    (lock.parent / "more" / "base.txt").write_text(
        f"-r deep.txt\nbase==1 ; python_version < '3.12' {HASH}\n", encoding="utf-8"
    )
    (lock.parent / "more" / "deep.txt").write_text(f"deep==1 {HASH}\n", encoding="utf-8")
    assert select(lock, "-r more/base.txt\n-c limits.txt\n") == [
        f"deep==1 {HASH}",
        f"--constraint={lock.parent / 'limits.txt'}",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"-r absent.txt\n", "absent.txt"),
        (b"-r requirements.txt\n", "recursion"),
        (b"-r .\n", "directory"),
        (b"-r a\0b\n", "null"),
        (b"# caf\xe9\n", "utf-8"),
    ],
)
def test_a_lock_that_cannot_be_read_is_refused(lock: Path, content: bytes, reason: str) -> None:
    """So is one that names such a file, or itself."""
    lock.write_bytes(content)
    with pytest.raises(WheelsUnavailable, match="cannot be read") as caught:
        select_requirements(lock, "3.13", "linux/amd64")
    assert caught.value.on == str(lock)
    assert reason in caught.value.detail
