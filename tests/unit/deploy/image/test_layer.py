"""Layers: the same files give the same bytes on every machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def create_entry(path: str | PurePosixPath, *chunks: bytes) -> layer.Entry:
    """Return a file of those chunks."""
    return layer.Entry(PurePosixPath(path), sum(map(len, chunks)), chunks)


def write_bytes(entries: Iterable[layer.Entry]) -> bytes:
    """Return the bytes of a layer."""
    sink = io.BytesIO()
    layer.write_layer(entries, sink)
    return sink.getvalue()


def list_members(data: bytes) -> list[tarfile.TarInfo]:
    """Return the members as Python's own tar reader sees them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def has_no_parent(paths: list[PurePosixPath]) -> bool:
    """Return whether no path is the folder of another."""
    return not any(path in other.parents for path in paths for other in paths)


@given(
    st.dictionaries(PATHS, st.lists(st.binary(max_size=700), max_size=3), max_size=6).filter(
        lambda files: has_no_parent(list(files))
    )
)
def test_all_readers_find_the_written_files(files: dict[PurePosixPath, list[bytes]]) -> None:
    """Python's reader and this module give the same files in the same order."""
    data = write_bytes(create_entry(path, *chunks) for path, chunks in files.items())
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
def test_the_chunks_make_no_difference(data: bytes, cuts: list[int]) -> None:
    """The layer depends on the contents only."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert write_bytes([create_entry("model/a", *pieces)]) == write_bytes(
        [create_entry("model/a", data)]
    )


def test_the_digest_of_a_known_layer_never_changes() -> None:
    """Earlier releases keep their digests."""
    data = write_bytes(
        [
            create_entry("model/manifest.json", b"{}\n"),
            create_entry("model/golden/ä.json", b"[1]"),
            create_entry("model/model.onnx", b"\x08" * 1000),
        ]
    )
    assert (
        hashlib.sha256(data).hexdigest()
        == "e0769b7d875a9515907ee873e25ef51f5866d90a8bf4111c373851f66c6e5230"
    )


def test_a_layer_has_nothing_of_this_machine() -> None:
    """Owner, group and time are zero and have no names; all users can read the files."""
    found = list_members(write_bytes([create_entry("model/deep/a", b"1")]))
    assert [(item.name, item.type, item.mode) for item in found] == [
        ("model", tarfile.DIRTYPE, 0o755),
        ("model/deep", tarfile.DIRTYPE, 0o755),
        ("model/deep/a", tarfile.REGTYPE, 0o644),
    ]
    assert {(item.uid, item.gid, item.uname, item.gname, item.mtime) for item in found} == {
        (0, 0, "", "", 0)
    }


def test_entries_keep_their_order_and_each_folder_comes_once_before_its_files() -> None:
    """The caller decides which files are read first."""
    found = list_members(
        write_bytes(
            [create_entry("m/z/1", b""), create_entry("m/a", b""), create_entry("m/z/2", b"")]
        )
    )
    assert [item.name for item in found] == ["m", "m/z", "m/z/1", "m/a", "m/z/2"]


def test_a_path_at_the_root_has_no_folder() -> None:
    """The layer has no entry for the root."""
    assert [item.name for item in list_members(write_bytes([create_entry("a", b"1")]))] == ["a"]


def test_a_long_name_is_kept() -> None:
    """Names of more than a hundred bytes are neither cut nor refused."""
    path = "model/" + "/".join(["long" * 20] * 4)
    assert list_members(write_bytes([create_entry(path, b"1")]))[-1].name == path


@pytest.mark.parametrize("size", [0, 2, 4])
def test_chunks_of_another_size_are_refused(size: int) -> None:
    """A wrong size would make all later files unreadable."""
    with pytest.raises(ValueError, match=f"model/a has 3 bytes, not {size}"):
        write_bytes([layer.Entry(PurePosixPath("model/a"), size, [b"123"])])


class NullSink:
    """A sink that drops the bytes."""

    def write(self, data: bytes | memoryview, /) -> int:
        return len(data)


def test_the_memory_of_a_layer_does_not_depend_on_the_size() -> None:
    """A file of 64 MB takes the memory of a few chunks."""
    chunk = 1 << 20

    def chunks() -> Iterator[bytes]:
        for number in range(64):
            yield bytes([number]) * chunk

    tracemalloc.start()
    try:
        layer.write_layer([layer.Entry(PurePosixPath("model/a"), 64 * chunk, chunks())], NullSink())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * chunk


class ForwardStream(io.BytesIO):
    """A stream that can be read forward only."""

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


def test_the_first_files_are_read_without_the_rest() -> None:
    """A reader that stops early reads little more than those files."""
    data = write_bytes(
        [
            create_entry("model/manifest.json", b"{}"),
            create_entry("model/model.onnx", bytes(5_000_000)),
        ]
    )
    stream = ForwardStream(data)
    path, content = next(layer.read_layer(stream))
    assert (str(path), content.read()) == ("model/manifest.json", b"{}")
    assert stream.tell() <= tarfile.RECORDSIZE


def test_links_and_folders_are_not_read_as_files() -> None:
    """A layer of another program may have links and folders."""
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


def test_bytes_that_are_not_a_tar_archive_are_refused() -> None:
    """A damaged layer is an error and not an empty layer."""
    with pytest.raises(tarfile.TarError):
        list(layer.read_layer(io.BytesIO(b"not a tar" * 100)))


# --- layers of other machines

MODEL = {PurePosixPath("opt/model/a"): b"one" * 300, PurePosixPath("opt/model/b/c"): b""}


def read_exactly(
    data: bytes, files: Mapping[PurePosixPath, bytes] = MODEL
) -> dict[PurePosixPath, bytes]:
    """Return the contents of a layer that has to have files of those paths and sizes."""
    entries = [create_entry(path, content) for path, content in files.items()]
    return {
        entry.path: b"".join(chunks)
        for entry, chunks in layer.read_exact_layer(entries, io.BytesIO(data))
    }


@given(
    st.dictionaries(PATHS, st.binary(max_size=700), max_size=6).filter(
        lambda files: has_no_parent(list(files))
    )
)
def test_a_written_layer_is_exact(files: dict[PurePosixPath, bytes]) -> None:
    """Whatever its files are; the contents are those of the layer."""
    data = write_bytes(create_entry(path, content) for path, content in files.items())
    assert read_exactly(data, files) == files


def repack(change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> bytes:
    """Return the layer of the model after a change of its members, packed by another writer."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    written = write_bytes(create_entry(path, content) for path, content in MODEL.items())
    with tarfile.open(fileobj=io.BytesIO(written)) as archive:
        for member in archive:
            opened = archive.extractfile(member)
            members.append((member, opened.read() if opened else b""))
    change(members)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[..., object]:
    """Return a change that adds a member."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = link
        members.append((member, b""))

    return change


def set_value(index: int, name: str, value: object) -> Callable[..., object]:
    """Return a change of one value of a member."""
    return lambda members: setattr(members[index][0], name, value)


def test_a_layer_that_is_packed_again_without_a_change_is_exact() -> None:
    """So each of the changes below is the reason of its refusal."""
    assert read_exactly(repack(lambda _: None)) == MODEL


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(add("usr/bin/python3"), id="a file outside of the folder"),
        pytest.param(add("opt/model/z"), id="a file inside of it"),
        pytest.param(add("opt/model/a"), id="a file twice"),
        pytest.param(add("opt/model/z", tarfile.DIRTYPE), id="a folder"),
        pytest.param(add("opt/model/z", tarfile.SYMTYPE, "/etc/passwd"), id="a symbolic link"),
        pytest.param(add("opt/model/z", tarfile.LNKTYPE, "opt/model/a"), id="a hard link"),
        pytest.param(add("opt/model/z", tarfile.CHRTYPE), id="a device"),
        pytest.param(add("opt/model/.wh.a"), id="a whiteout"),
        pytest.param(add("../etc/passwd"), id="a path out of the root"),
        pytest.param(set_value(0, "type", tarfile.SYMTYPE), id="a link in place of a folder"),
        pytest.param(set_value(2, "mode", 0o755), id="another mode"),
        pytest.param(set_value(2, "mode", 0o4644), id="a set-user-id bit"),
        pytest.param(set_value(2, "uid", 1000), id="another owner"),
        pytest.param(set_value(2, "gname", "root"), id="the name of a group"),
        pytest.param(set_value(2, "mtime", 1), id="another time"),
        pytest.param(set_value(2, "name", "opt/model/A"), id="another name"),
        pytest.param(set_value(2, "pax_headers", {"comment": "x"}), id="an extended header"),
        pytest.param(list.reverse, id="another order"),
        pytest.param(list.clear, id="nothing"),
        pytest.param(lambda members: members.pop(2), id="a missing file"),
    ],
)
def test_a_layer_with_anything_else_is_refused(change: Callable[..., object]) -> None:
    """Each of these would change the image that it is a layer of."""
    with pytest.raises(ValueError, match="the layer has"):
        read_exactly(repack(change))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:1000],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data + data,
        lambda data: b"\x1f\x8b" + data,
    ],
)
def test_a_layer_of_another_length_is_refused(damage: Callable[[bytes], bytes]) -> None:
    """Bytes after the end of an archive are read by some readers."""
    with pytest.raises(ValueError, match="the layer has"):
        read_exactly(damage(repack(lambda _: None)))
