"""Verify finds every kind of problem and reports it separately; no damage makes it fail."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from haechi.cache.errors import CacheError
from haechi.cache.integrity.verify import Problem, verify
from haechi.cache.reader import Cache
from haechi.cache.schema import MAX_MESSAGE_BYTES, USER_BLOCK_BYTES
from haechi.cache.summary import summarise
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic
from tests.cache.forge import change, forge, put, reseal

pytestmark = pytest.mark.usefixtures("version")

IDS = ["a.mp4", "b.mp4", "c.mp4"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A shard of three videos with 2, 3 and 4 frames, and one failure."""
    items = [synthetic.item(synthetic.media(id), seed=i, num_frames=i + 2) for i, id in enumerate(IDS)]
    write_shard(shard_path(tmp_path, 0), items, [synthetic.failure("x.mp4")], synthetic.provenance())
    return shard_path(tmp_path, 0)


def test_a_sound_cache_has_no_problems(path: Path) -> None:
    report = verify(path.parent)
    assert (report.problems, report.notes) == ([], [])
    assert (report.num_shards, report.num_videos, report.num_failures) == (1, 3, 1)
    assert report.num_bytes == path.stat().st_size


def _zero_row(name: str, row: int) -> Callable[[h5py.File], object]:
    return lambda file: change(file, name, row, np.zeros(file[name].shape[1], file[name].dtype))


def _one_value(name: str, row: int, value: float) -> Callable[[h5py.File], object]:
    def edit(file: h5py.File) -> None:
        values = file[name][row]
        values[-1] = value
        change(file, name, row, values)

    return edit


def _set(name: str, row: int, value: object) -> Callable[[h5py.File], object]:
    return lambda file: change(file, name, row, value)


def _offsets(*values: int) -> Callable[[h5py.File], object]:
    return lambda file: put(file, "clip/offset", np.array(values, np.int64))


MEANING = {
    "not utf-8": (_set("media/group", 1, b"\xff\xfe"), "/media/group", "b.mp4", "not UTF-8"),
    "id not utf-8": (_set("media/id", 1, b"\xff\xfe"), "/media/id", "", "row 1 is not UTF-8"),
    "message not utf-8": (_set("failure/message", 0, b"\x80"), "/failure/message", "x.mp4", "not UTF-8"),
    "empty id": (_set("media/id", 1, b""), "/media/id", "", "row 1: the id is empty"),
    "control in id": (_set("media/id", 1, b"a\x1b[2J"), "/media/id", "a\x1b[2J", "control characters"),
    "long id": (_set("media/id", 1, b"x" * 4097), "/media/id", "x" * 4097, "4097 bytes"),
    "id twice": (_set("media/id", 1, b"a.mp4"), "/media/id", "a.mp4", "the id is already in /media/id row 0"),
    "used and failed": (
        _set("failure/id", 0, b"c.mp4"),
        "/failure/id",
        "c.mp4",
        "the id is already in /media/id row 2",
    ),
    "kind": (_set("media/kind", 2, b"sound"), "/media/kind", "c.mp4", "'sound' is not one of video, image"),
    "label": (_set("media/label", 2, 2), "/media/label", "c.mp4", "2 is not one of 1, 0, -1"),
    "split": (_set("media/split", 0, b"valid"), "/media/split", "a.mp4", "'valid' is not one of train, val, test"),
    "sha256 short": (_set("media/sha256", 0, b"ab" * 31), "/media/sha256", "a.mp4", "hexadecimal"),
    "sha256 capitals": (_set("media/sha256", 0, b"AB" * 32), "/media/sha256", "a.mp4", "hexadecimal"),
    "size": (_set("media/size_bytes", 0, -1), "/media/size_bytes", "a.mp4", "-1 is not a size"),
    "duration": (_set("media/duration_seconds", 0, np.nan), "/media/duration_seconds", "a.mp4", "nan is not a dur"),
    "fps": (_set("media/fps", 0, np.inf), "/media/fps", "a.mp4", "inf is not a frame rate"),
    "num_frames": (_set("media/num_frames", 0, 0), "/media/num_frames", "a.mp4", "0 is not a number of frames"),
    "width": (_set("media/width", 0, 0), "/media/width", "a.mp4", "0 is not a number of pixels"),
    "height": (_set("media/height", 0, -5), "/media/height", "a.mp4", "-5 is not a number of pixels"),
    "stage": (_set("failure/stage", 0, b""), "/failure/stage", "x.mp4", "'' is not the name of a stage"),
    "reason": (_set("failure/reason", 0, b""), "/failure/reason", "x.mp4", "'' is not a reason code"),
    "message": (_set("failure/message", 0, b"x" * (MAX_MESSAGE_BYTES + 1)), "/failure/message", "x.mp4", "at most"),
    "offset start": (_offsets(1, 2, 5, 9), "/clip/offset", "", "does not run from 0 up to the 9 rows"),
    "offset falls": (_offsets(0, 5, 2, 9), "/clip/offset", "", "does not run from 0"),
    "offset end": (_offsets(0, 2, 5, 10), "/clip/offset", "", "does not run from 0"),
    "nan": (_one_value("clip/features", 2, np.nan), "/clip/features", "b.mp4", "NaN or infinite"),
    "infinity": (_one_value("slowfast/logits", 2, -np.inf), "/slowfast/logits", "c.mp4", "NaN or infinite"),
    "zero row": (_zero_row("clip/features", 8), "/clip/features", "c.mp4", "all zero"),
    "zero window": (_zero_row("slowfast/features", 0), "/slowfast/features", "a.mp4", "all zero"),
    "time nan": (_set("clip/time_seconds", 1, np.nan), "/clip/time_seconds", "a.mp4", "NaN or infinite times"),
    "time falls": (_set("clip/time_seconds", 3, 5.0), "/clip/time_seconds", "b.mp4", "go backwards"),
    "time far": (_set("clip/time_seconds", 1, 2e9), "/clip/time_seconds", "a.mp4", "more than 1,000,000,000 s from 0"),
    "window far": (_set("slowfast/start_seconds", 1, -2e9), "/slowfast/start_seconds", "b.mp4", "from 0"),
    "duration far": (_set("media/duration_seconds", 0, 2e9), "/media/duration_seconds", "a.mp4", "is not a duration"),
    "duration below 0": (_set("media/duration_seconds", 0, -1.0), "/media/duration_seconds", "a.mp4", "-1.0 is not a"),
    "window ends": (_set("slowfast/end_seconds", 1, -1.0), "/slowfast/end_seconds", "b.mp4", "end before they start"),
}


