"""Reads one image as people see it: with Pillow, HEIC with libheif. Damaged files are refused."""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image, features

from haechi.extract.decoding import exif, formats, heif, metadata
from haechi.extract.decoding.reasons import Reason, UnusableError

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one worker process runs on each core already

# Everything that Pillow raises for damaged files of these formats.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error),
    *(ArithmeticError, AssertionError, AttributeError, RuntimeError),
)

BACKGROUND = (255, 255, 255)  # behind transparent pixels, as on most web pages

LEVELS_16_BIT = 257  # this many levels of a 16-bit image are one level of an 8-bit image

PNG_BIT_DEPTH_BYTE = 24  # where a PNG states the bits of each sample

# EXIF's orientations, other than upright (CIPA DC-008, tag 0x0112).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image(path: Path) -> bool:
    """Whether a file is a still image by its first bytes, readable or not; its name does not matter. Raises `OSError`.

    A HEIC or AVIF sequence is an image, as an animated GIF is.
    """
    return formats.image_format(path) != ""


def read(path: Path, *, max_pixels: int) -> np.ndarray:
    """The image, (H, W, 3) uint8 RGB: rotated as it states, transparent pixels on white, of a sequence the first frame.

    Raises `UnusableError`: not_media if the format is none of `formats.READABLE`, or its decoder is not installed;
    too_large (by its header); damaged (also if it is cut off).
    """
    format = formats.image_format(path)
    if format not in formats.READABLE:
        raise UnusableError(Reason.NOT_MEDIA, formats.refusal(format))
    parts = metadata.separate(path.read_bytes())
    if format == "HEIC":
        main = heif.open_main(parts.picture)
        _check_size(*main.size, max_pixels=max_pixels)
        return np.asarray(_opaque(heif.decode(main), parts.picture))
    if format == "AVIF" and not features.check("avif"):
        raise UnusableError(Reason.NOT_MEDIA, "AVIF image: needs Pillow with AVIF (pip install --upgrade pillow)")
    content = parts.picture
    if format == "AVIF" and content[8:12] != b"avis":
        content = content[:8] + b"avif" + content[12:]  # Pillow looks at this brand alone, and other ones may be first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked here
        try:
            picture = Image.open(io.BytesIO(content), formats=(format,))
        except Image.DecompressionBombError as error:
            raise UnusableError(Reason.TOO_LARGE, f"{error} (--max-pixels)") from error
        except PILLOW_ERRORS as error:
            if format == "AVIF":  # libavif does not open a picture that declares more than its own limit
                _check_size(*heif.declared_size(content), max_pixels=max_pixels)
            raise UnusableError(Reason.DAMAGED, "starts like an image but cannot be opened as one") from error
        with picture:
            _check_size(*picture.size, max_pixels=max_pixels)
            try:
                picture.load()
                opaque = _opaque(picture, content)
            except PILLOW_ERRORS as error:
                raise UnusableError(Reason.DAMAGED, f"does not decode ({error})") from error
            orientation = exif.orientation(
                parts.exif or picture.info.get("exif", b""), parts.xmp or picture.info.get("xmp", b"")
            )
    return np.asarray(opaque.transpose(TURNS[orientation]) if orientation in TURNS else opaque)


def _check_size(width: int, height: int, *, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"{width} x {height} pixels, the limit is {max_pixels} pixels (--max-pixels)"
        raise UnusableError(Reason.TOO_LARGE, message)


def _opaque(picture: Image.Image, content: bytes) -> Image.Image:
    """8-bit RGB, transparent pixels on white. `content`: the file, of which a PNG states its bit depth."""
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        levels = np.asarray(picture)
        grey = (levels // LEVELS_16_BIT).astype(np.uint8)
        if transparent is not None:
            grey[levels == transparent] = BACKGROUND[0]
        return Image.fromarray(grey).convert("RGB")
    if picture.format == "PNG" and transparent is not None:
        picture.info["transparency"] = _as_8_bit(transparent, picture.mode, content[PNG_BIT_DEPTH_BYTE])
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        opaque = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, layered).convert("RGB")
    return picture.convert("RGB")


def _as_8_bit(transparent: Any, mode: str, bit_depth: int) -> Any:
    """The transparent value of a PNG in the levels of Pillow's pixels, which always have 8 bits; Pillow leaves it.

    Of 16-bit colours Pillow keeps the upper byte alone, so pixels that differ from the value only in the lower byte
    become transparent too.
    """
    if mode == "RGB" and bit_depth == 16:
        return tuple(level >> 8 for level in transparent)
    if mode == "L" and bit_depth < 8:
        return transparent % (1 << bit_depth) * 255 // ((1 << bit_depth) - 1)
    return transparent
