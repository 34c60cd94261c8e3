"""Scenes are found in synthetic features whose scenes are known, with random and with trained weights alike."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score

from haechi.cache.reader import Cache
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data import scenes, similar
from haechi.train.data import scenes as scenes_module
from haechi.train.data.scenes import (
    Scenes,
    choose_similarity_threshold,
    find_scenes,
    find_scenes_of,
    merge_groups,
)
from haechi.train.data.similar import unit_length
from haechi.train.errors import TrainError
from tests import synthetic

WIDTH = 64
# Some directions vary more than others, as in any network's features.
SPECTRUM = 1 / np.sqrt(1 + np.arange(WIDTH))


def write(path: Path, videos: Sequence[np.ndarray], *, sha256: Sequence[str] = (), shard_size: int = 1000) -> Cache:
    """A cache with these frames (T, D) as CLIP features."""
    path.mkdir()
    source = synthetic.provenance(clip_width=videos[0].shape[1], store="float32")
    items = []
    for i, frames in enumerate(videos):
        item = synthetic.item(synthetic.media(f"{i}.mp4"), seed=i, source=source)
        media = replace(item.media, sha256=sha256[i]) if sha256 else item.media
        times = np.arange(len(frames), dtype=np.float32)
        items.append(
            synthetic.with_arrays(
                replace(item, media=media), {"clip/features": frames.astype(np.float32), "clip/time_seconds": times}
            )
        )
    for number, start in enumerate(range(0, len(items), shard_size)):
        write_shard(shard_path(path, number), items[start : start + shard_size], [], source)
    return Cache.open(path)


def find(path: Path, videos: Sequence[np.ndarray], **options: object) -> Scenes:
    return find_scenes(write(path, videos, **options), np.arange(len(videos)))  # type: ignore[arg-type]


def film(place: np.ndarray, rng: np.random.Generator, *, num_frames: int = 8) -> np.ndarray:
    """(T, D) frames of a place (D,) at some moment, with moving people."""
    moment = place + 0.2 * SPECTRUM * rng.normal(size=WIDTH)
    return moment + 0.1 * SPECTRUM * rng.normal(size=(num_frames, WIDTH)).cumsum(axis=0)


def places(count: int, rng: np.random.Generator) -> np.ndarray:
    return SPECTRUM * rng.normal(size=(count, WIDTH))


def degraded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same frames encoded again at lower quality: one change for all frames, and a small one for each."""
    return frames + 0.05 * SPECTRUM * rng.normal(size=WIDTH) + 0.02 * SPECTRUM * rng.normal(size=frames.shape)


@pytest.mark.parametrize("offset", [0.0, 20.0], ids=["spread out", "all alike"])
def test_scenes_are_found(tmp_path: Path, offset: float) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    videos = [film(place, rng) + offset for place in places(60, rng)[truth]]
    raw = np.stack([frames.mean(axis=0) for frames in videos])
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    assert ((raw @ raw.T).min() > 0.99) == (offset > 0)
    found = find(tmp_path / "cache", videos)
    assert adjusted_rand_score(truth, found.scene) > 0.99
    assert found.similarity_threshold >= found.chance_similarity
    assert len(found.pairs) == len(truth) - len(set(found.scene.tolist()))
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert (found.pair_similarity >= found.similarity_threshold).all()
    cosines = (found.descriptors[found.pairs[:, 0]] * found.descriptors[found.pairs[:, 1]]).sum(axis=1)
    assert found.pair_similarity == pytest.approx(cosines, abs=1e-5)


@pytest.mark.parametrize("count", [3, 4, 5, 10, 100])
@pytest.mark.parametrize("num_frames", [1, 8])
def test_a_copy_is_found_among_any_number_of_videos(tmp_path: Path, count: int, num_frames: int) -> None:
    rng = np.random.default_rng(count)
    originals = [film(place, rng, num_frames=num_frames) for place in places(count - 1, rng)]
    found = find(tmp_path / "cache", [*originals, degraded(originals[0], rng)])
    assert found.scene.tolist() == [*range(count - 1), 0]
    assert found.pairs.tolist() == [[0, count - 1]]
    assert found.pair_similarity[0] > 0.9


