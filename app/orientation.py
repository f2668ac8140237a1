"""How a camera was held, as the Exif metadata of a picture says it.

The metadata comes from a stranger. Only one number of it is read, from a bounded number of entries:
whatever is odd counts as upright, and is no fault of the picture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image

_HEADER = b"Exif\x00\x00"
# Exif 3.0, 4.6.2: the byte orders of TIFF, the tag, and the types that hold a whole number.
_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_TAG = 0x0112
_TYPES = {3: "H", 4: "L"}
_MOST_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Orientation:
    """The turn that shows stored pixels upright.

    Attributes:
        turn: The turn of Pillow; None where the pixels are stored upright.
        from_right: Whether the first column or row of the upright picture is the last column that
            is stored.
        from_bottom: Whether it is the last row that is stored.
    """

    turn: Image.Transpose | None = None
    from_right: bool = False
    from_bottom: bool = False

    def apply(self, picture: Image.Image) -> Image.Image:
        """Return a picture upright; the same one if it is."""
        return picture if self.turn is None else picture.transpose(self.turn)


UPRIGHT = Orientation()
_ORIENTATIONS = {
    2: Orientation(Image.Transpose.FLIP_LEFT_RIGHT, from_right=True),
    3: Orientation(Image.Transpose.ROTATE_180, from_right=True, from_bottom=True),
    4: Orientation(Image.Transpose.FLIP_TOP_BOTTOM, from_bottom=True),
    5: Orientation(Image.Transpose.TRANSPOSE),
    6: Orientation(Image.Transpose.ROTATE_270, from_bottom=True),
    7: Orientation(Image.Transpose.TRANSVERSE, from_right=True, from_bottom=True),
    8: Orientation(Image.Transpose.ROTATE_90, from_right=True),
}


def read(exif: bytes | None) -> Orientation:
    """Return the orientation in Exif metadata; upright if there is none, or none that is valid."""
    if not exif:
        return UPRIGHT
    try:
        return _ORIENTATIONS.get(_number(exif.removeprefix(_HEADER)), UPRIGHT)
    except struct.error:
        return UPRIGHT


def _number(tiff: bytes) -> int:
    """Return the value of the tag in the first directory; 0 if it has none."""
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return 0
    (start,) = struct.unpack_from(f"{order}L", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(min(count, _MOST_ENTRIES)):
        at = start + 2 + 12 * entry
        tag, kind, _ = struct.unpack_from(f"{order}HHL", tiff, at)
        if tag == _TAG and kind in _TYPES:
            (number,) = struct.unpack_from(f"{order}{_TYPES[kind]}", tiff, at + 8)
            return int(number)
    return 0
