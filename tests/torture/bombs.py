"""Decoders that hang, crash, stop or eat memory, files that ask for the impossible: each is a row with its reason."""

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
from tests.torture import poison
from tests.torture.apart import decoders, survivors
from tests.torture.held import flaws
from tests.torture.media import write_kinds, write_manifest
from tests.torture.record import Record

WORKERS = 2
TIMEOUT_SECONDS, MEMORY_GB = 4.0, 0.5

BILLION = 1_000_000_000

# Files that claim too much -> the reasons that they may have. FFmpeg itself takes no picture of 30,000 x 30,000 pixels.
CLAIMS = {
    "large": {"too_large"},
    "huge": {"too_large", "no_frames"},
    "long": {"too_large", "not_media", "damaged", "out_of_memory"},
}
SIDES = {"large": 16_000, "huge": 30_000}


def bombs(rounds: int) -> Record:
    """Extract `rounds` times all bombs and claims among sound videos. Schedules other work in this process's pools."""
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
        seen: list[int] = []

        class Watch(Progress):
            def advance(self, count: int = 1, *, failed: bool = False) -> None:
                seen.append(len(decoders()))

        shrink_slowfast()
        pool._sample_into_slot = poison.sample_into_slot
        settings = ExtractSettings(
            frames=8, clip_model=write_clip_config(folder / "clip"), clip_weights="random:0",
            slowfast_weights="random:0", shard_size=64, device="cpu", precision="fp32", workers=WORKERS,
            timeout_seconds=TIMEOUT_SECONDS, worker_memory_gb=MEMORY_GB,
        )  # fmt: skip
        pipeline.extract(manifest, folder / "cache", settings, producer="haechi torture", progress=Watch())
        cache = Cache.open(folder / "cache")
        got = {row.id: row.reason for row in cache.failures} | dict.fromkeys(cache.media["id"].tolist(), "")
        losses += [f"{process.pid} is left" for process in survivors(decoders())]
        losses += flaws(folder / "cache", finished=True)
    wrong = [id for id, reasons in expected.items() if got.get(id) not in reasons]
    losses += [f"{id} is {got.get(id, 'no row')!r}, expected {' or '.join(expected[id]) or 'used'}" for id in wrong]
    if max(seen[-WORKERS:]) < WORKERS:
        losses.append(f"{seen[-1]} decoding processes at the end, {WORKERS} at the start")
    num_bombs = sum(reasons != {""} for reasons in expected.values())
    reasons = Counter(reason or "used" for reason in got.values())
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return Record(
        what="decoders that hang, crash or eat memory",
        tried=num_bombs,
        survived=num_bombs - sum(expected[id] != {""} for id in wrong),
        losses=losses,
        note=f"among {len(expected) - num_bombs} sound videos: {told}",
        facts={"reasons": dict(reasons)},
        seconds=time.monotonic() - started,
    )


def _write(folder: Path, kinds: list[Path], raw: Path, rounds: int) -> dict[str, set[str]]:
    """File name -> reasons that it may have, an empty one where it is to be used. Sound videos stand around bombs."""
    folder.mkdir()
    expected: dict[str, set[str]] = {}
    for _ in range(rounds):
        for what in [*poison.BOMBS, *CLAIMS]:
            for name in (what, "sound", "sound"):
                source = kinds[len(expected) % len(kinds)]
                path = folder / f"{len(expected):03d}-{name}{source.suffix}"
                if name in SIDES:
                    path = path.with_suffix(".avi")
                    path.write_bytes(_huge(raw, SIDES[name]))
                elif name == "long":
                    path = path.with_suffix(".mp4")
                    path.write_bytes(_long(kinds[0]))
                else:
                    shutil.copyfile(source, path)
                reasons = CLAIMS.get(name) or ({poison.BOMBS[name][1]} if name in poison.BOMBS else {""})
                expected[path.name] = reasons
    return expected


def _huge(raw: Path, side: int) -> bytes:
    """An AVI of raw pictures whose header says `side` pixels (BITMAPINFOHEADER: its size, then width and height)."""
    content = bytearray(raw.read_bytes())
    width = content.index(b"strf") + 12
    content[width : width + 8] = side.to_bytes(4, "little") * 2
    return bytes(content)


def _long(sound: Path) -> bytes:
    """An MP4 that says it has a billion frames, all of one size."""
    content = bytearray(sound.read_bytes())
    sizes = content.index(b"stsz") + 8
    content[sizes : sizes + 8] = (1).to_bytes(4, "big") + BILLION.to_bytes(4, "big")
    times = content.index(b"stts") + 12
    content[times : times + 4] = BILLION.to_bytes(4, "big")
    return bytes(content)
