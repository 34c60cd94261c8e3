"""Compares the features of a real run with a plain reference implementation: `python -m bench.parity [--data VIDEOS]`.

Features of untrained networks are all similar, and so are frames of one scene. So an error is given relative to the
mean distance between the reference's features of different frames (for SlowFast: of different windows).
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.networks import shrink_slowfast, write_clip_config
from bench.options import sources
from bench.reference import Reference, sampled
from bench.videos import pick_videos
from haechi.cache.errors import HaechiError
from haechi.cache.reader import Cache
from haechi.cache.schema import FRAME_STREAM, NO_MODEL, WINDOW_STREAM, to_store
from haechi.extract import pipeline
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.slowfast import SlowFast
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings

# Largest allowed error of a frame or window, relative to the mean distance between different ones.
BOUNDS = {"fp32": 0.002, "bf16": 0.03, "fp16": 0.03}
BOUND_STORAGE = 0.001
BOUND_BATCHES = 1e-5
BOUND_SECONDS = 1e-3


@dataclass(frozen=True, kw_only=True)
class ComparedFeatures:
    """Features of N videos, in the order of the videos, float32."""

    clip: np.ndarray
    """(N * T, 512)"""
    slowfast: np.ndarray
    """(N, 2304)"""
    logits: np.ndarray
    """(N, 400)"""
    time_seconds: np.ndarray
    """(N * T,)"""

    def errors(self, reference: "ComparedFeatures") -> dict[str, float]:
        """The largest error of each array that was extracted, relative to the mean distance within the reference."""
        return {
            name: relative_error(getattr(self, name), getattr(reference, name))
            for name in ("clip", "slowfast", "logits")
            if getattr(self, name).shape[1]
        }


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest distance between corresponding rows (n, D), over the mean distance between rows of the reference."""
    exact = torch.from_numpy(reference).double()
    errors = (torch.from_numpy(ours).double() - exact).norm(dim=1)
    return float(errors.max() / torch.pdist(exact).mean())


def reference_features(videos: Sequence[Path], settings: ExtractSettings) -> ComparedFeatures:
    """Features made by the reference implementation."""
    reference = Reference(settings, side=SlowFast.transform.size)
    found = []
    for video in videos:
        pictures, time_seconds = sampled(video, settings.frames)
        found.append((reference.clip(pictures), *reference.slowfast(pictures), time_seconds))
    clip, slowfast, logits, times = zip(*found, strict=True)
    return ComparedFeatures(
        clip=np.concatenate(clip),
        slowfast=np.stack(slowfast),
        logits=np.stack(logits),
        time_seconds=np.concatenate(times),
    )


def extracted(videos: Sequence[Path], settings: ExtractSettings, *, backwards: bool = False) -> ComparedFeatures:
    """Features made by the real run, stored as float32; `backwards`: the manifest's rows are in reversed order."""
    order = range(len(videos))[:: -1 if backwards else 1]
    rows = [Entry(id=f"{i:05d}", file=str(videos[i].absolute()), label=-1, split="", group="", line=0) for i in order]
    with tempfile.TemporaryDirectory() as name:
        settings = replace(settings, store="float32")
        manifest = Manifest(entries=tuple(rows), notices=())
        pipeline.extract(manifest, Path(name, "cache"), settings, producer="haechi bench")
        cache = Cache.open(Path(name, "cache"))
        if failures := cache.failures:
            raise HaechiError(
                f"{videos[int(failures[0].id)]}: {failures[0].message}; parity needs videos that can be decoded"
            )
        place = np.argsort(cache.media["id"].astype(str))  # (N,)

        def stream(stream: str, array: str) -> np.ndarray:
            values = cache.rows(stream, array)
            num_rows = len(values) // len(videos)
            values = values.reshape(len(videos), num_rows, *values.shape[1:])[place]  # (N, T or 1, ...)
            return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])

        return ComparedFeatures(
            clip=stream("clip", "features"),
            slowfast=stream("slowfast", "features"),
            logits=stream("slowfast", "logits"),
            time_seconds=stream("clip", "time_seconds"),
        )


