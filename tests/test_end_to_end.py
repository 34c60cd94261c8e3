"""All stages with real parts: H.264 files, ViT-B-32 and slowfast_r50 in full size (untrained), HDF5, a trained head."""

import csv
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.reader import Cache
from haechi.extract.backbones.slowfast import MODELS
from haechi.extract.samples import write_sample_set
from haechi.train.run_folder import ARTEFACTS

UNTRAINED = ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight sample videos and a broken one, their cache and a run trained on it."""
    folder = tmp_path_factory.mktemp("end-to-end")
    assert len(list(write_sample_set(folder / "videos", num_harmful=4, num_safe=4))) == 9
    call("extract", folder / "videos", "--out", folder / "cache", *UNTRAINED, "--device", "cpu")
    call("train", folder / "cache", "--out", folder / "run", "--val-fraction", "0.5", "--device", "cpu")
    return folder


def test_the_cache(folder: Path) -> None:
    call("verify", folder / "cache")
    summary = json.loads(call("inspect", folder / "cache", "--json").output)
    assert summary["labels"] == {"harmful": 4, "safe": 4, "unlabelled": 0}
    assert summary["failures"] == {"not_media": 1}
    assert summary["untrained"] == ["clip", "slowfast"]
    cache = Cache.open(folder / "cache")
    assert cache.rows("clip", "features").shape == (8 * 32, 512)
    assert cache.rows("slowfast", "features").shape == (8, 2304)
    assert cache.rows("slowfast", "logits").shape == (8, 400)
    assert "UNTRAINED" in call("inspect", folder / "cache").output


def test_the_run(folder: Path) -> None:
    files = {path.name for path in (folder / "run").iterdir()}
    assert files == set(ARTEFACTS)
    assert "UNTRAINED" in (folder / "run" / "report.html").read_text(encoding="utf-8")
    with (folder / "run" / "predictions.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 8
    checkpoint = torch.load(folder / "run" / "model.pt", weights_only=True)
    assert checkpoint["untrained"] == ["clip", "slowfast"]
    assert 0 <= checkpoint["best_threshold"] <= 1
    assert checkpoint["fingerprint"] == Cache.open(folder / "cache").fingerprint


def test_features_are_those_of_a_plain_reference(folder: Path) -> None:
    """Compares one video with a simple implementation: Pillow images, open_clip's own transform, float32 networks.

    Untrained networks map all frames close together, so errors are compared with the distance between frames.
    """
    import av
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    cache = Cache.open(folder / "cache")
    row = 0
    path = folder / "videos" / cache.media["id"][row]
    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    pictures = [images[int(i)] for i in np.linspace(0, len(images) - 1, 32)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.create_model("ViT-B-32", pretrained=None).eval()
        torch.manual_seed(0)
        slowfast = MODELS["slowfast_r50"](pretrained=False).eval()
    preprocess = open_clip.image_transform(224, is_train=False)
    frames = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() for picture in pictures])
    frames = F.center_crop(F.resize(frames, 256, InterpolationMode.BILINEAR, antialias=True), 256)
    fast = ((frames / 255 - 0.45) / 0.225).permute(1, 0, 2, 3)[None]  # (1, 3, 32, 256, 256)
    slow = fast[:, :, torch.linspace(0, 31, 8).long()]
    with torch.inference_mode():
        expected = torch.cat([clip.encode_image(preprocess(picture)[None]) for picture in pictures[::8]]).numpy()
        logits = slowfast([slow, fast]).numpy()

    cached = cache.rows("clip", "features")[:32:8].astype(np.float32)
    between_frames = np.linalg.norm(expected[:, None] - expected[None], axis=-1)
    mean_distance = between_frames[between_frames > 0].mean()
    # The FFmpeg versions in PyAV (here) and decord (in the cache) convert colours with differences of 1 or 2 levels.
    assert np.linalg.norm(cached - expected, axis=-1).max() < 0.25 * mean_distance
    assert np.linalg.norm(cached - expected[::-1], axis=-1).max() > mean_distance / 2  # wrong frames would be noticed
    all_logits = cache.rows("slowfast", "logits").astype(np.float32)
    others = np.linalg.norm(all_logits[row] - np.delete(all_logits, row, axis=0), axis=-1)
    assert np.linalg.norm(all_logits[row] - logits[0]) < 0.25 * others.mean()
