"""Measures how well scenes are found if the recording of each video is known.

`python -m bench.scenes --data CACHE --truth CSV`. The truth are pairs of videos cut from one recording. A recording may
show several places, and then such pairs are not near-duplicates, so recall cannot reach 1.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
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
from bench.recordings import OPTION_TYPE, read_recordings
from bench.synthetic import CLIP_WIDTH, NUM_FRAMES, item, provenance
from haechi.cache.reader import Cache
from haechi.cache.schema import Item
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data.scenes import Scenes, find_scenes


@click.command()
@common
@click.option(
    "--truth",
    required=True,
    type=OPTION_TYPE,
    help="CSV with the columns path (the id) and source; videos with an empty source are not evaluated.",
)
def main(*, data: Path | None, out: Path, rounds: int, quick: bool, truth: Path) -> None:
    """Find the scenes in the cache --data and compare them with the sources in --truth."""
    if data is None:
        raise click.UsageError("--data CACHE is missing")
    cache = Cache.open(data)
    videos = np.arange(len(cache.media["id"]))
    sources = read_recordings(cache.media["id"], truth)
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
    figures |= kind_figures(num_videos=60 if quick else 400)
    rows = [Measurement(what=what, unit="", values=[value]) for what, value in figures.items()]
    rows.append(Measurement(what="time", unit="s", values=seconds))
    known = sources != ""
    show(
        measure.write(
            out,
            "scenes" if "clip" in cache.untrained else "scenes_trained",
            rows,
            untrained=bool(cache.untrained),
            num_videos=len(videos),
            num_known=int(known.sum()),
            num_sources=len(set(sources[known].tolist())),
        )
    )


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


def kind_figures(*, num_videos: int) -> dict[str, float]:
    """Precision and recall of pairs for synthetic videos of ten kinds, with one to five videos in a scene.

    The kind is 60 % of what differs between scenes.
    """
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, num_videos)
    scene = np.repeat(np.arange(num_videos), sizes)[:num_videos]
    with tempfile.TemporaryDirectory() as folder:
        write_shard(shard_path(Path(folder), 0), list(_videos_of_kinds(scene, rng)), [], provenance())
        found = find_scenes(Cache.open(Path(folder)), np.arange(num_videos))
    figures = pair_figures(scene.astype(str).astype(object), found.scene)
    return {
        f"{what}, synthetic videos of ten kinds": figures[what] for what in ("precision of pairs", "recall of pairs")
    }


def _videos_of_kinds(scene: np.ndarray, rng: np.random.Generator) -> Iterator[Item]:
    """The videos of these scenes (N,). Few directions differ a lot between videos, as in the features of networks."""
    spectrum = np.arange(1, CLIP_WIDTH + 1) ** -0.7
    kinds = 0.6**0.5 * rng.normal(size=(10, CLIP_WIDTH))
    places = 0.4**0.5 * rng.normal(size=(len(scene), CLIP_WIDTH))
    for i, number in enumerate(scene.tolist()):
        place = kinds[number % 10] + places[number] + 0.3 * rng.normal(size=CLIP_WIDTH)
        moves = 0.1 * rng.normal(size=(NUM_FRAMES, CLIP_WIDTH)).cumsum(axis=0)
        rows = (spectrum * (place + moves - moves.mean(axis=0))).astype(np.float16)
        plain = item(f"{i}.mp4", split="", label=1, rng=rng)
        yield replace(plain, arrays={**plain.arrays, "clip/features": rows})


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