def without(settings: ExtractSettings, stream: str) -> ExtractSettings:
    """The same settings with one backbone left out."""
    default = getattr(ExtractSettings, f"{stream}_weights")
    return settings.changed(**{f"{stream}_model": NO_MODEL, f"{stream}_weights": default})


def stored(features: ComparedFeatures) -> ComparedFeatures:
    """The features after storage as float16."""

    def store(values: np.ndarray) -> np.ndarray:
        return to_store(values, store="float16", what="features").astype(np.float32)

    return replace(
        features, clip=store(features.clip), slowfast=store(features.slowfast), logits=store(features.logits)
    )


def compare(videos: Sequence[Path], settings: ExtractSettings, *, precisions: Sequence[str] = ()) -> list[Measurement]:
    """All errors, each with its bound; float32 is always compared, and these `precisions` too."""
    settings = replace(settings, precision="fp32")
    reference = reference_features(videos, settings)
    ours = extracted(videos, replace(settings, workers=1))

    def rows(what: str, found: ComparedFeatures, against: ComparedFeatures, bound: float) -> list[Measurement]:
        errors = found.errors(against).items()
        return [Measurement(what=f"{what}, {name}", unit="", values=[error], at_most=bound) for name, error in errors]

    seconds = float(np.abs(ours.time_seconds - reference.time_seconds).max())
    one = replace(settings, batch_frames=1, batch_windows=1)
    many = replace(settings, batch_frames=settings.frames * len(videos), batch_windows=len(videos), workers=2)
    return [
        *rows("fp32", ours, reference, BOUNDS["fp32"]),
        *(
            row
            for precision in precisions
            for row in rows(
                precision, extracted(videos, replace(settings, precision=precision)), reference, BOUNDS[precision]
            )
        ),
        *rows("float16 storage", stored(ours), ours, BOUND_STORAGE),
        *rows("batches of one frame and one window", extracted(videos, one), ours, BOUND_BATCHES),
        *rows("one batch, two workers, reversed order", extracted(videos, many, backwards=True), ours, BOUND_BATCHES),
        *rows("without SlowFast", extracted(videos, without(settings, WINDOW_STREAM)), ours, BOUND_BATCHES),
        *rows("without CLIP", extracted(videos, without(settings, FRAME_STREAM)), ours, BOUND_BATCHES),
        Measurement(what="frame times against PyAV's", unit="s", values=[seconds], at_most=BOUND_SECONDS),
    ]


@click.command()
@sources
@click.option("--videos", "num_videos", type=click.IntRange(min=2), default=4, show_default=True)
@click.option("--clip-weights", default="random:0", show_default=True, help="As for haechi extract.")
@click.option("--slowfast-weights", default="random:0", show_default=True, help="As for haechi extract.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(sorted(BOUNDS.keys() - {"fp32"})),
    help="Compare this precision too. [default: the one that `haechi extract` would choose]",
)
def main(
    *,
    data: Path | None,
    out: Path,
    quick: bool,
    num_videos: int,
    clip_weights: str,
    slowfast_weights: str,
    precisions: tuple[str, ...],
) -> None:
    """Print every error with its bound; exit status 1 if a bound is exceeded."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ExtractSettings(clip_weights=clip_weights, slowfast_weights=slowfast_weights)
        small = {"height": 96, "width": 128, "num_frames": 40} if quick else {}
        if quick:
            settings = replace(settings, clip_model=write_clip_config(Path(folder, "clip")), frames=8)
            shrink_slowfast()
        videos = pick_videos(data, Path(folder, "videos"), num_videos=num_videos, **small)
        fastest = Compute.choose(settings).precision
        rows = compare(videos, settings, precisions=precisions or [fastest] * (fastest != "fp32"))
    untrained = "random" in clip_weights or "random" in slowfast_weights
    show(measure.write(out, "parity", rows, untrained=untrained, num_videos=len(videos)))
    sys.exit(any(row.holds is False for row in rows))


if __name__ == "__main__":
    main()
