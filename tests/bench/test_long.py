"""The benchmark of a long video, with small frames and tiny networks."""

import json
from pathlib import Path

import pytest
from PIL import Image

from bench import long, measure


@pytest.mark.usefixtures("in_process")
def test_the_minute_that_differs_is_found(tmp_path: Path) -> None:
    arguments = ["--quick", "--out", str(tmp_path / "out"), "--keep", str(tmp_path / "kept")]
    long.main.main(arguments, standalone_mode=False)
    result = json.loads((tmp_path / "out" / f"long-small-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert found["windows"] == 90
    assert found["share of the most harmful moment inside the harmful minute"] == 1
    assert Image.open(tmp_path / "kept" / "timeline.png").size[0] == 1500
