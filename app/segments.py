"""JPEG and PNG files without what their pixels do not need: comments, profiles, previews, times, places.

Decoders read all of that with care for what it says and little for how much of it there is: a few megabytes of it, or of scans that
repeat each other, keep one busy for minutes. What is taken out here is never looked at. Imports nothing of this package.

Source: ITU-T T.81, annex B; Portable Network Graphics (third edition), section 5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Tables, frames, restart intervals, and the two application segments that say how colours are meant.
_NEEDED = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, 0xE0, 0xEE} - {0xC8})
_SCAN, _END = 0xDA, 0xD9
# In the data of a scan, what follows 0xFF is 0 or a restart mark, or 0xFF again.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_MOST_SEGMENTS = 2000
# A progressive picture as programs write it has about ten; a decoder goes over all pixels for each.
_MOST_SCANS = 100
_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_MOST_CHUNKS = 100_000


class TooManyError(ValueError):
    """A file has more parts than any that shows a picture."""


def essential(raw: bytes) -> bytes:
    """Return a file that shows the same picture; what is neither JPEG nor PNG is left as it is.

    Raises:
        TooManyError: The file has so many parts that only a decoder would be kept busy by them.
    """
    if not raw.startswith((_JPEG, _PNG)):
        return raw
    parts = list(_jpeg(raw) if raw.startswith(_JPEG) else _png(raw))
    # Megabytes are not copied where nothing is to be left out.
    return raw if sum(map(len, parts)) == len(raw) else b"".join(parts)


def _jpeg(raw: bytes) -> Iterator[bytes | memoryview]:
    view = memoryview(raw)
    yield raw[:2]
    at = 2
    scans = 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(raw, at)
        if found is None or found[1][0] == _END:
            yield found[0] if found else b""
            return
        marker, at = found[1][0], found.end()
        end = at + int.from_bytes(raw[at : at + 2])
        if marker == _SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise TooManyError(f"more than {_MOST_SCANS} scans")
            after = _MARKER.search(raw, end)
            end = after.start() if after else len(raw)
        if marker == _SCAN or marker in _NEEDED:
            yield view[found.start() : end]
        at = end
    raise TooManyError(f"more than {_MOST_SEGMENTS} segments")


def _png(raw: bytes) -> Iterator[bytes | memoryview]:
    view = memoryview(raw)
    yield _PNG
    at = len(_PNG)
    for _ in range(_MOST_CHUNKS):
        name, end = raw[at + 4 : at + 8], at + 12 + int.from_bytes(raw[at : at + 4])
        if name in _CHUNKS:
            yield view[at:end]
        at = end
        if name == b"IEND" or at >= len(raw):
            return
    raise TooManyError(f"more than {_MOST_CHUNKS} chunks")
