"""The cache: only complete blobs have a final name, and damaged blobs are dropped."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cache import Cache, owner_prefix, translate_full_disk
from deploy.errors import BlobCorrupt, DiskFull
from tests.fakes import disk

PROJECT = Path(__file__).parents[3]
HELLO = "sha256:" + hashlib.sha256(b"hello").hexdigest()


def list_files(cache: Cache) -> list[str]:
    """Return all files below the cache's folder."""
    return sorted(
        str(path.relative_to(cache.root)) for path in cache.root.rglob("*") if path.is_file()
    )


def test_a_blob_is_stored_under_its_digest(cache: Cache) -> None:
    """Another process can read it from the same folder."""
    assert cache.put(b"hello") == HELLO
    assert cache.read(HELLO) == b"hello"
    assert Cache(cache.root).read(HELLO) == b"hello"
    assert list_files(cache) == [f"blobs/sha256/{HELLO[7:]}"]


def test_a_writer_has_the_digest_and_size_of_its_bytes(cache: Cache) -> None:
    """The hash is computed while the bytes are written."""
    with cache.writer() as writer:
        assert [writer.write(piece) for piece in (b"he", memoryview(b"llo"))] == [2, 3]
        assert (writer.size, writer.digest) == (5, HELLO)


def test_a_blob_has_no_final_name_before_it_is_committed(cache: Cache) -> None:
    """A reader does not see an incomplete blob."""
    with cache.writer() as writer:
        writer.write(b"hello")
        assert not cache.has(HELLO, 5)
        assert all(name.startswith("tmp/") for name in list_files(cache))
        assert writer.commit() == HELLO
        assert cache.has(HELLO, 5)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_is_not_committed_leaves_no_file(
    cache: Cache, error: type[BaseException]
) -> None:
    """This holds for errors and for Ctrl-C."""

    def leave() -> None:
        with cache.writer() as writer:
            writer.write(b"hello")
            raise error

    with pytest.raises(error):
        leave()
    assert list_files(cache) == []


def test_a_blob_can_be_stored_twice(cache: Cache) -> None:
    """Two processes may store the same bytes at once."""
    with cache.writer() as first, cache.writer() as second:
        for writer in (first, second):
            writer.write(b"hello")
            writer.commit()
    assert cache.read(HELLO) == b"hello"
    assert len(list_files(cache)) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from deploy.cache import Cache

cache, moment = Cache(Path(sys.argv[1])), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "sync":
    os.fsync = die
if moment == "rename":
    Path.replace = die
with cache.writer() as writer:
    writer.write(b"hello" * 100_000)
    if moment == "write":
        die()
    writer.commit()
    die()
"""


@pytest.mark.parametrize("moment", ["write", "sync", "rename", "committed"])
def test_a_kill_at_any_moment_leaves_a_complete_blob_or_none(cache: Cache, moment: str) -> None:
    """Only complete blobs have a final name."""
    data = b"hello" * 100_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(cache.root), moment], cwd=PROJECT, check=False
    )
    assert process.returncode == -signal.SIGKILL
    blobs = [name for name in list_files(cache) if name.startswith("blobs/")]
    assert blobs == ([f"blobs/sha256/{digest[7:]}"] if moment == "committed" else [])
    assert cache.has(digest, len(data)) == (moment == "committed")
    cache.put(data)
    assert cache.read(digest) == data


def test_old_unfinished_files_are_removed(cache: Cache) -> None:
    """New ones may belong to a download that is running."""
    old = cache.temporary / "old"
    new = cache.temporary / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Cache(cache.root)
    assert not old.exists()
    assert new.exists()


LEFT = """
import os, signal, sys
from pathlib import Path
from deploy.cache import Cache

cache = Cache(Path(sys.argv[1]))
with cache.writer() as writer, cache.folder() as folder:
    writer.write(b"half")
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_bytes(b"half")
    print("under way", flush=True)
    sys.stdin.read()
"""


def test_unfinished_files_of_a_killed_process_are_removed(cache: Cache) -> None:
    """Those of a living process stay."""
    with subprocess.Popen(
        [sys.executable, "-c", LEFT, str(cache.root)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"under way\n"
        Cache(cache.root)
        assert len(list(cache.temporary.iterdir())) == 2
        process.kill()
    Cache(cache.root)
    assert not list(cache.temporary.iterdir())


def test_unfinished_files_of_another_machine_stay_for_a_day(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines may share a cache, and cannot see the processes of each other."""
    with monkeypatch.context() as other_machine:
        other_machine.setattr("deploy.cache.machine_id", lambda: "other")
        other_machine.setattr("deploy.machine.process.os.getpid", lambda: 1 << 22)
        folder = Path(tempfile.mkdtemp(dir=cache.temporary, prefix=owner_prefix()))
    Cache(cache.root)
    assert folder.is_dir()
    os.utime(folder, (1, 1))
    Cache(cache.root)
    assert not folder.exists()


