"""Tells image formats, and other files that are mistaken for media, by their first bytes. Names do not matter."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from haechi.cache.text import visible

READABLE = ("JPEG", "PNG", "WebP", "BMP", "GIF", "HEIC", "AVIF")

TIFF = "TIFF image (or a raw photo based on it, such as DNG, NEF or ARW)"
JPEG_2000, JPEG_XL = "JPEG 2000 image", "JPEG XL image"

# First bytes -> image format. BMP, WebP and the formats in ISO boxes need more than these: `image_format`.
IMAGES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,  # BigTIFF
    b"MM\0+": TIFF,
    b"IIRO": "Olympus ORF raw photo",
    b"IIRS": "Olympus ORF raw photo",
    b"MMOR": "Olympus ORF raw photo",
    b"IIU\0": "Panasonic RW2 raw photo",
    b"FUJIFILMCCD-RAW": "Fujifilm RAF raw photo",
    b"FOVb": "Sigma X3F raw photo",
    b"\0MRM": "Minolta MRW raw photo",
    b"II\x1a\0\0\0HEAPCCDR": "Canon CRW raw photo",
    b"\xff\x0a": JPEG_XL,
    b"\0\0\0\x0cJXL \r\n\x87\n": JPEG_XL,
    b"\xff\x4f\xff\x51": JPEG_2000,
    b"II\xbc": "JPEG XR image",
    b"8BPS": "Photoshop (PSD) image",
    b"gimp xcf": "GIMP (XCF) image",
    b"v/1\x01": "OpenEXR image",
    b"#?RADIANCE": "Radiance HDR image",
    b"#?RGBE": "Radiance HDR image",
    b"DDS ": "DDS image",
    b"qoif": "QOI image",
    b"BPG\xfb": "BPG image",
    b"FLIF": "FLIF image",
    b"icns": "Apple icon (ICNS)",
    b"\xd7\xcd\xc6\x9a": "Windows metafile (WMF)",
}
JPEG_2000_BOX = b"\0\0\0\x0cjP  \r\n\x87\n"  # before `ftyp`

# The size of a BMP's second header: its two letters alone are not enough.
BMP_HEADER_BYTES = {12, 40, 52, 56, 64, 108, 124}

# The brands in `ftyp` of pictures (ISO/IEC 23008-12, annexes B to G; AV1 Image File Format, section 6).
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
HEIF_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf", b"1pic"}  # of any codec
PICTURE_BRANDS = AVIF_BRANDS | HEIC_BRANDS | HEIF_BRANDS

# First bytes of files that are no media, or videos that FFmpeg could not open: (pattern, what to call it).
OTHERS: list[tuple[bytes, str]] = [
    (rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|script|meta)\b", "HTML"),
    (rb"(\s*<\?xml.*?)?\s*(<!--.*?-->\s*)?(<!doctype svg|<svg)\b", "an SVG drawing"),
    (rb"\s*<\?xml", "XML"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON"),
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"PK\x03\x04", "a ZIP archive or an Office document"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\xfd7zXZ\0|BZh[1-9]|\x28\xb5\x2f\xfd", "a compressed file"),
    (rb"SQLite format 3\0", "an SQLite database"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"ID3|fLaC|OggS.{24}(OpusHead|\x01vorbis)|RIFF....WAVE", "sound"),
    (rb"#EXTM3U", "a playlist"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself: run git lfs pull"),
    (rb"\0{32}", "zero bytes: an incomplete download, or space that was never written"),
]
VIDEOS: list[tuple[bytes, str]] = [
    (rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", "MP4 or QuickTime"),
    (rb"\x1aE\xdf\xa3", "Matroska or WebM"),
    (rb"RIFF....AVI ", "AVI"),
    (rb"FLV\x01", "FLV"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMV or ASF"),
    (rb"OggS", "Ogg"),
    (rb"\0\0\x01[\xb3\xba]", "MPEG"),
    (rb"(G.{187}){2}|(....G.{187}){2}", "MPEG-TS"),
]
START_BYTES = 1024


def image_format(path: Path) -> str:
    """The format of a still image: one of `READABLE` or the name of another one; empty for all other files.

    HEIC and AVIF may be sequences of pictures: they are images too, of which the first one counts. Raises `OSError`.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if start.startswith(b"BM"):
        return "BMP" if int.from_bytes(start[14:18], "little") in BMP_HEADER_BYTES else ""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith(JPEG_2000_BOX):
        return "" if start[20:24] == b"mjp2" else JPEG_2000  # Motion JPEG 2000 is a video
    if start[4:8] == b"ftyp":
        return _format_by_brands(start, path)
    return next((name for first, name in IMAGES.items() if start.startswith(first)), "")


def _format_by_brands(start: bytes, path: Path) -> str:
    size = min(int.from_bytes(start[:4]), len(start))
    major, *others = [start[8:12], *(start[at : at + 4] for at in range(16, size - 3, 4))]
    if major == b"crx ":
        return "Canon CR3 raw photo"
    if not PICTURE_BRANDS & {major, *others}:
        return ""
    boxes = set(_top_boxes(path))
    if b"moov" in boxes and (major not in PICTURE_BRANDS or b"meta" not in boxes):
        return ""  # a video that says that it also holds a picture, or a sequence of pictures without a main one
    if major in HEIC_BRANDS:
        return "HEIC"
    return "AVIF" if AVIF_BRANDS & {major, *others} else "HEIC"


def _top_boxes(path: Path) -> Iterator[bytes]:
    """The types of the boxes of an ISO file (ISO/IEC 14496-12, 4.2), as far as its structure is undamaged."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        at = 0
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            yield head[4:8]
            size = int.from_bytes(head[:4])
            size = int.from_bytes(head[8:]) if size == 1 else size
            if size < 8:  # 0: up to the end of the file
                return
            at += size


def refusal(name: str) -> str:
    """Why an image of a format that is not `READABLE` is not used, and what to do."""
    return f"{name}: Haechi reads {', '.join(READABLE[:-1])} and {READABLE[-1]} images; convert it to one of them"


def unopened(path: Path, error: str) -> str:
    """Why a file that is no image could not be opened as a video either, by what it starts like. Raises `OSError`.

    `error`: FFmpeg's text.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES).removeprefix(codecs.BOM_UTF8)
    for pattern, name in VIDEOS:
        if re.match(pattern, start, re.DOTALL):
            return f"starts like {name}, but cannot be opened as a video ({error})"
    return f"neither an image nor a video of a known format (it starts {_described(start)})"


def _described(start: bytes) -> str:
    for pattern, name in OTHERS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"like {name}"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start[:40])  # its last letter may be cut
    except UnicodeDecodeError:
        text = "\0"
    if all(c.isprintable() or c.isspace() for c in text):
        return f"with the text '{visible(text.strip())}'"
    return f"with the bytes {start[:12].hex(' ')}"
