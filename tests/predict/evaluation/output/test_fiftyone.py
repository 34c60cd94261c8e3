"""The dataset for FiftyOne, and its JSON read back. With the package and a MongoDB, the package itself imports it.

FiftyOne starts the MongoDB that it ships; where there is none for the system, FIFTYONE_DATABASE_URI names another.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from haechi.cache.manifest_file import ManifestFile, read_manifest_file
from haechi.predict.evaluation.output.fiftyone import write_fiftyone
from tests.predict.evaluation.output.exports import some_images, some_videos

SETS = {"video": some_videos(), "image": some_images()}


def written(folder: Path, kind: str, **options: object) -> dict[str, Any]:
    """The dataset that is written for some videos or images."""
    write_fiftyone(folder / "dataset.json", SETS[kind], model_version="haechi first", **options)  # type: ignore[arg-type]
    dataset = json.loads((folder / "dataset.json").read_text())
    assert isinstance(dataset, dict)
    return dataset


def read(folder: Path, content: object) -> ManifestFile:
    (folder / "export.json").write_text(json.dumps(content))
    return read_manifest_file(folder / "export.json", keys=("id", "path"), exports=True)


def labels(read: ManifestFile) -> dict[str, int]:
    return {row.id: row.label for row in read.rows}


def test_a_sample_has_the_label_the_decision_and_the_moments(tmp_path: Path) -> None:
    dataset = written(tmp_path, "video")
    assert (dataset["name"], dataset["media_type"]) == ("haechi first", "video")
    first, _, unlabelled, _ = dataset["samples"]
    assert first["haechi_id"] == first["filepath"] == "clips/a.mp4"
    assert first["ground_truth"] == {"_cls": "Classification", "label": "harmful"}
    assert first["prediction"] == {"_cls": "Classification", "label": "harmful", "confidence": 0.6}
    assert [(each["support"], each["confidence"]) for each in first["moments"]["detections"]] == [
        ([1, 100], 0.95),
        ([201, 250], 0.9),
    ]
    assert (first["score"], first["calibrated"], first["threshold"]) == (0.7, 0.6, 0.5)
    assert unlabelled["ground_truth"] is None
    assert unlabelled["prediction"]["label"] == "safe"
    assert unlabelled["prediction"]["confidence"] == pytest.approx(0.9)


@pytest.mark.parametrize("kind", SETS)
def test_every_field_of_a_sample_is_declared(tmp_path: Path, kind: str) -> None:
    dataset = written(tmp_path, kind)
    for sample in dataset["samples"]:
        assert sample.keys() - {"_media_type"} == dataset["sample_fields"].keys() - {"id"}


@pytest.mark.parametrize("kind", SETS)
def test_the_dataset_as_written_keeps_the_labels(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, written(tmp_path, kind))
    assert labels(found) == {each.id: each.label for each in SETS[kind]}
    assert found.notices == (f"export of FiftyOne: {len(SETS[kind])} samples, labels from ground_truth",)


@pytest.mark.parametrize("kind", SETS)
def test_the_tool_itself_imports_the_dataset_and_its_export_is_read_back(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    monkeypatch.setenv("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    tool = pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    try:
        tool.list_datasets()
    except tool.core.config.FiftyOneConfigError:
        pytest.skip("FiftyOne has no MongoDB")
    written(tmp_path, kind)
    dataset = tool.Dataset.from_json(str(tmp_path / "dataset.json"), rel_dir=str(tmp_path / "media"))
    try:
        videos = {each.id: each for each in SETS[kind]}
        assert (len(dataset), dataset.media_type) == (len(videos), kind)
        for sample in dataset:
            video = videos[sample.haechi_id]
            assert sample.filepath == str(tmp_path / "media" / (video.path or video.id))
            assert (sample.ground_truth and sample.ground_truth.label) == {1: "harmful", 0: "safe"}.get(video.label)
            assert isinstance(sample.prediction, tool.Classification)
            assert sample.prediction.label == ("harmful" if video.is_harmful else "safe")
            assert sample.prediction.confidence == video.confidence
            assert (sample.score, sample.threshold) == (video.score, video.threshold)
            if kind == "video":
                assert isinstance(sample.moments, tool.TemporalDetections)
                found = [(each.support, each.label, each.confidence) for each in sample.moments.detections]
                assert found == [([s.first_frame, s.last_frame], "harmful moment", s.score) for s in video.segments]
        dataset.write_json(str(tmp_path / "back.json"))
        found = read(tmp_path, json.loads((tmp_path / "back.json").read_text()))
        assert labels(found) == {id: video.label for id, video in videos.items()}
        for sample in dataset.iter_samples(autosave=True):
            other = "safe" if videos[sample.haechi_id].label == 1 else "harmful"
            if sample.ground_truth is None:
                sample.ground_truth = tool.Classification(label=other)
            else:
                sample.ground_truth.label = other
        found = read(tmp_path, json.loads(dataset.to_json()))
        assert labels(found) == {id: 1 - abs(video.label) if video.label > -1 else 1 for id, video in videos.items()}
        dataset.clear_sample_field("ground_truth")
        assert set(labels(read(tmp_path, json.loads(dataset.to_json()))).values()) == {-1}
    finally:
        dataset.delete()
