"""Writing shards, each whole or not at all."""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from haechi.cache import shard as shard_module
from haechi.cache import writer
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import MEDIA_TYPES, STREAMS, Item
from haechi.cache.shard import Shard
from haechi.cache.writer import remove_leftovers, rewrite_media, shard_path, write_shard
from tests import synthetic

pytestmark = pytest.mark.usefixtures("version")

ITEMS = [
    synthetic.item(synthetic.media(id, label=label, split=split, group=group), seed=i, num_frames=i + 1)
    for i, (id, label, split, group) in enumerate(
        [("z.mp4", 1, "train", "g"), ("영상/a.mp4", 0, "", ""), ("a.mp4", -1, "test", "방")]
    )
]
FAILURES = [synthetic.failure("y.mp4"), synthetic.failure("b.mp4", reason="timeout")]


def test_rows_keep_their_order_and_content(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), ITEMS, FAILURES, synthetic.provenance())
    cache = Cache.open(tmp_path)
    for row, item in enumerate(ITEMS):
        assert tuple(cache.media[column][row] for column in MEDIA_TYPES) == astuple(item.media)
    for stream, arrays in STREAMS.items():
        offset = cache.offset(stream)
        for name in arrays:
            rows = cache.rows(stream, name)
            for i, item in enumerate(ITEMS):
                np.testing.assert_array_equal(rows[offset[i] : offset[i + 1]], item.arrays[f"{stream}/{name}"])
    assert cache.failures == FAILURES
    assert cache.shards[0].provenance == synthetic.provenance()


@pytest.mark.parametrize(("items", "failures"), [([], []), ([], FAILURES), (ITEMS, [])])
def test_shards_without_items_or_failures(tmp_path: Path, items: list, failures: list) -> None:
    write_shard(shard_path(tmp_path, 0), items, failures, synthetic.provenance())
    cache = Cache.open(tmp_path)
    assert (len(cache.media["id"]), len(cache.failures)) == (len(items), len(failures))
    assert cache.rows("slowfast", "logits").shape == (len(items), synthetic.NUM_LOGITS)
    assert verify(tmp_path).problems == []


def test_a_shard_of_many_chunks_reads_back(tmp_path: Path, version: int) -> None:
    source = synthetic.provenance(slowfast_width=40_000, store="float32")
    items = [synthetic.item(synthetic.media(f"{i}"), seed=i, source=source) for i in range(20)]
    write_shard(shard_path(tmp_path, 0), items, [], source)
    with h5py.File(shard_path(tmp_path, 0)) as file:
        assert file["slowfast/features"].chunks == ((6, 40_000) if version == 1 else None)
    index = Shard.open(shard_path(tmp_path, 0)).index
    assert (
        index is None or len(index.datasets["slowfast/features"].checksums) == 20 * 16
    )  # a row is larger than a block
    expected = np.concatenate([item.arrays["slowfast/features"] for item in items])
    np.testing.assert_array_equal(Cache.open(tmp_path).rows("slowfast", "features"), expected)


