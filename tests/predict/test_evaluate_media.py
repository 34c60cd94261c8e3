"""`haechi evaluate` on videos and images: their features are extracted as those of the run were."""

import json
from pathlib import Path

import numpy as np
import pytest

from haechi.predict.api import evaluate_heads
from tests.predict.conftest import call, flags


def test_media_give_the_figures_of_their_cache(folder: Path, tmp_path: Path) -> None:
    """Also with a run of images beside one of videos, and with the features kept."""
    runs = [folder / "run", folder / "image-run"]
    cached = evaluate_heads(runs, folder / "cache", keep_overlap=True)
    command = ["evaluate", runs[0], folder / "both", "--also", runs[1], "--keep-overlap", *flags(folder)]
    done = call(*command, "--out", tmp_path / "out", "--cache", tmp_path / "kept", "--json")
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)
    assert [record["run"]["kind"] for record in records] == ["video", "image"]
    for record, evaluation in zip(records, cached, strict=True):
        assert record["metrics"]["here"] == pytest.approx(evaluation.figures)
        assert record["data"]["failures"] == evaluation.data.failures
        assert record["overlap"]["count"] == len(evaluation.here)
        saved = tmp_path / "out" / record["run"]["kind"] / "evaluation.json"
        assert json.loads(saved.read_text()) == record
    again = evaluate_heads(runs, tmp_path / "kept", keep_overlap=True)
    for evaluation, before in zip(again, cached, strict=True):
        np.testing.assert_allclose(np.sort(evaluation.here.scores), np.sort(before.here.scores), atol=1e-6)


def test_a_folder_without_classes_takes_labels_from_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\nharmful/harmful-00.mp4,safe\nsafe/safe-00.mp4,harmful\n")
    command = ["evaluate", folder / "run", folder / "videos", "--labels", tmp_path / "labels.csv", "--keep-overlap"]
    done = call(*command, *flags(folder), "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["counts"]["here"] == {"harmful": 1, "safe": 1}
    assert record["data"]["labels_file"] == "labels.csv"
    assert record["disagreements"]["count"] == 2
    assert (tmp_path / "out" / "evaluation.html").read_text().count("data:image/jpeg;base64,") == 2


def test_paths_of_a_manifest_start_from_its_root(folder: Path, tmp_path: Path) -> None:
    """So do the frames on the page and the paths in exports, whose model is called untrained."""
    (tmp_path / "list.csv").write_text("path,label\nharmful/harmful-00.mp4,safe\nsafe/safe-00.mp4,harmful\n")
    command = ["evaluate", folder / "run", tmp_path / "list.csv", "--root", folder / "videos", "--keep-overlap"]
    exports = ["--export", "fiftyone", tmp_path / "dataset.json"]
    done = call(*command, *flags(folder), *exports, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "evaluation.html").read_text().count("data:image/jpeg;base64,") == 2
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    assert dataset["name"] == "run-UNTRAINED"
    assert all(Path(sample["filepath"]).exists() for sample in dataset["samples"])


def test_a_folder_with_labels_from_a_file_has_groups(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\nharmful/harmful-00.mp4,safe\nsafe/safe-00.mp4,harmful\n")
    command = ["evaluate", folder / "run", folder / "videos", "--labels", tmp_path / "labels.csv", "--keep-overlap"]
    command += [*flags(folder), "--out", tmp_path / "out", "--json"]
    done = call(*command, "--group-by", "^[a-z]+")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["data"]
    assert (found["num_groups"], found["group_source"]) == (2, "the manifest")
    done = call(*command, "--positive", "harmful", "--root", folder)
    assert done.exit_code == 1
    assert "root, positive: no effect on" in done.stderr


def test_the_folder_of_ones_own_clip_is_asked_for_media_only(folder: Path, tmp_path: Path) -> None:
    done = call("evaluate", folder / "run", folder / "videos", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "name its folder: --clip-model local-dir:PATH" in done.stderr
    assert not (tmp_path / "out").exists()
    done = call("evaluate", folder / "run", folder / "cache", "--out", tmp_path / "out", "--keep-overlap")
    assert done.exit_code == 0, done.output


def test_a_cache_that_holds_other_videos_too_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "one.mp4").symlink_to(folder / "videos" / "safe" / "safe-00.mp4")
    command = ["evaluate", folder / "run", tmp_path / "some", "--follow-symlinks", *flags(folder), "--keep-overlap"]
    assert call(*command, "--cache", tmp_path / "kept", "--out", tmp_path / "out").exit_code == 0
    (tmp_path / "some" / "one.mp4").rename(tmp_path / "some" / "two.mp4")
    done = call(*command, "--cache", tmp_path / "kept", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "also holds 1 video that" in done.stderr
