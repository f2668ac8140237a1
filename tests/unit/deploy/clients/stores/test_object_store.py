"""Stores without a server: the fake, and a folder."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.clients.stores.object_store import ObjectStore
from deploy.clients.stores.protocol import Store, open_store
from deploy.errors import DiskFull, SettingsInvalid, StoreUnreachable
from tests.contracts.store import LARGE, StoreContract
from tests.fakes import disk
from tests.fakes.store import MemoryStore

UNPRIVILEGED = 65534


class TestMemoryStore(StoreContract):
    """The fake keeps the contract of the real one."""

    @pytest.fixture
    def store(self) -> Store:
        """Return an empty store."""
        return MemoryStore()


class TestFolder(StoreContract):
    """A folder keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """Return an empty store."""
        return open_store("store", tmp_path)


@pytest.fixture
def lock_out() -> Iterator[Callable[[Path], None]]:
    """Return a function that takes all rights to a folder away from this process."""
    locked: list[Path] = []
    user = os.geteuid()

    def lock(folder: Path) -> None:
        folder.chmod(0)
        locked.append(folder)
        os.seteuid(UNPRIVILEGED if user == 0 else user)

    yield lock
    os.seteuid(user)
    for folder in locked:
        folder.chmod(0o700)


class FillsTheDisk(io.BytesIO):
    """A file that fills the disk of a folder when it is read."""

    def __init__(self, data: bytes, folder: Path) -> None:
        super().__init__(data)
        self._folder = folder

    def read(self, size: int | None = -1, /) -> bytes:
        disk.fill_disk(self._folder)
        return super().read(size)


def test_a_folder_is_relative_to_the_application_or_absolute(tmp_path: Path) -> None:
    """A relative location is below the application's folder, in any working directory."""
    open_store("models", tmp_path / "app").create("a", b"")
    open_store(str(tmp_path / "other"), tmp_path / "app").create("a", b"")
    assert (tmp_path / "app" / "models" / "a").is_file()
    assert (tmp_path / "other" / "a").is_file()


def test_reading_a_folder_does_not_create_it(tmp_path: Path) -> None:
    """Reading an empty store creates nothing."""
    store = open_store("store", tmp_path)
    assert store.size("a") is None
    assert store.folders("models") == []
    assert not list(tmp_path.iterdir())


def test_an_unreadable_folder_is_not_taken_for_an_empty_one(
    tmp_path: Path, lock_out: Callable[[Path], None]
) -> None:
    """A missing right is an error that names the folder, not an empty result."""
    store = open_store("store", tmp_path)
    store.create("models/a/1/manifest.json", b"{}")
    again = open_store("store", tmp_path)
    lock_out(tmp_path / "store")
    for ask in (
        lambda: again.read("models/a/1/manifest.json", 10),
        lambda: again.stream("models/a/1/manifest.json"),
    ):
        with pytest.raises(StoreUnreachable, match="refused the login or the permission") as caught:
            ask()
        assert str(tmp_path / "store") in caught.value.on


def test_a_folder_below_an_unreadable_one_is_not_taken_for_missing(
    tmp_path: Path, lock_out: Callable[[Path], None]
) -> None:
    """Whether the folder exists is unknown, so every call is an error."""
    open_store("locked/store", tmp_path).create("models/a/1/manifest.json", b"{}")
    again = open_store("locked/store", tmp_path)
    lock_out(tmp_path / "locked")
    for ask in (
        lambda: again.size("a"),
        lambda: again.folders("models"),
        lambda: again.create("a", b""),
    ):
        with pytest.raises(StoreUnreachable) as caught:
            ask()
        assert str(tmp_path / "locked" / "store") in caught.value.on


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Return a folder that every user of this machine can reach."""
    before = os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
    os.umask(before)


def test_a_file_that_may_not_be_read_is_not_a_matter_of_the_network(
    reachable: Path, lock_out: Callable[[Path], None]
) -> None:
    """The library has the system's error as text; the advice is that for a refused login."""
    store = open_store("store", reachable)
    store.create("a", b"{}")
    lock_out(reachable / "store" / "a")
    with pytest.raises(StoreUnreachable, match="refused the login or the permission") as caught:
        store.read("a", 10)
    assert "os error" in caught.value.detail


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/full"),
    ],
)
def test_special_files_are_refused_before_they_are_opened(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """The next release would read a pipe or a device without end."""
    store = open_store("store", tmp_path)
    store.create("models/first", b"")
    make(tmp_path / "store" / "models" / "second")
    for ask in (lambda: store.read("models/second", 10), lambda: store.stream("models/second")):
        with pytest.raises(StoreUnreachable) as caught:
            ask()
        assert "it is not a file" in caught.value.detail
        assert caught.value.on.endswith("store/models/second")


def test_a_folder_that_no_system_could_name_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    """It is an error of the settings, not of the program."""
    with pytest.raises(SettingsInvalid, match="null byte"):
        open_store("store\0", tmp_path)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    """Publishing to a path that is a file is an error of the store."""
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreUnreachable):
        open_store("store", tmp_path).create("a", b"")


