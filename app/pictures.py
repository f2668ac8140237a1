"""Pictures, from the text in a request to the numbers that a model takes.

The bytes come from a stranger: formats are few, sizes are checked before anything is decoded, and
an error of a decoder is the picture's fault. Knows nothing of HTTP or ONNX.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - registers the format

from app import orientation

if TYPE_CHECKING:
    from app.interface import Input, Preprocessing
    from app.orientation import Orientation

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_BYTES_LITERAL = re.compile(r"b(['\"])(.*)\1", re.DOTALL)
_DATA_URL = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A JPEG may be decoded at half, quarter or eighth size. It stays this many times larger than
# wanted, so that the model's own filter does the rest.
_SPARE = 2

# A JPEG as programs write it has about ten scans, a picture one profile and one piece of Exif.
# Pillow goes over all pixels for each scan, unpacks each profile, and joins the pieces one by one.
_JPEG = b"\xff\xd8"
_SCAN = b"\xff\xda"
_PARTS = {b"iCCP": "colour profiles", b"Exif\x00\x00": "pieces of Exif"}
_MOST_PARTS = 100

# Pillow loads its decoders on the first use: the first request must not pay for that.
Image.preinit()

# Pillow warns of odd metadata, up to thousands of lines a picture, and of sizes below our limit.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(ValueError):
    """A picture cannot be read; the text says why."""


class TooLargeError(PictureError):
    """A picture has more pixels than may be decoded."""


def unwrap(text: str) -> bytes:
    """Return the bytes of a base64 text.

    It may be a Python bytes literal or a data URL, and may hold white space.

    Raises:
        PictureError: It is not base64, or empty.
    """
    encoded = text.strip()
    if literal := _BYTES_LITERAL.fullmatch(encoded):
        encoded = literal[2]
    if url := _DATA_URL.match(encoded):
        encoded = encoded[url.end() :]
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError(f"not base64: {_reason(error)}") from error
    if not raw:
        raise PictureError("an empty picture")
    return raw


def open_picture(raw: bytes, most_pixels: int) -> Image.Image:
    """Read the head of a picture; nothing is decoded yet.

    Raises:
        PictureError: It is of no known format, or its head is damaged.
        TooLargeError: It has more pixels than allowed.
    """
    _check_parts(raw)
    try:
        picture = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"more than the {most_pixels} pixels that are left for it") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Decoders raise whatever comes to them on damaged bytes.
        raise PictureError(f"a damaged picture: {_reason(error)}") from error
    if picture.width * picture.height > most_pixels:
        size = f"{picture.width}x{picture.height}"
        raise TooLargeError(f"{size} are more than the {most_pixels} pixels that are left for it")
    return picture


def _check_parts(raw: bytes) -> None:
    """Refuse a file of so many parts that only a decoder would be kept busy by them."""
    marks = _PARTS | {_SCAN: "scans"} if raw.startswith(_JPEG) else _PARTS
    for mark, what in marks.items():
        if raw.count(mark) > _MOST_PARTS:
            raise PictureError(f"a picture of more than {_MOST_PARTS} {what}")


def prepare(picture: Image.Image, tensor: Input, how: Preprocessing) -> npt.NDArray[Any]:
    """Decode a picture and make it what the model takes, without the batch dimension.

    The order is: turn upright as the picture's Exif metadata says, centre crop, flatten on the
    background, convert, resize, arithmetic. To crop first saves memory and changes no pixel: the
    box is that of the upright picture, and flattening and conversion treat each pixel alone. The
    picture is closed.

    Raises:
        PictureError: The picture is truncated or damaged.
    """
    try:
        _load(picture, tensor, how.crop)
        # A PNG may have its metadata after its pixels.
        upright = orientation.read(picture.info.get("exif"))
        square = _crop(picture, how.crop, upright)
        # Decoded pixels are most of the memory that a request takes: none is kept without need.
        picture.close()
        square = upright.apply(square)
        flat = _converted(_flatten(square, how.background), "L" if how.colour == "L" else "RGB")
        del square
        small = flat.resize((tensor.width, tensor.height), _FILTERS[how.interpolation])
    except Exception as error:  # As above: the bytes are at fault, whatever the decoder raised.
        raise PictureError(f"a truncated or damaged picture: {_reason(error)}") from error
    return _numbers(np.asarray(small), tensor, how)


def _load(picture: Image.Image, tensor: Input, share: float) -> None:
    """Decode a picture, a JPEG at a fraction of its size if that is enough."""
    wanted = _SPARE * max(tensor.width, tensor.height) / (share * min(picture.size))
    if wanted < 1:
        picture.draft(None, (int(picture.width * wanted) + 1, int(picture.height * wanted) + 1))
    picture.load()


def _crop(picture: Image.Image, share: float, upright: Orientation) -> Image.Image:
    """Return the square in the middle of the upright picture, as its pixels are stored."""
    side = max(1, round(share * min(picture.size)))
    left = _offset(picture.width - side, is_mirrored=upright.from_right)
    top = _offset(picture.height - side, is_mirrored=upright.from_bottom)
    return picture.crop((left, top, left + side, top + side))


def _offset(spare: int, *, is_mirrored: bool) -> int:
    """Return how many of the pixels that are cut off come first; one side has an odd one more."""
    return spare - spare // 2 if is_mirrored else spare // 2


def _flatten(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel: Pillow would cut off what is above 255 where it should divide.
        return picture.convert("I").point(lambda level: level * (1 / 257)).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB") if picture.mode == "P" else picture
    layered = _converted(picture, "RGBA")
    flat = Image.new("RGB", layered.size, background)
    flat.paste(layered, mask=layered.getchannel("A"))
    return flat


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    # Pillow makes a copy even where there is nothing to convert.
    return picture if picture.mode == mode else picture.convert(mode)


def _numbers(levels: npt.NDArray[np.uint8], tensor: Input, how: Preprocessing) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = levels.reshape(tensor.height, tensor.width, tensor.channels)
    if how.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    if tensor.dtype == "float32":
        mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
        pixels = (pixels.astype(np.float32) * np.float32(how.scale) - mean) / std
    return pixels if tensor.layout == "NHWC" else pixels.transpose(2, 0, 1)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return ascii(words)[1:-1][:120] if words else type(error).__name__
