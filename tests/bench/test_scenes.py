"""Figures of scenes agree with figures computed by hand, and are written."""

import json
from pathlib import Path

import click
import numpy as np
import pytest

from bench import measure, recordings, scenes
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic


def test_pairs_are_counted_where_the_source_is_known() -> None:
    sources = np.array(["a", "a", "a", "b", "b", "", ""], dtype=object)
    figures = scenes.pair_figures(sources, np.array([0, 0, 1, 1, 2, 2, 2]))
    assert figures["precision of pairs"] == 1 / 2  # 0-1 is right, 2-3 is wrong; pairs with 5 and 6 are not evaluated
    assert figures["recall of pairs"] == 1 / 4  # one of 0-1, 0-2, 1-2, 3-4
    assert figures["F1 of pairs"] == pytest.approx(1 / 3)
    assert figures["adjusted Rand index"] < 1
    nothing = scenes.pair_figures(sources, np.arange(7))
    assert (nothing["precision of pairs"], nothing["recall of pairs"]) == (0, 0)
    perfect = scenes.pair_figures(sources, np.array([4, 4, 4, 2, 2, 4, 2]))
    assert set(perfect.values()) == {1.0}


def test_truth_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("path,source\na.mp4,x\nb.mp4,y\nc.mp4,\nd.mp4,\n", encoding="utf-8")
    ids = np.array(["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"], dtype=object)
    with pytest.raises(click.UsageError, match="no two videos"):
        recordings.read_recordings(ids, truth)
    truth.write_text("path,source\na.mp4,x\nd.mp4,x\nc.mp4,\n", encoding="utf-8")
    assert recordings.read_recordings(ids, truth).tolist() == ["x", "", "", "x", ""]


def test_it_runs_and_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = synthetic.provenance(clip_width=32)
    items = []
    for i, place in enumerate(np.repeat(rng.normal(size=(20, 32)), 2, axis=0)):
        item = synthetic.item(synthetic.media(f"{i}.mp4"), seed=i, source=source)
        items.append(
            synthetic.with_arrays(item, {"clip/features": (place + 0.1 * rng.normal(size=(4, 32))).astype(np.float16)})
        )
    (tmp_path / "cache").mkdir()
    write_shard(shard_path(tmp_path / "cache", 0), items, [], source)
    truth = tmp_path / "truth.csv"
    truth.write_text("path,source\n" + "".join(f"{i}.mp4,source {i // 2}\n" for i in range(40)), encoding="utf-8")
    scenes.main.main(
        ["--data", str(tmp_path / "cache"), "--truth", str(truth), "--out", str(tmp_path), "--quick"],
        standalone_mode=False,
    )
    result = json.loads((tmp_path / f"scenes-{measure.device_kind()}.json").read_text(encoding="utf-8"))
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert (result["num_videos"], result["num_known"], result["num_sources"]) == (40, 40, 20)
    assert found["precision of pairs"] == found["recall of pairs"] == found["adjusted Rand index"] == 1
    assert (found["scenes of several videos"], found["videos of the largest scene"]) == (20, 2)
    assert found["average precision of pairs: whitened within videos (used by Haechi)"] == pytest.approx(1)
    assert found["time"] > 0
    assert found["recall of pairs, synthetic videos of ten kinds"] > 0.5
    assert result["untrained"]
