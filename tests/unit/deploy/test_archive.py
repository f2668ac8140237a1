"""Tar archives: the same files give the same bytes, and other tools can read them."""

from __future__ import annotations

import io
import tarfile

import pytest

from deploy.archive import create_header, create_member, pack_files, pad


def test_a_member_has_nothing_of_this_machine() -> None:
    """Owner and time are zero."""
    member = create_member("a", 1)
    assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)


@pytest.mark.parametrize("name", ["a", "x" * 300])
def test_a_header_and_its_padding_make_an_archive(name: str) -> None:
    """Long names are not cut."""
    data = create_header(name, 3) + b"abc" + pad(3) + bytes(tarfile.RECORDSIZE)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (member,) = archive
        content = archive.extractfile(member)
        assert content is not None
        assert (member.name, content.read()) == (name, b"abc")


def test_packed_files_can_be_read_from_the_start() -> None:
    """Two archives of the same files are equal."""
    files = {"a": b"1", "b/c": b""}
    packed = pack_files(files)
    with tarfile.open(fileobj=packed) as archive:
        assert archive.getnames() == ["a", "b/c"]
    assert pack_files(files).read() == pack_files(files).read()


def test_files_are_packed_into_an_open_file() -> None:
    """A build by BuildKit reads a real file."""
    target = io.BytesIO()
    assert pack_files({"a": b"1"}, target) is target
    assert target.tell() == 0
