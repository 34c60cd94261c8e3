"""The exported ONNX head gives the same logits as the head."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from haechi.cache.reader import Cache
from haechi.predict.export import FORMAT, OUTPUTS, export_onnx
from haechi.predict.heads import load_checkpoint
from haechi.train.data.dataset import open_features
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.head import build_head, mean_of_rows
from haechi.train.model.scores import compute_logits, compute_scores
from tests import synthetic
from tests.predict.conftest import QUICK, call
from tests.train import runs

VARIANTS = {
    "fast": [],
    "network": ["--preset", "network", "--projection", "16", "--feedforward", "16"],
    "model4": ["--preset", "model4"],
    "windows alone": ["--no-clip", "--slowfast", "pooled"],
    "frames alone": ["--slowfast", "none"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_cache(tmp_path_factory.mktemp("export") / "cache")


def trained(cache: Path, out: Path, flags: list[str]) -> Checkpoint:
    done = call("train", cache, "--out", out, *QUICK, *flags)
    assert done.exit_code == 0, done.output
    return load_checkpoint(out)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_the_heads(cache: Path, tmp_path: Path, name: str) -> None:
    checkpoint = trained(cache, tmp_path / "run", VARIANTS[name])
    done = call("export", tmp_path / "run", "--onnx", tmp_path / "head.onnx")
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")

    opened = Cache.open(cache)
    videos = np.arange(len(opened.media["id"]))
    stream, _ = open_features(opened, videos, checkpoint.settings)
    logits = compute_logits(checkpoint.head, stream, torch.from_numpy(videos))
    inputs = {}
    for name in checkpoint.streams:
        rows, offset = opened.rows(*name.split("/")), opened.offset(name.partition("/")[0])
        lengths = np.diff(offset)
        mask = np.arange(lengths.max() + 2) < lengths[:, None]  # (N, rows), longer than every video
        padded = np.full((*mask.shape, rows.shape[1]), 7.0, np.float32)
        padded[mask] = rows
        inputs[name.replace("/", "_")], inputs[name.replace("/", "_") + "_mask"] = padded, mask
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), inputs), strict=True))
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-4)
    scores = compute_scores(logits)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
    np.testing.assert_allclose(found["calibrated"], checkpoint.calibration.apply(scores), atol=1e-5)

    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["format"] == FORMAT
    assert float(metadata["threshold"]) == checkpoint.best_threshold
    assert json.loads(metadata["inputs"]).keys() == inputs.keys()
    assert metadata["fingerprint"] == opened.fingerprint
    assert int(metadata["max_rows"]) == checkpoint.settings.max_rows
    assert "score at least" in done.output


@pytest.mark.parametrize("name", ["fast", "network"])
def test_videos_of_different_lengths(cache: Path, tmp_path: Path, name: str) -> None:
    """Any number of videos and rows can be given, and padding changes nothing; moments are exported too."""
    checkpoint = trained(cache, tmp_path / "run", VARIANTS[name])
    head = build_head(tuple(checkpoint.streams.values()), checkpoint.settings)  # as trained, with all its parts
    checkpoint = replace(checkpoint, head=runs.with_random_weights(head).eval())
    export_onnx(checkpoint, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    generator = torch.Generator().manual_seed(0)
    clip, slowfast = (torch.randn(5, 9, width, generator=generator) for width in checkpoint.streams.values())
    mask = torch.arange(9) < torch.tensor([9, 1, 4, 8, 2])[:, None]
    with torch.no_grad():
        expected = checkpoint.head(clip * mask.unsqueeze(2), mean_of_rows(slowfast, mask), mask)
        if name == "fast":
            assert checkpoint.head.moments(clip * mask.unsqueeze(2), mask).std() > 0.1
    names = [put.name for put in session.get_inputs()]
    arrays = (clip, mask, slowfast, mask)

    def logits(videos: slice, num_rows: int) -> np.ndarray:
        given = {put: array[videos, :num_rows].numpy() for put, array in zip(names, arrays, strict=True)}
        return session.run(["logits"], given)[0]

    np.testing.assert_allclose(logits(slice(None), 9), expected.numpy(), atol=1e-4)
    for video, num_rows in enumerate([9, 1, 4, 8, 2]):  # alone, without padding
        alone = logits(slice(video, video + 1), num_rows)
        np.testing.assert_allclose(alone, expected[video : video + 1].numpy(), atol=1e-4)


def test_where_nothing_can_be_written(cache: Path, tmp_path: Path) -> None:
    trained(cache, tmp_path / "run", [])
    done = call("export", tmp_path / "run", "--onnx", tmp_path / "no" / "head.onnx")
    assert done.exit_code == 1
    assert "No such file or directory" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