@pytest.mark.parametrize(("edit", "dataset", "video", "what"), MEANING.values(), ids=MEANING.keys())
def test_numbers_that_mean_nothing(
    path: Path, edit: Callable[[h5py.File], object], dataset: str, video: str, what: str
) -> None:
    forge(path, edit)
    (problem,) = verify(path.parent).problems
    assert (problem.shard, problem.dataset, problem.video) == (path.name, dataset, video)
    assert what in problem.what


def test_times_may_start_again_with_the_next_video(path: Path) -> None:
    """The times of each video start at 0, so they are lower than the last time of the previous video."""
    with h5py.File(path) as file:
        assert (np.diff(file["clip/time_seconds"][:]) < 0).sum() == 2
    assert verify(path.parent).problems == []


def test_times_may_begin_below_zero(path: Path) -> None:
    """Times in some containers do."""
    forge(path, lambda file: change(file, "clip/time_seconds", 0, -0.5))
    assert verify(path.parent).problems == []


def test_a_video_without_rows(path: Path) -> None:
    forge(path, _offsets(0, 2, 2, 9))
    found = [(problem.dataset, problem.video, problem.what) for problem in verify(path.parent).problems]
    assert ("/clip/offset", "b.mp4", "has no rows; every used video has at least one") in found


def test_several_problems_of_one_shard(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        change(file, "media/label", 0, 5)
        _zero_row("clip/features", 0)(file)
        _zero_row("clip/features", 8)(file)
        del file["media/fps"]

    forge(path, edit)
    found = {(problem.dataset, problem.video) for problem in verify(path.parent).problems}
    expected = {("/media/label", "a.mp4"), ("/clip/features", "a.mp4"), ("/clip/features", "c.mp4"), ("/media/fps", "")}
    assert found == expected


def test_bad_shards_do_not_hide_each_other(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, num_harmful=10, num_safe=10, shard_size=4)
    shard_path(tmp_path, 0).write_bytes(b"")
    data = shard_path(tmp_path, 1).read_bytes()
    shard_path(tmp_path, 1).write_bytes(data[:-100])
    forge(shard_path(tmp_path, 2), lambda file: change(file, "media/label", 0, 9))
    write_shard(shard_path(tmp_path, 4), [], [], synthetic.provenance(clip_width=9))
    report = verify(tmp_path)
    assert [problem.shard for problem in report.problems] == [f"shard-0000{i}.h5" for i in (0, 1, 2, 4)]
    assert "clip.widths.features 8 against 9" in report.problems[-1].what
    assert report.num_shards == 5


def test_leftovers_are_noted_and_are_not_a_problem(path: Path) -> None:
    path.with_name(".partial-shard-00001.h5").write_bytes(b"half")
    report = verify(path.parent)
    assert report.problems == []
    assert [note.split()[0] for note in report.notes] == [".partial-shard-00001.h5"]


@pytest.mark.parametrize("make", [False, True])
def test_nothing_to_check_is_an_error(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "c").mkdir()
    with pytest.raises(CacheError):
        verify(tmp_path / "c")


def test_an_altered_chunk_names_its_rows_and_videos(tmp_path: Path, version: int) -> None:
    width = {1: 100_000, 2: 8_000}[version]  # two rows have one checksum
    source = synthetic.provenance(slowfast_width=width, store="float32")
    items = [synthetic.item(synthetic.media(f"{i}.mp4"), seed=i, source=source) for i in range(6)]
    path = shard_path(tmp_path, 0)
    write_shard(path, items, [], source)
    with h5py.File(path) as file:
        assert file["slowfast/features"].chunks == ((2, width) if version == 1 else None)
        third_row = file["slowfast/features"][2].tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(third_row)] ^= 4
    path.write_bytes(data)
    altered, *rest = verify(tmp_path).problems
    assert {1: "SHA-256", 2: "XXH3"}[version] in altered.what
    damaged = Problem(
        shard=path.name,
        dataset="/slowfast/features",
        video="2.mp4",
        what="damaged: the checksum of rows 2:4 does not match",
    )
    assert rest == [damaged, replace(damaged, video="3.mp4")]


