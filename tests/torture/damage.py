"""Ways to damage a video file. Each function takes the file's bytes and a random generator, and returns new bytes."""

from collections.abc import Callable

import numpy as np

from tests.torture.containers import Part, find_parts, find_pictures

# Numbers to write into headers.
ABSURD_NUMBERS = (0, 1, 2, 255, 30_000, 65_535, 1_000_000_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]


def _random_position(content: bytes, rng: Rng, *, in_pictures: bool) -> int:
    """Position of a random byte inside the coded pictures, or outside them."""
    pictures = find_pictures(content) or [(0, len(content))]
    mask = np.zeros(len(content), bool)
    for first, last in pictures:
        mask[first:last] = True
    positions = np.flatnonzero(mask == in_pictures)
    return int(rng.choice(positions)) if len(positions) else int(rng.integers(len(content)))


def _random_range(content: bytes, rng: Rng) -> slice:
    """A random range of up to 2,000 bytes inside the coded pictures."""
    start = _random_position(content, rng, in_pictures=True)
    last = max(last for first, last in find_pictures(content) or [(0, len(content))] if first <= start < last)
    return slice(start, min(last, start + int(rng.integers(16, 2000))))


def _flip(content: bytes, rng: Rng, *, in_pictures: bool) -> bytes:
    altered = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        altered[_random_position(content, rng, in_pictures=in_pictures)] ^= int(rng.integers(1, 256))
    return bytes(altered)


def flip_picture_bytes(content: bytes, rng: Rng) -> bytes:
    return _flip(content, rng, in_pictures=True)


def flip_other_bytes(content: bytes, rng: Rng) -> bytes:
    return _flip(content, rng, in_pictures=False)


def zero_pictures(content: bytes, rng: Rng) -> bytes:
    altered, where = bytearray(content), _random_range(content, rng)
    altered[where] = bytes(where.stop - where.start)
    return bytes(altered)


def randomise_pictures(content: bytes, rng: Rng) -> bytes:
    altered, where = bytearray(content), _random_range(content, rng)
    altered[where] = rng.bytes(where.stop - where.start)
    return bytes(altered)


def swap_blocks(content: bytes, rng: Rng) -> bytes:
    """Swap two blocks of the coded pictures."""
    altered = bytearray(content)
    one, other = sorted(_random_position(content, rng, in_pictures=True) for _ in range(2))
    size = max(1, min(1024, other - one, len(content) - other))
    altered[one : one + size], altered[other : other + size] = content[other : other + size], content[one : one + size]
    return bytes(altered)


def cut_end(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def cut_front(content: bytes, rng: Rng) -> bytes:
    return content[int(rng.integers(1, len(content))) :]


def glue(content: bytes, rng: Rng) -> bytes:
    """Append a whole copy to the file, or to the first half or more of it."""
    return content[: int(rng.integers(len(content) // 2, len(content) + 1))] + content


def _random_part(content: bytes, rng: Rng) -> Part:
    return find_parts(content)[int(rng.integers(len(find_parts(content))))]


def resize_part(content: bytes, rng: Rng) -> bytes:
    """Write a wrong size into a box, element or chunk."""
    altered, part = bytearray(content), _random_part(content, rng)
    where = slice(part.size_at, part.size_at + part.size_bytes)
    if rng.random() < 0.5:
        altered[part.size_at + part.size_bytes - 1] ^= int(rng.integers(1, 256))
    else:
        altered[where] = rng.bytes(part.size_bytes)
    return bytes(altered)


def retype_part(content: bytes, rng: Rng) -> bytes:
    """Give a box, element or chunk the type of another one."""
    altered, part, other = bytearray(content), _random_part(content, rng), _random_part(content, rng)
    kind = other.kind[: len(part.kind)]
    altered[part.kind_at : part.kind_at + len(kind)] = kind
    return bytes(altered)


def move_part(content: bytes, rng: Rng) -> bytes:
    """Move a box, element or chunk in front of another one."""
    part, other = _random_part(content, rng), _random_part(content, rng)
    rest = content[: part.start] + content[part.end :]
    target = min(other.start, len(rest))
    return rest[:target] + content[part.start : part.end] + rest[target:]


def write_absurd_number(content: bytes, rng: Rng) -> bytes:
    """Replace a number in the header, such as a width, a duration or a count, by an absurd one."""
    altered, order = bytearray(content), "little" if content[:4] == b"RIFF" else "big"
    pictures = find_pictures(content)
    leaves = [
        part
        for part in find_parts(content)
        if not part.is_parent and part.end > part.body and not any(a <= part.start < b for a, b in pictures)
    ]
    part = leaves[int(rng.integers(len(leaves)))]
    size = min(int(rng.choice([2, 4])), part.end - part.body)
    position = part.body + size * int(rng.integers((part.end - part.body) // size))
    number = int(rng.choice(ABSURD_NUMBERS)) & ((1 << 8 * size) - 1)
    altered[position : position + size] = number.to_bytes(size, order)
    return bytes(altered)


DAMAGES: dict[str, Damage] = {
    "picture bytes flipped": flip_picture_bytes,
    "pictures zeroed": zero_pictures,
    "pictures randomised": randomise_pictures,
    "picture blocks swapped": swap_blocks,
    "other bytes flipped": flip_other_bytes,
    "cut off at the end": cut_end,
    "cut off at the front": cut_front,
    "glued to another": glue,
    "part resized": resize_part,
    "part retyped": retype_part,
    "part moved": move_part,
    "header lies": write_absurd_number,
}

# Damage that leaves the container intact and alters the coded pictures.
PICTURE_DAMAGES = frozenset(list(DAMAGES)[:4])
