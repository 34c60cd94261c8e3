"""What inspect counts, and that it prints texts of a hostile cache as escapes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from haechi.cache.errors import CacheError
from haechi.cache.reader import Cache
from haechi.cache.schema import VERSIONS
from haechi.cache.shard import Shard
from haechi.cache.summary import describe_video, kinetics_names, show_summary, show_video, summarise
from haechi.cache.writer import rewrite_media, shard_path, write_shard
from tests import synthetic
from tests.cache.forge import change, forge

KINETICS = synthetic.provenance(num_logits=400)


def _screen(show: object, gathered: dict, *, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False)
    show(gathered, console)  # type: ignore[operator]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_summary_counts_everything(tmp_path: Path) -> None:
    splits = {f"video-{i:04d}.mp4": "train" if i < 9 else "val" for i in range(15)}
    synthetic.write_cache(
        tmp_path, num_harmful=7, num_safe=4, num_unlabelled=6, num_failures=3, shard_size=8, splits=splits
    )
    summary = summarise(Cache.open(tmp_path))
    assert summary["videos"] == 17
    assert summary["labels"] == {"harmful": 7, "safe": 4, "unlabelled": 6}
    assert summary["splits"] == {
        "train": {"harmful": 7, "safe": 2, "unlabelled": 0},
        "val": {"harmful": 0, "safe": 2, "unlabelled": 4},
        "test": {"harmful": 0, "safe": 0, "unlabelled": 0},
        "none": {"harmful": 0, "safe": 0, "unlabelled": 2},
    }
    assert summary["kinds"] == {"video": 17, "image": 0}
    assert (summary["failed"], summary["failures"]) == (3, {"damaged": 3})
    assert (summary["trained"], summary["untrained"]) == (False, ["clip", "slowfast"])
    assert summary["streams"]["clip"] == {
        "features": {"shape": [68, 8], "dtype": "float16"},
        "time_seconds": {"shape": [68], "dtype": "float32"},
    }
    assert summary["streams"]["slowfast"]["logits"] == {"shape": [17, 5], "dtype": "float16"}
    assert summary["frames"] == 17 * 40
    assert summary["duration_seconds"] == {"total": 34.0, "min": 2.0, "median": 2.0, "max": 2.0}
    assert summary["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert [(shard["videos"], shard["failed"]) for shard in summary["shards"]] == [(8, 3), (8, 0), (1, 0)]
    assert (summary["zero_rows"], summary["nonfinite_rows"], summary["superseded"]) == (0, 0, 0)
    assert summary["settings"] == synthetic.settings()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_every_key_of_the_json_is_documented(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_failures=1))
    documented = summarise.__doc__ or ""
    summary = summarise(cache)
    for key in [*summary, *summary["shards"][0], *summary["labels"], *summary["splits"], *summary["duration_seconds"]]:
        assert f"`{key}`" in documented, key
    documented = describe_video.__doc__ or ""
    used, failed = (describe_video(cache, id) for id in ("video-0000.mp4", "broken-0000.mp4"))
    for key in [*(used.keys() - cache.media.keys()), *failed, *used["clip"], *used["slowfast"]]:
        assert f"`{key}`" in documented, key


def test_superseded_rows_count_once(tmp_path: Path) -> None:
    items = [synthetic.item(synthetic.media("a", label=label), seed=label) for label in (0, 1)]
    for number, item in enumerate(items):
        write_shard(shard_path(tmp_path, number), [item], [], synthetic.provenance())
    summary = summarise(Cache.open(tmp_path))
    assert (summary["videos"], summary["labels"]["harmful"], summary["superseded"]) == (1, 1, 1)
    screen = _screen(show_summary, summary)
    assert "1 video, 0 failed" in screen
    assert "2 shards, 1 row superseded" in screen
    assert summary["streams"]["clip"]["features"]["shape"] == [4, 8]


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, num_harmful=2, num_safe=2)
    path = shard_path(tmp_path, 0)
    forge(path, lambda file: change(file, "clip/features", 3, np.zeros(8, "float16")))
    forge(path, lambda file: change(file, "slowfast/logits", 1, np.array([1, 2, np.nan, 4, 5], "float16")))
    summary = summarise(Cache.open(tmp_path))
    assert (summary["zero_rows"], summary["nonfinite_rows"]) == (1, 1)
    assert "1 all zero, 1 not finite" in _screen(show_summary, summary)


def test_both_versions_have_the_same_summary(tmp_path: Path) -> None:
    summaries = []
    for version in VERSIONS:
        path = synthetic.write_cache(tmp_path / str(version), num_unlabelled=3, num_failures=2, version=version)
        write_shard(
            shard_path(path, 9),
            [synthetic.item(synthetic.media("video-0003.mp4", label=0, split="val"), seed=5, num_frames=2)],
            [synthetic.failure("video-0004.mp4", reason="timeout")],
            synthetic.provenance(),
            version=version,
        )
        forge(shard_path(path, 1), lambda file: change(file, "clip/features", 3, np.zeros(8, "float16")))
        forge(shard_path(path, 0), lambda file: change(file, "media/duration_seconds", 2, 7.5))
        for deep in (False, True):
            summary = summarise(Cache.open(path), deep=deep)
            assert summary.pop("format_version") == version
            assert summary["superseded"] == 2
            for name in ("path", "bytes", "shards"):
                summary.pop(name)
            summaries.append(summary)
    assert summaries == [summaries[0]] * 4


def test_rows_of_features_are_read_only_if_asked_for(tmp_path: Path) -> None:
    """In version 2, where their writer left the number of bad ones; `haechi verify` finds the damage."""
    path = shard_path(synthetic.write_cache(tmp_path), 1)
    (features,) = Shard.open(path).read("clip/features")
    data = bytearray(path.read_bytes())
    data[data.index(features.tobytes())] ^= 1
    path.write_bytes(data)
    cache = Cache.open(tmp_path)
    assert (summarise(cache)["videos"], summarise(cache)["zero_rows"]) == (20, 0)
    with pytest.raises(CacheError, match="/clip/features is damaged"):
        summarise(cache, deep=True)


@pytest.mark.parametrize("deep", [False, True])
def test_superseded_bad_rows_do_not_count(tmp_path: Path, deep: bool) -> None:
    """The number that the writer left in the shard is for all of its rows."""
    bad, good = (synthetic.item(synthetic.media(id), seed=0) for id in ("bad", "good"))
    write_shard(shard_path(tmp_path, 0), [bad, good], [], synthetic.provenance())
    forge(shard_path(tmp_path, 0), lambda file: change(file, "clip/features", 1, np.zeros(8, "float16")))
    assert summarise(Cache.open(tmp_path), deep=deep)["zero_rows"] == 1
    write_shard(shard_path(tmp_path, 1), [bad], [], synthetic.provenance())
    summary = summarise(Cache.open(tmp_path), deep=deep)
    assert (summary["zero_rows"], summary["superseded"], summary["videos"]) == (0, 1, 2)
    write_shard(shard_path(tmp_path, 1), [good], [], synthetic.provenance())
    assert summarise(Cache.open(tmp_path), deep=deep)["zero_rows"] == 1


def test_new_labels_are_counted(tmp_path: Path) -> None:
    path = shard_path(synthetic.write_cache(tmp_path, num_harmful=3, num_safe=2), 0)
    rewrite_media(path, {"label": [1, 1, 1, 1, -1], "split": ["val"] * 4 + [""]})
    summary = summarise(Cache.open(tmp_path))
    assert summary["labels"] == {"harmful": 4, "safe": 0, "unlabelled": 1}
    assert summary["splits"]["val"] == {"harmful": 4, "safe": 0, "unlabelled": 0}


def test_an_empty_cache_has_a_summary(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), [], [], synthetic.provenance())
    summary = summarise(Cache.open(tmp_path))
    assert (summary["videos"], summary["duration_seconds"]["median"]) == (0, None)
    assert "0 videos" in _screen(show_summary, summary)


def test_durations_that_are_not_numbers_stay_valid_json(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, num_harmful=2, num_safe=2)
    forge(shard_path(tmp_path, 0), lambda file: change(file, "media/duration_seconds", 0, np.inf))
    summary = summarise(Cache.open(tmp_path))
    assert summary["duration_seconds"]["max"] is None
    json.dumps(summary, allow_nan=False)
    _screen(show_summary, summary)


@pytest.mark.parametrize("width", [80, 100])
def test_the_screen_shows_the_whole_summary(tmp_path: Path, width: int) -> None:
    splits = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(20)}
    synthetic.write_cache(tmp_path, num_failures=2, splits=splits)
    later = replace(synthetic.provenance(), device="cuda (NVIDIA H100)", precision="bf16")
    write_shard(shard_path(tmp_path, 9), [], [synthetic.failure("t.mp4", reason="timeout")], later)
    summary = summarise(Cache.open(tmp_path))
    screen = _screen(show_summary, summary, width=width)
    for text in (
        "20 videos, 3 failed, UNTRAINED",
        "damaged 2, timeout 1",
        "/slowfast/start_seconds",
        "80 x 8",
        "float16",
        "UNTRAINED tiny, weights random:0",
        "cpu, cuda (NVIDIA H100), fp32, bf16",
        summary["fingerprint"],
        "haechi-cache version 2, written by haechi test",
        "4 shards",
        "800 frames, 40.0 s",
        "train   val   test",
    ):
        assert text in screen
    assert max(map(len, screen.splitlines()[1:])) <= width  # the first line is the path, which may be longer
    assert len(screen.splitlines()) <= 40


def test_a_trained_cache_is_not_called_untrained(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, source=synthetic.provenance(trained=True))
    summary = summarise(Cache.open(tmp_path))
    assert (summary["trained"], summary["untrained"]) == (True, [])
    assert "UNTRAINED" not in _screen(show_summary, summary)


def test_a_video_shows_its_rows_and_actions(tmp_path: Path) -> None:
    item = synthetic.item(synthetic.media("a/b.mp4", label=0, group="hall"), seed=0, source=KINETICS)
    logits = np.zeros((1, 400), "float16")
    logits[0, [3, 399, 0]] = 5, 4, 3
    items = [
        synthetic.item(synthetic.media("other"), seed=1, source=KINETICS),
        synthetic.with_arrays(item, {"slowfast/logits": logits}),
    ]
    write_shard(shard_path(tmp_path, 0), items, [], KINETICS)
    description = describe_video(Cache.open(tmp_path), "a/b.mp4")
    assert (description["label"], description["group"], description["failed"]) == (0, "hall", False)
    assert description["clip"]["time_seconds"] == item.arrays["clip/time_seconds"].tolist()
    np.testing.assert_allclose(
        description["clip"]["norm"], np.linalg.norm(item.arrays["clip/features"].astype(float), axis=1), rtol=1e-5
    )
    assert len(description["slowfast"]["norm"]) == 1
    total = np.exp(5) + np.exp(4) + np.exp(3) + 397
    actions = [(action["name"], action["probability"]) for action in description["actions"]]
    assert [name for name, _ in actions[:3]] == ["applauding", "zumba", "abseiling"]
    np.testing.assert_allclose([p for _, p in actions], np.exp([5, 4, 3, 0, 0]) / total)
    screen = _screen(show_video, description)
    for text in ("a/b.mp4", "safe", "hall", "1.90 s", "applauding", "UNTRAINED weights, the actions are random"):
        assert text in screen


def test_probabilities_are_the_mean_over_windows(tmp_path: Path) -> None:
    item = synthetic.item(synthetic.media("a"), seed=0, source=KINETICS)
    logits = np.full((2, 400), -50, "float16")
    logits[[0, 1], [7, 8]] = 50
    two = {
        name: np.repeat(item.arrays[name], 2, axis=0)
        for name in ("slowfast/features", "slowfast/start_seconds", "slowfast/end_seconds")
    }
    write_shard(
        shard_path(tmp_path, 0), [synthetic.with_arrays(item, {"slowfast/logits": logits, **two})], [], KINETICS
    )
    actions = describe_video(Cache.open(tmp_path), "a")["actions"]
    assert [action["name"] for action in actions[:2]] == kinetics_names()[7:9]
    np.testing.assert_allclose([action["probability"] for action in actions[:2]], 0.5)


def test_trained_actions_carry_no_warning(tmp_path: Path) -> None:
    source = synthetic.provenance(num_logits=400, trained=True)
    synthetic.write_cache(tmp_path, source=source)
    description = describe_video(Cache.open(tmp_path), "video-0000.mp4")
    assert description["slowfast_trained"]
    assert "the actions are random" not in _screen(show_video, description)


def test_other_logits_have_no_names(tmp_path: Path) -> None:
    description = describe_video(Cache.open(synthetic.write_cache(tmp_path)), "video-0000.mp4")
    assert description["actions"] == []
    assert "no actions" in _screen(show_video, description)


def test_an_image_without_windows_is_shown(tmp_path: Path) -> None:
    item = synthetic.item(replace(synthetic.media("a.jpg"), kind="image"), seed=0, num_frames=1, source=KINETICS)
    no_windows = {name: array[:0] for name, array in item.arrays.items() if name.startswith("slowfast/")}
    write_shard(shard_path(tmp_path, 0), [synthetic.with_arrays(item, no_windows)], [], KINETICS)
    cache = Cache.open(tmp_path)
    screen = _screen(show_video, describe_video(cache, "a.jpg"))
    assert "no actions" in screen
    assert "/slowfast/features, 0 rows" in screen
    assert summarise(cache)["kinds"] == {"video": 0, "image": 1}
    assert "0 videos, 1 image, 0 failed" in _screen(show_summary, summarise(cache))


def test_many_rows_are_cut_on_the_screen_only(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, num_frames=100)
    description = describe_video(Cache.open(tmp_path), "video-0000.mp4")
    assert len(description["clip"]["norm"]) == 100
    assert "and 68 more" in _screen(show_video, description)


def test_many_windows_are_on_separate_lines(tmp_path: Path) -> None:
    """In as many columns as the screen is wide enough for."""
    plain = synthetic.item(synthetic.media("long.mp4"), seed=0)
    begin = 2.0 * np.arange(50, dtype=np.float32)
    windows = {name: np.repeat(plain.arrays[name], 50, axis=0) for name in ("slowfast/features", "slowfast/logits")}
    windows |= {"slowfast/start_seconds": begin, "slowfast/end_seconds": begin + 2}
    item = synthetic.with_arrays(plain, windows)
    write_shard(shard_path(tmp_path, 0), [item], [], synthetic.provenance())
    screen = _screen(show_video, describe_video(Cache.open(tmp_path), "long.mp4"))
    assert "50 rows: window and norm" in screen
    norm = f"{describe_video(Cache.open(tmp_path), 'long.mp4')['slowfast']['norm'][0]:.3f}"
    assert f"0.00 to     2.00 s {norm:>8}" in screen
    assert f"62.00 to    64.00 s {norm:>8}" in screen
    assert "and 18 more" in screen


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"name": "windows", "clip_fps": 2.0}, "windows, clip_fps 2.0"),
        (["anything", "\x1b[2J"], r"['anything', '\x1b[2J']"),
    ],
)
def test_the_sampling_is_shown_in_words(tmp_path: Path, sampling: object, expected: str) -> None:
    source = synthetic.provenance()
    synthetic.write_cache(tmp_path, source=replace(source, settings={**source.settings, "sampling": sampling}))
    assert expected in _screen(show_summary, summarise(Cache.open(tmp_path)))


def test_a_failed_video_shows_its_reason(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_failures=2))
    description = describe_video(cache, "broken-0001.mp4")
    assert (description["failed"], description["reason"], description["stage"]) == (True, "damaged", "decode")
    assert "broken-0001.mp4 is damaged" in _screen(show_video, description)


@pytest.mark.parametrize(
    ("id", "similar"),
    [("vide-0013.mp4", "video-0013.mp4"), ("0007", "video-0007.mp4"), ("brokn-0000.mp4", "broken-0000.mp4")],
)
def test_an_unknown_id_names_similar_ones(tmp_path: Path, id: str, similar: str) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_failures=1))
    with pytest.raises(CacheError, match=f"no video has the id '{id}'; did you mean") as error:
        describe_video(cache, id)
    assert similar in str(error.value)


def test_an_id_like_no_other(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path))
    with pytest.raises(CacheError, match=r"no video has the id '가나다'$"):
        describe_video(cache, "가나다")


def test_nothing_from_a_cache_acts_on_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07[red]:bomb:\u202e\n[/]\\"
    settings = synthetic.settings(num_logits=400)
    settings["clip"]["model"] = hostile
    source = replace(
        KINETICS, settings=settings, device=hostile, producer=hostile, weights={"clip": hostile, "slowfast": hostile}
    )
    item = synthetic.item(synthetic.media(hostile, group=hostile), seed=0, source=source)
    failed = replace(synthetic.failure("f" + hostile), reason=hostile, message=hostile)
    write_shard(shard_path(tmp_path, 0), [item], [failed], source)
    cache = Cache.open(tmp_path)
    screens = [_screen(show_summary, summarise(cache), width=200)]
    screens += [_screen(show_video, describe_video(cache, id), width=200) for id in (hostile, "f" + hostile)]
    with pytest.raises(CacheError) as error:
        describe_video(cache, hostile + "x")
    for text in [*screens, str(error.value)]:
        assert r"\x1b]0;owned\x07[red]:bomb:\u202e\n[/]" in text
        assert not set(text) & set("\x1b\x07\u202e")


def test_there_are_400_actions() -> None:
    names = kinetics_names()
    assert (len(names), len(set(names)), names[0], names[399]) == (400, 400, "abseiling", "zumba")