@pytest.mark.parametrize(("stream", "name"), [("clip", "features"), ("slowfast", "features"), ("slowfast", "logits")])
def test_a_flipped_byte_of_features_names_shard_dataset_and_videos(path: Path, stream: str, name: str) -> None:
    data = path.read_bytes()
    with h5py.File(path) as file:
        features = file[f"{stream}/{name}"][:].tobytes()
    start = data.index(features)
    for position in range(start, start + len(features), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        altered, *rest = verify(path.parent).problems
        assert (altered.shard, altered.dataset, altered.video) == (path.name, "", "")
        found = [(problem.shard, problem.dataset, problem.video) for problem in rest]
        assert found == [(path.name, f"/{stream}/{name}", id) for id in IDS]  # the dataset is one chunk


def test_a_broken_seal_hides_nothing(path: Path) -> None:
    forge(path, lambda file: change(file, "media/label", 0, 5))
    path.write_bytes(b"X" + path.read_bytes()[1:])
    found = [(problem.dataset, problem.video) for problem in verify(path.parent).problems]
    assert found == [("", ""), ("/media/label", "a.mp4")]


def test_the_odd_shard_is_the_one_with_other_settings(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, shard_size=8)
    write_shard(shard_path(tmp_path, 0), [], [], synthetic.provenance(clip_width=9))
    (problem,) = verify(tmp_path).problems
    assert (problem.shard, "shard-00001.h5: clip.widths.features 8 against 9" in problem.what) == (
        "shard-00000.h5",
        True,
    )


def test_every_flipped_byte_is_found(path: Path) -> None:
    data = path.read_bytes()
    rng = random.Random(2)
    for position in [*range(0, USER_BLOCK_BYTES, 16), *rng.sample(range(USER_BLOCK_BYTES, len(data)), 150)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert verify(path.parent).problems, f"byte {position} of {len(data)}"


def test_no_damage_under_a_right_seal_makes_a_reader_fall_over(path: Path) -> None:
    """A stranger may send a file with a valid digest and wrong bytes. Only documented errors are raised."""
    data = path.read_bytes()
    rng = random.Random(3)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 4, 64])):
            damaged[rng.randrange(USER_BLOCK_BYTES, len(data))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(damaged)
        reseal(path)
        verify(path.parent)
        try:
            summarise(Cache.open(path.parent))
        except CacheError:
            refused += 1
    assert refused > 50
