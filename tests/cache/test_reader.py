"""Reading several shards as one table, in which the last row of an id counts."""

from pathlib import Path

import numpy as np
import pytest

from haechi.cache.errors import CacheError
from haechi.cache.reader import Cache, check_offset, shard_paths
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic
from tests.cache.forge import change, forge

pytestmark = pytest.mark.usefixtures("version")


def _write(path: Path, number: int, used: list[tuple[str, int]], failed: list[str]) -> None:
    items = [synthetic.item(synthetic.media(id), seed=seed, num_frames=seed + 1) for id, seed in used]
    failures = [synthetic.failure(id) for id in failed]
    write_shard(shard_path(path, number), items, failures, synthetic.provenance())


def _features(seed: int) -> np.ndarray:
    return synthetic.item(synthetic.media("x"), seed=seed, num_frames=seed + 1).arrays["clip/features"]


def test_several_shards_read_as_one(tmp_path: Path) -> None:
    _write(tmp_path, 0, [("a", 3), ("b", 1)], ["x"])
    _write(tmp_path, 1, [], ["y"])
    _write(tmp_path, 2, [("c", 0)], [])
    cache = Cache.open(tmp_path)
    assert cache.media["id"].tolist() == ["a", "b", "c"]
    assert cache.offset("clip").tolist() == [0, 4, 6, 7]
    assert cache.offset("slowfast").tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(
        cache.rows("clip", "features"), np.concatenate([_features(3), _features(1), _features(0)])
    )
    assert [len(part) for part in cache.rows_by_shard("clip", "features")] == [6, 0, 1]
    assert [failure.id for failure in cache.failures] == ["x", "y"]
    assert cache.untrained == ["clip", "slowfast"]
    assert cache.shards[0].num_rows == {"clip": 6, "slowfast": 2}


@pytest.mark.parametrize("videos", [[], [0], [2, 4], [0, 1, 2, 3, 4, 5], [1, 3, 5]])
@pytest.mark.parametrize(("stream", "name"), [("clip", "features"), ("clip", "time_seconds"), ("slowfast", "logits")])
def test_rows_of_some_videos(tmp_path: Path, videos: list[int], stream: str, name: str) -> None:
    _write(tmp_path, 0, [("a", 3), ("old", 6), ("b", 1), ("c", 2)], ["x"])
    _write(tmp_path, 1, [], ["y"])
    _write(tmp_path, 2, [("d", 0), ("old", 4), ("e", 5)], [])
    cache = Cache.open(tmp_path)
    assert cache.media["id"].tolist() == ["a", "b", "c", "d", "old", "e"]
    whole, offset = cache.rows(stream, name), cache.offset(stream)
    some = cache.rows(stream, name, videos=np.array(videos, np.int64))
    expected = [whole[offset[i] : offset[i + 1]] for i in videos]
    np.testing.assert_array_equal(some, np.concatenate([whole[:0], *expected]))
    assert some.dtype == whole.dtype


def test_altered_rows_are_refused_where_they_are_read_only(tmp_path: Path) -> None:
    _write(tmp_path, 0, [("a", 3)], [])
    _write(tmp_path, 1, [("b", 2)], [])
    data = bytearray(shard_path(tmp_path, 1).read_bytes())
    data[data.index(_features(2).tobytes())] ^= 1
    shard_path(tmp_path, 1).write_bytes(data)
    cache = Cache.open(tmp_path)
    assert len(cache.rows("clip", "features", videos=np.array([0]))) == 4
    with pytest.raises(CacheError, match=r"shard-00001\.h5: /clip/features is damaged"):
        cache.rows("clip", "features")
    with pytest.raises(CacheError, match=r"shard-00001\.h5: /clip/features is damaged"):
        cache.rows("clip", "features", videos=np.array([1]))


def test_the_last_row_of_an_id_counts(tmp_path: Path) -> None:
    _write(tmp_path, 0, [("new bytes", 3), ("kept", 1), ("now fails", 2)], ["now works", "fails again"])
    _write(tmp_path, 1, [("now works", 4), ("new bytes", 0)], ["now fails", "fails again"])
    cache = Cache.open(tmp_path)
    assert cache.media["id"].tolist() == ["kept", "now works", "new bytes"]
    assert [failure.id for failure in cache.failures] == ["now fails", "fails again"]
    assert cache.offset("clip").tolist() == [0, 2, 7, 8]
    np.testing.assert_array_equal(
        cache.rows("clip", "features"), np.concatenate([_features(1), _features(4), _features(0)])
    )
    assert cache.locations["now fails"] == (1, "failure", 0)
    assert cache.locations["new bytes"] == (1, "media", 1)


