from __future__ import annotations

import base64
import contextlib
import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app import pictures
from app.interface import Input, Preprocessing
from app.pictures import PictureError, TooLargeError

TENSOR = Input("images", "uint8", "NHWC", None, 4, 4, 3)
PLAIN = Preprocessing("RGB", (255, 255, 255), 1.0, "nearest", 1.0, (0.0,) * 3, (1.0,) * 3)
RED = (255, 0, 0)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Write a picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def prepared(
    image: Image.Image, tensor: Input = TENSOR, how: Preprocessing = PLAIN, kind: str = "PNG"
) -> Any:
    """Send a picture the whole way."""
    return pictures.prepare(pictures.open_picture(encode(image, kind), 10_000_000), tensor, how)


@pytest.mark.parametrize(
    "form", ["{}", "b'{}'", 'b"{}"', "data:image/png;base64,{}", " {}\n", "{}\r\n"]
)
def test_base64_is_unwrapped(form: str) -> None:
    """Python's literal, a data URL and white space around base64 are taken off."""
    raw = bytes(range(256))
    assert pictures.unwrap(form.format(base64.b64encode(raw).decode())) == raw


def test_base64_in_lines_is_unwrapped() -> None:
    """Line breaks within base64, as mail programs write them, are no fault."""
    raw = bytes(1000)
    assert pictures.unwrap(base64.encodebytes(raw).decode()) == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b''",
        "=",
        "a",
        "a===",
        "ab=c",
        "äöü=",
        "\ud800",
        "-_-_",
        "b'abcd",
        "data:image/png,abcd",
        "\x00" * 8,
    ],
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Anything else is refused, never decoded by halves."""
    with pytest.raises(PictureError):
        pictures.unwrap(text)


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_common_formats_are_read(kind: str) -> None:
    """Each format that is promised is served."""
    assert prepared(Image.new("RGB", (8, 8), (250, 250, 250)), kind=kind).min() > 240


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "PDF", "EPS", "TGA", "JPEG2000", "AVIF"])
def test_other_formats_are_refused(kind: str) -> None:
    """A decoder that is not promised is not reached, even where Pillow has it."""
    with pytest.raises(PictureError, match="formats"):
        pictures.open_picture(encode(Image.new("RGB", (32, 32)), kind), 10_000)


@pytest.mark.parametrize("kind", pictures.FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_pictures_are_refused(kind: str, share: float) -> None:
    """A picture whose end is missing is no picture."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    raw = encode(noise, kind)
    with pytest.raises(PictureError):
        pictures.prepare(pictures.open_picture(raw[: int(len(raw) * share)], 10_000), TENSOR, PLAIN)


MAGIC = (
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ",
)


@given(st.binary(max_size=300), st.sampled_from(MAGIC))
def test_damaged_bytes_raise_only_our_error(raw: bytes, magic: bytes) -> None:
    """Whatever follows the first bytes of a format, the picture is refused or served."""
    with contextlib.suppress(PictureError):
        pictures.prepare(pictures.open_picture(magic + raw, 10_000), TENSOR, PLAIN)


@given(st.data())
def test_flipped_bytes_raise_only_our_error(data: st.DataObject) -> None:
    """A good picture with some bytes changed is refused or served."""
    kind = data.draw(st.sampled_from(pictures.FORMATS))
    raw = bytearray(encode(Image.linear_gradient("L").resize((16, 16)), kind))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=5)):
        raw[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PictureError):
        pictures.prepare(pictures.open_picture(bytes(raw), 10_000), TENSOR, PLAIN)


