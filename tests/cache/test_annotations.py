"""Exports of labelling tools as rows of a manifest, also hostile ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from haechi.cache.labels import LabelRule
from haechi.cache.manifest_file import ManifestError, ManifestFile, ManifestRow, read_manifest_file

Json = Any


def read(folder: Path, content: Json, *, positive: tuple[str, ...] = ()) -> ManifestFile:
    file = folder / "export.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_manifest_file(file, keys=("id", "path"), rule=LabelRule(positive=positive), exports=True)


def wrong(folder: Path, content: Json) -> str:
    with pytest.raises(ManifestError) as caught:
        read(folder, content)
    assert len(str(caught.value)) < 8000
    assert isinstance(caught.value.__cause__, ValueError | RecursionError | None)
    return str(caught.value)


def choice(*names: str, control: str = "decision") -> Json:
    value = {"choices": list(names)}
    return {"id": "x", "from_name": control, "to_name": "video", "type": "choices", "value": value}


MOMENT = {
    "id": "y",
    "from_name": "moments",
    "to_name": "video",
    "type": "timelinelabels",
    "value": {"ranges": [{"start": 1, "end": 9}], "timelinelabels": ["harmful moment"]},
}


def annotation(*results: Json, by: Json = 1, at: Json = "2026-01-01T00:00:00Z", **more: Json) -> Json:
    return {"id": 7, "completed_by": by, "updated_at": at, "was_cancelled": False, "result": list(results), **more}


def task(*annotations: Json, id: Json = "a.mp4", label: Json = "safe") -> Json:
    return {"id": 1, "data": {"video": "x", "haechi_id": id, "label": label}, "annotations": list(annotations)}


def flat(id: str, number: int, decision: Json = None, *, by: Json = 1, at: str = "2026-01-01", label: Json = 0) -> Json:
    decided = {} if decision is None else {"decision": decision}
    return {"video": "x", "haechi_id": id, "label": label, "id": number, "annotator": by, "updated_at": at, **decided}


def sample(id: Json, label: Json) -> Json:
    truth = None if label is None else {"_cls": "Classification", "_id": {"$oid": "6b"}, "tags": [], "label": label}
    return {"filepath": "/media/x.mp4", "haechi_id": id, "ground_truth": truth, "tags": []}


# Made with the tools themselves: the files of tests/predict/evaluation/output imported, some labels changed, exported.
REAL = {
    "label-studio-1.23.2": {"clips/a.mp4": 0, "clips/b & c #1 <é>.mp4": 1, "clips/unlabelled.mkv": -1, "a name": 1},
    "label-studio-1.23.2-min": {"clips/a.mp4": 0, "clips/b & c #1 <é>.mp4": 1, "a name": 1},
    "fiftyone-1.22.1": {"clips/a.mp4": 0, "clips/b & c #1 <é>.mp4": 0, "clips/unlabelled.mkv": 1, "a name": 1},
}


@pytest.mark.parametrize("name", REAL)
def test_exports_that_the_tools_made(name: str) -> None:
    file = Path(__file__).parent / "exports" / f"{name}.json"
    found = read_manifest_file(file, keys=("id", "path"), exports=True)
    assert {row.id.removesuffix(" without ending"): row.label for row in found.rows} == REAL[name]


@pytest.mark.parametrize(
    ("annotations", "label"),
    [
        ([], 0),
        ([annotation(choice("harmful"))], 1),
        ([annotation(choice("harmful"), MOMENT)], 1),
        ([annotation(MOMENT)], 0),  # no decision: the present label stays
        ([annotation(choice("harmful"), was_cancelled=True)], 0),
        ([annotation(choice("harmful"), skipped=True)], 0),
        ([annotation(choice("harmful")), annotation(choice("safe"), was_cancelled=True)], 1),
        ([annotation(choice("safe")), annotation(choice("harmful"))], 1),  # of one annotator the last counts
        ([annotation(choice("harmful"), at="2026-02-01"), annotation(choice("safe"), at="2026-01-01")], 1),
        ([annotation(choice("harmful"), by=1), annotation(choice("harmful"), by=2)], 1),
        ([annotation(choice("harmful"), by={"id": 1, "email": "x@y"}), annotation(MOMENT, by=2)], 1),
        ([annotation(choice("safe"), at=None), annotation(choice("harmful"), at=5)], 1),
        ([annotation(choice("harmful"), choice("a", "b", control="other"))], 1),
        (None, 0),
    ],
)
def test_the_last_finished_annotation_counts(tmp_path: Path, annotations: list[Json] | None, label: int) -> None:
    item = task(*(annotations or []))
    if annotations is None:
        del item["annotations"]
    found = read(tmp_path, [item])
    assert found.rows == (ManifestRow(id="a.mp4", path="", label=label, split="", group="", line=1, unit="task"),)
    assert found.columns == {"id", "label"}


@pytest.mark.parametrize("label", ["unlabelled", "", None])
def test_an_undecided_task_without_a_label_stays_unlabelled(tmp_path: Path, label: Json) -> None:
    assert [row.label for row in read(tmp_path, [task(label=label)]).rows] == [-1]


def test_json_min(tmp_path: Path) -> None:
    items = [
        flat("a", 1, "harmful"),
        flat("b", 2),
        flat("c", 3, {"choices": ["harmful"]}),
        flat("d", 4, "harmful", at="2026-02-02"),
        flat("d", 4, "safe", at="2026-01-01"),
        flat("e", 5, "harmful", by=1),
        flat("e", 5, "harmful", by=2),
        flat("f", 6, label="harmful"),
    ]
    found = read(tmp_path, items)
    assert {row.id: row.label for row in found.rows} == {"a": 1, "b": 0, "c": 1, "d": 1, "e": 1, "f": 1}
    assert found.notices == ("export of Label Studio: decisions for 4 of 6 tasks; the others keep the label in it",)


def test_annotators_who_disagree_are_listed_all_at_once(tmp_path: Path) -> None:
    both = annotation(choice("harmful"), by=1), annotation(choice("safe"), by="x@y")
    text = wrong(tmp_path, [task(*both, id="a.mp4"), task(id="b.mp4"), task(*both, id="c.mp4")])
    for line in (
        "wrong in 2 places",
        "task 1: haechi_id 'a.mp4': the annotators disagree (annotator '1' 'harmful', annotator 'x@y' 'safe'); correct",
        "task 3: haechi_id 'c.mp4': the annotators disagree",
    ):
        assert line in text
    text = wrong(tmp_path, [flat("a", 1, "harmful", by=1), flat("a", 1, "safe", by=2)])
    assert "task 1: haechi_id 'a': the annotators disagree" in text


def test_a_video_in_two_tasks_is_an_error(tmp_path: Path) -> None:
    assert "task 2: id 'a.mp4' is already on task 1" in wrong(tmp_path, [task(), task()])
    assert "task 2: id 'a' is already on task 1" in wrong(tmp_path, [flat("a", 1, "safe"), flat("a", 2, "safe")])


def test_samples_of_fiftyone(tmp_path: Path) -> None:
    samples = [sample("a", "harmful"), sample("b", "safe"), sample("c", None), sample("d", "")]
    found = read(tmp_path, {"name": "x", "media_type": "video", "samples": samples})
    assert [(row.id, row.label, row.place) for row in found.rows] == [
        ("a", 1, "sample 1"),
        ("b", 0, "sample 2"),
        ("c", -1, "sample 3"),
        ("d", -1, "sample 4"),
    ]


def test_labels_in_words_of_the_users_own(tmp_path: Path) -> None:
    content = {"samples": [sample("a", "Fight"), sample("b", "Dance")]}
    assert [row.label for row in read(tmp_path, content, positive=("fight",)).rows] == [1, 0]
    text = wrong(tmp_path, content)
    assert "sample 1: label is 'Fight', expected 1, harmful" in text
    assert "--positive-label NAME" in text
    assert "task 1: label is 'maybe', expected" in wrong(tmp_path, [task(annotation(choice("maybe")))])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "an empty list found"),
        ({}, "an object with the keys nothing found"),
        ("3", "a number found"),
        ("null", "null found"),
        ('"a"', "a text found"),
        ([1, 2], "a list that begins with a number found"),
        ([{"data": {"image": "x"}}], "an object with the keys 'data', and data with the keys 'image' found"),
        ([{"path": "a.mp4", "label": 1}], "a list that begins with an object with the keys 'path', 'label' found"),
        ({"samples": [{"filepath": "x"}]}, "samples with a list that begins with an object with the keys 'filepath'"),
        ({"samples": {}}, "an object with the keys 'samples' found"),
        ({"images": [], "annotations": []}, "an object with the keys 'images', 'annotations' found"),
    ],
)
def test_an_unknown_structure_is_one_clear_error(tmp_path: Path, content: Json, found: str) -> None:
    text = wrong(tmp_path, content)
    assert found in text
    assert "expected is an export of Label Studio (JSON or JSON-MIN: a list of tasks, with haechi_id" in text
    assert text.count("\n") == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not readable as JSON (Expecting value"),
        ("[" * 200_000 + "]" * 200_000, "inside each other too deeply"),
        ('{"a":' * 200_000, "inside each other too deeply"),
        ('[{"haechi_id": "a", "haechi_id": "b"}]', "keys that occur twice in an object: 'haechi_id'"),
        ("[" + "9" * 5000 + "]", "a number of 5000 digits"),
        ('{"id": "a"}\n{"id": "b"}\n', "JSON Lines need the ending .jsonl"),
        ([task(), 5, None, {"data": 1}], "task 2: no haechi_id, which every exported task has in its data"),
        ([task(id=["a"])], "task 1: id is a list, text is expected"),
        ([task(id="")], "task 1: id and path are empty"),
        ([task(id="a\x00b")], "task 1: id holds control characters"),
        ([task(id="x" * 5000)], "task 1: id is 5000 bytes long"),
        ([task(label={"a": 1})], "task 1: label is a dict, text is expected"),
        ([{**task(), "annotations": 5}], "haechi_id 'a.mp4': annotations is a number, a list is expected"),
        ([{**task(), "annotations": [5]}], "annotations holds a number, an object is expected"),
        ([task(annotation() | {"result": "x"})], "result of an annotation is a text, a list is expected"),
        ([task(annotation([]))], "result of an annotation holds a list, an object is expected"),
        ([task(annotation(choice("safe") | {"value": 5}))], "decision is not one of the choices"),
        ([task(annotation(choice("safe") | {"value": {"choices": [[]]}}))], "decision is not one of the choices"),
        ([task(annotation(choice("safe") | {"value": {"choices": {}}}))], "decision is not one of the choices"),
        ([task(annotation(choice("safe") | {"value": None}))], "decision is not one of the choices"),
        ([task(annotation(choice("safe", "harmful")))], "decision has 2 choices: 'harmful', 'safe'"),
        (
            [task(annotation(choice("safe", control="verdict")))],
            "no choice of the control 'decision', but of 'verdict'",
        ),
        ([flat("a", 1, 5)], "decision is not one of the choices"),
        ([flat("a", 1, ["safe", "harmful"])], "decision has 2 choices"),
        ({"samples": [sample("a", "safe"), 5]}, "sample 2: no haechi_id, which every exported sample has"),
        ({"samples": [{"haechi_id": "a"}]}, "sample 1: haechi_id 'a': no ground_truth"),
        ({"samples": [sample("a", 5)]}, "ground_truth is an object; null, or an object whose label is a text"),
        ({"samples": [{"haechi_id": "a", "ground_truth": "safe"}]}, "ground_truth is a text; null, or an object"),
        ({"samples": [sample({}, "safe")]}, "sample 1: id is a dict, text is expected"),
        ({"samples": [sample("a", "safe"), sample("a", "safe")]}, "sample 2: id 'a' is already on sample 1"),
    ],
)
def test_hostile_exports(tmp_path: Path, content: Json, expected: str) -> None:
    assert expected in wrong(tmp_path, content)


def test_exports_are_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([task()]))
    with pytest.raises(ManifestError):
        read_manifest_file(tmp_path / "m.json", keys=("id", "path"))


def test_an_export_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haechi.cache.manifest_file.MAX_EXPORT_BRACKETS", 9)
    assert "10 lists and objects, at most 9 are allowed" in wrong(tmp_path, [[]] * 9)
    monkeypatch.setattr("haechi.cache.manifest_file.MAX_EXPORT_BYTES", 10)
    assert "larger than 10 bytes, the limit for a manifest" in wrong(tmp_path, [task()])
