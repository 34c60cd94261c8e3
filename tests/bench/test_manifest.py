"""The benchmark of manifests, with few rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import manifest, measure
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import without_model
from haechi.extract.manifest import read_manifest
from tests import synthetic


@pytest.mark.usefixtures("in_process")
def test_quick(tmp_path: Path) -> None:
    manifest.main.main(["--quick", "--rounds", "1", "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"manifest-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert all(value > 0 for value in found.values())
    for text in manifest.WHAT.values():
        assert {f"{text}, 240 rows", f"{text}, 300 rows"} <= found.keys()


def test_all_rows_are_committed_and_their_files_have_not_changed(tmp_path: Path) -> None:
    source = synthetic.provenance()
    source = replace(source, settings=source.settings | {"slowfast": without_model("slowfast")})
    file = manifest.write_rows(tmp_path / "rows", tmp_path / "cache", source, num_rows=50, num_slices=3)
    report = verify(tmp_path / "cache")
    assert (report.problems, report.notes, report.num_videos) == ([], [], 50)
    entries, held = read_manifest(file).entries, Cache.open(tmp_path / "cache").media
    states = {id: (size, time) for id, size, time in zip(held["id"], held["size_bytes"], held["mtime_ns"], strict=True)}
    for entry in entries:
        found = (file.parent / entry.id).stat()
        assert states[entry.id] == (found.st_size, found.st_mtime_ns)