def test_one_dataset_in_twenty_has_a_link_by_chance() -> None:
    rng = np.random.default_rng(0)
    num_videos, num_pairs, trials = 50, 50 * 49 // 2, 1000
    reached = 0
    for cosines in np.tanh(rng.normal(-0.02, 0.2, (trials, num_pairs))):
        threshold, chance = choose_similarity_threshold(cosines, 0.0, num_videos=num_videos)
        assert threshold == chance
        reached += cosines.max() >= chance
    assert 0.035 < reached / trials < 0.085  # 5 %, and a little more, since the spread is estimated from the same pairs


@pytest.mark.parametrize(
    ("deviation", "own", "angle"),
    [
        (0.01, 1.0, 45),  # the chance level is so low that videos that are merely of one kind would exceed it
        (0.05, 0.5, 75),
        (0.15, 0.9, None),
        (0.25, 1.0, 45),  # copies would not reach the chance level
        (0.50, 0.8, 45),
        (0.25, 0.5, None),  # frames of one video differ too much
        (0.25, -0.1, None),
    ],
)
def test_the_threshold_is_the_chance_level_within_limits_from_frames_of_one_video(
    deviation: float, own: float, angle: float | None
) -> None:
    cosines = np.tanh(np.random.default_rng(0).normal(0, deviation, 50_000))
    threshold, chance = choose_similarity_threshold(cosines, own, num_videos=1000)
    expected = np.tanh(norm.isf(0.05 / 499_500) * max(deviation, 999**-0.5))
    assert chance == pytest.approx(expected, abs=0.02)
    assert threshold == pytest.approx(chance if angle is None else np.cos(np.radians(angle)))


