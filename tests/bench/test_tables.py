"""The tables in the documents agree with the JSON files."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import measure, tables

EMPTY = "before\n<!-- bench:extract -->\nold\n<!-- /bench:extract -->\nafter\n"


def write(folder: Path, kind: str, rows: list[measure.Measurement], *, name: str = "extract", **facts: Any) -> None:
    result = {
        "bench": name,
        "date": "2026-01-02",
        "machine": {"cpu": "A CPU", "cores": 2, "memory_gb": 8, "gpu": "A GPU" if kind == "cuda" else None},
        "versions": {"torch": "2.0"},
        "untrained": True,
        "rows": [row.to_dict() for row in rows],
        **facts,
    }
    (folder / f"{name}-{kind}.json").write_text(json.dumps(result))


@pytest.mark.parametrize("document", tables.DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_are_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert tables.filled(text) == text


def test_trained_features_have_a_column(tmp_path: Path) -> None:
    rows = [measure.Measurement(what=name, unit="", values=[0.5]) for name in ("precision", "recall")]
    write(tmp_path, "cpu", rows, name="scenes")
    write(tmp_path, "cuda", rows, name="scenes")
    write(tmp_path, "cpu", rows[:1], name="scenes_trained")
    text = tables.filled("<!-- bench:scenes -->\n<!-- /bench:scenes -->", tmp_path)
    assert "| | untrained image features | trained image features |\n|---|---|---|\n| precision | 0.5 | 0.5 |\n" in text
    assert "| recall | 0.5 | not measured |\n" in text
    assert "A GPU" not in text


def test_contestants_are_columns_and_rules_too(tmp_path: Path) -> None:
    names = ("mean: oracle: ROC AUC", "mean: default: ROC AUC", "mean: default: seconds", "largest regret: default")
    rows = [measure.Measurement(what=name, unit="", values=[i / 10]) for i, name in enumerate(names, start=1)]
    write(tmp_path, "cpu", rows, name="contest", contestants=["default"], sets=["mean"])
    text = tables.filled("<!-- bench:contest -->\n<!-- /bench:contest -->", tmp_path)
    assert (
        "| ROC AUC | oracle | default |\n|---|---|---|\n| mean | 0.100 | 0.200 |\n| largest regret |  | 0.400 |\n"
        in text
    )
    figures = {"loss of F1": 0.1, "F1": 0.8, "standard deviation of thresholds, in a run": 0.3}
    named = {
        **{f"simulated: {size}: {rule}: loss of F1": size / 100 for size in (10, 20) for rule in ("exact", "0.5")},
        "simulated: 20: 0.5: loss of F1": 0.3,
        **{f"9 clips: {rule}: {title}": value for rule in ("exact", "0.5") for title, value in figures.items()},
    }
    rows = [measure.Measurement(what=name, unit="", values=[value]) for name, value in named.items()]
    write(tmp_path, "cpu", rows, name="thresholds", rules=["exact", "0.5"])
    text = tables.filled("<!-- bench:thresholds -->\n<!-- /bench:thresholds -->", tmp_path)
    assert (
        "| exact | 0.150 | 0.000 | 0.100 | 0.800 | 0.300 |\n| 0.5 | 0.200 | 0.100 | 0.100 | 0.800 | 0.300 |\n" in text
    )


def test_a_table_has_both_machines_and_the_marks(tmp_path: Path) -> None:
    ours = measure.Measurement(what="ours", unit="s", values=[1.0, 2.0, 3.0])
    ratio = measure.Measurement(what="faster", unit="x", values=[4.0], at_least=5.0)
    write(tmp_path, "cpu", [ours, ratio])
    without_gpu = tables.filled(EMPTY, tmp_path)
    assert "| ours | 2 s (1 to 3) | not measured |  |\n" in without_gpu
    assert "| faster | 4 x, missed | not measured | at least 5 |\n" in without_gpu
    assert "\nCPU: A CPU, 2 cores, 8 GB; torch 2.0; 2026-01-02; UNTRAINED weights.\n" in without_gpu
    assert without_gpu.startswith("before\n")
    assert without_gpu.endswith("-->\nafter\n")
    assert "old" not in without_gpu
    assert tables.filled(without_gpu, tmp_path) == without_gpu

    write(tmp_path, "cuda", [ours])
    both = tables.filled(EMPTY, tmp_path)
    assert "| ours | 2 s (1 to 3) | 2 s (1 to 3) |  |\n" in both
    assert "| faster | 4 x, missed |  | at least 5 |\n" in both
    assert "GPU: A GPU; A CPU" in both


def test_nothing_measured_yet(tmp_path: Path) -> None:
    assert "Not measured yet" in tables.filled(EMPTY, tmp_path)


def test_growth_has_a_column_a_size(tmp_path: Path) -> None:
    rows = [
        measure.Measurement(what=f"train, {size} videos: {kind}", unit=unit, values=[size * 2.0])
        for size in (10, 20)
        for kind, unit in (("time", "s"), ("memory", "MB"))
    ]
    rows.append(measure.Measurement(what="growth", unit="x", values=[1.0], at_most=1.1))
    write(tmp_path, "cpu", rows, name="scale", commands=["train"], sizes=[10, 20])
    text = tables.filled(EMPTY.replace("extract", "scale"), tmp_path)
    assert "| | 10 videos | 20 videos |\n|---|---|---|\n| train | 20 s, 20 MB | 40 s, 40 MB |\n" in text
    assert "growth: 1 x (at most 1.1)" in text
