"""The cache: nothing has a final name before it is complete, and what is damaged is dropped."""

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


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def files(cache: Cache) -> list[str]:
    """Every file below the cache's folder."""
    return sorted(
        str(path.relative_to(cache.root)) for path in cache.root.rglob("*") if path.is_file()
    )


def test_bytes_are_kept_under_their_digest(cache: Cache) -> None:
    """What was put can be had again by its digest, and by another process on the same folder."""
    assert cache.put(b"hello") == HELLO
    assert cache.read(HELLO) == b"hello"
    assert Cache(cache.root).read(HELLO) == b"hello"
    assert files(cache) == [f"blobs/sha256/{HELLO[7:]}"]


def test_a_writer_knows_digest_and_size_of_what_it_was_given(cache: Cache) -> None:
    """The hash is taken while the bytes go by."""
    with cache.writer() as writer:
        assert [writer.write(piece) for piece in (b"he", memoryview(b"llo"))] == [2, 3]
        assert (writer.size, writer.digest) == (5, HELLO)


def test_nothing_has_its_name_until_it_is_kept(cache: Cache) -> None:
    """Whoever looks while a blob is written sees none."""
    with cache.writer() as writer:
        writer.write(b"hello")
        assert not cache.has(HELLO, 5)
        assert all(name.startswith("tmp/") for name in files(cache))
        assert writer.commit() == HELLO
        assert cache.has(HELLO, 5)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_is_left_early_leaves_nothing(
    cache: Cache, error: type[BaseException]
) -> None:
    """An error or an interruption in the middle of a download removes what came of it."""

    def leave() -> None:
        with cache.writer() as writer:
            writer.write(b"hello")
            raise error

    with pytest.raises(error):
        leave()
    assert files(cache) == []


def test_keeping_what_is_there_already_is_no_mistake(cache: Cache) -> None:
    """Two processes may bring the same bytes; one name stays, with the bytes it is named by."""
    with cache.writer() as first, cache.writer() as second:
        for writer in (first, second):
            writer.write(b"hello")
            writer.commit()
    assert cache.read(HELLO) == b"hello"
    assert len(files(cache)) == 1


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


@pytest.mark.parametrize("moment", ["write", "sync", "rename", "kept"])
def test_a_kill_at_any_moment_leaves_a_whole_blob_or_none(cache: Cache, moment: str) -> None:
    """A final name exists only for bytes that are all there, whenever the process is killed."""
    data = b"hello" * 100_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(cache.root), moment], cwd=PROJECT, check=False
    )
    assert process.returncode == -signal.SIGKILL
    named = [name for name in files(cache) if name.startswith("blobs/")]
    assert named == ([f"blobs/sha256/{digest[7:]}"] if moment == "kept" else [])
    assert cache.has(digest, len(data)) == (moment == "kept")
    cache.put(data)
    assert cache.read(digest) == data


def test_what_killed_processes_left_is_swept_when_it_is_old(cache: Cache) -> None:
    """Leftovers of yesterday are removed by whoever opens the cache next; those of now may be somebody's download."""
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


def test_what_a_process_left_is_swept_as_soon_as_it_has_been_killed(cache: Cache) -> None:
    """Files and folders alike, and not before: as long as it lives it may be at work."""
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


