"""The layer: the same files give the same bytes, and any tar reader gives the files back."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.image import layer

NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: PurePosixPath(*parts))


def entry(path: str | PurePosixPath, *chunks: bytes) -> layer.Entry:
    """A file of those chunks."""
    return layer.Entry(PurePosixPath(path), sum(map(len, chunks)), chunks)


def written(entries: Iterable[layer.Entry]) -> bytes:
    """The layer's bytes."""
    sink = io.BytesIO()
    layer.write_layer(entries, sink)
    return sink.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    """The members as Python's own reader sees them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def is_free(paths: list[PurePosixPath]) -> bool:
    """Whether no path is the folder of another."""
    return not any(path in other.parents for path in paths for other in paths)


@given(
    st.dictionaries(PATHS, st.lists(st.binary(max_size=700), max_size=3), max_size=6).filter(
        lambda files: is_free(list(files))
    )
)
def test_every_reader_gives_back_what_was_written(files: dict[PurePosixPath, list[bytes]]) -> None:
    """Whatever the names and the sizes are, Python's reader and this module's give the same files in the same order."""
    data = written(entry(path, *chunks) for path, chunks in files.items())
    expected = [(path, b"".join(chunks)) for path, chunks in files.items()]
    assert [
        (path, content.read()) for path, content in layer.read_layer(io.BytesIO(data))
    ] == expected
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {
            member.name: extracted.read()
            for member in archive
            if (extracted := archive.extractfile(member)) is not None
        }
    assert found == {str(path): content for path, content in expected}
    assert len(data) % tarfile.RECORDSIZE == 0


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=5))
def test_the_pieces_that_bytes_arrive_in_make_no_difference(data: bytes, cuts: list[int]) -> None:
    """The layer is a function of the files, not of how a network cut them up."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert written([entry("model/a", *pieces)]) == written([entry("model/a", data)])


def test_the_bytes_are_the_same_on_every_machine_and_day() -> None:
    """The digest of a known layer never changes: releases of the past stay what they are called."""
    data = written(
        [
            entry("model/manifest.json", b"{}\n"),
            entry("model/golden/ä.json", b"[1]"),
            entry("model/model.onnx", b"\x08" * 1000),
        ]
    )
    assert (
        hashlib.sha256(data).hexdigest()
        == "e0769b7d875a9515907ee873e25ef51f5866d90a8bf4111c373851f66c6e5230"
    )


def test_nothing_of_this_machine_is_in_the_layer() -> None:
    """Owner, group and time are zero and without names; files are readable by all, folders can be entered by all."""
    found = members(written([entry("model/deep/a", b"1")]))
    assert [(item.name, item.type, item.mode) for item in found] == [
        ("model", tarfile.DIRTYPE, 0o755),
        ("model/deep", tarfile.DIRTYPE, 0o755),
        ("model/deep/a", tarfile.REGTYPE, 0o644),
    ]
    assert {(item.uid, item.gid, item.uname, item.gname, item.mtime) for item in found} == {
        (0, 0, "", "", 0)
    }


def test_entries_keep_their_order_and_folders_come_once_before_their_files() -> None:
    """The caller says what comes first, so that it can be read first."""
    found = members(written([entry("m/z/1", b""), entry("m/a", b""), entry("m/z/2", b"")]))
    assert [item.name for item in found] == ["m", "m/z", "m/z/1", "m/a", "m/z/2"]


def test_a_path_at_the_root_has_no_folder_above_it() -> None:
    """A layer that is mounted at the root does not name the root."""
    assert [item.name for item in members(written([entry("a", b"1")]))] == ["a"]


def test_a_name_longer_than_a_header_is_kept() -> None:
    """Names beyond the hundred bytes of the old format are neither cut nor refused."""
    path = "model/" + "/".join(["long" * 20] * 4)
    assert members(written([entry(path, b"1")]))[-1].name == path


@pytest.mark.parametrize("size", [0, 2, 4])
def test_chunks_that_are_not_of_the_promised_size_are_refused(size: int) -> None:
    """A tar whose header lies would shift everything after it."""
    with pytest.raises(ValueError, match=f"model/a has 3 bytes, not {size}"):
        written([layer.Entry(PurePosixPath("model/a"), size, [b"123"])])


class Nowhere:
    """Forgets what it is given."""

    def write(self, data: bytes | memoryview, /) -> int:
        return len(data)


def test_memory_does_not_grow_with_the_files() -> None:
    """A file of 64 MB passes through in the memory of a few of its chunks."""
    chunk = 1 << 20

    def chunks() -> Iterator[bytes]:
        for number in range(64):
            yield bytes([number]) * chunk

    tracemalloc.start()
    try:
        layer.write_layer([layer.Entry(PurePosixPath("model/a"), 64 * chunk, chunks())], Nowhere())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * chunk


class Arriving(io.BytesIO):
    """Bytes that come from afar: they can be read on, and not gone back to."""

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


def test_the_head_is_read_without_the_rest() -> None:
    """A reader that stops early has read little more than it was given, and never needs to go back."""
    data = written(
        [entry("model/manifest.json", b"{}"), entry("model/model.onnx", bytes(5_000_000))]
    )
    stream = Arriving(data)
    path, content = next(layer.read_layer(stream))
    assert (str(path), content.read()) == ("model/manifest.json", b"{}")
    assert stream.tell() <= tarfile.RECORDSIZE


def test_links_and_folders_are_not_read_as_files() -> None:
    """A layer that somebody else made may hold more than files; nothing of that is taken for one."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("c", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else "f"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("f"))
    assert [str(path) for path, _ in layer.read_layer(io.BytesIO(sink.getvalue()))] == ["f"]


def test_bytes_that_are_no_tar_are_refused() -> None:
    """A damaged layer is an error, not an empty one."""
    with pytest.raises(tarfile.TarError):
        list(layer.read_layer(io.BytesIO(b"not a tar" * 100)))
