import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from haechi.train.output.metrics_json import (
    metrics_record,
    write_metrics,
    write_predictions,
)
from haechi.train.result import Result
from tests.train import runs

FOLDS = dataclasses.replace(runs.QUICK, folds=3)
PARTS = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(40)}


def record_of(path: Path, result: Result) -> dict:
    write_metrics(path, metrics_record(result))
    return json.loads(path.read_text())


def predictions_of(path: Path, result: Result) -> list[dict]:
    write_predictions(path, result)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_json_holds_every_epoch_and_what_led_to_it(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", num_unlabelled=2, num_failures=3)
    data = record_of(tmp_path / "metrics.json", result)
    assert data["fingerprint"] == result.plan.dataset.cache.fingerprint
    assert data["untrained"] == ["clip", "slowfast"]
    assert (data["num_unlabelled"], data["failures"]) == (2, {"damaged": 3})
    assert data["settings"] == result.settings.to_dict()
    assert data["counts"]["train"] == {"harmful": 10, "safe": 7}
    assert data["pos_weight"] == 7 / 10
    assert [epoch["number"] for epoch in data["epochs"]] == [1, 2, 3]
    assert all(len(epoch["table"]) == 9 for epoch in data["epochs"])
    best = data["epochs"][data["best_epoch"] - 1]
    assert best["improved"]
    assert best["best"]["threshold"] == data["best_threshold"] == data["threshold"]["value"]
    assert best["metrics"] == data["metrics"]["val"]
    assert (data["mode"], data["headline"], data["folds"]) == ("holdout", "val", [])
    low, high = data["threshold"]["plateau"]
    assert low <= data["best_threshold"] <= high


def test_the_figures_that_count_have_intervals_baselines_and_slices(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", num_harmful=20, num_safe=20, shift=0.2, splits=PARTS)
    data = record_of(tmp_path / "metrics.json", result)
    assert data["headline"] == "test"
    assert set(data["metrics"]) == {"train", "val", "test"}
    assert set(data["intervals"]) == {"val", "test"}
    for part, intervals in data["intervals"].items():
        for name, interval in intervals.items():
            if interval is not None:
                assert interval[0] <= data["metrics"][part][name] <= interval[1]
    assert set(data["baselines"]) == {"majority", "logistic_regression"}
    assert data["baselines"]["majority"]["test"]["roc_auc"] == 0.5
    assert {subset["by"] for subset in data["slices"]} == {"duration", "resolution"}
    assert data["slices"][0]["figures"] == data["metrics"]["test"]  # all have the same duration
    assert data["calibration"]["part"] == "test"
    assert data["threshold"]["interval"][0] <= data["threshold"]["interval"][1]
    ranking = data["findings"][0]
    assert (ranking["baseline"], ranking["aspect"]) == ("logistic_regression", "ranking")
    assert list(ranking["metrics"]) == ["roc_auc", "average_precision"]
    for name, found in ranking["metrics"].items():
        assert found["head"] == data["metrics"]["test"][name]
        assert found["baseline"] == data["baselines"]["logistic_regression"]["test"][name]
        assert found["difference"] == found["head"] - found["baseline"]
        assert found["interval"][0] <= found["difference"] <= found["interval"][1]


def test_the_figures_are_also_given_without_leaks(tmp_path: Path) -> None:
    ids = list(PARTS)
    counts = {"num_harmful": 20, "num_safe": 20, "shift": 0.2, "splits": PARTS}
    some = {ids[2]: "one", ids[3]: "one"}  # one in test, one in train
    result = runs.finish(tmp_path / "some", groups=some, **counts)
    leaks = record_of(tmp_path / "some.json", result)["leaks"]
    assert leaks["touched"] == 1
    assert leaks["pairs"][0]["id"] == ids[2]
    rest = [row for row in predictions_of(tmp_path / "p.csv", result) if row["split"] == "test" and row["id"] != ids[2]]
    f1 = f1_score([int(row["label"]) for row in rest], [int(row["prediction"]) for row in rest])
    assert leaks["metrics_without"]["f1"] == f1
    every = runs.finish(tmp_path / "every", groups=dict.fromkeys(ids, "one"), **counts)
    leaks = record_of(tmp_path / "every.json", every)["leaks"]
    assert leaks["touched"] == len(every.split.rows("test"))
    assert leaks["metrics_without"] is None  # nothing is left


def test_folds_are_recorded_one_by_one_and_pooled(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", FOLDS, num_harmful=20, num_safe=16, shift=0.2)
    data = record_of(tmp_path / "metrics.json", result)
    assert (data["mode"], data["headline"], data["epochs"]) == ("folds", "test", [])
    assert data["counts"] == {"test": {"harmful": 20, "safe": 16}}
    assert [fold["number"] for fold in data["folds"]] == [1, 2, 3]
    pooled = {
        name: sum(fold["metrics"][name] for fold in data["folds"]) for name in ("true_positive", "false_negative")
    }
    assert pooled == {name: data["metrics"]["test"][name] for name in pooled}
    assert data["best_threshold"] == np.median([fold["threshold"] for fold in data["folds"]])
    rows = predictions_of(tmp_path / "predictions.csv", result)
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    assert {row["split"] for row in rows} == {"test"}


@pytest.mark.parametrize("settings", [runs.QUICK, FOLDS], ids=["parts", "folds"])
def test_predictions_hold_every_labelled_video_and_agree_with_the_figures(tmp_path: Path, settings) -> None:
    result = runs.finish(tmp_path / "cache", settings, num_harmful=20, num_safe=20, shift=0.2, splits=PARTS)
    rows = predictions_of(tmp_path / "predictions.csv", result)
    assert list(rows[0]) == "id label split group fold score calibrated threshold prediction".split()  # noqa: SIM905
    assert len(rows) == 40
    if settings is runs.QUICK:
        assert {row["id"]: row["split"] for row in rows} == PARTS
        assert {row["fold"] for row in rows} == {""}
    for row in rows:
        assert int(row["prediction"]) == (float(row["score"]) >= float(row["threshold"]))
        assert 0 <= float(row["calibrated"]) <= 1
    for part, figures in result.metrics.items():
        mine = [row for row in rows if row["split"] == part]
        f1 = f1_score([int(row["label"]) for row in mine], [int(row["prediction"]) for row in mine])
        assert figures["f1"] == f1


def test_ids_are_safe_in_a_spreadsheet_and_whole_in_a_program(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache")
    ids = result.plan.dataset.ids.copy()
    ids[:6] = ["=cmd|' /C calc'!A0", "@x", "-1.mp4", '폭력/영상 "1", 둘.mp4', "a\nb.mp4", "+1.mp4"]
    plan = dataclasses.replace(result.plan, dataset=dataclasses.replace(result.plan.dataset, ids=ids))
    found = [row["id"] for row in predictions_of(tmp_path / "p.csv", dataclasses.replace(result, plan=plan))]
    assert found[:6] == ["'=cmd|' /C calc'!A0", "'@x", "'-1.mp4", '폭력/영상 "1", 둘.mp4', "a\nb.mp4", "'+1.mp4"]
    assert found[6:] == ids[6:].tolist()
