"""Bodies for /score that are small, but take much memory or time to read."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable

from PIL import Image

_BODY = 10 * 1024 * 1024
_SIDE = 5000


def score_body(*files: bytes) -> bytes:
    """Return a body that requests the scores of files."""
    return json.dumps({"input": [base64.b64encode(file).decode() for file in files]}).encode()


def _encode(size: tuple[int, int], kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *extras: bytes, bits: int = 8, kind: int = 6, channels: int = 4
) -> bytes:
    """Return a PNG whose pixels are zeros, with no more rows than the largest accepted picture."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * bits // 8)
    rows = b"".join(packer.compress(row) for _ in range(min(height, _SIDE))) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(extras)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def _scans() -> bytes:
    """Return a progressive JPEG with so many scans that it takes 15 minutes to decode them all."""
    whole = _encode((_SIDE, _SIDE), "JPEG", progressive=True, quality=10)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * 100_000 + b"\xff\xd9"


def _exif() -> bytes:
    """Return a JPEG with 200,000 Exif segments, which some decoders concatenate one by one."""
    whole = _encode((64, 64), "JPEG")
    return whole[:2] + b"\xff\xe1\x00\x12Exif\x00\x00".ljust(20, b"\0") * 200_000 + whole[2:]


def _profiles() -> bytes:
    """Return a PNG with 6,000 colour profiles, each a megabyte when decompressed."""
    return png(8, 8, _chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(1_000_000), 9)) * 6000)


def _frames() -> bytes:
    """Return a WebP with 250,000 frames."""
    two = _encode(
        (1, 1),
        "WEBP",
        save_all=True,
        append_images=[Image.new("RGB", (1, 1), "red")],
        lossless=True,
    )
    at = two.index(b"ANMF")
    frame = two[at : at + 8 + struct.unpack_from("<I", two, at + 4)[0]]
    body = b"WEBP" + two[12:at] + frame * (7_000_000 // len(frame))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _comments() -> bytes:
    """Return a GIF with millions of one-letter comments."""
    whole = _encode((8, 8), "GIF")
    at = whole.index(b",")
    return whole[:at] + b"!\xfe" + b"\x01a" * 3_500_000 + b"\0" + whole[at:]


def _runs() -> bytes:
    """Return a BMP of 25 million pixels, in which each row is a run of one and an end of line."""
    rows = b"\x01\x01\0\0" * _SIDE
    head = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + head + bytes(1024) + rows


def _fill(head: bytes, piece: bytes, end: bytes = b"") -> bytes:
    return head + piece * ((_BODY - len(head) - len(end) - 10) // len(piece)) + end


# Each body with the statuses that its response may have.
BOMBS: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a PNG of 400 million pixels": (
        lambda: score_body(png(20_000, 20_000, bits=1, kind=0, channels=1)),
        {413},
    ),
    "a PNG of the largest width and height": (
        lambda: score_body(png(2**31 - 1, 2**31 - 1, bits=1, kind=0, channels=0)),
        {400, 413},
    ),
    "a PNG of the most pixels, 16 bits deep": (
        lambda: score_body(png(_SIDE, _SIDE, bits=16)),
        {200},
    ),
    "thirty PNGs of the most pixels": (lambda: score_body(*[png(_SIDE, _SIDE)] * 30), {413}),
    "a GIF of the most pixels": (lambda: score_body(_encode((_SIDE, _SIDE), "GIF", "P")), {200}),
    "a GIF of too many pixels": (lambda: score_body(_encode((6000, 6000), "GIF", "P")), {413}),
    "a WebP of the most pixels": (
        lambda: score_body(_encode((_SIDE, _SIDE), "WEBP", "RGBA", lossless=True)),
        {200},
    ),
    "a WebP of too many pixels": (
        lambda: score_body(_encode((8000, 3200), "WEBP", method=0, quality=0)),
        {413},
    ),
    "a JPEG of the most pixels": (
        lambda: score_body(_encode((_SIDE, _SIDE), "JPEG", "CMYK")),
        {200},
    ),
    "a JPEG of too many pixels": (lambda: score_body(_encode((20_000, 2000), "JPEG")), {413}),
    "a JPEG of a hundred thousand scans": (lambda: score_body(_scans()), {400}),
    "a JPEG of many Exif segments": (lambda: score_body(_exif()), {400}),
    "a PNG of many profiles": (lambda: score_body(_profiles()), {400}),
    "a WebP of many frames": (lambda: score_body(_frames()), {200}),
    "a GIF of many comments": (lambda: score_body(_comments()), {200}),
    "a BMP of many runs": (lambda: score_body(_runs()), {200}),
    "lists in lists": (lambda: _fill(b"", b"["), {400}),
    "lists in lists in a text": (lambda: _fill(b'{"input":"', b"[", b'"}'), {400}),
    "three million objects": (lambda: _fill(b'{"input":[', b"{},", b"0]}"), {400}),
    "three million objects in a text": (lambda: _fill(b'{"input":"[', b"{},", b'0]"}'), {400}),
    "two million pictures": (lambda: _fill(b'{"input":[', b'"a",', b'"a"]}'), {400}),
    "a hundred thousand keys": (
        lambda: b'{"input":[""],' + b",".join(b'"%d":0' % key for key in range(100_000)) + b"}",
        {400},
    ),
    "a number of ten million digits": (lambda: _fill(b'{"input":[', b"3", b"]}"), {400}),
    "a fraction of ten million digits": (lambda: _fill(b'{"input":[1.', b"3", b"]}"), {400}),
    "white space in base64": (lambda: _fill(b'{"input":["', b"a ", b'"]}'), {400}),
    "ten million escapes": (lambda: _fill(b'{"input":["', b"\\u0100", b'"]}'), {400}),
    "one wide letter among ten million": (
        lambda: _fill(b'{"input":["\xf0\x9f\x98\x80', b"a", b'"]}'),
        {400},
    ),
}
