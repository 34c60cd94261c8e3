"""Images and videos in one cache: each kind has its own head."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.cache.reader import Cache
from haechi.cache.schema import Item
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data.dataset import load_dataset
from haechi.train.model import checkpoint
from haechi.train.model.head import Head
from haechi.train.settings import TrainSettings
from tests import synthetic

WINDOWS = ("slowfast/features", "slowfast/logits", "slowfast/start_seconds", "slowfast/end_seconds")


def image(i: int, *, label: int) -> Item:
    """One CLIP row and no SlowFast rows; the values of harmful images are above zero on average, others below."""
    row = synthetic.media(f"image-{i:03d}.png", label=label)
    item = synthetic.item(row, seed=i, num_frames=1, shift=1.0 if label == 1 else -1.0)
    row = dataclasses.replace(row, kind="image", duration_seconds=0.0, fps=0.0, num_frames=1)
    none = {name: item.arrays[name][:0] for name in WINDOWS}
    return synthetic.with_arrays(dataclasses.replace(item, media=row), none)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """20 videos, 30 images, and one image without a label."""
    path = synthetic.write_cache(tmp_path / "cache")
    images = [image(i, label=int(i % 5 != 0)) for i in range(30)] + [image(30, label=-1)]
    write_shard(shard_path(path, 9), images, [], synthetic.provenance())
    return path


def run(*args: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, ["train", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_each_kind_is_trained_on_alone(cache: Path, tmp_path: Path) -> None:
    common = ["--epochs", 3, "--device", "cpu", "--folds", 0, "--test-fraction", 0.2, "--val-fraction", 0.2]
    videos = run(cache, "--out", tmp_path / "v", *common)
    assert videos.exit_code == 0, videos.output
    assert "30 labelled images are left out (--media image trains on them)" in videos.output
    images = run(cache, "--out", tmp_path / "i", "--media", "image", *common)
    assert images.exit_code == 0, images.output
    text = " ".join(images.output.split())
    assert "20 labelled videos are left out (--media video trains on them)" in text
    assert "1 unlabelled images are left out" in text
    assert "input (B, 1, 8): clip/features, on cpu" in text
    found = {name: json.loads((tmp_path / name / "metrics.json").read_text()) for name in "vi"}
    assert [found[name]["settings"]["media"] for name in "vi"] == ["video", "image"]
    assert sum(sum(part.values()) for part in found["i"]["counts"].values()) == 30
    assert found["i"]["settings"]["preset"] == "image"
    assert not [each for each in found["i"]["slices"] if each["by"] == "duration"]
    assert found["i"]["pos_weight"] == pytest.approx(6 / 24, rel=0.3)
    pages = {name: (tmp_path / name / "report.html").read_text(encoding="utf-8") for name in "vi"}
    assert ["This run is about images" in pages[name] for name in "vi"] == [False, True]
    assert "image-001.png" in (tmp_path / "i" / "predictions.csv").read_text()


def test_the_head_is_the_reports(cache: Path, tmp_path: Path) -> None:
    settings = TrainSettings.from_preset("image_mlp")
    assert (settings.batch_size, settings.lr, settings.weight_decay, settings.patience) == (8, 1e-3, 3e-3, 4)
    head = Head(512, 0, settings)
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(512, 256), (256, 128), (128, 64), (64, 1)]
    assert [layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5, 0.3]
    assert len([layer for layer in head.modules() if isinstance(layer, nn.BatchNorm1d)]) == 3
    head.eval()
    row = torch.randn(4, 1, 512)
    expected = head.mlp(row[:, 0]).squeeze(1)
    torch.testing.assert_close(head(row, torch.zeros(4, 0), torch.ones(4, 1, dtype=torch.bool)), expected)


def test_the_checkpoint_knows_its_kind(cache: Path, tmp_path: Path) -> None:
    done = run(cache, "--out", tmp_path / "r", "--media", "image", "--epochs", 2, "--device", "cpu", "--folds", 0)
    assert done.exit_code == 0, done.output
    model = checkpoint.load(tmp_path / "r" / "model.pt")
    assert model.settings.media == "image"
    assert model.head.encoder is None


def test_images_have_no_slowfast(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="images have no SlowFast features"):
        TrainSettings(media="image")
    done = run(cache, "--out", tmp_path / "r", "--media", "image", "--slowfast", "pooled")
    assert done.exit_code == 1
    assert "images have no SlowFast features" in done.output


def test_a_kind_that_is_not_there(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    done = run(cache, "--out", tmp_path / "r", "--media", "image")
    assert done.exit_code == 1
    assert "none of its 0 images is labelled (choose the kind with --media: video or image)" in " ".join(
        done.output.split()
    )


def test_folds_and_scenes_of_images(cache: Path, tmp_path: Path) -> None:
    done = run(cache, "--out", tmp_path / "r", "--media", "image", "--epochs", 2, "--device", "cpu", "--folds", 3)
    assert done.exit_code == 0, done.output
    dataset = load_dataset(Cache.open(cache), TrainSettings.from_preset("image"))
    assert dataset.features.num_rows == 1
    assert (np.diff(Cache.open(cache).offset("slowfast"))[dataset.videos] == 0).all()
