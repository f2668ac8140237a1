"""The pointers that Git LFS leaves in the place of large files.

A clone without git-lfs has these small texts instead of the files themselves.
Source: the specification of Git LFS, "The Pointer".
"""

from __future__ import annotations

# The second was the address before the first release; clients still read such pointers.
_STARTS = (
    b"version https://git-lfs.github.com/spec/v",
    b"version https://hawser.github.com/spec/v",
)
LONGEST_START = max(map(len, _STARTS))
"""How many bytes of a file `is_pointer` needs."""


def is_pointer(first_bytes: bytes) -> bool:
    """Return whether a file is the pointer to a file of Git LFS.

    Args:
        first_bytes: the start of the file, at least LONGEST_START bytes if it has so many.
    """
    return first_bytes.startswith(_STARTS)
