"""Reads one image with Pillow, as people see it; damaged files are refused."""

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from haechi.extract.decoding.reasons import Reason, UnusableError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# The first bytes of each format. In WebP the name follows RIFF and the file's length. The two letters of BMP are not
# enough: the size of its second header is checked too.
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
BMP_HEADER_BYTES = {12, 40, 52, 56, 64, 108, 124}

# Everything that Pillow raises for damaged files of these formats.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)

BACKGROUND = (255, 255, 255)  # behind transparent pixels, as on most web pages

LEVELS_16_BIT = 257  # this many levels of a 16-bit image are one level of an 8-bit image


def is_image(path: Path) -> bool:
    """Whether a file is an image by its first bytes; its name does not matter. Raises `OSError`."""
    with path.open("rb") as file:
        start = file.read(18)
    if start.startswith(b"BM"):
        return int.from_bytes(start[14:], "little") in BMP_HEADER_BYTES
    return start.startswith(BEGINNINGS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def read(path: Path, *, max_pixels: int) -> np.ndarray:
    """The image, (H, W, 3) uint8 RGB: EXIF rotation applied, transparent pixels on white, of a GIF the first frame.

    Raises `UnusableError`: too_large (by its header), damaged (also if it is cut off).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata, and about sizes, which are checked here
        try:
            picture = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise UnusableError(Reason.TOO_LARGE, f"{error} (--max-pixels)") from error
        except PILLOW_ERRORS as error:
            raise UnusableError(Reason.DAMAGED, "starts like an image but cannot be opened as one") from error
        with picture:
            width, height = picture.size
            if width * height > max_pixels:
                message = f"{width} x {height} pixels, the limit is {max_pixels} pixels (--max-pixels)"
                raise UnusableError(Reason.TOO_LARGE, message)
            try:
                picture.load()
                return np.asarray(_as_seen(picture))
            except PILLOW_ERRORS as error:
                raise UnusableError(Reason.DAMAGED, f"does not decode ({error})") from error


def _as_seen(picture: Image.Image) -> Image.Image:
    """Upright, opaque, 8-bit RGB."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) // LEVELS_16_BIT).astype(np.uint8))
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        opaque = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, layered).convert("RGB")
    return picture.convert("RGB")
