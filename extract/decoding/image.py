"""Reads one image with Pillow: its frame as people see it, and nothing of a file that is damaged."""

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from haechi.extract.decoding.reasons import Reason, UnusableError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# What a file of each format begins with. WebP's name stands behind RIFF and the file's length, BMP's two letters alone
# are too few: one of the sizes that its second header may have follows.
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
BMP_HEADER_BYTES = {12, 40, 52, 56, 64, 108, 124}

# All that Pillow raises on damaged files of these formats.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)

BACKGROUND = (255, 255, 255)
"""Shown through what is transparent, as on most pages."""

LEVELS_16_BIT = 257  # of a 16-bit scale are one of the 8-bit scale


def is_image(path: Path) -> bool:
    """Whether a file begins as an image does, whatever it is called. Raises `OSError`."""
    with path.open("rb") as file:
        start = file.read(18)
    if start.startswith(b"BM"):
        return int.from_bytes(start[14:], "little") in BMP_HEADER_BYTES
    return start.startswith(BEGINNINGS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def read(path: Path, *, max_pixels: int) -> np.ndarray:
    """The image (H, W, 3), uint8 RGB: turned as its EXIF says, on white where it is transparent, a GIF's first frame.

    Raises `UnusableError`: too_large (told from the header), damaged (cut off, too).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is damaged, and of sizes that are checked here
        try:
            picture = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise UnusableError(Reason.TOO_LARGE, f"{error} (--max-pixels)") from error
        except PILLOW_ERRORS as error:
            raise UnusableError(Reason.DAMAGED, "begins as an image and cannot be opened as one") from error
        with picture:
            width, height = picture.size
            if width * height > max_pixels:
                told = f"{width} x {height} pixels, the limit is {max_pixels} in all (--max-pixels)"
                raise UnusableError(Reason.TOO_LARGE, told)
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
