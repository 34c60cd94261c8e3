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
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, USER_BLOCK_BYTES
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
    """Alter one byte, `number` times: every second time anywhere, otherwise in each region of the file in turn."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = synthetic.provenance(clip_width=512, slowfast_width=128, num_logits=40)
        intact = synthetic.write_cache(
            folder / "intact", num_harmful=VIDEOS // 2, num_safe=VIDEOS // 2, num_failures=3, num_frames=FRAMES,
            shard_size=VIDEOS, source=source,
        )  # fmt: skip
        shard = intact / "shard-00000.h5"
        regions, owners = find_regions(shard)
        expected = _numbers(load_dataset(Cache.open(intact), TrainSettings()))
        content = shard.read_bytes()
        rng = np.random.default_rng(seed)
        regions_in_turn = itertools.cycle(regions)
        losses: list[str] = []
        survived, tried, readings = Counter[str](), Counter[str](), Counter[str]()
        for i in range(number):
            what, first, last = next(regions_in_turn) if i % 2 else ("", 0, len(content))
            position, mask = int(rng.integers(first, last)), int(rng.integers(1, 256))
            what = what or next((text for text, a, b in regions if a <= position < b), "HDF5's own records")
            bad = folder / "bad"
            shutil.rmtree(bad, ignore_errors=True)
            bad.mkdir()
            altered = bytearray(content)
            altered[position] ^= mask
            (bad / shard.name).write_bytes(altered)
            outcome = run_forked(lambda bad=bad: _read(bad, expected), seconds=SECONDS)  # type: ignore[misc]
            tried[what] += 1
            wrong = [outcome.error] if outcome.error else _wrong(outcome.value, what, position, owners)
            readings[outcome.value[1] if outcome.value else "died"] += 1
            survived[what] += not wrong
            losses += [f"byte {position} ({what}) ^ {mask:#04x}: {text}" for text in wrong]
    return Record(
        what="bytes altered in a shard",
        tried=number,
        survived=survived.total(),
        losses=losses,
        note=f"in {len(tried)} regions of {len(content):,} bytes; train refused {readings['refused']} of these shards, "
        f"and read the right values from {readings['equal']}",
        facts={"regions": dict(sorted(tried.items())), "readings": dict(readings), "bytes": len(content)},
        seconds=time.monotonic() - started,
    )


def find_regions(shard: Path) -> tuple[list[Region], dict[str, list[tuple[int, int, set[str]]]]]:
    """The regions of a shard; and for each array of features or times, the byte range and video ids of each chunk."""
    with shard.open("rb") as file:
        lines = [len(line) for line in file.read(USER_BLOCK_BYTES).split(b"\n")[:3]]
    ends = list(itertools.accumulate(length + 1 for length in lines))
    regions = [("seal: version", 0, ends[0]), ("seal: digest", ends[0], ends[1]), ("seal: size", ends[1], ends[2])]
    regions += [("seal: padding", ends[2], USER_BLOCK_BYTES), ("superblock", USER_BLOCK_BYTES, USER_BLOCK_BYTES + 48)]
    owners: dict[str, list[tuple[int, int, set[str]]]] = {}
    with h5py.File(shard) as file:
        ids = [id.decode() for id in file["media/id"][:]]
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            found = file[name]
            stream, _, array = name.partition("/")
            for i in range(found.id.get_num_chunks()):
                chunk = found.id.get_chunk_info(i)
                first = chunk.byte_offset
                regions.append((f"/{name}", first, first + chunk.size))
                if stream in STREAMS and array != "offset":
                    offset = file[f"{stream}/offset"][:]
                    start, stop = chunk.chunk_offset[0], min(chunk.chunk_offset[0] + found.chunks[0], len(found))
                    inside = {
                        id for id, a, b in zip(ids, offset[:-1], offset[1:], strict=True) if a < stop and b > start
                    }
                    owners.setdefault(f"/{name}", []).append((first, first + chunk.size, inside))
    regions.sort(key=lambda region: region[1])
    gaps = [
        ("HDF5's own records", a_last, b_first)
        for (_, _, a_last), (_, b_first, _) in itertools.pairwise([*regions, ("", shard.stat().st_size, 0)])
        if a_last < b_first
    ]
    return regions + gaps, owners


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
