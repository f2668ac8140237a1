"""Locked packages are downloaded with the machine's own pip, by hash, once."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from deploy import progress
from deploy.cache import Cache
from deploy.errors import DiskFull, WheelsUnavailable
from deploy.image import wheels
from deploy.settings.reading import Wheels

WANTED = Wheels(requirements="requirements.txt", python="3.13")
PLAIN = "plain_thing-1.0-py3-none-any.whl"
INTEL = "native_thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
ARM = "native_thing-1.0-cp313-cp313-manylinux2014_aarch64.whl"
OTHERS = (
    "native_thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "native_thing-1.0-cp313-cp313-musllinux_1_2_x86_64.whl",
    "native_thing-1.0-cp313-cp313-win_amd64.whl",
)


def wheel(folder: Path, name: str) -> str:
    """Makes a wheel; returns its hash as a lock file has it."""
    project, version = name.split("-")[:2]
    about = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{about}/WHEEL",
            f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {name.split('-', 2)[2].removesuffix('.whl')}\n",
        )
        archive.writestr(f"{about}/RECORD", "")
    return f"--hash=sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip is set up to take packages from, and no index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def application(tmp_path: Path, index: Path) -> Path:
    """A folder with a lock file of two packages, one of them made for several machines."""
    folder = tmp_path / "application"
    folder.mkdir()
    hashes = " ".join(wheel(index, name) for name in (INTEL, ARM, *OTHERS))
    (folder / "requirements.txt").write_text(
        f"native-thing==1.0 {hashes}\nplain-thing==1.0 {wheel(index, PLAIN)}\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def names(paths: tuple[Path, ...]) -> list[str]:
    """The file names."""
    return [path.name for path in paths]


@pytest.mark.parametrize(("machine", "native"), [("amd64", INTEL), ("arm64", ARM)])
def test_wheels_are_for_the_image_and_not_for_this_machine(
    application: Path, cache: Cache, machine: str, native: str
) -> None:
    """Its processor, its Python and its C library decide."""
    assert names(wheels.download(WANTED, application, machine, cache)) == [native, PLAIN]


def test_wheels_are_downloaded_once(application: Path, index: Path, cache: Cache) -> None:
    """As long as the lock, the Python and the processor are the same."""
    first = wheels.download(WANTED, application, "amd64", cache)
    for path in index.iterdir():
        path.unlink()
    assert wheels.download(WANTED, application, "amd64", cache) == first
    for wanted, machine in (
        (WANTED, "arm64"),
        (Wheels(requirements="requirements.txt", python="3.12"), "amd64"),
    ):
        with pytest.raises(WheelsUnavailable):
            wheels.download(wanted, application, machine, cache)
    (application / "requirements.txt").write_text(
        "plain-thing==2.0 --hash=sha256:00\n", encoding="utf-8"
    )
    with pytest.raises(WheelsUnavailable):
        wheels.download(WANTED, application, "amd64", cache)


def test_a_package_with_another_hash_is_refused(
    application: Path, index: Path, cache: Cache
) -> None:
    """The error shows what pip said, names the lock, and leaves nothing that would be taken for complete."""
    with zipfile.ZipFile(index / PLAIN, "a") as archive:
        archive.writestr("plain_thing.py", "print('changed')")
    for _ in range(2):
        with pytest.raises(WheelsUnavailable) as caught:
            wheels.download(WANTED, application, "amd64", cache)
        assert "DO NOT MATCH" in caught.value.detail
        assert caught.value.on == str(application / "requirements.txt")
    assert not list(cache.temporary.iterdir())


def test_a_lock_without_hashes_is_refused(application: Path, cache: Cache) -> None:
    """What is not pinned by hash could be anything."""
    (application / "requirements.txt").write_text("plain-thing==1.0\n", encoding="utf-8")
    with pytest.raises(WheelsUnavailable) as caught:
        wheels.download(WANTED, application, "amd64", cache)
    assert "hash" in caught.value.detail.lower()


def test_a_folder_that_another_run_made_meanwhile_is_used(tmp_path: Path) -> None:
    """Two that download at once do not disturb each other."""
    mine = tmp_path / "mine"
    theirs = tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / PLAIN).write_bytes(folder.name.encode())
    wheels._keep(mine, theirs)
    assert (theirs / PLAIN).read_bytes() == b"theirs"


class Pressed(progress.QuietDisplay):
    """Whoever looks presses Ctrl-C at the first line."""

    def report(self, text: str) -> None:
        raise KeyboardInterrupt


def test_a_download_ends_with_the_process_that_wants_it(
    application: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells this process to stop need not have told pip."""
    program = tmp_path / "python"
    number = tmp_path / "number"
    program.write_text(
        f"#!/bin/sh\necho $$ >{number}\necho Collecting\nexec sleep 60\n", encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with progress.use_display(Pressed()), pytest.raises(KeyboardInterrupt):
        wheels.download(WANTED, application, "amd64", cache)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text(encoding="utf-8")), 0)
    assert not list(cache.temporary.iterdir())


def test_a_full_disk_is_not_taken_for_a_missing_network(
    application: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download ends as it does for any other reason; its words tell, and the places that it writes to are named."""
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\necho \"OSError: [Errno 28] No space left on device: 'a.whl'\"\necho and more\nexit 2\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(DiskFull) as caught:
        wheels.download(WANTED, application, "amd64", cache)
    assert str(cache.temporary) in caught.value.on
    assert not list((cache.root / "wheels").iterdir())
