from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.segments import TooManyError, essential

PICTURE = Image.linear_gradient("L").resize((40, 30))


def encode(mode: str, kind: str, **options: Any) -> bytes:
    """Write the picture as a file."""
    file = io.BytesIO()
    PICTURE.convert(mode).save(file, kind, **options)
    return file.getvalue()


def pixels(raw: bytes) -> Any:
    """Decode a file."""
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"))


def segment(marker: int, data: bytes) -> bytes:
    """Make a segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def chunk(name: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"optimize": True, "quality": 100}],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_shows_the_same_without_its_extras(mode: str, options: dict[str, Any]) -> None:
    """Whatever way a JPEG is coded, its pixels stay; its profile, comment and what follows its end do not."""
    plain = encode(mode, "JPEG", **options)
    extras = (
        encode(
            mode,
            "JPEG",
            icc_profile=bytes(9000),
            exif=b"Exif\x00\x00extra",
            comment=b"extra",
            **options,
        )
        + b"extra"
        + plain
    )
    kept = essential(extras)
    assert (pixels(kept) == pixels(plain)).all()
    assert b"extra" not in kept
    assert len(kept) <= len(plain)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_shows_the_same_without_its_extras(mode: str) -> None:
    """Whatever kind a PNG is of, its pixels, palette and transparency stay; its texts and profile do not."""
    plain = encode(mode, "PNG")
    extras = (
        plain[:33]
        + chunk(b"tEXt", b"k\0extra")
        + chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(9)))
        + plain[33:]
        + b"extra"
    )
    assert (pixels(essential(extras)) == pixels(plain)).all()
    assert essential(extras) == essential(plain)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP"])
def test_other_formats_are_left_alone(kind: str) -> None:
    """What has no such extras, or decoders that skip them, stays as it is."""
    assert essential(encode("RGB", kind)) == encode("RGB", kind)


def test_extras_behind_junk_are_found() -> None:
    """Decoders skip what is no segment, so what hides behind it is taken out as well."""
    plain = encode("RGB", "JPEG")
    hidden = (
        plain[:2] + b"\xff\x00junk" + segment(0xE1, b"Exif\0\0hidden") + b"\xff\xff\xff" + plain[3:]
    )
    assert b"hidden" not in essential(hidden)
    assert (pixels(essential(hidden)) == pixels(plain)).all()


def test_marker_that_some_read_with_a_length_and_some_without_is_dropped() -> None:
    """Its data would be segments to a decoder that reads none."""
    plain = encode("RGB", "JPEG")
    assert b"hidden" not in essential(
        plain[:2] + segment(0xC8, segment(0xE1, b"Exif\0\0hidden")) + plain[2:]
    )


def test_a_hundred_scans_are_decoded_and_more_are_refused() -> None:
    """Each makes a decoder go over all pixels: a file of a megabyte can hold tens of thousands."""
    progressive = encode("RGB", "JPEG", progressive=True)
    first = progressive.index(b"\xff\xda")
    count = progressive.count(b"\xff\xda")
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert first > 0
    essential(progressive[:-2] + last * (100 - count) + b"\xff\xd9")
    with pytest.raises(TooManyError, match="100 scans"):
        essential(progressive[:-2] + last * (101 - count) + b"\xff\xd9")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xff\xd8" + segment(0xE1, b"Exif\0\0") * 200_000, "segments"),
        (b"\xff\xd8" + b"\xff\xdb\x00\x00" * 200_000, "segments"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"") * 200_000, "chunks"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2_000_000), "chunks"),
    ],
)
def test_too_many_parts_are_refused(raw: bytes, reason: str) -> None:
    """No picture has so many."""
    with pytest.raises(TooManyError, match=reason):
        essential(raw)


@given(st.binary(max_size=100), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b""]))
def test_whatever_breaks_off_is_no_fault(raw: bytes, head: bytes) -> None:
    """Damaged files pass, never longer than they were, for a decoder to judge."""
    assert len(essential(head + raw)) <= max(len(head + raw), 8)


@given(st.integers(0, 2000))
def test_a_truncated_picture_stays_truncated(length: int) -> None:
    """Nothing is made up for what is missing: a decoder sees as much of the picture as before."""
    whole = encode("RGB", "JPEG", progressive=True)
    assert essential(whole).startswith(essential(whole[:length])[:-1]) or length < 3