def png_bomb(width: int, height: int) -> bytes:
    """Make a small PNG that claims to be large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "size", [(101, 100), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (1, 10_001)]
)
def test_bombs_are_refused_by_their_head(size: tuple[int, int]) -> None:
    """A picture of too many pixels is refused before memory is taken for it."""
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        pictures.open_picture(png_bomb(*size), 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def chunk(name: bytes, body: bytes) -> bytes:
    """Make a chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes) -> bytes:
    """Make a segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def test_compressed_text_is_not_unpacked() -> None:
    """A text in a PNG that unpacks to a hundred megabytes is refused before it takes memory."""
    raw = encode(Image.new("RGB", (8, 8), RED))
    text = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(100_000_000), 9))
    tracemalloc.start()
    with pytest.raises(PictureError, match="too large"):
        pictures.open_picture(raw[:33] + text + raw[33:], 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_shows_the_same_with_metadata(mode: str) -> None:
    """Exif, a profile, a comment and what follows the end of the file change no pixel."""
    picture = Image.linear_gradient("L").resize((40, 30)).convert(mode)
    plain = encode(picture, "JPEG")
    more = encode(
        picture, "JPEG", icc_profile=bytes(9000), exif=b"Exif\x00\x00more", comment=b"more"
    )
    shown = [
        pictures.prepare(pictures.open_picture(raw, 10_000), TENSOR, PLAIN)
        for raw in (plain, more + b"more" + plain)
    ]
    assert (shown[0] == shown[1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_shows_the_same_with_metadata(mode: str) -> None:
    """Texts, a profile and what follows the end of the file change no pixel."""
    plain = encode(Image.linear_gradient("L").resize((40, 30)).convert(mode))
    metadata = chunk(b"tEXt", b"k\0more") + chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(9)))
    shown = [
        pictures.prepare(pictures.open_picture(raw, 10_000), TENSOR, PLAIN)
        for raw in (plain, plain[:33] + metadata + plain[33:] + b"more")
    ]
    assert (shown[0] == shown[1]).all()


def test_a_hundred_scans_are_decoded_and_more_are_refused() -> None:
    """A decoder goes over all pixels for each scan of a progressive JPEG."""
    raw = encode(
        Image.linear_gradient("L").resize((40, 30)).convert("RGB"), "JPEG", progressive=True
    )
    last = raw[raw.rindex(b"\xff\xda") : -2]
    hundred = raw[:-2] + last * (100 - raw.count(b"\xff\xda"))
    pictures.prepare(pictures.open_picture(hundred + b"\xff\xd9", 10_000), TENSOR, PLAIN)
    with pytest.raises(PictureError, match="more than 100 scans"):
        pictures.open_picture(hundred + last + b"\xff\xd9", 10_000)


def test_parts_without_number_are_refused() -> None:
    """Profiles are unpacked one by one, and pieces of Exif joined: no picture has so many."""
    png = encode(Image.new("RGB", (8, 8)))
    profile = chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(1_000_000), 9))
    with pytest.raises(PictureError, match="more than 100 colour profiles"):
        pictures.open_picture(png[:33] + profile * 101 + png[33:], 10_000)
    jpeg = encode(Image.new("RGB", (8, 8)), "JPEG")
    with pytest.raises(PictureError, match="more than 100 pieces of Exif"):
        pictures.open_picture(jpeg[:2] + segment(0xE1, b"Exif\0\0") * 101 + jpeg[2:], 10_000)


def test_transparent_parts_show_the_background() -> None:
    """Alpha is flattened on the colour that the model asks for."""
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert prepared(clear)[0, 0].tolist() == [255, 255, 255]
    assert prepared(clear, how=replace(PLAIN, background=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_come_out_alike(mode: str) -> None:
    """White is white, however a file writes it."""
    white: Any = {
        "1": 1,
        "P": 255,
        "I;16": 65535,
        "LA": (255, 255),
        "RGBA": (255,) * 4,
        "RGB": (255,) * 3,
    }.get(mode, 255)
    image = (
        Image.new("L", (8, 8), 255).convert("P") if mode == "P" else Image.new(mode, (8, 8), white)
    )
    assert prepared(image).tolist() == np.full((4, 4, 3), 255).tolist()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_colours_of_print_are_read(mode: str) -> None:
    """A JPEG in another colour space is converted."""
    assert prepared(Image.new("RGB", (8, 8), (250,) * 3).convert(mode), kind="JPEG").min() > 240


def test_centre_is_cropped() -> None:
    """Of a wide picture the middle counts, and of the middle the share that the model asks for."""
    image = Image.new("RGB", (24, 8), (0, 0, 255))
    image.paste(RED, (8, 0, 16, 8))
    assert (prepared(image) == RED).all()
    framed = Image.new("RGB", (8, 8), (0, 0, 255))
    framed.paste(RED, (2, 2, 6, 6))
    assert (prepared(framed, how=replace(PLAIN, crop=0.5)) == RED).all()


def test_channels_come_in_the_order_asked_for() -> None:
    """BGR turns the channels round, and NCHW puts them first."""
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    assert prepared(image, how=replace(PLAIN, colour="BGR"))[0, 0].tolist() == [3, 2, 1]
    assert prepared(image, tensor=replace(TENSOR, layout="NCHW"))[:, 0, 0].tolist() == [1, 2, 3]


def test_floats_are_scaled_and_normalised() -> None:
    """A float32 input gets (x * scale - mean) / std in each channel."""
    tensor = replace(TENSOR, dtype="float32")
    how = replace(PLAIN, scale=1 / 255, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    out = prepared(Image.new("RGB", (8, 8), (255, 255, 255)), tensor, how)
    assert out.dtype == np.float32
    assert out[0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


def test_grey_model_gets_one_channel() -> None:
    """A model of grey levels takes a colour picture too."""
    grey = replace(PLAIN, colour="L", mean=(0.0,), std=(1.0,))
    assert (
        prepared(Image.new("RGB", (8, 8), (9, 9, 9)), replace(TENSOR, channels=1), grey).tolist()
        == np.full((4, 4, 1), 9).tolist()
    )


def test_large_jpeg_is_decoded_small_and_comes_out_alike() -> None:
    """To read a photograph at a fraction of its size changes its pixels by a few levels."""
    tensor = replace(TENSOR, height=32, width=32)
    how = replace(PLAIN, interpolation="bicubic", crop=0.875)
    photo = Image.radial_gradient("L").convert("RGB").resize((1600, 1200))
    small, whole = prepared(photo, tensor, how, "JPEG"), prepared(photo, tensor, how, "PNG")
    assert np.abs(small.astype(int) - whole.astype(int)).max() <= 6
