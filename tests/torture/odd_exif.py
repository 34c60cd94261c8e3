"""Sound pictures with odd EXIF: an orientation next to entries of any tag, type, count and value. Each must be used."""

import io
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from haechi.extract.decoding import image
from tests.torture.record import Record

SIZE = (24, 16)
"""Width, height."""

ORIENTATION, SHORT = 0x0112, 3

# Tags that readers give a meaning to: make, resolution, unit, software, pointers to other directories, maker note.
KNOWN_TAGS = (0x010F, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x8769, 0x8825, 0xA005, 0x927C, 0x0100, 0x0111, 0x02BC)
TYPES = (*range(17), 129, 255, 0xFFFF)
COUNTS = (0, 1, 1, 2, 3, 4, 5, 8, 100, 0xFFFF, 1 << 31, (1 << 32) - 1)

# Orientation -> the picture (H, W, 3) as it is shown.
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


def read_odd(number: int, *, seed: int = 0, keep: Path | None = None) -> Record:
    """Read `number` pictures of each format in `EMBED`; those that are refused or lie wrong are written to `keep`."""
    started = time.monotonic()
    losses: list[str] = []
    tried = Counter[int]()
    with tempfile.TemporaryDirectory() as folder:
        plain = {name: _read(Path(folder) / name, encode(kind)) for name, (kind, _) in EMBED.items()}
        for name, content, orientation in odd_exif(number * len(EMBED), seed=seed):
            tried[orientation] += 1
            try:
                shown = _read(Path(folder) / name, content)
                is_right = np.array_equal(shown, TURNED[orientation](plain[name.partition("-")[2]]))
                wrong = "" if is_right else f"is not turned as orientation {orientation} says"
            except Exception as error:  # noqa: BLE001 (whatever happens, it is a loss)
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                losses.append(f"{name}: {wrong}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes(content)
    return Record(
        what="pictures with odd EXIF",
        tried=tried.total(),
        survived=tried.total() - len(losses),
        losses=losses,
        note=f"{number} JPEG, PNG, PNG with a raw profile, WebP each, in {len(tried)} orientations",
        facts={"orientations": {str(i): tried[i] for i in TURNED}},
        seconds=time.monotonic() - started,
    )


def _read(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    pixels = image.read(path, max_pixels=SIZE[0] * SIZE[1])
    path.unlink()
    return pixels


def picture() -> Image.Image:
    """A picture that looks different in each orientation."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 10, y * 15, (x + y) * 6], axis=2).astype(np.uint8))


def odd_exif(number: int, *, seed: int = 0) -> Iterator[tuple[str, bytes, int]]:
    """`number` pictures: the file's name, its bytes and the orientation that it states."""
    plain = {name: encode(kind) for name, (kind, _) in EMBED.items()}
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        name = list(EMBED)[i % len(EMBED)]
        orientation = int(rng.integers(1, 9))
        yield f"{i:05d}-{name}", EMBED[name][1](plain[name], _exif(rng, orientation)), orientation


def encode(kind: str) -> bytes:
    """`picture` without EXIF."""
    buffer = io.BytesIO()
    picture().save(buffer, kind, lossless=True)
    return buffer.getvalue()


def with_jpeg_exif(content: bytes, exif: bytes) -> bytes:
    payload = b"Exif\0\0" + exif
    return content[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2) + payload + content[2:]


def with_png_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """Put a chunk behind a PNG's header."""
    at = content.index(b"IHDR") + 4 + 13 + 4
    return content[:at] + len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4) + content[at:]


def with_png_exif(content: bytes, exif: bytes) -> bytes:
    return with_png_chunk(content, b"eXIf", exif)


def with_raw_profile(content: bytes, exif: bytes) -> bytes:
    """EXIF in a PNG as ImageMagick writes it: hexadecimal digits in a text."""
    payload = b"Exif\0\0" + exif
    text = f"\nexif\n{len(payload):8}\n{payload.hex()}\n".encode()
    return with_png_chunk(content, b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def with_webp_exif(content: bytes, exif: bytes) -> bytes:
    """Turn a simple WebP into an extended one that holds EXIF."""
    width, height = SIZE
    head = b"\x08\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + len(head).to_bytes(4, "little") + head + content[12:]
    chunks += b"EXIF" + len(exif).to_bytes(4, "little") + exif + bytes(len(exif) % 2)
    return b"RIFF" + len(chunks).to_bytes(4, "little") + chunks


# File name -> Pillow's name of the format, and how EXIF gets into a file.
EMBED: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "odd.jpg": ("JPEG", with_jpeg_exif),
    "odd.png": ("PNG", with_png_exif),
    "odd-raw-profile.png": ("PNG", with_raw_profile),
    "odd.webp": ("WEBP", with_webp_exif),
}


def _exif(rng: np.random.Generator, orientation: int) -> bytes:
    """A directory of the orientation and one to four odd entries before and after it, and some data."""
    order = str(rng.choice(["<", ">"]))
    data = rng.bytes(int(rng.integers(0, 64)))
    odd = int(rng.integers(1, 5))
    start = 8 + 2 + 12 * (odd + 1) + 4
    entries = [_odd_entry(rng, order, start, start + len(data)) for _ in range(odd)]
    stated = struct.pack(order + "HHLHH", ORIENTATION, SHORT, 1, orientation, 0)
    entries.insert(int(rng.integers(0, odd + 1)), stated)
    following = int(rng.choice([0, 0, 8, 1 << 31]))  # the next directory; 8 is this one again
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8)
    return head + struct.pack(order + "H", odd + 1) + b"".join(entries) + struct.pack(order + "L", following) + data


def _odd_entry(rng: np.random.Generator, order: str, start: int, end: int) -> bytes:
    """An entry of 12 bytes. Its value may lead to the directory's data, which lie from `start` to `end`, or beyond."""
    tag = int(rng.choice(KNOWN_TAGS)) if rng.random() < 0.5 else int(rng.integers(0x10000))
    tag += tag == ORIENTATION
    inside, any_value = int(rng.integers(start, end + 1)), int(rng.integers(1 << 32))
    value = int(rng.choice([inside, any_value, 0, 1, end, 8, (1 << 32) - 1]))
    return struct.pack(order + "HHLL", tag, int(rng.choice(TYPES)), int(rng.choice(COUNTS)), value)