def test_a_name_that_no_file_system_takes_is_an_error_of_the_store(tmp_path: Path) -> None:
    """A location that cannot be used is not a missing one."""
    with pytest.raises(StoreUnreachable):
        open_store("x" * 300, tmp_path).size("a")


def test_a_full_disk_is_named_as_such_and_leaves_no_name(tmp_path: Path) -> None:
    """The error names the folder, and no part of the file stays."""
    store = open_store("store", tmp_path)
    store.create("models/first", b"")
    with pytest.raises(DiskFull) as caught:
        store.upload("blobs/sha256/aa", FillsTheDisk(LARGE, tmp_path / "store"))
    assert str(tmp_path / "store") in caught.value.on
    assert store.size("blobs/sha256/aa") is None


def test_a_disk_that_is_full_before_the_folder_is_made_is_named_as_such(tmp_path: Path) -> None:
    """A full disk at the creation of the folder is the same error as later."""

    def connect() -> NoReturn:
        raise OSError(28, "No space left on device")

    store = ObjectStore(connect, str(tmp_path), tmp_path / "store")
    with pytest.raises(DiskFull):
        store.create("a", b"")


@pytest.mark.parametrize("location", ["ftp://host/models", "nonsense://x", "s3://"])
def test_a_url_of_another_kind_is_refused_with_the_page_to_read(
    location: str, tmp_path: Path
) -> None:
    """A location that is neither folder nor object store is an error of the settings."""
    with pytest.raises(SettingsInvalid) as caught:
        open_store(location, tmp_path)
    assert caught.value.on == location
    assert "docs/03-models.md" in caught.value.next


SIGNED = "https://ada:hunter2@account.blob.core.windows.net/box/models?sv=2024&sig=hunter2"


def test_the_location_of_a_store_has_no_login() -> None:
    """A signature in a URL opens the store to anyone who reads the log."""
    assert ObjectStore(lambda: pytest.fail("it is not opened"), SIGNED).location == (
        "https://account.blob.core.windows.net/box/models"
    )


def test_the_messages_of_the_library_have_no_login() -> None:
    """They quote the URL of a request that failed."""

    def connect() -> NoReturn:
        raise OSError(f"error sending request for url ({SIGNED})")

    with pytest.raises(StoreUnreachable) as caught:
        ObjectStore(connect, SIGNED).create("a", b"")
    assert "hunter2" not in f"{caught.value}{caught.value.next}"
    assert "account.blob.core.windows.net" in caught.value.detail


def test_the_cause_of_a_failed_connection_is_shown(tmp_path: Path) -> None:
    """The first line of the library says that there was one, and no more."""

    def connect() -> NoReturn:
        raise OSError('error sending request\n\nDebug source: Os { message: "Connection refused" }')

    with pytest.raises(StoreUnreachable) as caught:
        ObjectStore(connect, str(tmp_path)).create("a", b"")
    assert caught.value.detail == "  error sending request: Connection refused"


def test_a_url_of_another_kind_is_refused_without_its_login(tmp_path: Path) -> None:
    """The error has the rest of the URL."""
    with pytest.raises(SettingsInvalid) as caught:
        open_store("ftp://ada:hunter2@host/models?key=hunter2", tmp_path)
    assert caught.value.on == "ftp://host/models"
    assert "hunter2" not in str(caught.value)
