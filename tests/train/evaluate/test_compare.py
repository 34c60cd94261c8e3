import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import haechi.cli
from haechi.train.errors import TrainError
from haechi.train.evaluate.compare import compare
from haechi.train.model import checkpoint
from tests import synthetic

SPLITS = {f"video-{i:04d}.mp4": ("train", "train", "val", "test")[i % 4] for i in range(120)}
QUICK = ["--preset", "model4", "--epochs", "1", "--feedforward", "32", "--device", "cpu"]


def call(*args: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, [*map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `good` and `bad` on the same cache, `other` on different features, `fewer` on fewer videos."""
    folder = tmp_path_factory.mktemp("runs")
    counts = {"num_harmful": 60, "num_safe": 60, "splits": SPLITS}
    synthetic.write_cache(folder / "cache", shift=0.5, **counts)
    synthetic.write_cache(folder / "cache-other", shift=0.5, source=synthetic.provenance(store="float32"), **counts)
    synthetic.write_cache(folder / "cache-fewer", shift=0.5, num_harmful=50, num_safe=50, splits=SPLITS)
    for name, cache, flags in [
        ("good", "cache", ["--epochs", 15, "--patience", 15, "--lr", 1e-3]),
        ("bad", "cache", ["--lr", 1e-9]),
        ("other", "cache-other", []),
        ("fewer", "cache-fewer", []),
    ]:
        assert call("train", folder / cache, "--out", folder / name, *QUICK, *flags).exit_code == 0
    return folder


def test_a_better_run_differs_from_a_worse_one(runs: Path) -> None:
    bad, good = compare([runs / "bad", runs / "good"])
    metrics = json.loads((runs / "good" / "metrics.json").read_text())
    assert good.figures == metrics["metrics"]["test"]
    for name, interval in metrics["intervals"]["test"].items():
        assert good.intervals[name] == pytest.approx(interval, abs=0.1)  # the draws differ
    assert bad.differences == {}
    low, high = good.differences["roc_auc"]
    assert 0 < low < good.figures["roc_auc"] - bad.figures["roc_auc"] < high
    same = compare([runs / "good", runs / "good"])[1]
    assert set(same.differences.values()) == {(0.0, 0.0)}


def test_the_table_and_the_json(runs: Path) -> None:
    done = call("compare", runs / "bad", runs / "good")
    assert done.exit_code == 0
    assert "test, 30 videos" in done.output
    assert "UNTRAINED" in done.output
    found = json.loads(call("compare", runs / "bad", runs / "good", "--json").output)
    assert [Path(each["run"]).name for each in found] == ["bad", "good"]
    difference = found[1]["metrics"]["roc_auc"] - found[0]["metrics"]["roc_auc"]
    assert f"{difference:+.3f}" in done.output
    assert np.isclose(
        found[1]["differences"]["roc_auc"], compare([runs / "bad", runs / "good"])[1].differences["roc_auc"]
    ).all()


def test_what_cannot_be_compared_is_refused_with_every_reason(runs: Path) -> None:
    with pytest.raises(TrainError) as caught:
        compare([runs / "good", runs / "other", runs / "fewer"])
    text = str(caught.value)
    assert f"{runs / 'other'}: features have fingerprint" in text
    assert f"5 videos are only in {runs / 'good'}: 'video-0" in text


def test_other_labels_are_refused(runs: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / name).write_bytes((runs / "good" / name).read_bytes())
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if ",test," in line)
    id, label, rest = lines[row].split(",", 2)
    lines[row] = f"{id},{1 - int(label)},{rest}"
    (tmp_path / "predictions.csv").write_text("\n".join(lines))
    with pytest.raises(TrainError, match=f"1 video has another label: '{id}'"):
        compare([runs / "good", tmp_path])


def cut_in_half(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "predictions.csv").unlink(), "is not a finished run"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "or damaged"),
        (lambda folder: (folder / "metrics.json").write_text("[]"), "or damaged"),
        (
            lambda folder: (folder / "metrics.json").write_text(
                '{"headline": "test", "format": "haechi-run", "format_version": 1}'
            ),
            "another version",
        ),
        (lambda folder: (folder / "predictions.csv").write_text("id,split\na,test\n"), "or damaged"),
        (lambda folder: cut_in_half(folder / "predictions.csv"), "of the part test, expected 30; train again"),
    ],
)
def test_what_is_not_a_run_is_one_message(runs: Path, tmp_path: Path, spoil, message: str) -> None:
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / name).write_bytes((runs / "good" / name).read_bytes())
    spoil(tmp_path)
    done = call("compare", runs / "good", tmp_path)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_one_run_is_not_compared(runs: Path) -> None:
    assert call("compare", runs / "good").exit_code == 2


def test_after_an_interrupted_replacement_the_new_run_is_read(runs: Path, tmp_path: Path) -> None:
    """`bad` was being replaced by `good` file by file; metrics.json had moved already."""
    (tmp_path / ".committed").mkdir()
    for name in ("model.pt", "predictions.csv", "metrics.json"):
        has_moved = name == "metrics.json"
        (tmp_path / name).write_bytes((runs / ("good" if has_moved else "bad") / name).read_bytes())
        if not has_moved:
            (tmp_path / ".committed" / name).write_bytes((runs / "good" / name).read_bytes())
    good, found = compare([runs / "good", tmp_path])
    assert found.figures == good.figures
    expected, loaded = (checkpoint.load(folder / "model.pt") for folder in (runs / "good", tmp_path))
    assert loaded.best_threshold == expected.best_threshold == good.run.threshold
