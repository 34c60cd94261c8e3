"""Runs trained on real videos, with tiny networks."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import haechi.cli
from bench import networks
from haechi.extract.samples import write_sample_images, write_sample_set
from tests.miniature import shrink_slowfast

# One split, so that the scores in predictions.csv are those of the head in the run folder.
QUICK = ["--epochs", "2", "--device", "cpu", "--folds", "0", "--test-fraction", "0", "--val-fraction", "0.5"]


def call(*arguments: object, input: str | bytes | None = None) -> Result:
    done = CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments], input=input)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos` (eight good ones and one that is cut off), `images` (twelve) and `both` in one folder; their `cache`,
    `run` and `image-run`; and the tiny CLIP that they need, `clip`."""
    folder = tmp_path_factory.mktemp("predict")
    assert len(list(write_sample_set(folder / "videos", num_harmful=4, num_safe=4))) == 9
    assert len(list(write_sample_images(folder / "images"))) == 12
    networks.write_clip_config(folder / "clip")
    shutil.copytree(folder / "videos", folder / "both")
    shutil.copytree(folder / "images", folder / "both", dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        shrink_slowfast(patch)
        done = call("extract", folder / "both", "--out", folder / "cache", *flags(folder), *WEIGHTS, "--frames", 8)
    assert done.exit_code == 0, done.output
    for media, name in (("video", "run"), ("image", "image-run")):
        done = call("train", folder / "cache", "--out", folder / name, "--media", media, *QUICK)
        assert done.exit_code == 0, done.output
    return folder


WEIGHTS = ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]


def flags(folder: Path) -> list[str]:
    """What is not in the checkpoint: the folder of the tiny CLIP, and the device."""
    return ["--clip-model", f"local-dir:{folder / 'clip'}", "--device", "cpu", "--precision", "fp32", "--workers", "2"]


@pytest.fixture(autouse=True)
def _small_slowfast(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_slowfast(monkeypatch)
