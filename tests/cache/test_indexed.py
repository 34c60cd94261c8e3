"""Rows that are read by an index: any of them, from whole blocks and parts, and never altered ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haechi.cache.errors import CacheError, DamageError
from haechi.cache.indexed import (
    BLOCKS_PER_READ,
    BadRows,
    Index,
    IndexedContent,
    Place,
    open_indexed,
    place,
    read_index,
)

ROWS_IN_BLOCK = 64  # of 512 float16 values
VALUES = np.random.default_rng(0).normal(size=(ROWS_IN_BLOCK * (2 * BLOCKS_PER_READ + 3) + 5, 512)).astype(np.float16)
TEXTS = np.array([f"{i}.mp4".encode() for i in range(20_000)])
DATASETS = {"clip/features": VALUES, "media/id": TEXTS, "failure/id": TEXTS[:0], "media/label": np.ones(3, np.int8)}
NONE_BAD = BadRows(zero=0, nonfinite=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


@pytest.fixture
def content(path: Path) -> Iterator[IndexedContent]:
    """An open file with the rows of `DATASETS`, after 512 other bytes."""
    places, body = {}, bytes(512)
    for name, values in DATASETS.items():
        places[name] = place(values, len(body) if len(values) else 0)
        body += values.tobytes()
    path.write_bytes(body)
    with open_indexed(path, Index(attributes={}, datasets=places, bad_rows=NONE_BAD)) as opened:
        yield opened


@pytest.mark.parametrize("name", DATASETS)
def test_whole_datasets_read_back(content: IndexedContent, name: str) -> None:
    values = content.read(name, 0, len(DATASETS[name]))
    assert (values.dtype, values.shape) == (DATASETS[name].dtype, DATASETS[name].shape)
    np.testing.assert_array_equal(values, DATASETS[name])


def test_any_ranges_read_back(content: IndexedContent) -> None:
    rng = np.random.default_rng(1)
    edges = [0, 1, 63, 64, 65, 128, ROWS_IN_BLOCK * BLOCKS_PER_READ, len(VALUES) - 5, len(VALUES) - 1, len(VALUES)]
    for number in range(60):
        bounds = np.sort(rng.choice(edges, 4) if number % 2 else rng.integers(0, len(VALUES) + 1, 4)).tolist()
        ranges = [(bounds[0], bounds[1]), (bounds[2], bounds[3])]
        expected = np.concatenate([VALUES[start:stop] for start, stop in ranges])
        result = np.full_like(expected, np.nan)
        content.read_into(result, "clip/features", ranges)
        np.testing.assert_array_equal(result, expected)


def test_a_block_that_several_ranges_share_is_read_once(
    content: IndexedContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, honest = [], content._read_blocks

    def counted(target: memoryview, found: Place, name: str, first: int) -> None:
        reads.append(first)
        honest(target, found, name, first)

    monkeypatch.setattr(content, "_read_blocks", counted)
    content.read_into(np.empty((6, 512), np.float16), "clip/features", [(1, 3), (10, 12), (70, 72)])
    assert reads == [0, 1]


@pytest.mark.parametrize(
    ("row", "ranges", "is_found"),
    [
        (70, [(0, len(VALUES))], True),
        (len(VALUES) - 1, [(0, len(VALUES))], True),
        (64, [(64, 128)], True),
        (127, [(70, 71)], True),  # another row of the block
        (63, [(64, 128)], False),
        (128, [(64, 128)], False),
        (99, [(0, 3), (90, 91)], True),
    ],
)
def test_an_altered_byte_is_found_by_whom_its_block_is_read(
    content: IndexedContent, path: Path, row: int, ranges: list[tuple[int, int]], is_found: bool
) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[content.index.datasets["clip/features"].offset + row * 1024 + 17] ^= 1
    path.write_bytes(damaged)
    result = np.empty((sum(stop - start for start, stop in ranges), 512), np.float16)
    if is_found:
        with pytest.raises(DamageError, match="/clip/features is damaged, its checksum does not match"):
            content.read_into(result, "clip/features", ranges)
    else:
        content.read_into(result, "clip/features", ranges)


def test_a_file_that_gets_shorter_while_it_is_read(content: IndexedContent, path: Path) -> None:
    assert len(content.read("media/label", 0, 3)) == 3
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamageError, match="cut off while it was read"):
        content.read("media/label", 0, 3)


def test_an_index_reads_back() -> None:
    index = Index(
        attributes={"device": "\x1b 영", "format_version": 2},
        datasets={"a/b": Place(dtype="<f2", shape=(3, 4), offset=99, checksums="0" * 16)},
        bad_rows=BadRows(zero=1, nonfinite=2),
    )
    assert Index.decode(index.encode(), where="x") == index
    assert index.encode().isascii()


def test_every_altered_byte_of_an_index_is_found() -> None:
    content = Index(attributes={"device": "cpu"}, datasets={"a": place(VALUES[:100], 512)}, bad_rows=NONE_BAD).encode()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(DamageError, match="its index is damaged"):
            Index.decode(bytes(damaged), where="x")
    for cut in (b"", content[:10], content[:-1], content + b"\n"):
        with pytest.raises(DamageError, match="its index is damaged"):
            Index.decode(cut, where="x")


def test_a_file_that_is_gone_is_not_damage(path: Path) -> None:
    with pytest.raises(CacheError, match="cannot be read") as error:
        read_index(path, 512, 10)
    assert not isinstance(error.value, DamageError)


def test_a_row_larger_than_a_block_is_a_block() -> None:
    found = place(np.ones((3, 40_000), np.float32), 0)
    assert (found.block_rows, len(found.checksums)) == (1, 3 * 16)
    assert replace(found, shape=(0, 40_000)).num_bytes == 0
