"""Decisions made in labelling tools: an export of Label Studio or FiftyOne as the rows of a manifest.

Task format of Label Studio: https://labelstud.io/guide/task_format; in JSON-MIN each annotation is one flat object. The
JSON of FiftyOne is that of `fiftyone.Dataset.write_json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from haechi.cache.text import named, shown

# Names in the files for labelling tools that `haechi evaluate --export` writes: the id of the video, in both tools; its
# label and the control of the decision, in Label Studio; the label, in FiftyOne.
ID_FIELD = "haechi_id"
LABEL_FIELD = "label"
DECISION = "decision"
GROUND_TRUTH = "ground_truth"

EXPECTED = (
    f"an export of Label Studio (JSON or JSON-MIN: a list of tasks, with {ID_FIELD} in their data) or FiftyOne "
    f"(dataset.write_json: an object with samples, which have {ID_FIELD} and {GROUND_TRUTH})"
)

# Flags of an annotation that was skipped.
SKIPPED = ("was_cancelled", "skipped")


@dataclass(frozen=True, kw_only=True)
class Export:
    """The content of an export."""

    unit: str
    """What its rows are: `task` or `sample`."""
    rows: list[tuple[int, dict[str, Any] | str]]
    """Number of the task or sample, from 1; and its `id` and `label`, not checked, or what is wrong with it."""
    notice: str
    """What was read, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    """A finished annotation of a task."""

    annotator: str
    updated: str
    """ISO 8601."""
    decision: str | None


@dataclass(kw_only=True)
class _Task:
    """A task of Label Studio."""

    id: Any
    label: Any
    annotations: list[_Annotation] = field(default_factory=list)
    problem: str = ""

    def row(self) -> dict[str, Any] | str:
        """Its id and label, or what is wrong. The last annotation of each annotator counts; all must agree."""
        last: dict[str, _Annotation] = {}
        for each in self.annotations:
            if each.annotator not in last or each.updated >= last[each.annotator].updated:
                last[each.annotator] = each
        decisions = {name: each.decision for name, each in last.items() if each.decision is not None}
        problem = self.problem
        if not problem and len(set(decisions.values())) > 1:
            said = ", ".join(f"annotator {shown(name)} {shown(decision)}" for name, decision in decisions.items())
            problem = f"the annotators disagree ({said}); correct the task, or take it out of the file"
        if problem:
            return f"{ID_FIELD} {shown(self.id)}: {problem}" if isinstance(self.id, str) else problem
        return {"id": self.id, "label": next(iter(decisions.values()), self.label)}

    @property
    def is_decided(self) -> bool:
        """Whether any annotation has a decision."""
        return any(each.decision is not None for each in self.annotations)


def read_export(content: Any) -> Export:
    """The rows of an export, from its parsed JSON. Raises `ValueError` if the structure is that of neither tool."""
    if isinstance(content, list) and any(_task_data(item) is not None for item in content):
        return _read_tasks(content)
    samples = content.get("samples") if isinstance(content, dict) else None
    if isinstance(samples, list) and any(isinstance(item, dict) and ID_FIELD in item for item in samples):
        return _read_samples(samples)
    raise ValueError(f"{_found(content)} found; expected is {EXPECTED}")


def _found(content: Any) -> str:
    """What the file holds, for a message."""
    if isinstance(content, dict):
        samples = content.get("samples")
        within = f", and samples with {_found(samples)}" if isinstance(samples, list) else ""
        return f"an object with the keys {named(list(content))}{within}"
    if not isinstance(content, list):
        return _type(content)
    if not content:
        return "an empty list"
    first = content[0]
    data = first.get("data") if isinstance(first, dict) else None
    within = f", and data with the keys {named(list(data))}" if isinstance(data, dict) else ""
    keys = f"an object with the keys {named(list(first))}{within}" if isinstance(first, dict) else _type(first)
    return f"a list that begins with {keys}"


