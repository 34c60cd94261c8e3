"""Finds the parts of a video file (MP4 boxes, Matroska elements, AVI chunks) in just enough detail to damage them."""

from collections.abc import Iterator
from dataclasses import dataclass

# Boxes and elements that contain others. For MP4: the number of bytes between the box's header and its first child.
MP4_PARENTS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"dinf": 4, b"edts": 0, b"udta": 0}
MP4_PARENTS |= {b"stsd": 8, b"meta": 4, b"moof": 0, b"traf": 0, b"mvex": 0}
EBML_PARENTS = {b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\xae", b"\xe0", b"\x15\x49\xa9\x66"}
EBML_PARENTS |= {b"\x1c\x53\xbb\x6b", b"\xbb", b"\xb7", b"\xa0", b"\x11\x4d\x9b\x74", b"\x4d\xbb"}
CLUSTER = b"\x1f\x43\xb6\x75"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A box, element or chunk: byte positions in the file."""

    kind: bytes
    kind_at: int
    """Position of `kind`."""
    start: int
    size_at: int
    """Position of the size field."""
    size_bytes: int
    """Width of the size field."""
    body: int
    """Position of the first byte of content."""
    end: int
    """Position after the last byte."""
    is_parent: bool
    """Whether it contains other parts."""


def find_parts(content: bytes) -> list[Part]:
    """All parts, parents before their children; empty for an unknown container."""
    if content[4:8] == b"ftyp":
        return list(_boxes(content, 0, len(content)))
    if content[:4] == b"\x1a\x45\xdf\xa3":
        return list(_elements(content, 0, len(content)))
    return list(_chunks(content, 0, len(content))) if content[:4] == b"RIFF" else []


def find_pictures(content: bytes) -> list[tuple[int, int]]:
    """(first, last + 1) byte of each range of coded pictures, including the few other bytes between them."""
    kinds = (b"mdat", CLUSTER, b"movi")
    return [(part.body, part.end) for part in find_parts(content) if part.kind in kinds]


def _boxes(content: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        size, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if not 8 <= size <= end - start:
            return
        parent = kind in MP4_PARENTS
        yield Part(
            kind=kind,
            kind_at=start + 4,
            start=start,
            size_at=start,
            size_bytes=4,
            body=start + 8,
            end=start + size,
            is_parent=parent,
        )
        if parent:
            yield from _boxes(content, start + 8 + MP4_PARENTS[kind], start + size)
        start += size


def _elements(content: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 2 <= end:
        id_bytes = 9 - content[start].bit_length()
        size_at = start + id_bytes
        if id_bytes > 4 or size_at >= end:
            return
        size_bytes = 9 - content[size_at].bit_length()
        body = size_at + size_bytes
        mask = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(content[size_at:body], "big") & mask
        stop = end if size == mask else min(end, body + size)  # all bits 1: unknown size
        kind = content[start:size_at]
        parent = kind in EBML_PARENTS
        yield Part(
            kind=kind,
            kind_at=start,
            start=start,
            size_at=size_at,
            size_bytes=size_bytes,
            body=body,
            end=stop,
            is_parent=parent,
        )
        if parent:
            yield from _elements(content, body, stop)
        start = stop


def _chunks(content: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        kind, size = content[start : start + 4], int.from_bytes(content[start + 4 : start + 8], "little")
        parent = kind in (b"RIFF", b"LIST")
        stop = min(end, start + 8 + size)
        name = content[start + 8 : start + 12] if parent else kind
        body = start + 12 if parent else start + 8
        yield Part(
            kind=name,
            kind_at=body - 4 if parent else start,
            start=start,
            size_at=start + 4,
            size_bytes=4,
            body=body,
            end=stop,
            is_parent=parent,
        )
        if parent:
            yield from _chunks(content, body, stop)
        start = stop + size % 2
