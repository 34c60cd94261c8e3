"""What a run keeps of its videos."""

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from haechi.train.api import train_head
from haechi.train.data.similar import unit_length
from haechi.train.errors import TrainError
from haechi.train.run_folder import TRAINING_SET_FILE
from haechi.train.training_set import TrainingSet
from tests import synthetic


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    groups = {"video-0003.mp4": "Kanal ü"}
    return synthetic.write_cache(tmp_path_factory.mktemp("set") / "cache", num_harmful=20, num_safe=16, groups=groups)


@pytest.fixture(scope="module")
def run(cache: Path) -> Path:
    train_head(cache, cache.parent / "run", folds=0, test_fraction=0.2, moments=0)
    return cache.parent / "run"


def test_it_holds_all_that_an_evaluation_needs(run: Path, cache: Path) -> None:
    known = TrainingSet.load(run)
    assert known is not None
    result = train_head(cache, run.parent / "again", folds=0, test_fraction=0.2, moments=0)
    dataset, scenes = result.plan.dataset, result.plan.grouping.scenes
    assert known.ids.tolist() == dataset.ids.tolist()
    assert known.sha256.tolist() == dataset.sha256.tolist()
    assert known.parts.tolist() == result.split.names.tolist()
    assert set(known.groups.tolist()) == {"", "Kanal ü"}
    assert known.scenes is not None
    assert known.scenes.similarity_threshold == scenes.similarity_threshold
    rounded = unit_length(known.scenes.descriptors.astype(np.float32))
    assert (rounded * scenes.descriptors).sum(axis=1).min() > 0.999
    assert (run / TRAINING_SET_FILE).read_bytes() == (run.parent / "again" / TRAINING_SET_FILE).read_bytes()


def test_with_folds_all_videos_were_trained_on(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", folds=3, moments=0)
    known = TrainingSet.load(tmp_path / "run")
    assert known is not None
    assert set(known.parts.tolist()) == {"train"}


def test_without_scenes_there_are_no_descriptors(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", folds=0, moments=0, scenes=False)
    known = TrainingSet.load(tmp_path / "run")
    assert known is not None
    assert known.scenes is None


def test_hdf5s_own_tools_show_it(run: Path) -> None:
    if not shutil.which("h5ls"):
        pytest.skip("h5ls is not installed")
    done = subprocess.run(["h5ls", "-r", run / TRAINING_SET_FILE], capture_output=True, text=True, check=True)
    assert {"/id", "/sha256", "/group", "/part", "/scene/descriptor", "/scene/whitening"} <= set(done.stdout.split())


def test_older_runs_have_none(run: Path, tmp_path: Path) -> None:
    assert TrainingSet.load(tmp_path) is None


@pytest.mark.parametrize("damage", ["version", "missing", "short", "shape", "bytes", "text"])
def test_a_damaged_file_is_an_error_in_words(run: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / TRAINING_SET_FILE
    shutil.copy(run / TRAINING_SET_FILE, path)
    if damage == "text":
        path.write_text("no HDF5")
    elif damage == "bytes":
        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            place = file["scene/whitening"].id.get_chunk_info(0).byte_offset
        content[place + 20] ^= 0xFF
        path.write_bytes(content)
    else:
        with h5py.File(path, "r+") as file:
            if damage == "version":
                file.attrs["format_version"] = 99
            elif damage == "missing":
                del file["part"]
            elif damage == "short":
                del file["part"]
                file["part"] = ["train"]
            else:
                del file["scene/centre"]
                file["scene/centre"] = np.zeros(3, np.float32)
    with pytest.raises(TrainError, match=TRAINING_SET_FILE):
        TrainingSet.load(tmp_path)
