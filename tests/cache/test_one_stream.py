"""A cache without CLIP or SlowFast: its rows, times and offsets are there, and its features have the width 0."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from haechi.cache import schema
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.shard import settings_are_complete
from haechi.cache.summary import summarise
from haechi.cache.writer import shard_path
from tests import synthetic
from tests.cache.forge import forge

WIDTHS = {"clip": {"clip_width": 0}, "slowfast": {"slowfast_width": 0, "num_logits": 0}}


@pytest.mark.parametrize("stream", schema.STREAMS)
def test_it_is_read_verified_and_summarised(tmp_path: Path, stream: str) -> None:
    source = synthetic.provenance(trained=True, **WIDTHS[stream])
    assert settings_are_complete(source.settings)
    synthetic.write_cache(tmp_path, source=source, num_failures=1)
    cache = Cache.open(tmp_path)
    num_rows = {"clip": 80, "slowfast": 20}
    for other, arrays in schema.STREAMS.items():
        assert schema.has_features(cache.settings, other) == (other != stream)
        assert cache.offset(other)[-1] == num_rows[other]
        for name, num_axes in arrays.items():
            values = cache.rows(other, name, videos=np.array([3, 4, 17]))
            assert len(values) == 3 * num_rows[other] // 20
            assert num_axes == 1 or bool(values.shape[1]) == (other != stream)
    assert verify(tmp_path).problems == []
    summary = summarise(cache)
    assert (summary["zero_rows"], summary["nonfinite_rows"], summary["untrained"]) == (0, 0, [])
    assert summary["streams"][stream]["features"]["shape"] == [num_rows[stream], 0]


@pytest.mark.parametrize("stream", schema.STREAMS)
def test_a_repair_keeps_its_sound_rows(tmp_path: Path, stream: str) -> None:
    synthetic.write_cache(tmp_path, source=synthetic.provenance(**WIDTHS[stream]), shard_size=20)
    before = Cache.open(tmp_path)
    ids, kept = before.media["id"].tolist(), np.delete(np.arange(20), 5)
    names = [(other, name) for other, arrays in schema.STREAMS.items() for name in arrays]
    expected = [before.rows(*name, videos=kept) for name in names]

    def spoil(file: h5py.File) -> None:
        file["clip/time_seconds"][4 * 5] = np.nan

    forge(shard_path(tmp_path, 0), spoil)
    assert {problem.video for problem in verify(tmp_path).problems} == {ids[5]}
    repair(tmp_path)
    after = Cache.open(tmp_path)
    assert after.media["id"].tolist() == ids[:5] + ids[6:]
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal(after.rows(*name), values)
    assert verify(tmp_path).problems == []


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "0" * 64},
        {"trained": False},
        {"widths": {"features": 1, "logits": 0}},
        {"model": "slowfast_r50"},
        {"output": "nothing"},
    ],
)
def test_a_stream_without_a_model_has_exactly_these_settings(change: dict[str, object]) -> None:
    settings = synthetic.settings(**WIDTHS["slowfast"])
    assert settings_are_complete(settings)
    assert not settings_are_complete(settings | {"slowfast": settings["slowfast"] | change})


def test_a_cache_without_any_model_is_refused() -> None:
    assert not settings_are_complete(synthetic.settings(**WIDTHS["clip"], **WIDTHS["slowfast"]))
