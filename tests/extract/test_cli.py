"""`haechi extract` and `haechi validate` as a user types them."""

import csv
import importlib.metadata
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import haechi.cli
from bench import networks
from haechi.cache.reader import Cache
from haechi.extract.decoding import decode
from haechi.extract.decoding.reasons import Reason
from haechi.extract.timing import STEPS
from tests.miniature import shrink_slowfast

NAMES = ["sound.mp4", "vfr.mp4", "empty.mp4", "text.mp4", "cut.mp4", "audio_only.mp4", "damaged.mp4", "gone.mp4"]
REASONS = {
    "empty.mp4": "empty_file",
    "text.mp4": "not_media",
    "cut.mp4": "not_media",
    "audio_only.mp4": "no_video_stream",
    "damaged.mp4": "damaged",
    "gone.mp4": "missing",
}


@pytest.fixture
def labels(videos: Path, tmp_path: Path) -> Path:
    for name in NAMES:
        if name != "gone.mp4":
            shutil.copy2(videos / name, tmp_path / name)
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(NAMES)))
    return tmp_path / "labels.csv"


@pytest.fixture
def tiny_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shrink_slowfast(monkeypatch)
    model = networks.write_clip_config(tmp_path / "tiny-clip")
    flags = ["--clip-model", model, "--clip-weights", "random:0", "--slowfast-weights", "random:0"]
    return [*flags, "--device", "cpu", "--frames", "8"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments])


def test_failed_videos_among_good_ones(labels: Path, tiny_flags: list[str], tmp_path: Path) -> None:
    done = call("extract", labels, "--out", tmp_path / "c", *tiny_flags)
    assert done.exit_code == 0, done.output
    assert "8 in the manifest = 2 used + 6 failed" in done.output
    assert "UNTRAINED" in done.output
    assert "gone.mp4" in done.output
    assert re.search(rf"^decoders +{', '.join(decode.decoders())}", done.output, flags=re.MULTILINE)
    assert re.search(r"[\d.]+ s of work after start-up, limited by", done.output)
    for step in STEPS:
        assert re.search(rf"^{step} +[\d.]+ +\d+%", done.output, flags=re.MULTILINE), step
    for reason in set(REASONS.values()):
        assert reason in done.output
    assert {row.id: row.reason for row in Cache.open(tmp_path / "c").failures} == REASONS

    if decode.HAS_DECORD:
        decord, pyav = (importlib.metadata.version(name) for name in ("decord", "av"))
        assert f"decoded with  decord {decord}, PyAV {pyav}" in call("inspect", tmp_path / "c").output

    again = call("extract", labels, "--out", tmp_path / "c", *tiny_flags, "--json")
    summary = json.loads(again.stdout.splitlines()[-1])
    assert (summary["num_rows"], summary["num_used"], summary["num_failed"], summary["num_new"]) == (8, 2, 6, 0)
    assert summary["decoders"] == (["decord", "PyAV"] if decode.HAS_DECORD else ["PyAV"])
    assert summary["steps"] == dict.fromkeys(STEPS, 0)
    assert "of work after start-up" not in again.output

    strict = call("extract", labels, "--out", tmp_path / "c", *tiny_flags, "--strict")
    assert strict.exit_code == 1
    assert "6 of 8 videos could not be used" in strict.output


