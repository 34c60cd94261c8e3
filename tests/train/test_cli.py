import json
import statistics
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.reader import Cache
from haechi.train import api
from haechi.train.cli import train as command
from haechi.train.model import checkpoint
from haechi.train.run_folder import ARTEFACTS
from haechi.train.settings import DEFAULT_PRESET, TrainSettings
from tests import synthetic

QUICK = ["--preset", "model4", "--epochs", "2", "--feedforward", "32", "--device", "cpu", "--folds", "0"]
NO_TEST = [*QUICK, "--test-fraction", "0"]


def run(*args: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, ["train", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_run_leaves_its_artefacts_and_says_what_matters(tmp_path: Path) -> None:
    cache, out = synthetic.write_cache(tmp_path / "cache", num_unlabelled=2), tmp_path / "실험" / "r[1]"
    result = run(cache, "--out", out, *NO_TEST)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == set(ARTEFACTS)
    text = result.output
    assert "There is no test part" in " ".join(text.split())
    assert "chosen on only 3 videos" in " ".join(text.split())
    assert "UNTRAINED" in text
    assert "2 unlabelled videos are left out" in text
    assert "pos_weight 0.7000" in text
    assert "input (B, 4, 13): clip/features + slowfast/logits, 13 heads, on cpu" in text
    assert text.count("→") == 2  # the marked row of each epoch's table
    assert text.count("0.30") >= 2
    assert "r[1]" in text.replace("\n", "")
    assert max(map(len, text.replace(str(out), "").splitlines())) <= 100
    assert checkpoint.load(out / "model.pt").untrained == ["clip", "slowfast"]


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", shift=0.1)
    for name in ("a", "b", "b"):
        assert run(cache, "--out", tmp_path / name, *QUICK).exit_code == 0
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_every_setting_is_a_flag_that_leaves_the_default_to_the_preset(tmp_path: Path) -> None:
    others = {"cache", "out", "seeds", "grid", "memory_gb", "media_root", "labels", "positive_labels", "keep_unlisted"}
    others |= {"require", "by_point", "shard_cache_gb"}
    flags = {option.name: option.default for option in command.params if option.name not in others}
    assert flags == dict.fromkeys(TrainSettings().to_dict())
    assert all(getattr(option, "help", "") for option in command.params if option.name != "cache")
    cache = synthetic.write_cache(tmp_path / "cache")
    changes = {
        "preset": "fast", "media": "video", "clip": False, "slowfast": "pooled", "max_rows": 3, "projection": 8,
        "sample": 18, "num_layers": 2, "feedforward": 16, "dropout": 0.1, "epochs": 1, "patience": 2, "batch_size": 3,
        "lr": 1e-3, "weight_decay": 0.1, "pos_weight": 2.0, "val_fraction": 0.3, "test_fraction": 0.2, "folds": 0,
        "scenes": False, "policy": "recall>=0.9", "group_by": r"\d+", "seed": 7, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    names = {option.name: option for option in command.params}
    args: list[object] = []
    for name, value in changes.items():
        on, off = names[name].opts[0], [*names[name].secondary_opts, ""][0]
        args += [on if value else off] if off else [on, value]
    result = run(cache, "--out", tmp_path / "run", *args)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["settings"]
    assert {**found, **changes} == found
    assert torch.load(tmp_path / "run" / "model.pt", weights_only=True)["streams"] == {"slowfast/features": 12}


def test_help_shows_what_each_preset_says() -> None:
    text = " ".join(run("--help").output.split())
    assert "[default: (fast for videos, image for images)]" in text
    assert "[default: (model4 4, fast 4, network 64, image 4, image_mlp 8)]" in text
    assert "[default: (model4 0, fast 0, network 256, image 0, image_mlp 0)]" in text
    assert "[default: (10)]" in text


def test_the_default_preset_trains(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    result = run(cache, "--out", tmp_path / "run", "--epochs", 1, "--device", "cpu", "--media-root", tmp_path)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert data["settings"] == TrainSettings.from_preset(DEFAULT_PRESET, epochs=1, device="cpu").to_dict()
    assert data["precision"] in {"fp32", "bf16"}


def test_a_streamed_run_says_so_and_is_the_same(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", shift=0.1)
    for name, args in (("memory", []), ("streamed", ["--memory-gb", 0])):
        result = run(cache, "--out", tmp_path / name, *QUICK, *args)
        assert ("streamed from the cache" in result.output) == bool(args)
    assert (tmp_path / "memory" / "metrics.json").read_bytes() == (tmp_path / "streamed" / "metrics.json").read_bytes()


def test_several_experiments_share_a_cache_and_end_in_a_table(tmp_path: Path, monkeypatch) -> None:
    loads = []
    monkeypatch.setattr(api, "load_dataset", lambda *a, load=api.load_dataset, **k: loads.append(a) or load(*a, **k))
    splits = {f"video-{i:04d}.mp4": ("train", "train", "val", "test")[i % 4] for i in range(40)}
    cache = synthetic.write_cache(tmp_path / "cache", num_harmful=20, num_safe=20, splits=splits, shift=0.2)
    out = tmp_path / "out"
    result = run(cache, "--out", out, *QUICK, "--seeds", 2, "--grid", "lr=1e-4,1e-3")
    assert result.exit_code == 0, result.output
    assert len(loads) == 1
    data = json.loads((out / "experiments.json").read_text())
    assert len(data["experiments"]) == 4
    for found in data["experiments"]:
        folder = out / found["folder"]
        assert {path.name for path in folder.iterdir()} == set(ARTEFACTS)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["settings"] == found["settings"]
        assert {part: metrics["metrics"][part] for part in ("val", "test")} == found["metrics"]
    f1 = [found["metrics"]["val"]["f1"] for found in data["experiments"][:2]]
    assert f"{statistics.fmean(f1):.3f}±{statistics.stdev(f1):.3f}" in result.output
    assert result.output.count("→") == 2  # validation and test
    assert "test, mean" in result.output
    assert "best of many" in result.output
    # Each experiment equals a single run with its settings.
    assert run(cache, "--out", tmp_path / "alone", *QUICK, "--seed", 1, "--lr", 1e-3).exit_code == 0
    assert (tmp_path / "alone" / "metrics.json").read_bytes() == (out / "lr=0.001/seed-1/metrics.json").read_bytes()


def test_other_streams_are_loaded_again(tmp_path: Path) -> None:
    cache, out = synthetic.write_cache(tmp_path / "cache"), tmp_path / "out"
    result = run(cache, "--out", out, *QUICK, "--grid", "slowfast=pooled,none")
    assert result.exit_code == 0, result.output
    assert "±" not in result.output  # one seed
    streams = [torch.load(path, weights_only=True)["streams"] for path in sorted(out.glob("*/seed-0/model.pt"))]
    assert streams == [{"clip/features": 8}, {"clip/features": 8, "slowfast/features": 12}]


def test_an_experiment_that_diverges_does_not_end_the_others(tmp_path: Path) -> None:
    cache, out = synthetic.write_cache(tmp_path / "cache"), tmp_path / "out"
    result = run(cache, "--out", out, *QUICK, "--grid", "lr=1e30,1e-3")
    assert result.exit_code == 0, result.output
    assert "(1 diverged)" in " ".join(result.output.split())
    assert [bool(e["error"]) for e in json.loads((out / "experiments.json").read_text())["experiments"]] == [
        True,
        False,
    ]
    assert {path.name for path in out.iterdir()} == {"experiments.json", "experiments.csv", "lr=0.001"}
    result = run(cache, "--out", tmp_path / "none", *QUICK, "--grid", "lr=1e30")
    assert result.exit_code == 1
    assert "all 1 experiments diverged" in result.output


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, monkeypatch) -> None:
    done = []

    def once(*args, carry_out=api.carry_out, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return carry_out(*args, **options)

    monkeypatch.setattr(api, "carry_out", once)
    cache, out = synthetic.write_cache(tmp_path / "cache"), tmp_path / "out"
    assert run(cache, "--out", out, *QUICK, "--seeds", 5).exit_code == 1
    assert {path.name for path in out.iterdir()} == {"experiments.json", "experiments.csv", "seed-0", "seed-1"}
    assert len(json.loads((out / "experiments.json").read_text())["experiments"]) == 2
    monkeypatch.undo()
    assert run(cache, "--out", out, *QUICK, "--seeds", 3).exit_code == 0


def test_a_given_test_split_is_scored_at_the_end(tmp_path: Path) -> None:
    splits = {f"video-{i:04d}.mp4": ("train", "train", "val", "test")[i % 4] for i in range(40)}
    cache = synthetic.write_cache(tmp_path / "cache", num_harmful=20, num_safe=20, splits=splits)
    result = run(cache, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    assert "40 videos assigned by the manifest's split column" in result.output
    data = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(data["metrics"]) == {"train", "val", "test"}
    assert "test" not in json.dumps(data["epochs"])
    assert data["epochs"][data["best_epoch"] - 1]["metrics"] == data["metrics"]["val"]


@pytest.mark.parametrize(
    ("spoil", "args", "message"),
    [
        (lambda cache: None, ["--batch-size", 1, "--lr", 0], "batch_size is 1"),
        (lambda cache: None, ["--slowfast", "none", "--no-clip"], "nothing is left to train on"),
        (lambda cache: None, ["--device", "cuda:99"], "cuda:99"),
        (lambda cache: None, ["--lr", "1e30"], "diverged"),
        (lambda cache: None, ["--grid", "lr=0,1e-3", "--grid", "dropout=3"], "dropout is 3.0"),
        (lambda cache: None, ["--seeds", 2, "--grid", "warmup=3"], "'warmup': no such setting"),
        (lambda cache: next(cache.glob("*.h5")).write_bytes(b"x" * 9000), [], "shard-0000"),
        (lambda cache: [path.unlink() for path in cache.glob("*.h5")], [], "no shards"),
    ],
)
def test_bad_input_ends_with_one_message_and_nothing_written(tmp_path, spoil, args, message) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    spoil(cache)
    result = run(cache, "--out", tmp_path / "run", *QUICK, *args)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_features_altered_on_disk_are_found(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    shard = min(cache.glob("*.h5"))
    data = bytearray(shard.read_bytes())
    features = Cache.open(cache).shards[0].read("clip/features")[0]
    data[data.index(features.tobytes()) + 10] ^= 0xFF
    shard.write_bytes(data)
    result = run(cache, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 1
    assert "/clip/features is damaged" in result.output
    assert not (tmp_path / "run").exists()


def test_one_class_is_an_error_that_says_so(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", num_safe=0)
    result = run(cache, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 1
    assert "12 harmful, 0 safe" in result.output


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    before = sorted(cache.iterdir())
    result = run(cache, "--out", cache, *QUICK)
    assert result.exit_code == 1
    assert "only an earlier run is replaced" in result.output.replace("\n", " ")
    assert sorted(cache.iterdir()) == before