def test_a_full_disk_is_an_error_that_names_the_cache(cache: Cache) -> None:
    """The unfinished file is removed."""
    with cache.writer() as writer:
        writer.write(b"hello")
        disk.fill_disk(cache.root)
        with pytest.raises(DiskFull) as caught:
            writer.write(bytes(1_000_000))
    assert caught.value.on == str(cache.root)
    assert list_files(cache) == []


def test_a_disk_that_is_full_at_the_flush_is_an_error(cache: Cache) -> None:
    """The last bytes reach the disk at the commit; the blob gets no final name."""
    with cache.writer() as writer:
        writer.write(b"hello")
        disk.fill_disk(cache.root)
        with pytest.raises(DiskFull):
            writer.commit()
    assert list_files(cache) == []


@pytest.mark.parametrize("number", [28, 122])
def test_an_exhausted_quota_is_a_full_disk(tmp_path: Path, number: int) -> None:
    """The user has to free space in both cases."""
    with pytest.raises(DiskFull), translate_full_disk(tmp_path):
        raise OSError(number, "full")


def test_other_errors_of_the_disk_are_not_a_full_disk(tmp_path: Path) -> None:
    """Free space would not help."""
    with pytest.raises(PermissionError), translate_full_disk(tmp_path):
        raise PermissionError(13, "no")


def test_a_blob_of_another_size_counts_as_absent(cache: Cache) -> None:
    """It is stored again."""
    cache.put(b"hello")
    assert cache.has(HELLO, 5)
    assert not cache.has(HELLO, 4)
    assert not cache.has("sha256:" + "0" * 64, 5)
    os.truncate(cache.path(HELLO), 3)
    assert not cache.has(HELLO, 5)


def test_a_damaged_blob_is_dropped_when_it_is_read(cache: Cache) -> None:
    """It is an error once, and the next run makes the blob again."""
    cache.put(b"hello")
    cache.path(HELLO).write_bytes(b"hullo")
    with pytest.raises(BlobCorrupt, match="it was dropped") as caught:
        cache.read(HELLO)
    assert caught.value.on == HELLO
    assert not cache.has(HELLO, 5)


def test_a_lost_blob_is_an_error_with_its_digest(cache: Cache) -> None:
    """A cache may be cleaned by hand."""
    with pytest.raises(BlobCorrupt, match="lost") as caught:
        cache.open(HELLO)
    assert caught.value.on == HELLO
    cache.drop(HELLO)


def test_a_note_is_the_one_that_was_written_last(cache: Cache) -> None:
    """Each kind and name has one note."""
    assert cache.read_note("layers", "a") is None
    cache.write_note("layers", "a", "first, and longer")
    cache.write_note("layers", "a", "zweite ä")
    cache.write_note("apps", "a", "other")
    assert cache.read_note("layers", "a") == "zweite ä"
    assert not list(cache.temporary.iterdir())


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
def test_notes_of_different_names_are_different(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """This holds for names that are similar as paths."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    for name in names:
        cache.write_note("layers", name, f"of {name}")
    assert [cache.read_note("layers", name) for name in names] == [f"of {name}" for name in names]
    assert len(list((cache.root / "notes" / "layers").iterdir())) == len(names)


def test_the_latest_note_of_a_kind_is_found(cache: Cache) -> None:
    """Its name is not needed."""
    assert cache.latest_note("apps") is None
    for number, name in enumerate(("b", "c", "a")):
        cache.write_note("apps", name, name)
        os.utime(cache.root / "notes" / "apps" / f"{name}.json", ns=(number, number))
    assert cache.latest_note("apps") == "a"


def test_a_full_disk_does_not_change_a_note(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note is replaced completely or not at all."""
    cache.write_note("layers", "a", "first")
    make_writer = cache.writer

    def full_writer() -> object:
        writer = make_writer()
        disk.fill_disk(cache.root)
        return writer

    monkeypatch.setattr(cache, "writer", full_writer)
    with pytest.raises(DiskFull):
        cache.write_note("layers", "a", "second")
    assert cache.read_note("layers", "a") == "first"
    assert not list(cache.temporary.iterdir())
