"""Right checksums for HDF5's own records after they were altered, so that its parser goes on to read them."""

import re

MASK = 0xFFFFFFFF
SUPERBLOCK_BYTES = 44  # of version 3 with 8-byte offsets, before its checksum


def mend(body: bytes) -> bytes:
    """The bytes after a shard's user block, with right checksums of superblock and object headers."""
    altered = bytearray(body)
    _put(altered, 0, SUPERBLOCK_BYTES)
    for found in re.finditer(b"OHDR", body):
        if (size := _header_bytes(body, found.start())) is not None:
            _put(altered, found.start(), size)
    return bytes(altered)


def _header_bytes(body: bytes, start: int) -> int | None:
    """How long an object header of version 2 is, without its checksum; None where it does not fit in."""
    flags = body[start + 5] if start + 5 < len(body) else 0
    place = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = place + width + int.from_bytes(body[place : place + width], "little") - start
    return size if start + size + 4 <= len(body) else None


def _put(altered: bytearray, start: int, size: int) -> None:
    if start + size + 4 <= len(altered):
        sum_ = lookup3(bytes(altered[start : start + size]))
        altered[start + size : start + size + 4] = sum_.to_bytes(4, "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash, which HDF5 puts behind its records (http://burtleburtle.net/bob/c/lookup3.c, hashlittle)."""
    a = b = c = (0xDEADBEEF + len(data)) & MASK
    words = memoryview(data + bytes(-len(data) % 12)).cast("I")
    for i in range(0, len(words) - 3, 3):
        a, b, c = (a + words[i]) & MASK, (b + words[i + 1]) & MASK, (c + words[i + 2]) & MASK
        a = (a - c & MASK) ^ _turn(c, 4)
        c = c + b & MASK
        b = (b - a & MASK) ^ _turn(a, 6)
        a = a + c & MASK
        c = (c - b & MASK) ^ _turn(b, 8)
        b = b + a & MASK
        a = (a - c & MASK) ^ _turn(c, 16)
        c = c + b & MASK
        b = (b - a & MASK) ^ _turn(a, 19)
        a = a + c & MASK
        c = (c - b & MASK) ^ _turn(b, 4)
        b = b + a & MASK
    if not data:
        return c
    a, b, c = (a + words[-3]) & MASK, (b + words[-2]) & MASK, (c + words[-1]) & MASK
    c = (c ^ b) - _turn(b, 14) & MASK
    a = (a ^ c) - _turn(c, 11) & MASK
    b = (b ^ a) - _turn(a, 25) & MASK
    c = (c ^ b) - _turn(b, 16) & MASK
    a = (a ^ c) - _turn(c, 4) & MASK
    b = (b ^ a) - _turn(a, 14) & MASK
    return (c ^ b) - _turn(b, 24) & MASK


def _turn(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & MASK
