"""Every benchmark of speed runs from end to end and writes figures."""

import json
import math
from pathlib import Path

import pytest

from bench import __main__, measure, scale

RATIOS = {
    "extract": ["the report's method / Haechi", "peak memory of all processes, 1280 x 720"],
    "read": [
        "cat / Haechi, shard by shard",
        "plain reads / Haechi, all into memory",
        "haechi verify",
        "cat into XXH3 / haechi verify",
    ],
    "scale": ["memory of extract, 6 videos / 5"],
    "train": ["the report's loop / Haechi, per epoch", "Haechi / a plain loop on tensors in memory, per epoch"],
}


@pytest.mark.usefixtures("in_process")
def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "QUICK_SIZES", (4, 5, 6))
    __main__.main.main(["--quick", "--out", str(tmp_path)], standalone_mode=False)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}-{measure.device_kind()}.json" for name in RATIOS}
    for path in tmp_path.iterdir():
        result = json.loads(path.read_text())
        found = {row["what"]: row for row in result["rows"]}
        assert all(math.isfinite(row["median"]) and row["median"] > 0 for row in found.values()), found
        assert all(found[what]["holds"] is not None for what in RATIOS[result["bench"]])
