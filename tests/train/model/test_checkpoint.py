import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from haechi.cache import schema
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset
from haechi.train.errors import TrainError
from haechi.train.model import checkpoint
from haechi.train.model.checkpoint import Checkpoint, feature_recipe
from haechi.train.settings import MOST_ROWS, PRESETS, TrainSettings
from tests.train import runs


def saved(folder: Path, settings: TrainSettings = runs.QUICK) -> tuple[Path, Checkpoint, Dataset]:
    result = runs.finish(folder / "cache", settings)
    cache = Cache.open(folder / "cache")
    written = Checkpoint(
        head=runs.with_random_weights(result.head),
        best_threshold=result.threshold,
        best_epoch=result.best_epoch,
        settings=result.settings,
        streams=result.plan.dataset.streams,
        fingerprint=cache.fingerprint,
        untrained=result.plan.dataset.untrained,
        features=feature_recipe(cache),
        calibration=result.calibration,
        longest_seconds=2.0,
        metrics=result.metrics,
    )
    path = folder / "모델.pt"
    written.save(path)
    return path, written, result.plan.dataset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_head_survives_the_round_trip(tmp_path: Path, preset: str) -> None:
    path, written, dataset = saved(
        tmp_path, TrainSettings.from_preset(preset, media="video", feedforward=32, epochs=2, folds=0)
    )
    loaded = checkpoint.load(path)
    assert not loaded.head.training
    assert (runs.score(loaded.head, dataset) == runs.score(written.head, dataset)).all()
    for name in (
        "best_threshold",
        "best_epoch",
        "settings",
        "streams",
        "fingerprint",
        "untrained",
        "features",
        "calibration",
        "metrics",
    ):
        assert getattr(loaded, name) == getattr(written, name)
    assert loaded.untrained == (["clip"] if preset.startswith("image") else ["clip", "slowfast"])
    assert loaded.features["clip_weights"] == "random:0"


def test_moments_are_saved(tmp_path: Path) -> None:
    path, written, dataset = saved(
        tmp_path, TrainSettings.from_preset("fast", moments=4, folds=0, scenes=False, device="cpu")
    )
    loaded = checkpoint.load(path)
    moments = loaded.head.moments
    assert all(torch.equal(value, getattr(moments, name)) for name, value in written.head.moments.named_buffers())
    scores = runs.score(loaded.head, dataset)
    moments.weight.zero_()
    assert (runs.score(loaded.head, dataset) != scores).any()
    data = torch.load(path, weights_only=True)
    for spoil, message in [
        (lambda state: state.pop("moments.directions"), "moments.directions is missing"),
        (lambda state: state["moments.scale"].fill_(float("inf")), "moments.scale has NaN or infinite values"),
        (lambda state: state.update({"moments.weight": torch.zeros(2, 6)}), r"expected \(2, 4\)"),
    ]:
        state = {name: value.clone() for name, value in data["model_state_dict"].items()}
        spoil(state)
        torch.save({**data, "model_state_dict": state}, tmp_path / "bad.pt")
        with pytest.raises(TrainError, match=message):
            checkpoint.load(tmp_path / "bad.pt")


def test_settings_that_a_file_lacks_are_model_4s(tmp_path: Path) -> None:
    path, written, dataset = saved(tmp_path)
    data = torch.load(path, weights_only=True)
    for name in ("preset", "projection", "precision", "max_rows", "moments", "network"):
        del data["settings"][name]
    torch.save(data, path)
    loaded = checkpoint.load(path)
    assert (loaded.settings.preset, loaded.settings.projection, loaded.settings.precision) == ("model4", 0, "fp32")
    assert loaded.settings.max_rows == MOST_ROWS  # heads of older versions saw all rows
    assert (runs.score(loaded.head, dataset) == runs.score(written.head, dataset)).all()


def test_plain_torch_reads_it_with_weights_only(tmp_path: Path) -> None:
    path, written, _ = saved(tmp_path)
    data = torch.load(path, weights_only=True)
    assert data["best_threshold"] == written.best_threshold
    assert data["streams"] == {"clip/features": 8, "slowfast/logits": 5}
    assert data["model_state_dict"]["mlp.0.weight"].shape == (256, 13)


def drop_weight(data: dict) -> None:
    del data["model_state_dict"]["mlp.0.weight"]


def spoil_weight(data: dict) -> None:
    data["model_state_dict"]["mlp.0.bias"][0] = float("nan")


def without_clip(data: dict) -> None:
    del data["features"]["settings"]["clip"]
    data["fingerprint"] = schema.fingerprint_of(data["features"]["settings"])


