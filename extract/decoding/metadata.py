"""Separates the metadata of an image file from the picture, so that no odd field of it can keep the picture from use.

Pillow reads all metadata as it opens a file, and fails on much of it that viewers ignore. Therefore it gets the file
without it, and EXIF and XMP are kept for the orientation alone.
"""

import re
import string
import zlib
from dataclasses import dataclass

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"

# JPEG markers (ITU-T T.81, table B.1).
APP0, APP1, APP14, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
COMMENT = 0xFE
BEFORE_SCAN = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD} - {0xC8}  # frame headers and tables

# The application segments that say how colours are stored, JFIF and Adobe: libjpeg ignores shorter ones (jdmarker.c).
COLOUR_SEGMENT_BYTES = {APP0: 14, APP14: 12}

# The entries of metadata in the item list of HEIC and AVIF (ISO/IEC 14496-12, `infe`): version, flags, id, protection.
METADATA_ITEM = re.compile(rb"(infe(?:\x02.{3}(.{2})|\x03.{3}(.{4})).{2})(?:Exif|mime)", re.DOTALL)

MAX_TEXT_BYTES = 1 << 20  # of a compressed text, as in Pillow


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An image file in two parts."""

    picture: bytes
    """The file without metadata; the whole file where its format is not separated here or its structure is damaged."""
    exif: bytes = b""
    xmp: bytes = b""


def separate(content: bytes) -> Parts:
    """The parts of a file: metadata is taken out of JPEG and PNG, and hidden from the decoder in HEIC and AVIF.

    What has to do with pixels stays: colour transforms, palettes, transparent values. Colour profiles do not, as
    Pillow never applies them. Nothing is raised: from a damaged part on, the file stays as it is.
    """
    if content.startswith(JPEG_START):
        return _separate_jpeg(content)
    if content.startswith(PNG_START):
        return _separate_png(content)
    if content[4:8] == b"ftyp":
        return Parts(picture=METADATA_ITEM.sub(rb"\1free", content))
    return Parts(picture=content)


def _separate_jpeg(content: bytes) -> Parts:
    kept, exif, xmp = [content[:2]], b"", b""
    at = 2
    while at < len(content):
        if content[at] != 0xFF or content[at + 1 : at + 2] in (b"\xff", b"\0"):  # bytes between segments mean nothing
            at += 1
            continue
        marker = int.from_bytes(content[at + 1 : at + 2])
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        is_application = APP0 <= marker <= APP15 or marker == COMMENT
        if not (is_application or marker in BEFORE_SCAN) or not at + 4 <= end <= len(content):
            break
        payload = content[at + 4 : end]
        if not is_application or len(payload) >= COLOUR_SEGMENT_BYTES.get(marker, len(content)):
            kept.append(content[at:end])
        elif marker == APP1 and payload.startswith(b"Exif\0\0"):
            exif += payload[6:]  # a long one stands in several segments
        elif marker == APP1 and payload.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = payload.partition(b"\0")[2]
        at = end
    return Parts(picture=b"".join([*kept, content[at:]]), exif=exif, xmp=xmp)


def _separate_png(content: bytes) -> Parts:
    kept, fields = [PNG_START], dict[str, bytes]()
    at = len(PNG_START)
    while at + 12 <= len(content):
        kind = content[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if not kind.isalpha() or end > len(content):
            break
        if kind[:1].isupper() or kind == b"tRNS":  # a capital letter: needed to decode (PNG specification, 5.4)
            kept.append(content[at:end])
        elif zlib.crc32(content[at + 4 : end - 4]) == int.from_bytes(content[end - 4 : end]):
            fields |= _png_field(kind, content[at + 8 : end - 4])
        at = end
        if kind == b"IEND":
            break
    exif = fields.get("eXIf") or fields.get("exif") or _from_hex(fields.get("Raw profile type exif", b""))
    return Parts(picture=b"".join([*kept, content[at:]]), exif=exif, xmp=fields.get("XML:com.adobe.xmp", b""))


def _png_field(kind: bytes, data: bytes) -> dict[str, bytes]:
    """The name and value of a chunk of metadata; empty if it has none that can be read."""
    name, _, value = data.partition(b"\0")
    if kind == b"eXIf":
        return {"eXIf": data}
    if kind == b"zTXt":
        value = _decompressed(value[1:])
    elif kind == b"iTXt":
        is_compressed = value[:1] != b"\0"
        value = value[2:].split(b"\0", 2)[-1]  # after the flags: language, translated name, text
        value = _decompressed(value) if is_compressed else value
    elif kind != b"tEXt":
        return {}
    return {name.decode("latin-1"): value}


def _decompressed(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _from_hex(profile: bytes) -> bytes:
    """The bytes of a "raw profile", as ImageMagick writes them: a blank line, a name, a length, hexadecimal digits."""
    digits = "".join(c for c in b"".join(profile.split(b"\n")[3:]).decode("latin-1") if c in string.hexdigits)
    return bytes.fromhex(digits[: len(digits) // 2 * 2])
