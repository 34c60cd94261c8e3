import csv
import dataclasses
import json
from pathlib import Path

import matplotlib.image
import numpy as np
from sklearn.metrics import f1_score

from tests.train import runs
from train.metrics import metrics_at
from train.report import draw_confusion_matrix, write_metrics, write_predictions, write_report


def test_all_files_are_written_and_the_pictures_can_be_read(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache")
    out = tmp_path / "run"
    out.mkdir()
    write_report(out, result)
    assert {p.name for p in out.iterdir()} == {"metrics.json", "predictions.csv", "confusion_matrix.png", "curves.png"}
    for name in ("confusion_matrix.png", "curves.png"):
        picture = matplotlib.image.imread(out / name)
        red = (picture[..., 0] > 0.6) & (picture[..., 1:3] < 0.3).all(axis=2)
        assert red.sum() > 100  # UNTRAINED
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == 1).all()  # nothing is cut off
    write_report(out, dataclasses.replace(result, untrained=[]))
    for name in ("confusion_matrix.png", "curves.png"):
        picture = matplotlib.image.imread(out / name)
        assert not ((picture[..., 0] > 0.6) & (picture[..., 1:3] < 0.3).all(axis=2)).any()


def test_a_test_split_has_its_own_matrix(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache")
    draw_confusion_matrix(tmp_path / "val.png", result)
    result.split.names[result.split.rows("train")[:4]] = "test"
    draw_confusion_matrix(tmp_path / "both.png", result)
    val, both = (matplotlib.image.imread(tmp_path / name) for name in ("val.png", "both.png"))
    assert both.shape[1] == 2 * val.shape[1]
    assert (both[[0, -1]] == 1).all()  # nothing is cut off
    assert (both[:, [0, -1]] == 1).all()


def test_metrics_json_holds_every_epoch_and_what_led_to_it(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", num_unlabelled=2)
    write_metrics(tmp_path / "metrics.json", result)
    data = json.loads((tmp_path / "metrics.json").read_text())
    assert data["fingerprint"] == result.fingerprint
    assert data["untrained"] == ["clip", "slowfast"]
    assert data["num_unlabelled"] == 2
    assert data["settings"] == result.settings.to_dict()
    assert data["counts"]["train"] == {"harmful": 10, "safe": 7}
    assert data["pos_weight"] == 7 / 10
    assert [epoch["number"] for epoch in data["epochs"]] == [1, 2, 3]
    assert all(len(epoch["table"]) == 9 for epoch in data["epochs"])
    best = data["epochs"][data["best_epoch"] - 1]
    assert best["improved"]
    assert best["best"]["threshold"] == data["best_threshold"]
    assert best["metrics"] == data["metrics"]["val"]


def test_predictions_hold_every_labelled_video_and_agree_with_the_figures(tmp_path: Path) -> None:
    splits = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(40)}
    result = runs.finish(tmp_path / "cache", num_harmful=20, num_safe=20, shift=0.2, splits=splits)
    write_predictions(tmp_path / "predictions.csv", result)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["split"] for row in rows} == splits
    for row in rows:
        assert int(row["prediction"]) == (float(row["score"]) >= result.best.best.threshold)
    for part, figures in result.metrics.items():
        mine = [row for row in rows if row["split"] == part]
        f1 = f1_score([int(row["label"]) for row in mine], [int(row["prediction"]) for row in mine])
        assert figures["f1"] == f1
    assert set(result.metrics) == {"train", "val", "test"}


def test_ids_are_safe_in_a_spreadsheet_and_whole_in_a_program(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache")
    ids = result.dataset.ids.copy()
    ids[:6] = ["=cmd|' /C calc'!A0", "@x", "-1.mp4", '폭력/영상 "1", 둘.mp4', "a\nb.mp4", "+1.mp4"]
    dataset = dataclasses.replace(result.dataset, ids=ids)
    write_predictions(tmp_path / "p.csv", dataclasses.replace(result, dataset=dataset))
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        found = [row["id"] for row in csv.DictReader(file)]
    assert found[:6] == ["'=cmd|' /C calc'!A0", "'@x", "'-1.mp4", '폭력/영상 "1", 둘.mp4', "a\nb.mp4", "'+1.mp4"]
    assert found[6:] == ids[6:].tolist()


def test_a_test_split_is_judged_at_the_threshold_that_val_chose(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", num_harmful=15, num_safe=15, shift=0.1)
    names = result.split.names.copy()
    names[result.split.rows("train")[:8]] = "test"
    result = dataclasses.replace(result, split=dataclasses.replace(result.split, names=names))
    rows = np.flatnonzero(names == "test")
    expected = metrics_at(result.scores[rows], result.dataset.labels[rows], result.best.best.threshold)
    assert result.metrics["test"] == expected
