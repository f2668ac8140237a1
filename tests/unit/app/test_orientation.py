"""The orientation of a picture: read from its metadata, and obeyed."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from app import orientation, pictures
from app.interface import Input, Preprocessing
from app.orientation import UPRIGHT

TENSOR = Input("images", "uint8", "NHWC", None, 4, 4, 3)
PLAIN = Preprocessing("RGB", (255, 255, 255), 1.0, "bicubic", 1.0, (0.0,) * 3, (1.0,) * 3)
KINDS = ("JPEG", "PNG", "WEBP")
# What a camera does to an upright picture, by the number that it writes for it.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def noise(width: int, height: int) -> Image.Image:
    """Return a picture whose pixels all differ."""
    levels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(levels)


def tiff(number: int, order: str = "<", kind: int = 3, tag: int = 0x0112) -> bytes:
    """Return metadata with one entry."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    value = struct.pack(f"{order}{'H' if kind == 3 else 'L'}", number).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHL", tag, kind, 1) + value
    return mark + struct.pack(f"{order}LH", 8, 1) + entry + bytes(4)


def encode(image: Image.Image, kind: str, number: int | None = None) -> bytes:
    """Write a picture as a file, with an orientation in its metadata if one is given."""
    file = io.BytesIO()
    how: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if number is not None:
        how["exif"] = b"Exif\0\0" + tiff(number)
    image.save(file, kind, **how)
    return file.getvalue()


def prepared(raw: bytes, tensor: Input = TENSOR, how: Preprocessing = PLAIN) -> Any:
    """Send a picture the whole way."""
    return pictures.prepare(pictures.open_picture(raw, 10_000_000), tensor, how)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (12, 8)])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("number", STORED)
def test_a_turned_picture_gives_the_pixels_of_the_upright_one(
    number: int, share: float, size: tuple[int, int], kind: str
) -> None:
    """To the pixel, also where the crop leaves an odd number of columns or rows."""
    upright = noise(*size)
    how = replace(PLAIN, crop=share)
    turned = encode(upright.transpose(STORED[number]), kind, number)
    assert (prepared(turned, how=how) == prepared(encode(upright, kind), how=how)).all()


@pytest.mark.parametrize("number", STORED)
def test_a_large_photograph_is_turned_after_it_is_decoded_small(number: int) -> None:
    """As exactly as a viewer does it: a JPEG loses some levels by itself."""
    tensor = replace(TENSOR, height=32, width=32)
    photo = Image.radial_gradient("L").convert("RGB").crop((0, 0, 200, 150)).resize((1600, 1200))
    raw = encode(photo.transpose(STORED[number]), "JPEG", number)
    viewed = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
    shown, expected = prepared(raw, tensor), prepared(encode(viewed, "PNG"), tensor)
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [None, 0, 1, 9, 65535])
def test_a_picture_without_a_turn_stays_as_it_is(kind: str, number: int | None) -> None:
    """Also one with a number that means nothing."""
    image = noise(9, 8)
    assert (prepared(encode(image, kind, number)) == prepared(encode(image, kind))).all()


def test_metadata_after_the_pixels_of_a_png_is_read() -> None:
    """The specification of PNG allows both places."""
    upright = noise(9, 8)
    raw = encode(upright.transpose(STORED[6]), "PNG", 6)
    at = raw.index(b"eXIf") - 4
    length = 12 + struct.unpack_from(">L", raw, at)[0]
    end = raw.index(b"IEND") - 4
    moved = raw[:at] + raw[at + length : end] + raw[at : at + length] + raw[end:]
    assert (prepared(moved) == prepared(encode(upright, "PNG"))).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("head", [b"", b"Exif\0\0"])
def test_metadata_of_every_form_is_read(order: str, kind: int, head: bytes) -> None:
    """Formats wrap it differently, and writers choose the order of bytes and the type."""
    assert orientation.read(head + tiff(6, order, kind)).turn is Image.Transpose.ROTATE_270


@pytest.mark.parametrize(
    "exif",
    [
        None,
        b"",
        b"Exif\0\0",
        b"Exif\0\0more",
        tiff(6)[:-8],
        tiff(6, kind=7),
        tiff(6, tag=0x0110),
        b"II*\x00" + struct.pack("<L", 2**32 - 1),
        b"II*\x00" + struct.pack("<LH", 8, 65535),
        b"II+\x00" + tiff(6)[4:],
    ],
)
def test_odd_metadata_counts_as_upright(exif: bytes | None) -> None:
    """It is cut off, points outside of itself, or has another type, tag or format."""
    assert orientation.read(exif) is UPRIGHT


@given(st.binary(max_size=300), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_metadata_raises_nothing(raw: bytes, head: bytes) -> None:
    """Whatever it has."""
    orientation.read(head + raw)


# The application ignores the warnings of Pillow, too.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_with_damaged_metadata_is_served(kind: str) -> None:
    """The metadata is no fault of the pixels."""
    file = io.BytesIO()
    noise(9, 8).save(file, kind, exif=b"Exif\0\0II*\0" + bytes(range(200)))
    assert prepared(file.getvalue()).shape == (4, 4, 3)


def test_only_a_bounded_number_of_entries_is_read() -> None:
    """Metadata of millions of bytes takes no time."""
    entry = struct.pack("<HHLL", 0x0110, 3, 1, 0)
    last = struct.pack("<HHLL", 0x0112, 3, 1, 6)
    head = b"II*\x00" + struct.pack("<LH", 8, 65535)
    assert orientation.read(head + entry * 999 + last).turn is not None
    assert orientation.read(head + entry * 1000 + last) is UPRIGHT