def _type(value: Any) -> str:
    """The type of a value of JSON, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _task_data(item: Any) -> dict[str, Any] | None:
    """The data of a task, in JSON-MIN the item itself; None if it has no id of a video."""
    if not isinstance(item, dict):
        return None
    data = item.get("data", item)
    return data if isinstance(data, dict) and ID_FIELD in data else None


def _read_tasks(items: Sequence[Any]) -> Export:
    tasks: dict[int, _Task] = {}
    numbers: dict[tuple[str, str], int] = {}
    rows: dict[int, str] = {}
    for number, item in enumerate(items, start=1):
        data = _task_data(item)
        if data is None:
            rows[number] = f"no {ID_FIELD}, which every exported task has in its data"
            continue
        is_min = data is item
        # In JSON-MIN, a task that was annotated twice is two items.
        task_number = numbers.setdefault((str(item.get("id")), str(data[ID_FIELD])), number) if is_min else number
        task = tasks.setdefault(task_number, _Task(id=data[ID_FIELD], label=data.get(LABEL_FIELD)))
        try:
            task.annotations += [_flat_annotation(item)] if is_min else _annotations(item)
        except ValueError as error:
            task.problem = task.problem or str(error)
    num_decided = sum(task.is_decided for task in tasks.values())
    found = {number: task.row() for number, task in tasks.items()}
    return Export(
        unit="task",
        rows=sorted({**found, **rows}.items(), key=lambda row: row[0]),
        notice=f"export of Label Studio: decisions for {num_decided:,} of {len(found) + len(rows):,} tasks; the others "
        f"keep the label in it",
    )


def _annotations(task: dict[str, Any]) -> list[_Annotation]:
    """The annotations of a task that were not skipped. Raises `ValueError` that says what is wrong."""
    found = []
    for each in _list_of_objects(task.get("annotations"), "annotations"):
        if not any(each.get(flag) for flag in SKIPPED):
            results = _list_of_objects(each.get("result"), "result of an annotation")
            found.append(_annotation(each, each.get("completed_by"), _choice_of(results)))
    return found


def _choice_of(results: Sequence[dict[str, Any]]) -> str | None:
    """The decision among the results of an annotation; None if there is none."""
    choices = [each for each in results if each.get("type") == "choices"]
    own = [each for each in choices if each.get("from_name") == DECISION]
    if choices and not own:
        others = named(sorted({str(each.get("from_name")) for each in choices}))
        raise ValueError(f"no choice of the control {DECISION!r}, but of {others}")
    values = [each.get("value") for each in own]
    return _choice([value.get("choices") if isinstance(value, dict) else value for value in values])


def _flat_annotation(item: dict[str, Any]) -> _Annotation:
    """The annotation of an item of JSON-MIN. Raises `ValueError` that says what is wrong."""
    value = item.get(DECISION)
    value = value.get("choices") if isinstance(value, dict) else value
    return _annotation(item, item.get("annotator"), _choice([] if value is None else [value]))


def _choice(values: Sequence[Any]) -> str | None:
    """The one choice of some values, each a text or a list of one text."""
    choices = [name for value in values for name in (value if isinstance(value, list) else [value])]
    if not all(isinstance(name, str) for name in choices):
        raise ValueError(f"{DECISION} is not one of the choices")
    names = set(choices) - {""}
    if len(names) > 1:
        raise ValueError(f"{DECISION} has {len(names)} choices: {named(sorted(names))}")
    return next(iter(names), None)


def _annotation(source: dict[str, Any], annotator: Any, decision: str | None) -> _Annotation:
    name = annotator.get("id") if isinstance(annotator, dict) else annotator
    updated = source.get("updated_at")
    return _Annotation(annotator=str(name), updated=updated if isinstance(updated, str) else "", decision=decision)


def _list_of_objects(value: Any, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_type(value)}, a list is expected")
    for each in value:
        if not isinstance(each, dict):
            raise ValueError(f"{name} holds {_type(each)}, an object is expected")
    return value


def _read_samples(samples: Sequence[Any]) -> Export:
    return Export(
        unit="sample",
        rows=[(number, _sample_row(sample)) for number, sample in enumerate(samples, start=1)],
        notice=f"export of FiftyOne: {len(samples):,} samples, labels from {GROUND_TRUTH}",
    )


def _sample_row(sample: Any) -> dict[str, Any] | str:
    """The id and label of a sample, or what is wrong."""
    if not isinstance(sample, dict) or ID_FIELD not in sample:
        return f"no {ID_FIELD}, which every exported sample has"
    id = sample[ID_FIELD]
    place = f"{ID_FIELD} {shown(id)}: " if isinstance(id, str) else ""
    if GROUND_TRUTH not in sample:
        return f"{place}no {GROUND_TRUTH}, which is null or has a label"
    truth = sample[GROUND_TRUTH]
    if truth is not None and not (isinstance(truth, dict) and isinstance(truth.get("label"), str | None)):
        return f"{place}{GROUND_TRUTH} is {_type(truth)}; null, or an object whose label is a text, is expected"
    return {"id": id, "label": truth.get("label") if truth else None}
