"""Ways to damage a video file. Each takes its bytes and a generator of random numbers, and returns other bytes."""

from collections.abc import Callable

import numpy as np

from tests.torture.containers import Part, parts_of, pictures_of

# Numbers that a header may hold instead of its own.
LIES = (0, 1, 2, 255, 30_000, 65_535, 1_000_000_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]


def _a_place(content: bytes, rng: Rng, *, in_pictures: bool) -> int:
    """A random byte of the coded pictures, or of all that lies around them."""
    pictures = pictures_of(content) or [(0, len(content))]
    mask = np.zeros(len(content), bool)
    for first, last in pictures:
        mask[first:last] = True
    places = np.flatnonzero(mask == in_pictures)
    return int(rng.choice(places)) if len(places) else int(rng.integers(len(content)))


def _a_stretch(content: bytes, rng: Rng) -> slice:
    """A random stretch of the coded pictures, of up to 2,000 bytes."""
    start = _a_place(content, rng, in_pictures=True)
    last = max(last for first, last in pictures_of(content) or [(0, len(content))] if first <= start < last)
    return slice(start, min(last, start + int(rng.integers(16, 2000))))


def _flip(content: bytes, rng: Rng, *, in_pictures: bool) -> bytes:
    altered = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        altered[_a_place(content, rng, in_pictures=in_pictures)] ^= int(rng.integers(1, 256))
    return bytes(altered)


def flip_picture_bytes(content: bytes, rng: Rng) -> bytes:
    return _flip(content, rng, in_pictures=True)


def flip_other_bytes(content: bytes, rng: Rng) -> bytes:
    return _flip(content, rng, in_pictures=False)


def zero_pictures(content: bytes, rng: Rng) -> bytes:
    altered, where = bytearray(content), _a_stretch(content, rng)
    altered[where] = bytes(where.stop - where.start)
    return bytes(altered)


def randomise_pictures(content: bytes, rng: Rng) -> bytes:
    altered, where = bytearray(content), _a_stretch(content, rng)
    altered[where] = rng.bytes(where.stop - where.start)
    return bytes(altered)


def swap_blocks(content: bytes, rng: Rng) -> bytes:
    """Two blocks of the coded pictures change places."""
    altered, (one, other) = bytearray(content), sorted(_a_place(content, rng, in_pictures=True) for _ in range(2))
    size = max(1, min(1024, other - one, len(content) - other))
    altered[one : one + size], altered[other : other + size] = content[other : other + size], content[one : one + size]
    return bytes(altered)


def cut_end(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def cut_front(content: bytes, rng: Rng) -> bytes:
    return content[int(rng.integers(1, len(content))) :]


def glue(content: bytes, rng: Rng) -> bytes:
    """A second copy behind the first, or behind a part of it."""
    return content[: int(rng.integers(len(content) // 2, len(content) + 1))] + content


def _a_part(content: bytes, rng: Rng) -> Part:
    return parts_of(content)[int(rng.integers(len(parts_of(content))))]


def resize_part(content: bytes, rng: Rng) -> bytes:
    """A box, element or chunk says that it is of another size."""
    altered, part = bytearray(content), _a_part(content, rng)
    where = slice(part.size_at, part.size_at + part.size_bytes)
    if rng.random() < 0.5:
        altered[part.size_at + part.size_bytes - 1] ^= int(rng.integers(1, 256))
    else:
        altered[where] = rng.bytes(part.size_bytes)
    return bytes(altered)


def retype_part(content: bytes, rng: Rng) -> bytes:
    """One says that it is another's kind."""
    altered, part, other = bytearray(content), _a_part(content, rng), _a_part(content, rng)
    kind = other.kind[: len(part.kind)]
    altered[part.kind_at : part.kind_at + len(kind)] = kind
    return bytes(altered)


def move_part(content: bytes, rng: Rng) -> bytes:
    """One is taken out and put in front of another."""
    part, other = _a_part(content, rng), _a_part(content, rng)
    rest = content[: part.start] + content[part.end :]
    target = min(other.start, len(rest))
    return rest[:target] + content[part.start : part.end] + rest[target:]


def lie_in_header(content: bytes, rng: Rng) -> bytes:
    """A number of the header, such as a width, a duration or a count, becomes an absurd one."""
    altered, order = bytearray(content), "little" if content[:4] == b"RIFF" else "big"
    pictures = pictures_of(content)
    leaves = [
        part
        for part in parts_of(content)
        if not part.is_parent and part.end > part.body and not any(a <= part.start < b for a, b in pictures)
    ]
    part = leaves[int(rng.integers(len(leaves)))]
    size = min(int(rng.choice([2, 4])), part.end - part.body)
    place = part.body + size * int(rng.integers((part.end - part.body) // size))
    lie = int(rng.choice(LIES)) & ((1 << 8 * size) - 1)
    altered[place : place + size] = lie.to_bytes(size, order)
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
    "header lies": lie_in_header,
}

# Those after which the container is whole and the pictures are not those that were coded.
OF_PICTURES = frozenset(list(DAMAGES)[:4])
