"""Repair drops bad rows, keeps sound rows unchanged, and leaves shards alone whose problem is not damage."""

import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock

from haechi.cache import schema
from haechi.cache.errors import CacheError
from haechi.cache.integrity.repair import Repair, repair
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import Failure, Item
from haechi.cache.shard import read_seal
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic
from tests.cache.forge import change, forge, put

pytestmark = pytest.mark.usefixtures("version")

NUM_SHARDS, NUM_VIDEOS = 4, 3  # videos of each shard
ITEMS = {
    f"{shard}-{i}.mp4": synthetic.item(
        synthetic.media(f"{shard}-{i}.mp4", label=i % 2, group="방"), seed=10 * shard + i, num_frames=i + 2
    )
    for shard in range(NUM_SHARDS)
    for i in range(NUM_VIDEOS)
}
FAILURES = {f"{shard}-x.mp4": synthetic.failure(f"{shard}-x.mp4") for shard in range(NUM_SHARDS)}
EVERYTHING = {*ITEMS, *FAILURES}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Four shards. Shard 2 has the videos `2-0.mp4` to `2-2.mp4` with 2, 3 and 4 frames, and the failure `2-x.mp4`."""
    for shard in range(NUM_SHARDS):
        items = [ITEMS[f"{shard}-{i}.mp4"] for i in range(NUM_VIDEOS)]
        write_shard(shard_path(tmp_path, shard), items, [FAILURES[f"{shard}-x.mp4"]], synthetic.provenance())
    return tmp_path


def check_kept(cache: Path, expected: set[str], items: dict[str, Item] = ITEMS) -> None:
    """Check that the cache has the expected ids, and every row the values that it was written with."""
    kept = Cache.open(cache)
    assert verify(cache).problems == []
    ids = kept.media["id"].tolist()
    assert {*ids, *(row.id for row in kept.failures)} == expected
    for row, id in enumerate(ids):
        assert tuple(kept.media[column][row] for column in schema.MEDIA_TYPES) == astuple(items[id].media)
    for stream, arrays in schema.STREAMS.items():
        offset = kept.offset(stream)
        for name in arrays:
            rows = kept.rows(stream, name)
            for i, id in enumerate(ids):
                assert rows[offset[i] : offset[i + 1]].tobytes() == items[id].arrays[f"{stream}/{name}"].tobytes()
    assert all(FAILURES[row.id] == row for row in kept.failures)
    assert all(shard.provenance == synthetic.provenance() for shard in kept.shards)


def flip(path: Path, content: bytes) -> None:
    """Change one bit of the first occurrence of `content`."""
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 4
    path.write_bytes(data)


def edited(name: str, row: int, value: object) -> Callable[[Path], object]:
    return lambda path: forge(path, lambda file: change(file, name, row, value))


def offsets(*values: int) -> Callable[[Path], object]:
    return lambda path: forge(path, lambda file: put(file, "clip/offset", np.array(values, np.int64)))


def nan(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        values = file["clip/features"][2]
        values[3] = np.nan
        change(file, "clip/features", 2, values)

    forge(path, edit)


def _other_digest(path: Path) -> None:
    first, second, rest = path.read_bytes().split(b"\n", 2)
    name, digest = second.split(b" ")
    path.write_bytes(b"\n".join([first, name + b" " + digest[::-1], rest]))


def _flip_seal(path: Path) -> None:
    """Change the name of the digest."""
    flip(path, path.read_bytes().split(b"\n")[1][:7])


def _copied_by_hdf5(path: Path) -> None:
    """As `h5repack` does: seal and index stay, and the datasets are elsewhere."""
    copy = path.with_suffix(".copy")
    with h5py.File(path) as old, h5py.File(copy, "w", userblock_size=512, libver=("v110", "v110")) as new:
        for name in reversed(list(old)):
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs.create(name, value, dtype=old.attrs.get_id(name).dtype)
    path.write_bytes(path.read_bytes()[:512] + copy.read_bytes()[512:])
    copy.unlink()


# Format version -> number of float32 values in a row of which two share one checksum.
HALF_OF_BLOCK = {1: 100_000, 2: 8_000}


VIDEOS, FAILED = {"1-0.mp4", "1-1.mp4", "1-2.mp4"}, {"1-x.mp4"}
ROWS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nan": (nan, {"1-1.mp4"}),
    "zero row": (edited("slowfast/logits", 2, np.zeros(synthetic.NUM_LOGITS, np.float16)), {"1-2.mp4"}),
    "time falls": (edited("clip/time_seconds", 3, 5.0), {"1-1.mp4"}),
    "time absurd": (edited("clip/time_seconds", 8, 3e9), {"1-2.mp4"}),
    "cell": (edited("media/split", 0, b"valid"), {"1-0.mp4"}),
    "not utf-8": (edited("media/group", 1, b"\xff\xfe"), {"1-1.mp4"}),
    "id not utf-8": (edited("media/id", 1, b"\xff\xfe"), {"1-1.mp4"}),
    "id twice": (edited("media/id", 1, b"1-0.mp4"), {"1-0.mp4", "1-1.mp4"}),
    "used and failed": (edited("failure/id", 0, b"1-2.mp4"), {"1-2.mp4", "1-x.mp4"}),
    "failure": (edited("failure/reason", 0, b""), FAILED),
    "offsets": (offsets(0, 5, 2, 9), VIDEOS),
    "no rows": (offsets(0, 0, 5, 9), {"1-0.mp4", "1-1.mp4"}),
    "checksum of a column": (lambda path: flip(path, ITEMS["1-1.mp4"].media.sha256.encode()), VIDEOS),
    "checksum of features": (lambda path: flip(path, ITEMS["1-1.mp4"].arrays["clip/features"].tobytes()), VIDEOS),
    "checksum of ids": (lambda path: flip(path, b"1-0.mp4" + b"1-1.mp4"), VIDEOS),
    "checksum of failures": (lambda path: flip(path, b"1-x.mp4 is damaged"), FAILED),
    "seal": (_flip_seal, set()),
    "seal's name": (lambda path: flip(path, b"haechi"), set()),
    "digest": (_other_digest, set()),
    "copied by HDF5": (_copied_by_hdf5, set()),
    "appended": (lambda path: path.write_bytes(path.read_bytes() + b"more"), set()),
}


@pytest.mark.parametrize(("damage", "lost"), ROWS.values(), ids=ROWS.keys())
def test_bad_rows_go_and_all_others_stay(cache: Path, damage: Callable[[Path], object], lost: set[str]) -> None:
    damage(shard_path(cache, 1))
    others = {path: path.read_bytes() for path in shard_paths(cache) if path != shard_path(cache, 1)}
    done = repair(cache)
    assert done.is_sound
    assert len(shard_paths(cache)) == NUM_SHARDS
    check_kept(cache, EVERYTHING - lost)
    assert all(path.read_bytes() == content for path, content in others.items())
    (repaired,) = done.shards
    assert (repaired.shard, repaired.put_aside, repaired.older) == ("shard-00001.h5", "", [])
    assert repaired.kept == NUM_VIDEOS + 1 - len(lost)
    assert len(repaired.videos) + len(repaired.failures) + repaired.num_nameless == len(lost)
    assert set(done.to_redo) <= lost or "id twice" in str(done.found.problems)
    assert repair(cache).shards == []


def test_chunks_beside_a_damaged_one_are_kept(tmp_path: Path, version: int) -> None:
    source = synthetic.provenance(slowfast_width=HALF_OF_BLOCK[version], store="float32")
    items = [synthetic.item(synthetic.media(f"{i}.mp4"), seed=i, source=source) for i in range(6)]
    write_shard(shard_path(tmp_path, 0), items, [], source)
    flip(shard_path(tmp_path, 0), items[2].arrays["slowfast/features"].tobytes()[:1000])
    done = repair(tmp_path)
    assert done.to_redo == done.shards[0].videos == ["2.mp4", "3.mp4"]
    kept = Cache.open(tmp_path)
    expected = np.concatenate([items[i].arrays["slowfast/features"] for i in (0, 1, 4, 5)])
    np.testing.assert_array_equal(kept.rows("slowfast", "features"), expected)


LOST: dict[str, tuple[Callable[[Path], object], bool]] = {
    "empty": (lambda path: path.write_bytes(b""), False),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-100]), False),
    "not HDF5": (lambda path: path.write_bytes(b"haechi-cache 1\n" + b"x" * 5000), False),
    "settings": (lambda path: forge(path, lambda file: file.attrs.__delitem__("settings_json")), True),
    "structure": (lambda path: forge(path, lambda file: file.__delitem__("media/fps")), True),
}


def _no_hdf5_head(path: Path) -> None:
    flip(path, b"\x89HDF\r\n")


def _flip_index(path: Path) -> None:
    flip(path, b'"bad_rows":')


def _index_elsewhere(path: Path) -> None:
    seal = read_seal(path)
    path.write_bytes(replace(seal, index=(seal.index[0] + 1, seal.index[1])).encode() + path.read_bytes()[512:])


def _no_hdf5_and_no_seal(path: Path) -> None:
    _no_hdf5_head(path)
    _flip_seal(path)


ONLY_ONE_VERSION: dict[str, tuple[int, Callable[[Path], object], bool]] = {
    "no HDF5 head": (1, _no_hdf5_head, False),
    "no HDF5 head, with index": (2, _no_hdf5_head, True),
    "index": (2, _flip_index, False),
    "index elsewhere": (2, _index_elsewhere, True),
    "neither HDF5 nor seal": (2, _no_hdf5_and_no_seal, False),
}


@pytest.mark.parametrize(("of", "damage", "is_kept"), ONLY_ONE_VERSION.values(), ids=ONLY_ONE_VERSION.keys())
def test_hdf5_and_index_stand_in_for_each_other(
    cache: Path, version: int, of: int, damage: Callable[[Path], object], is_kept: bool
) -> None:
    """With a sound index the rows can be read without HDF5, and HDF5 knows where the index is if the seal does not."""
    if version != of:
        pytest.skip(f"a case of version {of}")
    path = shard_path(cache, 1)
    damage(path)
    content = path.read_bytes()
    done = repair(cache)
    assert done.found.problems
    assert done.is_sound
    check_kept(cache, EVERYTHING if is_kept else EVERYTHING - VIDEOS - FAILED)
    assert done.are_ids_lost == (not is_kept)
    if not is_kept:
        assert path.with_name("shard-00001.h5.damaged").read_bytes() == content


def test_a_repair_keeps_the_version(cache: Path, version: int) -> None:
    nan(shard_path(cache, 1))
    assert repair(cache).is_sound
    assert {shard.version for shard in Cache.open(cache).shards} == {version}


@pytest.mark.parametrize(("damage", "are_ids_known"), LOST.values(), ids=LOST.keys())
def test_what_cannot_be_read_is_put_aside(cache: Path, damage: Callable[[Path], object], are_ids_known: bool) -> None:
    path = shard_path(cache, 1)
    damage(path)
    content = path.read_bytes()
    done = repair(cache)
    assert done.is_sound
    assert path.with_name("shard-00001.h5.damaged").read_bytes() == content
    check_kept(cache, EVERYTHING - VIDEOS - FAILED)
    assert done.are_ids_lost == (not are_ids_known)
    assert set(done.to_redo) == (VIDEOS | FAILED if are_ids_known else set())


def test_nothing_that_was_put_aside_is_overwritten(cache: Path) -> None:
    for content in (b"first", b"second", b"third"):
        shard_path(cache, 3).write_bytes(content)
        assert repair(cache).is_sound
    names = ("shard-00003.h5.damaged", "shard-00003.h5.damaged-2", "shard-00003.h5.damaged-3")
    assert [(cache / name).read_bytes() for name in names] == [b"first", b"second", b"third"]


def test_a_cache_of_which_no_shard_is_left(tmp_path: Path) -> None:
    shard_path(tmp_path, 0).write_bytes(b"")
    done = repair(tmp_path)
    assert (done.left.num_shards, done.left.problems, done.is_sound) == (0, [], False)


def _other_version(path: Path) -> None:
    path.write_bytes(b"haechi-cache 9" + path.read_bytes()[14:])


def _other_settings(path: Path) -> None:
    write_shard(path, [], [], synthetic.provenance(clip_width=9))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/shard.h5")


@pytest.mark.parametrize("make", [_other_version, _other_settings, _folder, _broken_link])
@pytest.mark.parametrize("shard", [0, 2])
def test_what_is_not_damage_is_left(cache: Path, make: Callable[[Path], object], shard: int) -> None:
    path = shard_path(cache, shard)
    make(path)
    edited("media/label", 0, 7)(shard_path(cache, 1))
    content = path.read_bytes() if path.is_file() else b""
    done = repair(cache)
    assert not done.is_sound
    assert [repaired.shard for repaired in done.shards] == ["shard-00001.h5"]
    assert [problem.shard for problem in done.left.problems] == [path.name]
    assert os.path.lexists(path)
    assert content == (path.read_bytes() if path.is_file() else b"")
    assert not list(cache.glob("*.damaged*"))


def test_a_shard_that_may_not_be_read_is_left() -> None:
    root = os.geteuid() == 0  # root may read anything, so the test runs as nobody
    if root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            cache = synthetic.write_cache(Path(folder))
            shard_path(cache, 1).chmod(0)
            done = repair(cache)
            (problem,) = done.left.problems
            assert (problem.shard, problem.what) == ("shard-00001.h5", "cannot be read (Permission denied)")
            assert (done.shards, len(shard_paths(cache))) == ([], 3)
    finally:
        if root:
            os.seteuid(0)


def test_an_input_output_error_is_not_damage(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("haechi.cache.schema.new_digest", failing)
    done = repair(cache)
    assert {problem.what for problem in done.left.problems} == {"cannot be read (Input/output error)"}
    assert (done.shards, len(shard_paths(cache))) == ([], NUM_SHARDS)


def write_again(cache: Path, shard: int, row: Item | Failure) -> None:
    """Add a shard with one row, which supersedes the rows of its id in earlier shards."""
    items, failures = ([row], []) if isinstance(row, Item) else ([], [row])
    write_shard(shard_path(cache, shard), items, failures, synthetic.provenance())


@pytest.mark.parametrize("older", [ITEMS["1-0.mp4"], synthetic.failure("1-0.mp4", reason="timeout")])
@pytest.mark.parametrize("damage", [edited("media/label", 0, 7), LOST["structure"][0]], ids=["row", "shard"])
def test_no_older_row_counts_again(cache: Path, older: Item | Failure, damage: Callable[[Path], object]) -> None:
    write_again(cache, 4, older)
    write_again(cache, 5, synthetic.item(synthetic.media("1-0.mp4"), seed=99))
    damage(shard_path(cache, 5))
    done = repair(cache)
    assert done.is_sound
    check_kept(cache, EVERYTHING - {"1-0.mp4"})
    assert done.to_redo == ["1-0.mp4"]
    assert [(repaired.shard[10], repaired.videos, repaired.older) for repaired in done.shards] == [
        ("1", [], ["1-0.mp4"]),
        ("4", [], ["1-0.mp4"]),
        ("5", ["1-0.mp4"], []),
    ]


def test_a_bad_row_that_is_superseded_costs_nothing(cache: Path) -> None:
    edited("media/label", 0, 7)(shard_path(cache, 1))
    again = synthetic.item(synthetic.media("1-0.mp4"), seed=99)
    write_again(cache, 4, again)
    done = repair(cache)
    assert (done.to_redo, [repaired.videos for repaired in done.shards]) == ([], [["1-0.mp4"]])
    check_kept(cache, EVERYTHING, ITEMS | {"1-0.mp4": again})


def test_a_full_disk_leaves_shards_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in (0, 2, 3):
        edited("media/label", 0, 7)(shard_path(cache, shard))
    before = [path.read_bytes() for path in shard_paths(cache)]
    written: list[int] = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:  # one for the first shard's file, one for its folder
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(
            CacheError, match=r"shard-00002.h5: could not be repaired \(No space left .* repaired before it: 1 shard;"
        ):
            repair(cache)
    after = [path.read_bytes() for path in shard_paths(cache)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True]
    assert not list(cache.glob(".partial-*"))
    assert repair(cache).to_redo == ["2-0.mp4", "3-0.mp4"]
    check_kept(cache, EVERYTHING - {"0-0.mp4", "2-0.mp4", "3-0.mp4"})


def test_a_cache_in_use_is_refused(cache: Path) -> None:
    shard_path(cache, 1).write_bytes(b"")
    with FileLock(cache / ".lock"), pytest.raises(CacheError, match="another run is writing"):
        repair(cache)
    assert shard_path(cache, 1).read_bytes() == b""


def test_no_such_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no such cache"):
        repair(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_a_sound_cache_is_left_alone(cache: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shard_paths(cache)}
    done: Repair = repair(cache)
    assert (done.is_sound, done.shards, done.to_redo) == (True, [], [])
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shard_paths(cache)}


def test_any_flipped_bits_are_repaired(cache: Path) -> None:
    """After the repair the cache is sound, and the kept rows have their old values."""
    path = shard_path(cache, 1)
    data = path.read_bytes()
    rng = random.Random(4)
    in_features = data.index(ITEMS["1-0.mp4"].arrays["clip/features"].tobytes())
    for position in [in_features, *rng.sample(range(len(data)), 15)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        done = repair(cache)
        assert done.found.problems, position
        assert done.is_sound, position
        kept = Cache.open(cache)
        left = {*kept.media["id"].tolist(), *(row.id for row in kept.failures)}
        assert left >= EVERYTHING - VIDEOS - FAILED
        check_kept(cache, left)


def test_a_folder_without_shards_is_refused_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(CacheError, match="no shards"):
        repair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