TAMPERED: dict[str, tuple[Callable[[dict], object], str]] = {
    "format": (lambda d: d.update(format="x"), "not a model.pt of Haechi"),
    "version": (lambda d: d.update(format_version=1), "version 1, this Haechi reads version 2"),
    "threshold's type": (lambda d: d.update(best_threshold="0.5"), "best_threshold is str, expected float"),
    "threshold's range": (lambda d: d.update(best_threshold=1.5), "best_threshold is 1.5"),
    "calibration": (lambda d: d.update(calibration={"shift": 0.0}), "expected a finite shift and temperature"),
    "temperature": (lambda d: d["calibration"].update(temperature=-1.0), "temperature -1.0, expected more than 0"),
    "no metrics": (lambda d: d.pop("metrics"), "metrics is missing"),
    "streams": (lambda d: d.update(streams={"clip/features": -8}), "streams is"),
    "huge width": (lambda d: d["streams"].update({"clip/features": 1 << 20}), "weights do not fit"),
    "another stream": (
        lambda d: d.update(streams={"clip/nonsense": 8}),
        r"expected \['clip/features', 'slowfast/logits'\] by its settings",
    ),
    "fingerprint": (lambda d: d.update(fingerprint="0" * 64), "fingerprint is not the hash"),
    "no CLIP": (without_clip, r"features\.settings\.clip\.model is None, expected text"),
    "weights' name": (lambda d: d["features"].pop("clip_weights"), r"features\.clip_weights is None, expected text"),
    "unknown setting": (lambda d: d["settings"].update(warmup=1), "'warmup'"),
    "unknown preset": (lambda d: d["settings"].update(preset=["fast"]), "preset is"),
    "setting out of range": (lambda d: d["settings"].update(num_layers=10**9), "num_layers is 1000000000"),
    "missing weight": (drop_weight, "mlp.0.weight is missing"),
    "unknown weight": (lambda d: d["model_state_dict"].update(x=torch.zeros(1)), "'x' is unknown"),
    "weight's shape": (lambda d: d["model_state_dict"].update({"mlp.0.bias": torch.zeros(3)}), r"expected \(256,\)"),
    "weight's type": (lambda d: d["model_state_dict"].update({"mlp.0.bias": [1]}), "is list, expected a tensor"),
    "NaN": (spoil_weight, "mlp.0.bias has NaN"),
}


def test_each_way_to_be_wrong_is_reported(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path)
    for what, (tamper, message) in TAMPERED.items():
        data = torch.load(path, weights_only=True)
        tamper(data)
        torch.save(data, tmp_path / "bad.pt")
        with pytest.raises(TrainError, match=message) as caught:
            checkpoint.load(tmp_path / "bad.pt")
        assert "bad.pt" in str(caught.value) or what in {"unknown setting", "unknown preset", "setting out of range"}


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off", b"\x80\x02.", b"\x80\x02X"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(TrainError, match=r"not a model\.pt of Haechi"):
        checkpoint.load(path)


def test_a_missing_or_cut_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no such file"):
        checkpoint.load(tmp_path / "model.pt")
    path, _, _ = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TrainError, match="damaged"):
        checkpoint.load(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """torch does not verify checksums: without our check, the head would give other scores without an error."""
    path, written, _ = saved(tmp_path)
    content = path.read_bytes()
    state = {name: value.clone() for name, value in written.head.state_dict().items()}
    num_refused = 0
    for place in np.random.default_rng(0).integers(0, len(content) * 8, 60).tolist():
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            loaded = checkpoint.load(path)
        except TrainError:
            num_refused += 1
        else:  # in the padding between two tensors
            assert loaded.best_threshold == written.best_threshold
            assert all(torch.equal(value, state[name]) for name, value in loaded.head.state_dict().items())
    assert num_refused > 50


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "was-run").touch, ())

    torch.save({"format": checkpoint.FORMAT, "x": Evil()}, tmp_path / "model.pt")
    with pytest.raises(TrainError, match=r"not a model\.pt"):
        checkpoint.load(tmp_path / "model.pt")
    assert not (tmp_path / "was-run").exists()


def test_a_file_that_does_not_say_how_long_its_videos_were(tmp_path: Path) -> None:
    """The first files of this version have no `longest_seconds`: then no video counts as longer."""
    path, written, _ = saved(tmp_path)
    assert checkpoint.load(path).longest_seconds == written.longest_seconds
    data = torch.load(path, weights_only=True)
    del data["longest_seconds"]
    torch.save(data, path)
    assert checkpoint.load(path).longest_seconds == math.inf
