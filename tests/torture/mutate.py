"""Damaged videos, many of each kind: every one is used or has a reason. Do used ones show the pictures they should?"""

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
from tests.torture.apart import apart, decoders, survivors
from tests.torture.damage import DAMAGES, OF_PICTURES
from tests.torture.held import flaws
from tests.torture.media import write_kinds, write_manifest
from tests.torture.record import Record

FRAMES, WORKERS = 16, 2
TIMEOUT_SECONDS = 20.0

# Pictures differ grossly where more than this part of their pixels is off by more than so many of 255 levels.
GROSS_PART, GROSS_LEVELS = 0.01, 40
OUTPUT = Output(transform=FrameTransform(size=96, interpolation="bilinear"), num_frames=FRAMES)


def mutate(number: int, *, seed: int = 0, keep: Path | None = None) -> Record:
    """Extract `number` damaged files among the sound ones that they were made of, all of it once more, and each alone.

    Whole containers with other pictures in them, of which no decoder complains, are let in: they are counted, with how
    many of them show grossly other pictures, and copied to `keep`. No codec here has checksums of its pictures.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = write_kinds(folder / "videos", num_frames=40, height=120, width=160)
        damages = _write_damaged(sound, number, seed)
        names = [path.name for path in sound] + list(damages)
        manifest = write_manifest(folder / "videos" / "labels.csv", names)
        limit = 180 + number * 0.5
        outcome = apart(lambda: _extract_twice(manifest, folder), seconds=limit)
        if outcome.died:
            return Record(
                what="damaged videos", tried=number, survived=0, losses=[outcome.died], note="the run did not end",
                seconds=time.monotonic() - started,
            )  # fmt: skip
        losses, used, reasons = outcome.value
        losses += [f"{path.name}, which is sound, is {reasons[path.name]}" for path in sound if path.name in reasons]
        verdicts = {name: _alone(folder / "videos" / name) for name in names}
        unlike = [name for name, verdict in verdicts.items() if verdict.reason != reasons.get(name, "")]
        losses += [
            f"{name} ({damages.get(name, 'sound')}) is {reasons.get(name) or 'used'} among others, "
            f"{verdicts[name].reason or 'used'} alone"
            for name in unlike
        ]
        let_in = _let_in(verdicts, damages)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for bad in [*unlike, *let_in["gross"], *let_in["length"]]:
                (keep / bad).write_bytes((folder / "videos" / bad).read_bytes())
    used_damages = [damages[name] for name in used if name in damages]
    of_pictures = sum(damage in OF_PICTURES for damage in used_damages)
    counts = Counter(reasons.values())
    told = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return Record(
        what="damaged videos",
        tried=number,
        survived=number - len((set(damages) - used - set(reasons)) | (set(damages) & set(unlike))),
        losses=losses,
        note=f"{len(used_damages)} used, {told}; of the used, {of_pictures} had other bytes in their pictures: "
        f"{len(let_in['gross'])} show it grossly; {len(let_in['length'])} of all used have another number of frames",
        facts={
            "reasons": dict(counts.most_common()),
            "used by damage": dict(Counter(used_damages).most_common()),
            "tried by damage": dict(Counter(damages.values()).most_common()),
            "pictures altered, used": of_pictures,
            "pictures grossly other, used": let_in["gross"],
            "other number of frames, used": {name: damages[name] for name in let_in["length"]},
        },
        seconds=time.monotonic() - started,
    )


def _write_damaged(sound: list[Path], number: int, seed: int) -> dict[str, str]:
    """Damage the sound files in turn, each in all ways; file name -> how."""
    damages: dict[str, str] = {}
    kinds = list(DAMAGES)
    for i in range(number):
        source, how = sound[i % len(sound)], kinds[i // len(sound) % len(kinds)]
        altered = DAMAGES[how](source.read_bytes(), np.random.default_rng([seed, i]))
        path = source.with_name(f"{i:04d}-{source.name}")
        path.write_bytes(altered)
        damages[path.name] = how
    return damages


def _extract_twice(manifest: Path, folder: Path) -> tuple[list[str], set[str], dict[str, str]]:
    """What went wrong, the ids that were used, and the reasons of the others."""
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
    wrong = [f"{process.pid} is left" for process in survivors(decoders())]
    wrong += flaws(out, finished=True)
    if second.num_new:
        wrong.append(f"a second run does {second.num_new} rows again")
    cache = Cache.open(out)
    used, reasons = set(cache.media["id"].tolist()), {row.id: row.reason for row in cache.failures}
    if len(used) + len(reasons) != len(entries.entries) or first.num_used + first.num_failed != first.num_rows:
        wrong.append(f"{len(used)} used + {len(reasons)} failed are not {len(entries.entries)} rows")
    return wrong, used, reasons


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of a file that meets its decoder alone, in a fresh process."""

    reason: str
    """Empty: it is used."""
    pictures: np.ndarray | None = None
    """(FRAMES, side, side, RGB) that the networks are given."""
    num_frames: int = 0


def _alone(path: Path) -> Verdict:
    limits = Limits.of(ExtractSettings())
    kept = Kept(OUTPUT)

    def decode() -> Verdict:
        try:
            sampled = sample(path, sampling=Uniform(frames=FRAMES), limits=limits, sink=kept)
        except UnusableError as error:
            return Verdict(reason=error.reason.value)
        return Verdict(reason="", pictures=kept.frames(), num_frames=sampled.num_frames)

    outcome = apart(decode, seconds=TIMEOUT_SECONDS)
    return Verdict(reason="timeout" if "hung" in outcome.died else "crashed") if outcome.died else outcome.value


def _let_in(verdicts: dict[str, Verdict], damages: dict[str, str]) -> dict[str, list[str]]:
    """Used files of altered pictures that show grossly other ones, and used files with another number of frames."""
    found: dict[str, list[str]] = {"gross": [], "length": []}
    for name, how in damages.items():
        verdict, sound = verdicts[name], verdicts[name.partition("-")[2]]
        if verdict.pictures is None or sound.pictures is None:
            continue
        if verdict.num_frames != sound.num_frames:
            found["length"].append(name)
        elif how in OF_PICTURES:
            off = np.abs(verdict.pictures.astype(np.int16) - sound.pictures).max(axis=3)  # (FRAMES, side, side)
            if (off > GROSS_LEVELS).mean(axis=(1, 2)).max() > GROSS_PART:
                found["gross"].append(name)
    return found
