"""Reads the main picture of a HEIC file with libheif (package pi-heif): tiles joined, rotated as the file says."""

import contextlib
import importlib.util
import io
import math
import re
import struct
from collections.abc import Iterator

from PIL import Image

from haechi.extract.decoding.reasons import Reason, UnusableError

IS_INSTALLED = importlib.util.find_spec("pi_heif") is not None

if IS_INSTALLED:
    import pi_heif

    pi_heif.options.DECODE_THREADS = 1  # one worker process runs on each core already
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False

# An item that `metadata.separate` hid.
HIDDEN_ITEM = re.compile(rb"infe(?:\x02.{3}(.{2})|\x03.{3}(.{4})).{2}free", re.DOTALL)

ITEM_SIZE = re.compile(rb"ispe\0{4}(.{8})", re.DOTALL)

# What pi-heif raises for files that it cannot read (its `open_heif`); also `MemoryError`, which is the worker's limit.
HEIF_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, IndexError, KeyError, struct.error)


def open_main(content: bytes) -> "pi_heif.HeifImage":
    """The main picture of a file, whose size is known and which is not decoded yet.

    Raises `UnusableError`: not_media if the package is missing, damaged.
    """
    if not IS_INSTALLED:
        raise UnusableError(Reason.NOT_MEDIA, "HEIC image: needs the package pi-heif (pip install pi-heif)")
    if (end := _last_byte(content)) > len(content):
        message = f"cut off at byte {len(content)}: its index lists data up to byte {end}"
        raise UnusableError(Reason.DAMAGED, message)
    try:
        pictures = pi_heif.open_heif(io.BytesIO(content))
    except HEIF_ERRORS as error:
        raise _unusable(error) from error
    main = next((picture for picture in pictures if picture.info["primary"]), None)
    if main is None:
        raise UnusableError(Reason.DAMAGED, "its main picture cannot be read")
    return main


def decode(picture: "pi_heif.HeifImage") -> Image.Image:
    """Upright, in the mode of the file: grey, RGB, or RGB with alpha; 8 bits, or 16 if grey. Raises `UnusableError`."""
    try:
        decoded: Image.Image = picture.to_pillow()
    except HEIF_ERRORS as error:
        raise _unusable(error) from error
    return decoded


def declared_size(content: bytes) -> tuple[int, int]:
    """Width and height of the largest item of a HEIC or AVIF; zeros if none is declared."""
    sizes = [struct.unpack(">II", found[1]) for found in ITEM_SIZE.finditer(content)]
    return max(sizes, key=math.prod, default=(0, 0))


def _unusable(error: Exception) -> UnusableError:
    text = " ".join(str(error).split())
    if "ecurity" in text:
        return UnusableError(Reason.TOO_LARGE, f"beyond the limits of libheif ({text})")
    if "nsupported" in text:
        return UnusableError(Reason.NOT_MEDIA, f"HEIF image of a kind that libheif does not decode ({text})")
    return UnusableError(Reason.DAMAGED, f"does not decode ({text})")


def _last_byte(content: bytes) -> int:
    """End of the last part of a picture that the file's index lists; 0 if it has no index that can be read.

    libheif reads a file that is cut off as far as it goes, and leaves the rest of the picture empty.
    """
    hidden = {int.from_bytes(found[1] or found[2]) for found in HIDDEN_ITEM.finditer(content)}
    last = 0
    for meta in _boxes(content, b"meta"):
        for index in _boxes(meta[4:], b"iloc"):  # after version and flags
            with contextlib.suppress(EOFError):  # libheif decides
                for id, end in _extents(io.BytesIO(index)):
                    last = last if id in hidden else max(last, end)
    return last


def _boxes(content: bytes, wanted: bytes) -> Iterator[bytes]:
    """What the boxes of one type hold, side by side in `content` (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(content):
        size, type = struct.unpack_from(">I4s", content, at)
        start = at + 8
        if size == 1 and at + 16 <= len(content):
            size, start = int.from_bytes(content[at + 8 : at + 16]), at + 16
        if type == wanted:
            yield content[start : at + size if size else None]
        if size < 8:  # 0: up to the end
            return
        at += size


def _extents(index: io.BytesIO) -> Iterator[tuple[int, int]]:
    """(item, end in the file) of each part of an item that stands in the file itself (ISO/IEC 14496-12, `iloc`).

    Raises `EOFError` where the box ends early.
    """

    def number(num_bytes: int) -> int:
        found = index.read(num_bytes)
        if len(found) < num_bytes:
            raise EOFError
        return int.from_bytes(found)

    version = number(4) >> 24
    sizes = number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(number(4 if version == 2 else 2)):
        id = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0  # 0: offsets count from the start of the file
        number(2)  # which file
        base = number(base_bytes)
        for _ in range(number(2)):
            if version:
                number(index_bytes)
            start = base + number(offset_bytes)
            length = number(length_bytes)
            if method == 0:
                yield id, start + length
