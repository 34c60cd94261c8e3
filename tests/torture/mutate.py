"""Damaged videos of all kinds: each must be used or fail with a reason. Counts used ones whose frames are wrong."""

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.networks import shrink_slowfast, write_clip_config
from haechi.cache.reader import Cache
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import UnusableError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.manifest import read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.sampling import Uniform
from haechi.extract.settings import ExtractSettings
from tests.sinks import Kept
from tests.torture.contents import flaws
from tests.torture.damage import DAMAGES, PICTURE_DAMAGES
from tests.torture.media import write_kinds, write_manifest
from tests.torture.processes import descendants, run_forked, still_running
from tests.torture.record import Record

FRAMES, WORKERS = 16, 2
TIMEOUT_SECONDS = 20.0

# A frame is clearly different if more than this share of its pixels differs by more than this many of 255 levels.
MAX_PIXEL_SHARE, MAX_LEVELS = 0.01, 40
OUTPUT = Output(transform=FrameTransform(size=96, interpolation="bilinear"), num_frames=FRAMES)


def mutate(number: int, *, seed: int = 0, keep: Path | None = None) -> Record:
    """Extract `number` damaged files together with the intact originals, extract again, and decode each file alone.

    These codecs have no checksums of their pictures, so a decoder may accept altered pictures in an intact container.
    This is counted and is not a loss. Files with clearly different frames or another number of frames are copied to
    `keep`, and so are files whose reason is different when they are decoded alone.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        intact = write_kinds(folder / "videos", num_frames=40, height=120, width=160)
        damages = _write_damaged(intact, number, seed)
        names = [path.name for path in intact] + list(damages)
        manifest = write_manifest(folder / "videos" / "labels.csv", names)
        limit = 180 + number * 0.5
        outcome = run_forked(lambda: _extract_twice(manifest, folder), seconds=limit)
        if outcome.error:
            return Record(
                what="damaged videos", tried=number, survived=0, losses=[outcome.error], note="the run itself failed",
                seconds=time.monotonic() - started,
            )  # fmt: skip
        losses, used, reasons = outcome.value
        losses += [f"{path.name}, which is intact, is {reasons[path.name]}" for path in intact if path.name in reasons]
        verdicts = {name: _decode_alone(folder / "videos" / name) for name in names}
        inconsistent = [name for name, verdict in verdicts.items() if verdict.reason != reasons.get(name, "")]
        losses += [
            f"{name} ({damages.get(name, 'intact')}) is {reasons.get(name) or 'used'} with other files, "
            f"{verdicts[name].reason or 'used'} alone"
            for name in inconsistent
        ]
        undetected = _find_undetected(verdicts, damages)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for bad in [*inconsistent, *undetected["pictures"], *undetected["length"]]:
                (keep / bad).write_bytes((folder / "videos" / bad).read_bytes())
    used_damages = [damages[name] for name in used if name in damages]
    num_altered = sum(damage in PICTURE_DAMAGES for damage in used_damages)
    counts = Counter(reasons.values())
    reasons_text = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return Record(
        what="damaged videos",
        tried=number,
        survived=number - len((set(damages) - used - set(reasons)) | (set(damages) & set(inconsistent))),
        losses=losses,
        note=f"{len(used_damages)} used, {reasons_text}; of those used, {num_altered} had altered pictures: "
        f"{len(undetected['pictures'])} show clearly different frames; {len(undetected['length'])} of all used have a "
        "different number of frames",
        facts={
            "reasons": dict(counts.most_common()),
            "used by damage": dict(Counter(used_damages).most_common()),
            "tried by damage": dict(Counter(damages.values()).most_common()),
            "pictures altered, used": num_altered,
            "pictures grossly other, used": undetected["pictures"],
            "other number of frames, used": {name: damages[name] for name in undetected["length"]},
        },
        seconds=time.monotonic() - started,
    )


def _write_damaged(intact: list[Path], number: int, seed: int) -> dict[str, str]:
    """Write damaged copies of the intact files, each file damaged in each way in turn; file name -> kind of damage."""
    damages: dict[str, str] = {}
    kinds = list(DAMAGES)
    for i in range(number):
        source, how = intact[i % len(intact)], kinds[i // len(intact) % len(kinds)]
        altered = DAMAGES[how](source.read_bytes(), np.random.default_rng([seed, i]))
        path = source.with_name(f"{i:04d}-{source.name}")
        path.write_bytes(altered)
        damages[path.name] = how
    return damages


def _extract_twice(manifest: Path, folder: Path) -> tuple[list[str], set[str], dict[str, str]]:
    """What went wrong (one line each), the ids that were used, and id -> reason of the others."""
    from haechi.extract import pipeline

    shrink_slowfast()
    settings = ExtractSettings(
        frames=FRAMES, clip_model=write_clip_config(folder / "clip"), clip_weights="random:0",
        slowfast_weights="random:0", shard_size=64, device="cpu", precision="fp32", workers=WORKERS,
        timeout_seconds=TIMEOUT_SECONDS,
    )  # fmt: skip
    entries, out = read_manifest(manifest), folder / "cache"

    def run() -> Extraction:
        return pipeline.extract(entries, out, settings, producer="haechi torture")

    first, second = run(), run()
    wrong = [f"process {process.pid} is still running" for process in still_running(descendants())]
    wrong += flaws(out, finished=True)
    if second.num_new:
        wrong.append(f"a second run extracts {second.num_new} rows again")
    cache = Cache.open(out)
    used, reasons = set(cache.media["id"].tolist()), {row.id: row.reason for row in cache.failures}
    if len(used) + len(reasons) != len(entries.entries) or first.num_used + first.num_failed != first.num_rows:
        wrong.append(f"{len(used)} used + {len(reasons)} failed, expected {len(entries.entries)} rows")
    return wrong, used, reasons


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of decoding one file alone in a new process."""

    reason: str
    """Empty if the file can be used."""
    pictures: np.ndarray | None = None
    """(FRAMES, side, side, RGB), the input of the networks."""
    num_frames: int = 0


def _decode_alone(path: Path) -> Verdict:
    limits = Limits.of(ExtractSettings())
    kept = Kept(OUTPUT)

    def decode() -> Verdict:
        try:
            sampled = sample(path, sampling=Uniform(frames=FRAMES), limits=limits, sink=kept)
        except UnusableError as error:
            return Verdict(reason=error.reason.value)
        return Verdict(reason="", pictures=kept.frames(), num_frames=sampled.num_frames)

    outcome = run_forked(decode, seconds=TIMEOUT_SECONDS)
    return Verdict(reason="timeout" if "hung" in outcome.error else "crashed") if outcome.error else outcome.value


def _find_undetected(verdicts: dict[str, Verdict], damages: dict[str, str]) -> dict[str, list[str]]:
    """Names of damaged files that are used: "pictures": frames clearly differ; "length": number of frames differs."""
    found: dict[str, list[str]] = {"pictures": [], "length": []}
    for name, how in damages.items():
        verdict, intact = verdicts[name], verdicts[name.partition("-")[2]]
        if verdict.pictures is None or intact.pictures is None:
            continue
        if verdict.num_frames != intact.num_frames:
            found["length"].append(name)
        elif how in PICTURE_DAMAGES:
            difference = np.abs(verdict.pictures.astype(np.int16) - intact.pictures).max(axis=3)  # (FRAMES, side, side)
            if (difference > MAX_LEVELS).mean(axis=(1, 2)).max() > MAX_PIXEL_SHARE:
                found["pictures"].append(name)
    return found
