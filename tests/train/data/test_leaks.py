"""Videos that a split puts on two sides are found and named."""

from pathlib import Path

import numpy as np
import pytest

from haechi.train.data import leaks
from haechi.train.data.leaks import Leaks, find_leaks
from haechi.train.data.scenes import Scenes, find_scenes
from tests.train.data.test_scenes import degraded, film, places, write


def make_scenes(scene: list[int], descriptors: np.ndarray | None = None) -> Scenes:
    return Scenes(
        scene=np.array(scene),
        similarity_threshold=0.5,
        chance_similarity=0.5,
        space=None,
        pairs=np.empty((0, 2), np.int64),
        pair_similarity=np.empty(0, np.float32),
        descriptors=np.ones((len(scene), 1), np.float32) if descriptors is None else descriptors.astype(np.float32),
    )


def find(names: str, *, groups: str = "", files: str = "", scenes: Scenes | None = None) -> Leaks:
    """One letter per video. `names`: T, V, E for train, val, test; `groups`: `.` for none; `files`: `.` for its own."""
    count = len(names)
    return find_leaks(
        np.array([{"T": "train", "V": "val", "E": "test"}[name] for name in names], dtype=object),
        ids=np.array([f"{i}.mp4" for i in range(count)], dtype=object),
        groups=np.array([group.strip(".") for group in groups or "." * count], dtype=object),
        sha256=np.array([f if f != "." else f"file {i}" for i, f in enumerate(files or "." * count)], dtype=object),
        scenes=scenes or make_scenes(list(range(count))),
    )


def listed(found: Leaks) -> list[tuple[str, str, str, str, str]]:
    return [(pair.id[:-4], pair.part, pair.other_id[:-4], pair.other_part, pair.kind) for pair in found.pairs]


def test_a_clean_split_has_none() -> None:
    found = find("TTVVEE", groups="aabbcc", files="112233", scenes=make_scenes([0, 0, 1, 1, 2, 2]))
    assert found.pairs == []
    assert found.warnings == []
    assert found.touched("test").tolist() == found.touched("val").tolist() == []


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        ({"files": "11.1"}, "same bytes"),
        ({"groups": "aa.a"}, "same group"),
        ({"scenes": make_scenes([0, 0, 1, 0])}, "near-duplicate"),
    ],
)
def test_each_kind_is_found_in_each_other_part(marks: dict, kind: str) -> None:
    found = find("TVTE", **marks)
    assert listed(found) == [
        ("3", "test", "0", "train", kind),
        ("3", "test", "1", "val", kind),
        ("1", "val", "0", "train", kind),
    ]
    assert found.touched("test").tolist() == [3]
    assert found.touched("val").tolist() == [1]


def test_a_pair_is_listed_once_as_its_strongest_kind() -> None:
    found = find("TTTEEE", groups="abcabc", files="1..1..", scenes=make_scenes([0, 1, 2, 0, 1, 2]))
    assert listed(found) == [
        ("3", "test", "0", "train", "same bytes"),
        ("4", "test", "1", "train", "same group"),
        ("5", "test", "2", "train", "same group"),
    ]


def test_the_closest_of_each_video_on_either_side_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.array([0.0, 0.1, 0.3, 1.0, 1.2])  # train, test, train, test, train
    scenes = make_scenes([0] * 5, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    for most in (1 << 22, 1):
        monkeypatch.setattr(leaks, "MOST_COSINES", most)
        found = find("TETET", scenes=scenes)
        assert [(pair.id[0], pair.other_id[0]) for pair in found.pairs] == [("1", "0"), ("3", "4"), ("1", "2")]
        assert [pair.similarity for pair in found.pairs] == pytest.approx(np.cos([0.1, 0.2, 0.2]))
        assert found.rows.tolist() == [1, 3, 1]
        assert found.touched("test").tolist() == [1, 3]


def test_what_is_closest_to_test_videos_is_listed_first() -> None:
    found = find("TTTEE", files="11.1.", scenes=make_scenes([0, 0, 1, 0, 1]))
    assert listed(found) == [
        ("3", "test", "0", "train", "same bytes"),
        ("4", "test", "2", "train", "near-duplicate"),
        ("3", "test", "1", "train", "same bytes"),
    ]


def test_a_giant_group_gives_fewer_pairs_than_videos_and_a_bounded_text() -> None:
    found = find("T" * 3000 + "E" * 3000, groups="a" * 6000)
    assert 3000 <= len(found.pairs) < 6000
    assert [pair.id for pair in found.pairs[:3000]] == [f"{i}.mp4" for i in range(3000, 6000)]
    assert found.touched("test").tolist() == list(range(3000, 6000))
    (warning,) = found.warnings
    assert warning.startswith("3000 test videos share their file, group or scene with train or val")
    assert len(warning.splitlines()) == 22


def test_one_warning_per_part_names_its_videos() -> None:
    descriptors = np.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])
    test, val = find("TEVV", files="1.1.", scenes=make_scenes([0, 0, 1, 1], descriptors)).warnings
    assert test == (
        "1 test video shares its file, group or scene with train or val, which makes the figures too good:\n"
        "  - '1.mp4': near-duplicate of '0.mp4' in train (0.800)"
    )
    assert val.startswith("1 val video shares its file, group or scene with train, which makes the figures")
    assert val.endswith("'2.mp4': same bytes as '0.mp4' in train")


def test_a_planted_leak_is_found_completely_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    originals = [film(place, rng) for place in places(60, rng)]
    planted = rng.permutation(np.arange(40, 60))[:10]  # of the last 20, which are test
    again = [degraded(originals[i], rng) if n < 2 else originals[i] for n, i in enumerate(planted)]
    files = [str(i) for i in range(60)] + [f"again {i}" if n < 2 else str(i) for n, i in enumerate(planted)]
    cache = write(tmp_path / "cache", [*originals, *again], sha256=files)
    found = find_leaks(
        np.repeat(["train", "test", "train"], [40, 20, 10]).astype(object),
        ids=cache.media["id"],
        groups=cache.media["group"],
        sha256=cache.media["sha256"],
        scenes=find_scenes(cache, np.arange(70)),
    )
    assert found.touched("test").tolist() == sorted(planted.tolist())
    expected = {(f"{i}.mp4", f"{60 + n}.mp4", ("same bytes", "near-duplicate")[n < 2]) for n, i in enumerate(planted)}
    assert {(pair.id, pair.other_id, pair.kind) for pair in found.pairs} == expected
    (warning,) = found.warnings
    assert warning.startswith("10 test videos")
    assert all(repr(id) in warning for names in expected for id in names[:2])


def test_with_folds_each_video_has_the_leaks_of_the_fold_that_tests_it() -> None:
    files = "112."
    leaks = Leaks.from_folds([find(names, files=files) for names in ("ETTV", "TETV", "TTEV")])
    assert leaks.touched("test").tolist() == [0, 1]
    assert listed(leaks) == [("0", "test", "1", "train", "same bytes"), ("1", "test", "0", "train", "same bytes")]
