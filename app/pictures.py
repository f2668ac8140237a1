"""Pictures, from the text in a request to the numbers that a model takes.

Everything here reads bytes that a stranger sent: formats are few, sizes are looked at before anything is decoded, and whatever a
decoder says against a picture is the picture's fault. Knows nothing of HTTP or ONNX.
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
from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - its import makes the format known

from app import segments

if TYPE_CHECKING:
    from app.interface import Input, Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_BYTES_LITERAL = re.compile(r"b(['\"])(.*)\1", re.DOTALL)
_DATA_URL = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A JPEG may be decoded at half, quarter or eighth size; this many times the size wanted must stay, so that resizing has the last word.
_SPARE = 2

# Pillow loads its decoders on the first use: the first request must not pay for that.
Image.preinit()

# Decoders warn of sizes below our own limit too; that limit is the one that counts.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class PictureError(ValueError):
    """A picture cannot be read; the text says why."""


class TooLargeError(PictureError):
    """A picture has more pixels than may be decoded."""


def unwrap(text: str) -> bytes:
    """Return the bytes of a base64 text, which may be a Python bytes literal or a data URL and may hold white space.

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
    try:
        picture = Image.open(io.BytesIO(segments.essential(raw)), formats=FORMATS)
    except segments.TooManyError as error:
        raise PictureError(f"a picture of {error}") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"more than the {most_pixels} pixels that are left for it") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Decoders raise whatever comes to them on damaged bytes.
        raise PictureError(f"a damaged picture: {_reason(error)}") from error
    if picture.width * picture.height > most_pixels:
        raise TooLargeError(
            f"{picture.width}x{picture.height} are more than the {most_pixels} pixels that are left for it"
        )
    return picture


def prepare(picture: Image.Image, tensor: Input, how: Preprocessing) -> npt.NDArray[Any]:
    """Decode a picture and make it what the model takes, without the batch dimension.

    The order is: centre crop, flatten on the background, convert, resize, arithmetic. Cropping first saves memory and changes no
    pixel, because flattening and conversion treat each pixel alone. The picture is used up.

    Raises:
        PictureError: The picture is truncated or damaged.
    """
    try:
        square = _crop(picture, tensor, how.crop)
        # Decoded pixels are the most memory that a request takes: none is kept for longer than it is needed.
        picture.close()
        flat = _converted(_flatten(square, how.background), "L" if how.colour == "L" else "RGB")
        del square
        small = flat.resize((tensor.width, tensor.height), _FILTERS[how.interpolation])
    except Exception as error:  # As above: the bytes are at fault, whatever the decoder raised.
        raise PictureError(f"a truncated or damaged picture: {_reason(error)}") from error
    return _numbers(np.asarray(small), tensor, how)


def _crop(picture: Image.Image, tensor: Input, share: float) -> Image.Image:
    wanted = _SPARE * max(tensor.width, tensor.height) / (share * min(picture.size))
    if picture.format == "JPEG" and wanted < 1:
        picture.draft(None, (int(picture.width * wanted) + 1, int(picture.height * wanted) + 1))
    side = max(1, round(share * min(picture.size)))
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


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
