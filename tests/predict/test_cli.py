"""The command `haechi predict`."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import haechi.cli
from haechi.cache.errors import HaechiError
from haechi.predict.classifier import Classifier
from haechi.predict.prediction import Prediction
from tests.predict.conftest import call, flags


def test_a_table_and_what_could_not_be_judged(folder: Path) -> None:
    done = call("predict", folder / "run", folder / "videos", *flags(folder))
    assert done.exit_code == 3
    assert "UNTRAINED" in done.stderr
    text = " ".join(done.stdout.split())
    assert "9 files: " in text
    assert "1 not judged" in text
    assert "not_media" in text
    assert "harmful-00.mp4" in text


def test_all_judged_is_success(folder: Path) -> None:
    done = call("predict", folder / "run", folder / "videos" / "harmful", *flags(folder))
    assert done.exit_code == 0, done.output


def test_json_has_one_line_for_each_file_in_the_order_given(folder: Path) -> None:
    names = [folder / "videos" / "safe" / name for name in ("safe-01.mp4", "cut-off.mp4", "safe-00.mp4")]
    listed = "\n".join(map(str, names[1:])) + "\n\n"
    done = call("predict", folder / "run", names[0], "-", *flags(folder), "--json", input=listed)
    assert done.exit_code == 3
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["id"] for record in records] == list(map(str, names))
    assert [record["decision"] == "not judged" for record in records] == [False, True, False]
    assert records[1]["reason"] == "not_media"
    assert set(records[0]) == {
        *("id", "kind", "score", "calibrated", "threshold", "is_harmful", "decision", "is_longer_than_trained"),
        *("duration_seconds", "windows", "moment", "reason", "message"),
    }
    assert records[0]["windows"] == [
        {"start_seconds": 0.0, "end_seconds": pytest.approx(2.0), "score": records[0]["score"]}
    ]
    assert records[0]["moment"] == records[0]["windows"][0]


def test_a_manifest_keeps_its_ids(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"id,path\none,{folder / 'videos' / 'safe' / 'safe-00.mp4'}\n")
    done = call("predict", folder / "run", manifest, *flags(folder), "--json")
    assert json.loads(done.stdout)["id"] == "one"


def test_a_cache_touches_no_media(folder: Path) -> None:
    done = call("predict", folder / "run", "--cache", folder / "cache", *flags(folder), "--json")
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 9 + 12


def test_both_kinds_in_one_call(folder: Path) -> None:
    both = ["--also", folder / "image-run"]
    done = call("predict", folder / "run", *both, folder / "both", *flags(folder))
    assert done.exit_code == 3
    text = " ".join(done.stdout.split())
    assert "21 files: " in text
    assert "1 not judged" in text
    assert " for videos" in text
    assert " for images" in text


@pytest.mark.parametrize("media", [[], ["a.mp4", "--cache", "c"]])
def test_media_or_a_cache(folder: Path, media: list[str]) -> None:
    done = call("predict", folder / "run", *media, *flags(folder))
    assert done.exit_code == 2
    assert "give either MEDIA or --cache CACHE" in done.output


def test_a_file_is_judged_once_and_an_id_is_of_one_file(folder: Path, tmp_path: Path) -> None:
    name = folder / "videos" / "safe" / "safe-00.mp4"
    twice = [name, name.parent / ".." / "safe" / name.name]
    done = call("predict", folder / "run", *twice, *flags(folder), "--json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [str(name)]
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        shutil.copy(name, tmp_path / day / "cam.mp4")
        (tmp_path / day / "list.csv").write_text("path\ncam.mp4\n")
    done = call("predict", folder / "run", *(tmp_path / day / "list.csv" for day in ("day1", "day2")), *flags(folder))
    assert done.exit_code == 1
    assert "'cam.mp4': two files have this id, " in done.output
    assert "judge the files separately" in done.output


def test_unfit_names_are_reported(folder: Path) -> None:
    done = call("predict", folder / "run", "", "-", *flags(folder), input=b"caf\xe9.mp4\n")
    assert done.exit_code == 1
    assert "an empty name, expected the path of a file or folder" in done.output
    assert "bytes that are not UTF-8" in done.output


def test_what_was_judged_is_shown_after_any_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Classifier.judge

    def breaking_off(self: Classifier, *args: Any, **named: Any) -> Iterator[Prediction]:
        yield from itertools.islice(honest(self, *args, **named), 2)
        raise HaechiError("the disk is gone")

    monkeypatch.setattr(Classifier, "judge", breaking_off)
    done = call("predict", folder / "run", folder / "videos", *flags(folder))
    assert done.exit_code == 1
    assert "2 files: " in done.stdout
    assert "stopped after 2 files: the others were not judged" in " ".join(done.stderr.split())
    assert "the disk is gone" in done.stderr


def test_names_are_shown_harmless(folder: Path, tmp_path: Path) -> None:
    done = call("predict", folder / "run", "[red]x.mp4", "a\x1b[31m.mp4", *flags(folder))
    assert done.exit_code == 1
    assert r"a\x1b[31m.mp4" in done.output
    done = call("predict", folder / "run", "[red]x.mp4", *flags(folder))
    assert "[red]x.mp4" in done.stdout


def test_a_closed_pipe_ends_it_silently(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """As in `haechi predict RUN MEDIA --json | head -1`: no note that the other files were not judged."""
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdout", os.fdopen(writing, "w"))
    lines = iter([None, lambda: os.close(reading)])

    def line(prediction: Prediction) -> str:
        if (close := next(lines)) is not None:
            close()
        return prediction.id

    monkeypatch.setattr("haechi.predict.console.json_line", line)
    media = folder / "videos" / "safe"
    with pytest.raises(SystemExit) as ended:
        haechi.cli.main(["predict", str(folder / "run"), str(media), *flags(folder), "--json"])
    assert ended.value.code == 1
    assert "stopped" not in capfd.readouterr().err
