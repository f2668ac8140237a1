"""Locked packages are downloaded for the image's platform, once."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.errors import WheelsUnavailable
from deploy.image import wheels
from deploy.settings.image import Wheels

WANTED = Wheels(requirements="requirements.txt", python="3.13")
AMD64 = "linux/amd64"
ARM64 = "linux/arm64"
PLAIN = "plain_thing-1.0-py3-none-any.whl"
INTEL = "native_thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
ARM = "native_thing-1.0-cp313-cp313-manylinux2014_aarch64.whl"
OTHERS = (
    "native_thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "native_thing-1.0-cp313-cp313-musllinux_1_2_x86_64.whl",
    "native_thing-1.0-cp313-cp313-win_amd64.whl",
)


def wheel(folder: Path, name: str, more: str = "") -> str:
    """Create a wheel, with more metadata; return its hash in the form of a lock file."""
    project, version = name.split("-")[:2]
    tag = name.split("-", 2)[2].removesuffix(".whl")
    about = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{more}",
        )
        archive.writestr(
            f"{about}/WHEEL",
            f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        )
        archive.writestr(f"{about}/RECORD", "")
    return f"--hash=sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip use a folder of packages, and no index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def application(tmp_path: Path, index: Path) -> Path:
    """Create a folder with a lock file of two packages, one of them for several platforms."""
    folder = tmp_path / "application"
    folder.mkdir()
    hashes = " ".join(wheel(index, name) for name in (INTEL, ARM, *OTHERS))
    (folder / "requirements.txt").write_text(
        f"native-thing==1.0 {hashes}\nplain-thing==1.0 {wheel(index, PLAIN)}\n", encoding="utf-8"
    )
    return folder


def names(paths: tuple[Path, ...]) -> list[str]:
    """Return the file names."""
    return [path.name for path in paths]


@pytest.mark.parametrize(("platform", "native"), [(AMD64, INTEL), (ARM64, ARM)])
def test_wheels_are_for_the_image_and_not_for_this_machine(
    application: Path, cache: Cache, platform: str, native: str
) -> None:
    """The image's processor, Python and C library decide."""
    assert names(wheels.download_wheels(WANTED, application, platform, cache)) == [native, PLAIN]


def test_markers_are_for_the_image_and_not_for_this_machine(
    application: Path, index: Path, cache: Cache
) -> None:
    """A lock has lines for several versions of Python."""
    newer = "newer_thing-1.0-py3-none-any.whl"
    older = "older_thing-1.0-py3-none-any.whl"
    (application / "requirements.txt").write_text(
        f"newer-thing==1.0 ; python_version >= '3.99' {wheel(index, newer)}\n"
        f"older-thing==1.0 ; python_version < '3.99' {wheel(index, older)}\n",
        encoding="utf-8",
    )
    later = Wheels(requirements="requirements.txt", python="3.99")
    assert names(wheels.download_wheels(WANTED, application, AMD64, cache)) == [older]
    assert names(wheels.download_wheels(later, application, AMD64, cache)) == [newer]


def test_a_lock_may_have_nothing_for_an_image(application: Path, cache: Cache) -> None:
    """The build then gets an empty folder."""
    (application / "requirements.txt").write_text(
        "thing==1.0 ; sys_platform == 'win32'\n", encoding="utf-8"
    )
    assert wheels.download_wheels(WANTED, application, AMD64, cache) == ()


def test_what_a_package_requires_of_other_pythons_is_not_looked_for(
    application: Path, index: Path, cache: Cache
) -> None:
    """The lock has all that the image needs."""
    name = "needy_thing-1.0-py3-none-any.whl"
    requires = "Requires-Dist: absent-thing ; python_version < '3.99'\n"
    (application / "requirements.txt").write_text(
        f"needy-thing==1.0 {wheel(index, name, requires)}\n", encoding="utf-8"
    )
    wanted = Wheels(requirements="requirements.txt", python="3.99")
    assert names(wheels.download_wheels(wanted, application, AMD64, cache)) == [name]


def test_wheels_are_downloaded_once(application: Path, index: Path, cache: Cache) -> None:
    """They are downloaded again for another lock, Python or processor."""
    first = wheels.download_wheels(WANTED, application, AMD64, cache)
    for path in index.iterdir():
        path.unlink()
    assert wheels.download_wheels(WANTED, application, AMD64, cache) == first
    for wanted, platform in (
        (WANTED, ARM64),
        (Wheels(requirements="requirements.txt", python="3.12"), AMD64),
    ):
        with pytest.raises(WheelsUnavailable):
            wheels.download_wheels(wanted, application, platform, cache)
    (application / "requirements.txt").write_text(
        "plain-thing==2.0 --hash=sha256:00\n", encoding="utf-8"
    )
    with pytest.raises(WheelsUnavailable):
        wheels.download_wheels(WANTED, application, AMD64, cache)


def test_a_package_with_another_hash_is_refused(
    application: Path, index: Path, cache: Cache
) -> None:
    """The error has pip's message and the lock file, and the cache has no incomplete folder."""
    with zipfile.ZipFile(index / PLAIN, "a") as archive:
        archive.writestr("plain_thing.py", "print('changed')")
    for _ in range(2):
        with pytest.raises(WheelsUnavailable) as caught:
            wheels.download_wheels(WANTED, application, AMD64, cache)
        assert "DO NOT MATCH" in caught.value.detail
        assert caught.value.on == str(application / "requirements.txt")
    assert not list(cache.temporary.iterdir())


def test_a_lock_without_hashes_is_refused(application: Path, cache: Cache) -> None:
    """A package without a hash could be anything."""
    (application / "requirements.txt").write_text("plain-thing==1.0\n", encoding="utf-8")
    with pytest.raises(WheelsUnavailable) as caught:
        wheels.download_wheels(WANTED, application, AMD64, cache)
    assert "hash" in caught.value.detail.lower()


def test_a_folder_that_another_run_made_meanwhile_is_used(tmp_path: Path) -> None:
    """Two downloads at once do not disturb each other."""
    mine = tmp_path / "mine"
    theirs = tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / PLAIN).write_bytes(folder.name.encode())
    wheels.move_into_place(mine, theirs)
    assert (theirs / PLAIN).read_bytes() == b"theirs"