def test_videos_of_one_kind_are_not_one_scene(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(200) % 8
    truth = np.concatenate([np.arange(200), np.arange(20)])  # 20 places are shown twice
    of_a_kind = 0.45**0.5 * places(8, rng)[kinds] + 0.55**0.5 * places(200, rng)
    found = find(tmp_path / "cache", [film(place, rng) for place in of_a_kind[truth]])
    assert adjusted_rand_score(truth, found.scene) > 0.95


def test_a_few_large_scenes_are_found_although_many_pairs_are_related(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 4
    found = find(tmp_path / "cache", [film(place, rng) for place in places(4, rng)[truth]])
    assert adjusted_rand_score(truth, found.scene) == 1


@pytest.mark.parametrize("count", [3, 5, 20, 300])
@pytest.mark.parametrize("num_frames", [1, 8])
def test_unrelated_videos_stay_apart(tmp_path: Path, count: int, num_frames: int) -> None:
    rng = np.random.default_rng(count)
    found = find(tmp_path / "cache", [film(place, rng, num_frames=num_frames) for place in places(count, rng)])
    assert found.scene.tolist() == list(range(count))
    assert found.pairs.shape == (0, 2)


def test_frames_without_a_scene_link_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = find(tmp_path / "cache", [rng.normal(size=(8, WIDTH)) for _ in range(50)])
    assert found.scene.tolist() == list(range(50))
    assert found.similarity_threshold == found.chance_similarity > found.own_similarity


def test_a_chain_does_not_make_one_scene_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.zeros((40, WIDTH))
    ring[:, 0], ring[:, 1] = 4 * np.cos(turn), 4 * np.sin(turn)
    found = find(tmp_path / "cache", [film(place, rng) for place in np.concatenate([ring, places(200, rng)])])
    steps = (found.descriptors[:40] * np.roll(found.descriptors[:40], 1, axis=0)).sum(axis=1)
    assert steps.min() > found.similarity_threshold  # links alone would make one scene of all 40
    assert 2 <= np.bincount(found.scene[:40]).max() <= 20
    cosines = found.descriptors @ found.descriptors.T - 2 * np.eye(240)
    closest = cosines.argmax(axis=1)
    mutual = np.flatnonzero((closest[closest] == np.arange(240)) & (cosines.max(axis=1) > found.similarity_threshold))
    assert len(mutual) > 10
    assert (found.scene[mutual] == found.scene[closest[mutual]]).all()


def test_the_same_bytes_are_one_scene(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, two, three, four = (film(place, rng) for place in places(4, rng))
    found = find(tmp_path / "two", [one, one], sha256=["1" * 64, "1" * 64])
    assert found.scene.tolist() == [0, 0]
    found = find(tmp_path / "six", [one, two, one, three, four, two], sha256=[c * 64 for c in "121342"])
    assert found.scene.tolist() == [0, 1, 0, 2, 3, 1]
    assert found.pairs.tolist() == [[0, 2], [1, 5]]
    assert found.pair_similarity.tolist() == [1.0, 1.0]


def test_two_files_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    frames = film(places(1, rng := np.random.default_rng(0))[0], rng)
    found = find(tmp_path / "cache", [frames, frames])
    assert found.scene.tolist() == [0, 1]
    assert found.similarity_threshold == 1.0


def test_reading_and_comparing_in_parts_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(30), 4)
    videos = [film(place, rng, num_frames=int(rng.integers(2, 12))) for place in places(30, rng)[truth]]
    whole = find(tmp_path / "whole", videos)
    monkeypatch.setattr(scenes, "READ_ROWS", 50)
    monkeypatch.setattr(similar, "TILE_VIDEOS", 7)
    monkeypatch.setattr(scenes, "MOST_LINKS", 10)
    in_parts = find(tmp_path / "parts", videos, shard_size=9)
    assert adjusted_rand_score(truth, whole.scene) > 0.99
    assert in_parts.scene.tolist() == whole.scene.tolist()
    assert {tuple(pair) for pair in in_parts.pairs.tolist()} == {tuple(pair) for pair in whole.pairs.tolist()}
    assert in_parts.similarity_threshold == pytest.approx(whole.similarity_threshold, abs=1e-5)
    assert in_parts.descriptors == pytest.approx(whole.descriptors, abs=1e-4)


def test_a_sample_decides_the_threshold_nearly_as_all_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    cache = write(tmp_path / "cache", [film(place, rng) for place in places(200, rng)])
    whole = find_scenes(cache, np.arange(200))
    monkeypatch.setattr(scenes, "SAMPLE_VIDEOS", 60)
    sample = find_scenes(cache, np.arange(200))
    assert sample.similarity_threshold != whole.similarity_threshold
    assert sample.similarity_threshold == pytest.approx(whole.similarity_threshold, abs=0.1)


def test_only_the_videos_asked_for_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    videos = [film(place, rng) for place in places(6, rng)]
    cache = write(tmp_path / "cache", [videos[0], *videos])
    assert find_scenes(cache, np.arange(7)).scene.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert find_scenes(cache, np.arange(1, 7)).scene.tolist() == [0, 1, 2, 3, 4, 5]


def test_videos_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    videos = [film(place, rng) for place in places(5, rng)]
    without = write(tmp_path / "without", [videos[0], videos[1][:0], *videos[2:4], videos[4][:0]])
    with pytest.raises(TrainError, match=r"'1\.mp4': no frames in /clip/features\n.*'4\.mp4': no frames"):
        find_scenes(without, np.arange(5))
    videos[3][2, 1] = np.nan
    with pytest.raises(TrainError, match=r"'3\.mp4': NaN or infinite values in /clip/features"):
        find_scenes(write(tmp_path / "nan", videos), np.arange(5))


@pytest.mark.parametrize(
    ("groups", "scene", "expected"),
    [
        (["", "", ""], [0, 1, 2], ["", "", ""]),
        (["", "", ""], [0, 1, 0], ["scene 0", "", "scene 0"]),
        (["a", "", ""], [0, 0, 1], ["a", "a", ""]),
        (["a", "", "a"], [0, 0, 0], ["a", "a", "a"]),
        (["a", "b", "", ""], [0, 0, 0, 0], ["a", "b", "scene 0", "scene 0"]),
        (["scene 0", "", ""], [0, 1, 1], ["scene 0", "found scene 1", "found scene 1"]),
        (
            ["scene 1", "", "found scene 1", ""],
            [0, 1, 2, 1],
            ["scene 1", "found found scene 1", "found scene 1", "found found scene 1"],
        ),
    ],
)
def test_groups(groups: list[str], scene: list[int], expected: list[str]) -> None:
    count = len(groups)
    found = Scenes(
        scene=np.array(scene),
        similarity_threshold=0.5,
        chance_similarity=0.5,
        space=None,
        pairs=np.empty((0, 2), np.int64),
        pair_similarity=np.empty(0, np.float32),
        descriptors=np.zeros((count, 2), np.float32),
    )
    manifest = np.array(groups, dtype=object)
    assert merge_groups(manifest, found).tolist() == expected
    assert manifest.tolist() == groups


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """9,000 descriptors of 300 values, of which some are pairs of the same scene and all are of a few kinds."""
    rng = np.random.default_rng(0)
    kinds, scenes = rng.normal(size=(6, 300)), rng.normal(size=(8000, 300))
    rows = 0.6 * kinds[rng.integers(6, size=9000)] + scenes[np.arange(9000) % 8000]
    return unit_length((rows + 0.4 * rng.normal(size=rows.shape)).astype(np.float32))


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_many_videos_have_the_links_of_the_exact_search(
    many: np.ndarray, is_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "has_bfloat16", lambda device: is_bfloat16)
    fast = scenes_module._closest_links(many, 0.7)
    nearest = similar.closest(many[:500], many[500:], 0.7)
    monkeypatch.setattr(similar, "MANY_VIDEOS", 1 << 30)
    exact = scenes_module._closest_links(many, 0.7)
    assert len(exact[0]) > 150
    assert fast[0].tolist() == exact[0].tolist()
    np.testing.assert_allclose(fast[1], exact[1], atol=1e-6)
    index, cosine = similar.closest(many[:500], many[500:], 0.7)
    assert (index >= 0).sum() > 20
    assert nearest[0].tolist() == index.tolist()
    np.testing.assert_allclose(nearest[1], cosine, atol=1e-6)


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_a_subspace_leaves_out_most_pairs_and_none_that_is_similar(many: np.ndarray, is_bfloat16: bool) -> None:
    subspace = similar.Subspace(many, many, 0.7, num_dimensions=90, is_bfloat16=is_bfloat16)
    cosines = many[:2048] @ many[2048:3000].T
    for _ in range(2):  # the same memory
        near = subspace.near(slice(2048), slice(2048, 3000))
        assert near.shape == cosines.shape
        assert near[cosines >= 0.7].all()
        assert near[cosines < 0].mean() < 0.001
        assert near.mean() < 0.05


def test_the_closest_descriptor_is_found(many: np.ndarray) -> None:
    index, cosine = similar.closest(many[:40], many[8000:8040], 0.7)
    every = many[:40] @ many[8000:8040].T
    found = every.max(axis=1) >= 0.7
    assert index.tolist() == np.where(found, every.argmax(axis=1), -1).tolist()
    np.testing.assert_allclose(cosine, np.where(found, every.max(axis=1), 0), atol=1e-6)
    assert found.any()


def test_scenes_of_other_videos_are_found_in_the_space_of_the_first(tmp_path: Path) -> None:
    """As `find_scenes` on the other videos themselves."""
    rng = np.random.default_rng(0)
    first = find(tmp_path / "first", [film(place, rng) for place in places(60, rng)])
    assert first.space is not None
    spots = places(30, rng)
    videos = [film(spots[i % 30], rng) for i in range(50)]
    cache = write(tmp_path / "second", videos)
    means = np.stack([frames.mean(axis=0) for frames in videos]).astype(np.float32)
    found = find_scenes_of(means, cache.media["sha256"], first.space)
    assert found.scene.tolist() == find_scenes(cache, np.arange(50)).scene.tolist()
    assert len(set(found.scene.tolist())) == 30