def test_shards_of_both_versions_read_as_one(tmp_path: Path) -> None:
    for number, version in enumerate((1, 2, 1)):
        item = synthetic.item(synthetic.media(f"{number}"), seed=number)
        again = synthetic.item(synthetic.media("again"), seed=7 + number)
        write_shard(shard_path(tmp_path, number), [item, again], [], synthetic.provenance(), version=version)
    cache = Cache.open(tmp_path)
    assert [shard.version for shard in cache.shards] == [1, 2, 1]
    assert cache.media["id"].tolist() == ["0", "1", "2", "again"]
    expected = [synthetic.item(synthetic.media("x"), seed=seed).arrays["clip/features"] for seed in (0, 1, 2, 9)]
    np.testing.assert_array_equal(cache.rows("clip", "features"), np.concatenate(expected))


def test_many_rows_are_read_in_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write_cache(tmp_path)
    expected = Cache.open(tmp_path).rows("clip", "features")
    monkeypatch.setattr("haechi.cache.reader.PARALLEL_BYTES", 0)
    monkeypatch.setattr("haechi.cache.reader.num_threads", lambda: 3)
    np.testing.assert_array_equal(Cache.open(tmp_path).rows("clip", "features"), expected)
    data = bytearray(shard_path(tmp_path, 2).read_bytes())
    data[data.index(expected[-4:].tobytes())] ^= 1
    shard_path(tmp_path, 2).write_bytes(data)
    with pytest.raises(CacheError, match=r"shard-00002.h5: /clip/features is damaged"):
        Cache.open(tmp_path).rows("clip", "features")


def test_ids_with_the_same_hash_are_different_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haechi.cache.reader.xxh3_64_intdigest", len)
    _write(tmp_path, 0, [("a", 3), ("b", 1)], ["x"])
    _write(tmp_path, 1, [("b", 2), ("cc", 0)], ["y", "a"])
    cache = Cache.open(tmp_path)
    assert cache.media["id"].tolist() == ["b", "cc"]
    assert [failure.id for failure in cache.failures] == ["x", "y", "a"]
    assert len(cache.locations) == 5


def test_trained_backbones_are_not_called_untrained(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, source=synthetic.provenance(trained=True))
    assert Cache.open(tmp_path).untrained == []


def test_shards_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        _write(tmp_path, number, [(f"{number}", 0)], [])
    assert Cache.open(tmp_path).media["id"].tolist() == ["1", "2", "10"]
    assert len(shard_paths(tmp_path)) == 3


def test_other_settings_never_mix(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, num_harmful=2, num_safe=2)
    other = synthetic.provenance(clip_width=9)
    write_shard(shard_path(tmp_path, 7), [], [], other)
    with pytest.raises(CacheError, match=r"shard-00007.h5(.|\n)*clip\.widths\.features: 8 against 9"):
        Cache.open(tmp_path)


def test_all_unusable_shards_are_named_at_once(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path, shard_size=5)
    for number in (0, 2):
        shard_path(tmp_path, number).write_bytes(b"")
    with pytest.raises(CacheError, match=r"2 of 4 shards(.|\n)*shard-00000.h5(.|\n)*shard-00002.h5"):
        Cache.open(tmp_path)


@pytest.mark.parametrize(("make", "text"), [(False, "no such"), (True, "no shards")])
def test_a_folder_that_is_not_a_cache(tmp_path: Path, make: bool, text: str) -> None:
    if make:
        (tmp_path / "c").mkdir()
    with pytest.raises(CacheError, match=text):
        Cache.open(tmp_path / "c")


def test_a_file_is_not_a_cache(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("x")
    with pytest.raises(CacheError):
        Cache.open(tmp_path / "c")


@pytest.mark.parametrize(
    "offset",
    [[1, 2, 4], [0, 3, 2], [0, 2, 5], [0, -1, 4], [0, 2**63 - 1, -(2**63), 2**63 - 1, -(2**63) + 4]],
)
def test_offsets_that_cannot_be_followed(offset: list[int]) -> None:
    with pytest.raises(CacheError, match="does not run from 0"):
        check_offset(np.array(offset, np.int64), num_rows=4, where="x")


def test_offsets_that_can() -> None:
    check_offset(np.array([0, 0, 3, 4, 4]), num_rows=4, where="x")
    check_offset(np.array([0]), num_rows=0, where="x")


@pytest.mark.parametrize("read", [lambda c: c.offset("clip"), lambda c: c.rows("clip", "features")])
def test_wrong_offsets_are_refused_when_read(tmp_path: Path, read: object) -> None:
    _write(tmp_path, 0, [("a", 3), ("b", 1)], [])
    forge(shard_path(tmp_path, 0), lambda file: change(file, "clip/offset", 1, 10**12))
    with pytest.raises(CacheError, match="clip/offset"):
        read(Cache.open(tmp_path))  # type: ignore[operator]


def test_a_cache_is_opened_by_the_text_of_its_path(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    assert Cache.open(str(cache)).fingerprint == Cache.open(cache).fingerprint
    assert Cache.open(str(cache)).path == cache