def test_the_same_rows_give_the_same_datasets(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_shard(tmp_path / name, ITEMS, FAILURES, synthetic.provenance())
    one, other = (_datasets(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert one | {"index": None} == other | {"index": None}  # the index holds the time of writing
    indices = [Shard.open(tmp_path / name).index for name in ("a.h5", "b.h5")]
    if None not in indices:
        assert indices[0].datasets == indices[1].datasets  # type: ignore[union-attr]


def test_a_shard_replaces_the_old_one_under_its_name(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    write_shard(path, ITEMS[:1], [], synthetic.provenance())
    assert Shard.open(path).num_items == 1
    assert _names(tmp_path) == {path.name}


def _break_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _no_space)


def _break_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", _no_space)


def _break_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_stream", _no_space)


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_stream", interrupted)


@pytest.mark.parametrize("fault", [_break_fsync, _break_rename, _break_array, _interrupt])
def test_a_failure_leaves_nothing_new_and_the_old_shard_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    before = path.read_bytes()
    fault(monkeypatch)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_shard(path, ITEMS[:1], [], synthetic.provenance())
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_shard(shard_path(tmp_path, 1), ITEMS[:1], [], synthetic.provenance())
    assert _names(tmp_path) == {path.name}
    assert path.read_bytes() == before


def test_a_disk_that_fills_while_hdf5_writes(tmp_path: Path) -> None:
    """A real failed write, in a process whose files are limited to 100 kB."""
    script = """
        import resource, sys
        from pathlib import Path
        from tests import synthetic
        from haechi.cache.writer import shard_path, write_shard
        source = synthetic.provenance(slowfast_width=20_000)
        items = [synthetic.item(synthetic.media(f"{i}"), seed=i, source=source) for i in range(20)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_shard(shard_path(Path(sys.argv[1]), 0), items, [], source)
        except OSError as error:
            print("OSError", error.errno)
    """
    run = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (result.returncode, result.stdout) == (0, "OSError 27\n"), result.stderr
    assert _names(tmp_path) == set()


def test_a_folder_that_may_not_be_written() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0  # root may write anywhere, so the test runs as nobody
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                write_shard(shard_path(Path(folder), 0), ITEMS, [], synthetic.provenance())
        finally:
            if root:
                os.seteuid(0)
        assert _names(Path(folder)) == set()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_shard(shard_path(tmp_path / "gone", 0), ITEMS, [], synthetic.provenance())


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), ITEMS, [], synthetic.provenance())
    kept = {"shard-00000.h5", "notes.txt", ".lock"}
    for name in ("notes.txt", ".lock", ".partial-shard-00001.h5"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == kept


def test_relabelling_keeps_the_features_and_seals_again(tmp_path: Path, version: int) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    before, sealed = _datasets(path), Shard.open(path).seal
    truth = {"z.mp4": (0, "val", "a much longer group"), "영상/a.mp4": (1, "", ""), "a.mp4": (1, "train", "g")}
    ids = [item.media.id for item in ITEMS]
    labels, splits, groups = zip(*(truth[id] for id in ids), strict=True)
    rewrite_media(path, {"label": labels, "split": splits, "group": groups})
    after = _datasets(path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"index"} == {"media/label", "media/split", "media/group"}
    media = Cache.open(tmp_path).media
    found = zip(media["label"].tolist(), media["split"], media["group"], strict=True)
    assert dict(zip(media["id"], found, strict=True)) == truth
    assert Shard.open(path).seal != sealed
    assert Shard.open(path).version == version
    assert verify(tmp_path).problems == []


@pytest.mark.parametrize("content", [ITEMS[0].arrays["clip/features"].tobytes(), ITEMS[0].media.sha256.encode()])
def test_relabelling_does_not_hide_damage(tmp_path: Path, content: bytes) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 1
    path.write_bytes(data)
    rewrite_media(path, {"label": [0] * len(ITEMS)})
    assert {problem.video for problem in verify(tmp_path).problems} == {item.media.id for item in ITEMS}


def test_a_shard_that_was_opened_before_is_still_read_after_relabelling(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    shard, cache = Shard.open(path), Cache.open(tmp_path)
    (features,) = shard.read("clip/features")
    rewrite_media(path, {"group": ["a group with a long name"] * len(ITEMS)})
    np.testing.assert_array_equal(shard.read("clip/features")[0], features)
    np.testing.assert_array_equal(cache.rows("clip", "features"), features)
    assert set(cache.media["group"]) == {"a group with a long name"}


def test_a_shard_that_is_relabelled_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seal was read, and just before its rows are read."""
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    honest, groups = shard_module.open_content, [""]

    def replaced_before(path: Path, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(shard_module, "open_content", honest)
        groups.append(str(len(groups)) * 5000)
        rewrite_media(path, {"label": [0] * len(ITEMS), "group": [groups[-1]] * len(ITEMS)})
        return honest(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_module, "open_content", replaced_before)
    shard = Shard.open(path)
    assert shard.read("media/group")[0].tolist() == [groups[-1]] * len(ITEMS)
    monkeypatch.setattr(shard_module, "open_content", replaced_before)
    features, group = shard.read("clip/features", "media/group")
    np.testing.assert_array_equal(features, np.concatenate([item.arrays["clip/features"] for item in ITEMS]))
    assert group.tolist() == [groups[-1]] * len(ITEMS)


def test_new_labels_for_a_shard_that_hdf5_cannot_read(tmp_path: Path, version: int) -> None:
    """In version 2 its rows are read without HDF5, but labels are written with it. A repair writes the shard again."""
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance())
    damaged = path.read_bytes().replace(b"\x89HDF\r\n", b"\x89HDF\r\r", 1)
    path.write_bytes(damaged)
    with pytest.raises(DamageError, match=r"HDF5 cannot read it .*; see `haechi verify`"):
        rewrite_media(path, {"label": [0] * len(ITEMS)})
    assert path.read_bytes() == damaged
    if version == 2:
        assert repair(tmp_path).to_redo == []
        rewrite_media(path, {"label": [0] * len(ITEMS)})
        assert Cache.open(tmp_path).media["label"].tolist() == [0] * len(ITEMS)


@pytest.mark.parametrize("others", [ITEMS[:2], [ITEMS[0], replace(ITEMS[1], media=synthetic.media("other")), ITEMS[2]]])
def test_a_shard_that_was_replaced_by_other_rows_is_refused(tmp_path: Path, others: list[Item]) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, FAILURES, synthetic.provenance(), version=2)
    shard = Shard.open(path)
    write_shard(path, others, FAILURES, synthetic.provenance(), version=2)
    with pytest.raises(CacheError, match=r"shard-00000.h5: was replaced by a shard with other rows") as error:
        shard.read("clip/features")
    assert not isinstance(error.value, DamageError)


def test_relabelling_a_shard_of_failures_only(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), [], FAILURES, synthetic.provenance())
    rewrite_media(shard_path(tmp_path, 0), {"label": [], "split": [], "group": []})
    assert verify(tmp_path).problems == []


def test_a_failed_relabelling_changes_nothing(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, ITEMS, [], synthetic.provenance())
    before = path.read_bytes()
    with pytest.raises(KeyError):
        rewrite_media(path, {"label": [0] * len(ITEMS), "no such column": [0] * len(ITEMS)})
    assert path.read_bytes() == before
    assert _names(tmp_path) == {path.name}


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _datasets(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                found.update({name: (str(node.dtype), node.shape, np.asarray(node[()]).tobytes())})
                if isinstance(node, h5py.Dataset)
                else None
            )
        )
    return found
