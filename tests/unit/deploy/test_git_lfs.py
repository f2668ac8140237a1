"""Pointers of Git LFS are distinguished from other files by their first bytes."""

from __future__ import annotations

import pytest

from deploy.git_lfs import LONGEST_START, is_pointer
from tests.fakes.models import LFS_POINTER


@pytest.mark.parametrize(
    "start",
    [
        LFS_POINTER,
        LFS_POINTER[:LONGEST_START],
        b"version https://hawser.github.com/spec/v1\noid sha256:4d7a\nsize 1\n",
    ],
)
def test_a_pointer_is_recognized_by_its_start(start: bytes) -> None:
    """The rest of the file is not needed."""
    assert is_pointer(start)


@pytest.mark.parametrize(
    "start", [b"", b"\x08\x07", b"version 1", b"# version https://git-lfs.github.com/spec/v1"]
)
def test_other_files_are_no_pointers(start: bytes) -> None:
    """They may be empty, binary, or a text about pointers."""
    assert not is_pointer(start)
