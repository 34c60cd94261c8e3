"""Measures how well scenes are found if the recording of each video is known.

`python -m bench.scenes --data CACHE --truth CSV`. The truth are pairs of videos cut from one recording. A recording may
show several places, and then such pairs are not near-duplicates, so recall cannot reach 1.
"""

import csv
from pathlib import Path

import click
import numpy as np
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    completeness_score,
    homogeneity_score,
    pair_confusion_matrix,
)

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.options import common
from haechi.cache.reader import Cache
from haechi.train.data.scenes import Scenes, find_scenes


@click.command()
@common
@click.option(
    "--truth",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with the columns path (the id) and source; videos with an empty source are not evaluated.",
)
def main(*, data: Path | None, out: Path, rounds: int, quick: bool, truth: Path) -> None:
    """Find the scenes in the cache --data and compare them with the sources in --truth."""
    if data is None:
        raise click.UsageError("--data CACHE is missing")
    cache = Cache.open(data)
    videos = np.arange(len(cache.media["id"]))
    sources = read_sources(cache.media["id"], truth)
    seconds = [measure.timed(lambda: find_scenes(cache, videos)) for _ in range(1 if quick else rounds)]
    scenes = find_scenes(cache, videos)
    sizes = np.bincount(scenes.scene)
    figures = {
        **pair_figures(sources, scenes.scene),
        **{f"average precision of pairs: {name}": value for name, value in rankings(cache, scenes, sources).items()},
        "similarity threshold": scenes.similarity_threshold,
        "reached by chance": scenes.chance_similarity,
        "reached by the first and the last frame of a video": scenes.own_similarity,
        "scenes of several videos": int((sizes > 1).sum()),
        "videos of the largest scene": int(sizes.max()),
    }
    rows = [Measurement(what=what, unit="", values=[value]) for what, value in figures.items()]
    rows.append(Measurement(what="time", unit="s", values=seconds))
    known = sources != ""
    show(
        measure.write(
            out,
            "scenes",
            rows,
            untrained=bool(cache.untrained),
            num_videos=len(videos),
            num_known=int(known.sum()),
            num_sources=len(set(sources[known].tolist())),
        )
    )


def read_sources(ids: np.ndarray, truth: Path) -> np.ndarray:
    """The recording of each video (N,) str; empty: unknown. Raises `click.UsageError` if no two videos share one."""
    with truth.open(encoding="utf-8", newline="") as file:
        found = {row["path"]: row["source"] for row in csv.DictReader(file)}
    sources = np.array([found.get(id, "") for id in ids], dtype=object)
    known = sources[sources != ""].tolist()
    if len(set(known)) == len(known):
        raise click.UsageError(f"--truth {truth}: no two videos of the cache have the same source")
    return sources


def pair_figures(sources: np.ndarray, scene: np.ndarray) -> dict[str, float]:
    """Figures over all pairs of videos with a known source, and over the groups; both arguments are (N,)."""
    known = sources != ""
    truth, found = sources[known].astype(str), scene[known]
    (_, wrong), (missed, right) = pair_confusion_matrix(truth, found)
    return {
        "precision of pairs": float(right / (right + wrong)) if right + wrong else 0.0,
        "recall of pairs": float(right / (right + missed)),
        "F1 of pairs": float(2 * right / (2 * right + wrong + missed)),
        "adjusted Rand index": float(adjusted_rand_score(truth, found)),
        "homogeneity": float(homogeneity_score(truth, found)),
        "completeness": float(completeness_score(truth, found)),
    }


def rankings(cache: Cache, scenes: Scenes, sources: np.ndarray) -> dict[str, float]:
    """Average precision of pairs ranked by cosine similarity, for the descriptors of Haechi and for simpler ones."""
    lengths = np.diff(cache.offset("clip"))
    frames = cache.rows("clip", "features").astype(np.float32)  # (ΣT, D)
    means = np.add.reduceat(frames, np.cumsum(lengths) - lengths) / lengths[:, None]
    centred = means - means.mean(axis=0)
    descriptors = {
        "mean of frames": means,
        "centred": centred,
        "standardised": centred / np.maximum(frames.std(axis=0), 1e-12),
        "whitened within videos (used by Haechi)": scenes.descriptors,
    }
    known = np.flatnonzero(sources != "")
    one, other = known[np.stack(np.triu_indices(len(known), k=1))]
    same = sources[one] == sources[other]
    return {name: float(average_precision_score(same, _cosines(d, one, other))) for name, d in descriptors.items()}


def _cosines(descriptors: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine similarities (P,) of the pairs of videos `one` and `other`, (P,) each."""
    unit = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
    cosines: np.ndarray = (unit @ unit.T)[one, other]
    return cosines


if __name__ == "__main__":
    main()