def test_without_decord_pyav_decodes_everything(
    labels: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['decord'] = None\n")
    paths = [str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for the workers
    monkeypatch.setattr(decode, "HAS_DECORD", False)
    done = call("extract", labels, "--out", tmp_path / "c", *tiny_flags)
    assert done.exit_code == 0, done.output
    assert re.search(r"^decoders +PyAV \(decord is not installed\) *$", done.output, flags=re.MULTILINE)
    assert "8 in the manifest = 2 used + 6 failed" in done.output
    assert {row.id: row.reason for row in Cache.open(tmp_path / "c").failures} == REASONS
    (shard,) = Cache.open(tmp_path / "c").shards
    assert "decord" not in shard.provenance.versions
    inspected = call("inspect", tmp_path / "c").output
    assert re.search(rf"decoded with +PyAV {importlib.metadata.version('av')} \(decord was not installed\)", inspected)
    again = call("extract", labels, "--out", tmp_path / "c", *tiny_flags, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["decoders"] == ["PyAV"]


def test_all_videos_damaged(labels: Path, tiny_flags: list[str], tmp_path: Path) -> None:
    labels.write_text("path,label\nempty.mp4,1\ntext.mp4,0\n")
    done = call("extract", labels, "--out", tmp_path / "c", *tiny_flags)
    assert done.exit_code == 1
    assert "0 of 2 videos could be used" in done.output
    assert len(Cache.open(tmp_path / "c").failures) == 2


def test_validate_writes_one_row_for_each_video(labels: Path, tmp_path: Path) -> None:
    done = call("validate", labels, "--out", tmp_path / "v.csv", "--frames", "8")
    assert done.exit_code == 0, done.output
    assert "8 in the manifest = 2 used + 6 failed" in done.output
    with (tmp_path / "v.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == NAMES
    assert {row["id"]: row["reason"] for row in rows if row["ok"] == "0"} == REASONS
    assert all(row["message"] and row["stage"] for row in rows if row["ok"] == "0")
    assert rows[0]["num_frames"] == "40"
    assert len(rows[0]["sha256"]) == 64
    assert call("validate", labels, "--out", tmp_path / "v.csv", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--frames", "0"], 2, "0 is not in the range"),
        (["--store", "int8"], 2, "'int8' is not one of"),
        (["--shard", "3"], 2, "No such option"),
        (["--device", "tpu"], 1, "device is 'tpu', expected auto, cpu, cuda or cuda:N"),
        (["--retry", "boredom"], 2, "no such reason: 'boredom'; the reasons are missing, unreadable, empty_file"),
        (["--positive", "fight"], 1, "--positive is for a folder"),
        (["--slowfast-weights", "/nowhere/x.pyth"], 1, "no such file"),
        (["--timeout", "0"], 1, "timeout_seconds is 0"),
    ],
)
def test_wrong_flags(
    labels: Path, tiny_flags: list[str], tmp_path: Path, arguments: list[str], code: int, expected: str
) -> None:
    done = call("extract", labels, "--out", tmp_path / "c", *tiny_flags, *arguments)
    assert done.exit_code == code, done.output
    assert expected in done.output
    assert isinstance(done.exception, SystemExit)
    assert not list(tmp_path.glob("c/shard-*"))


def test_a_place_where_nothing_can_be_written(labels: Path, tiny_flags: list[str]) -> None:
    done = call("extract", labels, "--out", "/proc/haechi", *tiny_flags)
    assert done.exit_code == 1
    assert "Error: /proc/haechi: No such file or directory" in done.output


def test_a_manifest_that_is_wrong_in_many_places(labels: Path, tmp_path: Path) -> None:
    labels.write_text("path,label\nsound.mp4,maybe\nsound.mp4,1\n")
    done = call("extract", labels, "--out", tmp_path / "c")
    assert done.exit_code == 1
    assert "line 2: label is 'maybe'" in done.output
    assert "line 3: id 'sound.mp4' is already on line 2" in done.output
    assert not (tmp_path / "c").exists()


def test_validate_refuses_a_folder_that_does_not_exist_before_work(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haechi.extract.validation.check_all", None)
    done = call("validate", labels, "--out", tmp_path / "no" / "v.csv")
    assert done.exit_code == 1
    assert f"{tmp_path}/no: no such folder; create it first" in done.output


def test_validate_never_overwrites_other_files(labels: Path, tmp_path: Path) -> None:
    before = labels.read_bytes()
    done = call("validate", labels, "--out", labels)
    assert done.exit_code == 1
    assert "is not a result of `haechi validate`" in done.output
    assert labels.read_bytes() == before


def test_messages_are_not_formulas(tmp_path: Path, videos: Path) -> None:
    shutil.copy2(videos / "empty.mp4", tmp_path / "=cmd.mp4")
    shutil.copy2(videos / "sound.mp4", tmp_path / "sound.mp4")
    assert call("validate", tmp_path, "--out", tmp_path / "v.csv", "--frames", "2").exit_code == 0
    assert "\n'=cmd.mp4," in (tmp_path / "v.csv").read_text()


def test_reasons_are_documented() -> None:
    text = (Path(__file__).parents[2] / "cache_schema.md").read_text()
    for reason in Reason:
        assert f"`{reason.value}`" in text, reason
