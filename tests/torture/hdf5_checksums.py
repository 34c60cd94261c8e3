"""Corrects the checksums of altered HDF5 metadata, so that HDF5's parser does not stop at them."""

import re

MASK = 0xFFFFFFFF
SUPERBLOCK_BYTES = 44  # version 3 with 8-byte offsets; without its checksum


def fix_checksums(body: bytes) -> bytes:
    """`body` (the bytes after a shard's user block) with correct checksums of superblock and object headers."""
    altered = bytearray(body)
    _put_checksum(altered, 0, SUPERBLOCK_BYTES)
    for found in re.finditer(b"OHDR", body):
        if (size := _header_bytes(body, found.start())) is not None:
            _put_checksum(altered, found.start(), size)
    return bytes(altered)


def _header_bytes(body: bytes, start: int) -> int | None:
    """Size of an object header (version 2) without its checksum; None if it does not fit into `body`."""
    flags = body[start + 5] if start + 5 < len(body) else 0
    position = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = position + width + int.from_bytes(body[position : position + width], "little") - start
    return size if start + size + 4 <= len(body) else None


def _put_checksum(altered: bytearray, start: int, size: int) -> None:
    if start + size + 4 <= len(altered):
        checksum = lookup3(bytes(altered[start : start + size]))
        altered[start + size : start + size + 4] = checksum.to_bytes(4, "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash, HDF5's checksum of its metadata (http://burtleburtle.net/bob/c/lookup3.c, hashlittle)."""
    a = b = c = (0xDEADBEEF + len(data)) & MASK
    words = memoryview(data + bytes(-len(data) % 12)).cast("I")
    for i in range(0, len(words) - 3, 3):
        a, b, c = (a + words[i]) & MASK, (b + words[i + 1]) & MASK, (c + words[i + 2]) & MASK
        a = (a - c & MASK) ^ _rotate_left(c, 4)
        c = c + b & MASK
        b = (b - a & MASK) ^ _rotate_left(a, 6)
        a = a + c & MASK
        c = (c - b & MASK) ^ _rotate_left(b, 8)
        b = b + a & MASK
        a = (a - c & MASK) ^ _rotate_left(c, 16)
        c = c + b & MASK
        b = (b - a & MASK) ^ _rotate_left(a, 19)
        a = a + c & MASK
        c = (c - b & MASK) ^ _rotate_left(b, 4)
        b = b + a & MASK
    if not data:
        return c
    a, b, c = (a + words[-3]) & MASK, (b + words[-2]) & MASK, (c + words[-1]) & MASK
    c = (c ^ b) - _rotate_left(b, 14) & MASK
    a = (a ^ c) - _rotate_left(c, 11) & MASK
    b = (b ^ a) - _rotate_left(a, 25) & MASK
    c = (c ^ b) - _rotate_left(b, 16) & MASK
    a = (a ^ c) - _rotate_left(c, 4) & MASK
    b = (b ^ a) - _rotate_left(a, 14) & MASK
    return (c ^ b) - _rotate_left(b, 24) & MASK


def _rotate_left(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & MASK
