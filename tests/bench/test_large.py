"""The benchmark of many videos, with few."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench import large, measure
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache


@pytest.mark.usefixtures("in_process")
def test_quick(tmp_path: Path) -> None:
    large.main.main(["--quick", "--rounds", "1", "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"large-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert all(value > 0 for what, value in found.items() if "memory" not in what)
    assert found["train, 300 videos of 4 frames, streamed, --no-scenes: memory"] == 100
    growth = [found[f"train, {size} videos of 4 frames, streamed, --no-scenes: time"] for size in (240, 300)]
    assert found["the same: growth of time by video"] == pytest.approx(growth[1] / growth[0] / 1.25)


def test_the_cache_is_sound_and_the_mean_of_a_video_knows_its_label(tmp_path: Path) -> None:
    cache = Cache.open(large.write_features(tmp_path / "cache", num_videos=300, num_frames=4))
    assert not verify(cache.path).problems
    assert cache.rows("slowfast", "features", videos=np.arange(300)).shape == (0, 0)
    means = cache.rows("clip", "features", videos=np.arange(300)).reshape(300, 4, -1).mean(axis=1, dtype=np.float32)
    direction = np.random.default_rng(0).standard_normal(means.shape[1], dtype=np.float32)
    assert 0.7 < roc_auc_score(cache.media["label"], means @ direction) < 0.95
