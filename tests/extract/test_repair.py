"""After damage and repair, extraction does only what was dropped, and the cache is as before."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, Failure, Item
from haechi.cache.writer import shard_path
from haechi.cli import main
from haechi.extract import pipeline
from haechi.extract.manifest import read_manifest
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import ShardQueue
from tests.cache.forge import change, forge

NAMES = ["sound.mp4", "vfr.mp4", "empty.mp4", "portrait.mp4", "odd.mp4", "text.mp4", "one_frame.mp4", "mpeg4.avi"]


def _rows(cache: Cache) -> dict[str, list[object]]:
    """Id -> everything that the cache holds of it, in whichever shard."""
    rows: dict[str, list[object]] = {failure.id: [failure] for failure in cache.failures}
    for i, id in enumerate(cache.media["id"].tolist()):
        rows[id] = [column[i] for column in cache.media.values()]
        for stream, names in STREAMS.items():
            start, end = cache.offset(stream)[i : i + 2]
            rows[id] += [cache.rows(stream, name)[start:end].tobytes() for name in names]
    return rows


def test_only_what_was_dropped_is_done_again(
    videos: Path, tmp_path: Path, tiny_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    for name in NAMES:
        shutil.copy2(videos / name, data / name)
    (data / "labels.csv").write_text("\n".join(["path,label", *(f"{name},{i % 2}" for i, name in enumerate(NAMES))]))
    manifest = read_manifest(data / "labels.csv")
    # Each batch holds one video, so that the last bit of a feature does not depend on other videos.
    settings = ExtractSettings(
        **{**vars(tiny_settings), "shard_size": 2, "batch_frames": tiny_settings.frames, "batch_windows": 1}
    )
    pipeline.extract(manifest, out, settings, producer="haechi test")
    before = _rows(Cache.open(out))
    assert set(before) == set(NAMES)

    forge(shard_path(out, 0), lambda file: change(file, "clip/features", 3, np.zeros_like(file["clip/features"][3])))
    forge(shard_path(out, 1), lambda file: change(file, "failure/stage", 0, b""))
    damaged = shard_path(out, 2).read_bytes()[:-100]
    shard_path(out, 2).write_bytes(damaged)
    shard_path(out, 3).write_bytes(b"h" + b"X" + shard_path(out, 3).read_bytes()[2:])
    dropped = {"sound.mp4", "empty.mp4", "odd.mp4", "text.mp4"}

    repaired = CliRunner().invoke(main, ["verify", str(out), "--repair"])
    assert repaired.exit_code == 0, repaired.output
    assert set(_rows(Cache.open(out))) == set(NAMES) - dropped

    done_again: list[str] = []
    honest = ShardQueue.add

    def add(self: ShardQueue, index: int, row: Item | Failure) -> None:
        done_again.append(row.media.id if isinstance(row, Item) else row.id)
        honest(self, index, row)

    monkeypatch.setattr(ShardQueue, "add", add)
    pipeline.extract(manifest, out, settings, producer="haechi test")
    assert set(done_again) == dropped
    assert verify(out).problems == []
    assert _rows(Cache.open(out)) == before
    assert (out / "shard-00002.h5.damaged").read_bytes() == damaged
