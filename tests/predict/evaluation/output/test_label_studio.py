"""Tasks and labelling configuration for Label Studio, and its exports read back. Its own package checks them."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from haechi.cache.errors import SettingsError
from haechi.cache.manifest_file import ManifestFile, read_manifest_file
from haechi.predict.evaluation.output.exported import ExportedVideo
from haechi.predict.evaluation.output.label_studio import configuration, write_label_studio
from tests.predict.evaluation.output.exports import some_images, some_videos

SETS = {"video": some_videos(), "image": some_images()}


def written(folder: Path, videos: Sequence[ExportedVideo], **options: object) -> list[dict]:  # type: ignore[type-arg]
    """The tasks that are written for some videos."""
    write_label_studio(folder / "tasks.json", videos, model_version="runs/first", **options)  # type: ignore[arg-type]
    tasks = json.loads((folder / "tasks.json").read_text())
    assert isinstance(tasks, list)
    return tasks


def decided(tasks: list[dict], choices: Sequence[str | None]) -> list[dict]:  # type: ignore[type-arg]
    """Tasks as the tool exports them, with a choice for each that is not None, made from the prediction."""
    found = []
    for number, (task, choice) in enumerate(zip(copy.deepcopy(tasks), choices, strict=True), start=1):
        (prediction,) = task["predictions"]
        result = copy.deepcopy(prediction["result"])
        result[0]["value"]["choices"] = [choice]
        annotation = {
            "id": 100 + number,
            "completed_by": 1,
            "result": result,
            "was_cancelled": False,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "updated_at": "2026-01-01T00:00:00.000000Z",
        }
        annotations = [] if choice is None else [annotation]
        found.append({"id": number, "project": 1, **task, "annotations": annotations, "drafts": []})
    return found


def read(folder: Path, content: object) -> ManifestFile:
    (folder / "export.json").write_text(json.dumps(content))
    return read_manifest_file(folder / "export.json", keys=("id", "path"), exports=True)


def labels(read: ManifestFile) -> dict[str, int]:
    return {row.id: row.label for row in read.rows}


def test_a_task_has_the_file_the_label_and_the_decision(tmp_path: Path) -> None:
    task = written(tmp_path, some_videos(), url_prefix="/data/local-files/?d=set/")[1]
    assert task["data"] == {
        "video": "/data/local-files/?d=set/clips/b%20%26%20c%20%231%20%3C%C3%A9%3E.mp4",
        "haechi_id": "clips/b & c #1 <é>.mp4",
        "label": "safe",
        "score": 0.7,
        "calibrated": 0.6,
        "threshold": 0.5,
        "fps": 25.0,
    }
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("runs/first", 0.7)
    choice, segment = prediction["result"]
    assert (choice["value"], choice["score"]) == ({"choices": ["harmful"]}, 0.6)
    assert segment["value"] == {"ranges": [{"start": 226, "end": 250}], "timelinelabels": ["harmful moment"]}


def test_the_confidence_is_that_of_the_decision(tmp_path: Path) -> None:
    task = written(tmp_path, some_videos())[2]
    (choice,) = task["predictions"][0]["result"]
    assert (choice["value"], choice["score"]) == ({"choices": ["safe"]}, pytest.approx(0.9))
    assert task["data"]["label"] == "unlabelled"


@pytest.mark.parametrize("kind", SETS)
def test_every_name_in_a_task_is_in_the_configuration(tmp_path: Path, kind: str) -> None:
    tasks = written(tmp_path, SETS[kind])
    assert (tmp_path / "tasks.xml").read_text() == configuration(kind)
    root = ElementTree.fromstring(configuration(kind))
    controls = {tag.get("name"): {each.get("value") for each in tag} for tag in root.iter() if tag.get("toName")}
    variables = {tag.get(name, "")[1:] for tag in root.iter() for name in tag.attrib if tag.get(name, "")[:1] == "$"}
    for task in tasks:
        assert variables <= task["data"].keys()
        results = task["predictions"][0]["result"]
        assert len({each["id"] for each in results}) == len(results)
        for each in results:
            assert each["to_name"] == kind
            assert set(each["value"].get("choices", each["value"].get("timelinelabels"))) <= controls[each["from_name"]]


def test_the_tasks_must_not_have_the_name_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the labelling configuration is written beside as \.xml"):
        write_label_studio(tmp_path / "tasks.XML", some_videos(), model_version="run")


@pytest.mark.parametrize("kind", SETS)
def test_the_tasks_as_written_keep_the_labels(tmp_path: Path, kind: str) -> None:
    tasks = written(tmp_path, SETS[kind])
    assert labels(read(tmp_path, tasks)) == {video.id: video.label for video in SETS[kind]}


def test_decisions_replace_the_labels(tmp_path: Path) -> None:
    found = read(tmp_path, decided(written(tmp_path, some_videos()), ["safe", None, "harmful", None]))
    assert [row.label for row in found.rows] == [0, 0, 1, 1]
    assert found.columns == {"id", "label"}
    assert found.notices == ("export of Label Studio: decisions for 2 of 4 tasks; the others keep the label in it",)


@pytest.mark.parametrize("kind", SETS)
def test_the_tools_own_package_accepts_the_files(tmp_path: Path, kind: str) -> None:
    interface_of = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    tasks = written(tmp_path, SETS[kind], url_prefix="/data/local-files/?d=")
    interface = interface_of.LabelInterface((tmp_path / "tasks.xml").read_text())
    interface.validate()
    exports = decided(tasks, [("harmful", "safe")[i % 2] for i in range(len(tasks))])
    assert tasks
    for task, export in zip(tasks, exports, strict=True):
        assert interface.validate_task({"data": task["data"]})
        assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
        assert interface.validate_annotation(export["annotations"][0])
    (broken,) = copy.deepcopy(exports[0]["annotations"])
    broken["result"][0]["value"]["choices"] = ["dangerous"]
    assert not interface.validate_annotation(broken)  # what the checks above would find


@pytest.mark.parametrize("kind", SETS)
def test_json_min_of_the_tools_own_converter_is_read_back(tmp_path: Path, kind: str) -> None:
    converter = pytest.importorskip("label_studio_sdk.converter", reason="label-studio-sdk is not installed")
    tasks = written(tmp_path, SETS[kind])
    choices = ["safe", None, "harmful", None][: len(tasks)]
    exports = decided(tasks, choices)
    (tmp_path / "full.json").write_text(json.dumps(exports))
    tool = converter.Converter(config=(tmp_path / "tasks.xml").read_text(), project_dir=str(tmp_path))
    tool.convert_to_json_min(str(tmp_path / "full.json"), str(tmp_path / "min"), is_dir=False)
    flat = json.loads((tmp_path / "min" / "result.json").read_text())
    assert "annotations" not in flat[0]
    assert labels(read(tmp_path, flat)) == labels(read(tmp_path, exports))
