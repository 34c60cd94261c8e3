"""Single bytes altered all over a shard: verify must find each, train must refuse the shard or read right values."""

import itertools
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from haechi.cache.errors import CacheError
from haechi.cache.indexed import Index
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, USER_BLOCK_BYTES, VERSIONS
from haechi.cache.shard import Shard
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings
from tests import synthetic
from tests.torture.processes import run_forked
from tests.torture.record import Record

SECONDS = 30.0  # one attempt takes about 0.1 s
VIDEOS, FRAMES = 80, 32  # enough for several chunks of CLIP features

Region = tuple[str, int, int]
"""Name, first byte, byte after the last one."""


def flip(number: int, *, seed: int = 0) -> Record:
    """Alter one byte, `number` times: every second time anywhere, otherwise in each region of the file in turn.

    Shards of each format version in turn.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        intact = {version: _write_intact(folder / f"intact-{version}", version) for version in VERSIONS}
        found = {version: find_regions(shard) for version, shard in intact.items()}
        in_turn = {version: itertools.cycle(regions) for version, (regions, _) in found.items()}
        sizes = [shard.stat().st_size for shard in intact.values()]
        expected = _numbers(load_dataset(Cache.open(intact[1].parent), TrainSettings()))
        rng = np.random.default_rng(seed)
        losses: list[str] = []
        survived, tried, readings = Counter[str](), Counter[str](), Counter[str]()
        for i in range(number):
            version = VERSIONS[i // 2 % len(VERSIONS)]
            shard, (regions, owners) = intact[version], found[version]
            altered = bytearray(shard.read_bytes())
            what, first, last = next(in_turn[version]) if i % 2 else ("", 0, len(altered))
            position, mask = int(rng.integers(first, last)), int(rng.integers(1, 256))
            what = what or next((text for text, a, b in regions if a <= position < b), "HDF5's own records")
            bad = folder / "bad"
            shutil.rmtree(bad, ignore_errors=True)
            bad.mkdir()
            altered[position] ^= mask
            (bad / shard.name).write_bytes(altered)
            outcome = run_forked(lambda bad=bad: _read(bad, expected), seconds=SECONDS)  # type: ignore[misc]
            tried[what] += 1
            wrong = [outcome.error] if outcome.error else _wrong(outcome.value, what, position, owners)
            readings[outcome.value[1] if outcome.value else "died"] += 1
            survived[what] += not wrong
            losses += [f"version {version}, byte {position} ({what}) ^ {mask:#04x}: {text}" for text in wrong]
    return Record(
        what="bytes altered in a shard",
        tried=number,
        survived=survived.total(),
        losses=losses,
        note=f"in {len(tried)} regions of shards of {' and '.join(f'{size:,}' for size in sizes)} bytes, of format "
        f"versions {' and '.join(map(str, VERSIONS))}; train refused {readings['refused']} of these shards, "
        f"and read the right values from {readings['equal']}",
        facts={"regions": dict(sorted(tried.items())), "readings": dict(readings), "bytes": sizes},
        seconds=time.monotonic() - started,
    )


def _write_intact(folder: Path, version: int) -> Path:
    """A shard of a format version."""
    source = synthetic.provenance(clip_width=512, slowfast_width=128, num_logits=40)
    synthetic.write_cache(
        folder, num_harmful=VIDEOS // 2, num_safe=VIDEOS // 2, num_failures=3, num_frames=FRAMES, shard_size=VIDEOS,
        source=source, version=version,
    )  # fmt: skip
    return folder / "shard-00000.h5"


def find_regions(shard: Path) -> tuple[list[Region], dict[str, list[tuple[int, int, set[str]]]]]:
    """The regions of a shard; and for each array of features or times, the byte range and video ids of each block.

    A block is what has one checksum: a chunk of version 1.
    """
    opened = Shard.open(shard)
    with shard.open("rb") as file:
        lines = file.read(USER_BLOCK_BYTES).rstrip(b"\n").split(b"\n")
    ends = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
    names = ["version", "digest", "size", "index"]
    regions = [(f"seal: {name}", first, last) for name, (first, last) in zip(names, itertools.pairwise(ends))]  # noqa: B905 (version 1 has no index)
    regions += [
        ("seal: padding", ends[-1], USER_BLOCK_BYTES),
        ("superblock", USER_BLOCK_BYTES, USER_BLOCK_BYTES + 48),
    ]
    if opened.index is not None:
        start, length = opened.seal.index
        regions.append(("/index", start, start + length))
    owners: dict[str, list[tuple[int, int, set[str]]]] = {}
    (ids,) = opened.read("media/id")
    for name, blocks in (_blocks_by_index(opened.index) if opened.index else _chunks(shard)).items():
        stream, _, array = name.partition("/")
        for first, last, rows in blocks:
            regions.append((f"/{name}", first, last))
            if stream in STREAMS and array != "offset":
                (offset,) = opened.read(f"{stream}/offset")
                inside = {
                    id
                    for id, a, b in zip(ids, offset[:-1], offset[1:], strict=True)
                    if a < rows.stop and b > rows.start
                }
                owners.setdefault(f"/{name}", []).append((first, last, inside))
    regions.sort(key=lambda region: region[1])
    gaps = [
        ("HDF5's own records", a_last, b_first)
        for (_, _, a_last), (_, b_first, _) in itertools.pairwise([*regions, ("", shard.stat().st_size, 0)])
        if a_last < b_first
    ]
    return regions + gaps, owners


Blocks = dict[str, list[tuple[int, int, range]]]
"""Dataset -> first byte, byte after the last one, and rows of each block."""


def _blocks_by_index(index: Index) -> Blocks:
    return {
        name: [
            (place.offset + start * place.row_bytes, place.offset + stop * place.row_bytes, range(start, stop))
            for start in range(0, place.shape[0], place.block_rows)
            for stop in [min(start + place.block_rows, place.shape[0])]
        ]
        for name, place in index.datasets.items()
    }


def _chunks(shard: Path) -> Blocks:
    found: Blocks = {}
    with h5py.File(shard) as file:

        def add(name: str, node: object) -> None:
            if not isinstance(node, h5py.Dataset):
                return
            for i in range(node.id.get_num_chunks()):
                chunk = node.id.get_chunk_info(i)
                start = chunk.chunk_offset[0]
                rows = range(start, min(start + node.chunks[0], len(node)))
                found.setdefault(name, []).append((chunk.byte_offset, chunk.byte_offset + chunk.size, rows))

        file.visititems(add)
    return found


def _read(bad: Path, expected: dict[str, np.ndarray]) -> tuple[list[tuple[str, str, str]], str]:
    """Problems that verify finds (shard, dataset, video); and "refused", "equal" or "altered" for what train reads."""
    problems = [(problem.shard, problem.dataset, problem.video) for problem in verify(bad).problems]
    try:
        got = _numbers(load_dataset(Cache.open(bad), TrainSettings()))
    except (CacheError, TrainError):
        return problems, "refused"
    return problems, "equal" if _equal(got, expected) else "altered"


def _wrong(
    reading_result: tuple[list[tuple[str, str, str]], str], what: str, position: int,
    owners: dict[str, list[tuple[int, int, set[str]]]],
) -> list[str]:  # fmt: skip
    problems, reading = reading_result
    wrong = [] if problems else ["verify finds nothing"]
    if reading == "altered":
        wrong.append("train reads altered values")
    for first, last, videos in owners.get(what, []):
        named = {video for _, dataset, video in problems if dataset == what}
        if first <= position < last and named != videos:
            wrong.append(f"verify names {len(named)} videos for {what}, {len(videos)} are affected")
    return wrong


def _numbers(dataset: Dataset) -> dict[str, np.ndarray]:
    """All arrays of a dataset that training uses, by name."""
    assert isinstance(dataset.features, Features)
    arrays = {name: value for name, value in vars(dataset).items() if isinstance(value, np.ndarray)}
    return arrays | {
        f"features.{name}": np.asarray(value)
        for name, value in vars(dataset.features).items()
        if hasattr(value, "__array__")
    }


def _equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return got.keys() == expected.keys() and all(np.array_equal(got[name], expected[name]) for name in expected)