def test_what_is_under_way_on_another_machine_is_left_to_it_for_a_day(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache may be shared, by machines of one name as well: their processes cannot be seen from here."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("deploy.cache.machine_id", lambda: "elsewhere")
        elsewhere.setattr("deploy.machine.process.os.getpid", lambda: 1 << 22)
        folder = Path(tempfile.mkdtemp(dir=cache.temporary, prefix=owner_prefix()))
    Cache(cache.root)
    assert folder.is_dir()
    os.utime(folder, (1, 1))
    Cache(cache.root)
    assert not folder.exists()


def test_a_full_disk_is_named_and_leaves_nothing(cache: Cache) -> None:
    """Running out of space in a download says where, and takes back what it had taken."""
    with cache.writer() as writer:
        writer.write(b"hello")
        disk.fill(cache.root)
        with pytest.raises(DiskFull) as caught:
            writer.write(bytes(1_000_000))
    assert caught.value.on == str(cache.root)
    assert files(cache) == []


def test_a_disk_that_is_full_only_when_it_is_flushed_is_named_too(cache: Cache) -> None:
    """The last bytes of a small file reach the disk when it is kept; it gets no name if they do not."""
    with cache.writer() as writer:
        writer.write(b"hello")
        disk.fill(cache.root)
        with pytest.raises(DiskFull):
            writer.commit()
    assert files(cache) == []


@pytest.mark.parametrize("number", [28, 122])
def test_no_space_and_no_quota_are_the_same_to_a_user(tmp_path: Path, number: int) -> None:
    """A quota that is used up is a full disk to whom it belongs."""
    with pytest.raises(DiskFull), translate_full_disk(tmp_path):
        raise OSError(number, "full")


def test_other_errors_of_the_disk_are_not_called_a_full_one(tmp_path: Path) -> None:
    """Freeing space would not help there."""
    with pytest.raises(PermissionError), translate_full_disk(tmp_path):
        raise PermissionError(13, "no")


def test_a_cut_off_blob_counts_as_absent(cache: Cache) -> None:
    """An entry that is shorter or longer than it must be is made anew."""
    cache.put(b"hello")
    assert cache.has(HELLO, 5)
    assert not cache.has(HELLO, 4)
    assert not cache.has("sha256:" + "0" * 64, 5)
    os.truncate(cache.path(HELLO), 3)
    assert not cache.has(HELLO, 5)


def test_a_damaged_blob_is_dropped_when_it_is_read(cache: Cache) -> None:
    """Bytes that are not those of their name are refused once, and gone for the next run."""
    cache.put(b"hello")
    cache.path(HELLO).write_bytes(b"hullo")
    with pytest.raises(BlobCorrupt, match="it was dropped") as caught:
        cache.read(HELLO)
    assert caught.value.on == HELLO
    assert not cache.has(HELLO, 5)


def test_a_lost_blob_is_named(cache: Cache) -> None:
    """A cache that was cleaned by hand costs a run, and says so."""
    with pytest.raises(BlobCorrupt, match="lost") as caught:
        cache.open(HELLO)
    assert caught.value.on == HELLO
    cache.drop(HELLO)


def test_a_note_is_what_was_noted_last(cache: Cache) -> None:
    """What was learned is remembered by kind and name, and replaced."""
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
def test_notes_of_different_names_do_not_meet(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """However alike two names are as paths, what was learned of one is never told of the other."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    for name in names:
        cache.write_note("layers", name, f"of {name}")
    assert [cache.read_note("layers", name) for name in names] == [f"of {name}" for name in names]
    assert len(list((cache.root / "notes" / "layers").iterdir())) == len(names)


def test_the_latest_note_of_a_kind_is_found(cache: Cache) -> None:
    """What was learned last is known without its name."""
    assert cache.latest_note("apps") is None
    for number, name in enumerate(("b", "c", "a")):
        cache.write_note("apps", name, name)
        os.utime(cache.root / "notes" / "apps" / f"{name}.json", ns=(number, number))
    assert cache.latest_note("apps") == "a"


def test_a_full_disk_leaves_the_note_as_it_was(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note is replaced as a whole or not at all."""
    cache.write_note("layers", "a", "first")
    make_writer = cache.writer

    def full_writer() -> object:
        writer = make_writer()
        disk.fill(cache.root)
        return writer

    monkeypatch.setattr(cache, "writer", full_writer)
    with pytest.raises(DiskFull):
        cache.write_note("layers", "a", "second")
    assert cache.read_note("layers", "a") == "first"
    assert not list(cache.temporary.iterdir())
