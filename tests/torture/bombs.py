"""Decoders that hang, crash, stop or use too much memory, and files with absurd headers: each becomes a failure row."""

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.networks import shrink_slowfast, write_clip_config
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache
from haechi.extract import pipeline
from haechi.extract.decoding import pool
from haechi.extract.manifest import read_manifest
from haechi.extract.samples import scene, write_video
from haechi.extract.settings import ExtractSettings
from tests.torture.contents import flaws
from tests.torture.faulty_decoder import FAULTS, sample_into_slot
from tests.torture.media import write_kinds, write_manifest
from tests.torture.processes import descendants, still_running
from tests.torture.record import Record

WORKERS = 2
TIMEOUT_SECONDS, MEMORY_GB = 4.0, 0.5

BILLION = 1_000_000_000

# Kind of absurd header -> the reasons that its row may have. FFmpeg itself refuses pictures of 30,000 x 30,000 pixels.
ABSURD_HEADERS = {
    "large": {"too_large"},
    "huge": {"too_large", "no_frames"},
    "long": {"too_large", "not_media", "damaged", "out_of_memory"},
}
SIDES = {"large": 16_000, "huge": 30_000}


def bombs(rounds: int) -> Record:
    """Extract intact videos and, among them, `rounds` files for each fault and absurd header; compare all reasons.

    Replaces the decoder of this process's pools for good, so call it in a process that does nothing else.
    """
    started = time.monotonic()
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = write_kinds(folder / "kinds", num_frames=16, height=72, width=96)
        raw = write_video(
            folder / "raw.avi", scene(seed=0, restless=False, num_frames=4, height=72, width=96), codec="rawvideo"
        )
        expected = _write(folder / "videos", kinds, raw, rounds)
        manifest = read_manifest(write_manifest(folder / "videos" / "labels.csv", list(expected)))
        num_processes: list[int] = []

        class Watch(Progress):
            def advance(self, count: int = 1, *, failed: bool = False) -> None:
                num_processes.append(len(descendants()))

        shrink_slowfast()
        pool._sample_into_slot = sample_into_slot
        settings = ExtractSettings(
            frames=8, clip_model=write_clip_config(folder / "clip"), clip_weights="random:0",
            slowfast_weights="random:0", shard_size=64, device="cpu", precision="fp32", workers=WORKERS,
            timeout_seconds=TIMEOUT_SECONDS, worker_memory_gb=MEMORY_GB,
        )  # fmt: skip
        pipeline.extract(manifest, folder / "cache", settings, producer="haechi torture", progress=Watch())
        cache = Cache.open(folder / "cache")
        got = {row.id: row.reason for row in cache.failures} | dict.fromkeys(cache.media["id"].tolist(), "")
        losses += [f"process {process.pid} is still running" for process in still_running(descendants())]
        losses += flaws(folder / "cache", finished=True)
    wrong = [id for id, reasons in expected.items() if got.get(id) not in reasons]
    losses += [f"{id} is {got.get(id, 'no row')!r}, expected {' or '.join(expected[id]) or 'used'}" for id in wrong]
    if max(num_processes[-WORKERS:]) < WORKERS:
        losses.append(f"{num_processes[-1]} decoding processes at the end, {WORKERS} at the start")
    num_bombs = sum(reasons != {""} for reasons in expected.values())
    reasons = Counter(reason or "used" for reason in got.values())
    reasons_text = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return Record(
        what="decoders that hang, crash or use too much memory",
        tried=num_bombs,
        survived=num_bombs - sum(expected[id] != {""} for id in wrong),
        losses=losses,
        note=f"among {len(expected) - num_bombs} intact videos: {reasons_text}",
        facts={"reasons": dict(reasons)},
        seconds=time.monotonic() - started,
    )


def _write(folder: Path, kinds: list[Path], raw: Path, rounds: int) -> dict[str, set[str]]:
    """Write faulty videos, each followed by two intact ones; file name -> allowed reasons, {""} if it must be used."""
    folder.mkdir()
    expected: dict[str, set[str]] = {}
    for _ in range(rounds):
        for what in [*FAULTS, *ABSURD_HEADERS]:
            for name in (what, "intact", "intact"):
                source = kinds[len(expected) % len(kinds)]
                path = folder / f"{len(expected):03d}-{name}{source.suffix}"
                if name in SIDES:
                    path = path.with_suffix(".avi")
                    path.write_bytes(_with_absurd_size(raw, SIDES[name]))
                elif name == "long":
                    path = path.with_suffix(".mp4")
                    path.write_bytes(_with_absurd_length(kinds[0]))
                else:
                    shutil.copyfile(source, path)
                reasons = ABSURD_HEADERS.get(name) or ({FAULTS[name][1]} if name in FAULTS else {""})
                expected[path.name] = reasons
    return expected


def _with_absurd_size(raw: Path, side: int) -> bytes:
    """An AVI of raw pictures whose header gives `side` pixels for both width and height.

    They follow the 4-byte size of the BITMAPINFOHEADER.
    """
    content = bytearray(raw.read_bytes())
    width = content.index(b"strf") + 12
    content[width : width + 8] = side.to_bytes(4, "little") * 2
    return bytes(content)


def _with_absurd_length(intact: Path) -> bytes:
    """An MP4 whose header declares a billion frames of one byte each."""
    content = bytearray(intact.read_bytes())
    sizes = content.index(b"stsz") + 8
    content[sizes : sizes + 8] = (1).to_bytes(4, "big") + BILLION.to_bytes(4, "big")
    times = content.index(b"stts") + 12
    content[times : times + 4] = BILLION.to_bytes(4, "big")
    return bytes(content)
