"""Training on a GPU. Skipped if there is none, unless HAECHI_EXPECT_CUDA=1 is set: then it fails."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import haechi.cli
from haechi.cache.reader import Cache
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data.dataset import load_dataset
from haechi.train.model import checkpoint
from haechi.train.model.scores import compute_logits, compute_scores
from tests import synthetic
from tests.cuda import NEEDS_CUDA

pytestmark = NEEDS_CUDA


def train(out: Path, *args: str) -> list[float]:
    """The scores in predictions.csv."""
    command = ["train", str(out.parent / "cache"), "--out", str(out), "--epochs", "2", "--folds", "0", *args]
    done = CliRunner().invoke(haechi.cli.main, command)
    assert done.exit_code == 0, done.output
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("lengths", [[4], [1, 7, 4]])
def test_scores_are_those_of_the_head_on_the_cpu(tmp_path: Path, lengths: list[int]) -> None:
    """For videos of one length and of several; with streamed features the scores are the same."""
    items = [
        synthetic.with_arrays(
            synthetic.item(synthetic.media(f"{i:02d}.mp4", label=i % 2), seed=i),
            {
                "clip/features": np.random.default_rng(i)
                .normal(size=(length, synthetic.CLIP_WIDTH))
                .astype(np.float16),
                "clip/time_seconds": np.arange(length, dtype=np.float32),
            },
        )
        for i, length in zip(range(24), lengths * 24, strict=False)
    ]
    (tmp_path / "cache").mkdir()
    write_shard(shard_path(tmp_path / "cache", 0), items, [], synthetic.provenance())
    on_gpu = train(tmp_path / "gpu", "--device", "cuda")
    assert train(tmp_path / "streamed", "--device", "cuda", "--memory-gb", "0") == pytest.approx(on_gpu, abs=1e-5)
    model = checkpoint.load(tmp_path / "gpu" / "model.pt")
    features = load_dataset(Cache.open(tmp_path / "cache"), model.settings).features
    on_cpu = compute_scores(compute_logits(model.head, features, torch.arange(24)))
    assert on_cpu == pytest.approx(on_gpu, abs=1e-3)
