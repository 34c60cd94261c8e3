"""`haechi train --labels`: labels of another file for one run; the cache does not change."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.cache.manifest_file import ManifestError
from haechi.cache.reader import Cache
from haechi.cache.text import harmless
from haechi.cache.writer import shard_path, write_shard
from haechi.train.api import train_head, train_heads
from haechi.train.data.dataset import load_dataset
from haechi.train.data.relabel import NewLabels
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings
from tests import synthetic

QUICK = ["--preset", "model4", "--epochs", "2", "--feedforward", "32", "--device", "cpu"]
IDS = [f"video-{i:04d}.mp4" for i in range(40)]
SPLITS = {id: ("train", "train", "val", "test")[i % 4] for i, id in enumerate(IDS)}
GROUPS = {id: f"camera {i // 2}" for i, id in enumerate(IDS)}
COUNTS = {"num_harmful": 20, "num_safe": 20, "splits": SPLITS, "groups": GROUPS}


def run(*args: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, ["train", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write(path: Path, rows: list[tuple[object, ...]], columns: str = "id,label") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """20 harmful and 20 safe videos in 5 shards, 2 unlabelled and 3 failures."""
    return synthetic.write_cache(tmp_path / "cache", **COUNTS, num_unlabelled=2, num_failures=3)  # type: ignore[arg-type]


def labels_by_id(dataset) -> dict[str, int]:  # type: ignore[no-untyped-def]
    return dict(zip(dataset.ids.tolist(), dataset.labels.tolist(), strict=True))


def test_labels_are_the_files_and_features_the_caches(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    wanted = {id: i % 3 % 2 for i, id in enumerate(IDS) if i % 5}
    file = write(tmp_path / "new.csv", [*wanted.items(), (IDS[0], ""), ("video-0040.mp4", "harmful")])
    dataset = load_dataset(opened, TrainSettings(), new_labels=NewLabels.read(opened, file))
    assert labels_by_id(dataset) == {**wanted, "video-0040.mp4": 1}
    assert dataset.num_unlabelled == 1  # video-0000; video-0041 is not named
    before = load_dataset(opened, TrainSettings())
    place = {id: i for i, id in enumerate(before.ids.tolist())}
    rows = [i for i, id in enumerate(dataset.ids.tolist()) if id in place]
    theirs = [place[dataset.ids[i]] for i in rows]
    assert len(rows) == len(wanted)
    ours, _, _ = dataset.features.batch(torch.tensor(rows))
    assert torch.equal(ours, before.features.batch(torch.tensor(theirs))[0])
    for column in ("splits", "groups", "sha256"):  # the file has no split or group
        np.testing.assert_array_equal(getattr(dataset, column)[rows], getattr(before, column)[theirs])


def test_columns_of_the_file_replace_those_of_the_cache(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    lines = [{"path": f"./x/../{IDS[0]}", "split": "val"}, {"path": IDS[1], "split": None}, {"id": IDS[2]}]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, lines)))
    new = NewLabels.read(opened, tmp_path / "new.jsonl")
    assert new.replaced == ["split"]
    dataset = load_dataset(opened, TrainSettings(), new_labels=new)
    found = {id: (split, group) for id, split, group in zip(dataset.ids, dataset.splits, dataset.groups, strict=True)}
    assert found == {IDS[0]: ("val", "camera 0"), IDS[1]: ("", "camera 0"), IDS[2]: ("", "camera 1")}
    assert labels_by_id(dataset).items() <= labels_by_id(load_dataset(opened, TrainSettings())).items()
    assert new.notices[0] == "split from 'new.jsonl'; label, group from the cache"


def test_videos_only_in_the_cache_or_only_in_the_file_are_reported(cache: Path, tmp_path: Path) -> None:
    rows = [(id, i % 2) for i, id in enumerate(IDS[:10])]
    rows += [("broken-0000.mp4", 1), ("broken-0002.mp4", 0), ("never seen\u202e.mp4", 1)]
    new = NewLabels.read(Cache.open(cache), write(tmp_path / "new.csv", rows))
    record = new.record()
    left_out = {*IDS[10:], "video-0040.mp4", "video-0041.mp4"}
    assert record["file"] == "new.csv"
    assert record["sha256"] == hashlib.sha256((tmp_path / "new.csv").read_bytes()).hexdigest()
    assert (record["replaced"], record["named"], record["removed"]["count"]) == (["label"], 10, len(left_out))
    assert len(record["removed"]["ids"]) == 20
    assert set(record["removed"]["ids"]) < left_out
    assert record["unused"]["count"] == 3
    assert record["unused"]["failures"] == {"damaged": 2}
    removed, unused = new.notices[1:]
    assert removed.startswith("removed: 32 videos of the cache left out, not listed in 'new.csv'\n")
    assert removed.endswith("… and 12 more")
    assert unused.splitlines() == [
        "unused: the cache has no features for 3 rows of 'new.csv'; extraction failed for 2 of them (2 damaged)",
        "  - line 12: 'broken-0000.mp4': damaged",
        "  - line 13: 'broken-0002.mp4': damaged",
        r"  - line 14: 'never seen\u202e.mp4': not in the cache",
    ]


def test_a_run_records_its_labels_and_leaves_the_cache_alone(cache: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in cache.iterdir()}
    (tmp_path / "media").mkdir()
    file = write(tmp_path / "[new].csv", [(id, (i // 4) % 2) for i, id in enumerate(IDS) if i not in (1, 5)])
    done = run(cache, "--out", tmp_path / "run", *QUICK, "--labels", file, "--media-root", tmp_path / "media")
    assert done.exit_code == 0, done.output
    assert "note: label from '[new].csv'; split, group from the cache" in done.stderr
    assert "removed: 4 videos" in done.stderr
    assert "removed" not in done.stdout
    assert {path: path.read_bytes() for path in cache.iterdir()} == before
    data = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert data["new_labels"] == NewLabels.read(Cache.open(cache), file).record()
    assert data["num_unlabelled"] == 0
    with (tmp_path / "run" / "predictions.csv").open(newline="") as text:
        found = {row["id"]: (row["label"], row["split"]) for row in csv.DictReader(text)}
    assert found == {id: (str((i // 4) % 2), SPLITS[id]) for i, id in enumerate(IDS) if i not in (1, 5)}
    page = (tmp_path / "run" / "report.html").read_text()
    assert data["new_labels"]["sha256"] in page
    assert "label from [new].csv instead of" in page


CORRECTED = [(IDS[0], 0, "val"), (IDS[30], 1, ""), ("gone.mp4", 1, "")]


def test_videos_that_the_file_does_not_list_can_keep_their_labels(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    new = NewLabels.read(opened, write(tmp_path / "new.csv", CORRECTED, "id,label,split"), keep_unlisted=True)
    ids = opened.media["id"].tolist()
    for name, changed in (("label", {IDS[0]: 0, IDS[30]: 1}), ("split", {IDS[0]: "val", IDS[30]: ""}), ("group", {})):
        expected = dict(zip(ids, opened.media[name].tolist(), strict=True)) | changed
        assert dict(zip(ids, new.media[name].tolist(), strict=True)) == expected
        assert new.media[name].dtype == opened.media[name].dtype
    assert (len(new.kept), new.removed, len(new.unused)) == (40, [], 1)
    assert "kept: 40 videos not listed in 'new.csv', with label, split and group of the cache" in new.notices
    assert new.record()["kept"] == {"count": 40}
    assert new.record()["removed"] == {"count": 0, "ids": []}
    dataset = load_dataset(opened, TrainSettings(), new_labels=new)
    assert len(dataset.ids) == 40
    assert dataset.num_unlabelled == 2
    assert labels_by_id(dataset) == labels_by_id(load_dataset(opened, TrainSettings())) | {IDS[0]: 0, IDS[30]: 1}
    without = NewLabels.read(opened, tmp_path / "new.csv")
    assert "kept" not in without.record()
    assert len(without.removed) == 40


def test_a_run_with_corrections_equals_one_with_all_labels(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    changed = {id: (label, split) for id, label, split in CORRECTED}
    rows = [
        (id, *changed.get(id, ({-1: ""}.get(label, label), split)))
        for id, label, split in zip(*(opened.media[name].tolist() for name in ("id", "label", "split")), strict=True)
    ]
    full = write(tmp_path / "full.csv", rows, "id,label,split")
    few = write(tmp_path / "few.csv", CORRECTED, "id,label,split")
    assert run(cache, "--out", tmp_path / "a", *QUICK, "--labels", full).exit_code == 0
    done = run(cache, "--out", tmp_path / "b", *QUICK, "--labels", few, "--keep-unlisted")
    assert done.exit_code == 0, done.output
    assert "kept: 40 videos not listed in 'few.csv'" in done.stderr
    assert (tmp_path / "a" / "predictions.csv").read_bytes() == (tmp_path / "b" / "predictions.csv").read_bytes()
    a, b = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert "kept" not in a.pop("new_labels")
    assert b.pop("new_labels")["kept"] == {"count": 40}
    assert a == b
    page = " ".join((tmp_path / "b" / "report.html").read_text().split())
    assert "40 videos not listed there, with label, split and group of the cache." in page


def test_keeping_unlisted_videos_needs_a_file_that_lists_some(cache: Path, tmp_path: Path) -> None:
    done = run(cache, "--out", tmp_path / "run", "--keep-unlisted")
    assert (done.exit_code, "--keep-unlisted is for a file of labels; name it with" in done.output) == (2, True)
    with pytest.raises(SettingsError, match="keep_unlisted is for the file of labels, and labels is None"):
        train_head(cache, tmp_path / "run", keep_unlisted=True)
    with pytest.raises(SettingsError, match="keep_unlisted is for the file of labels, and labels is None"):
        train_heads(cache, tmp_path / "run", keep_unlisted=True, seeds=2)
    file = write(tmp_path / "n.csv", [("x.mp4", 1)])
    with pytest.raises(TrainError, match=r"lists no used video of .*; an id there is 'video-0.*, one here is 'x\.mp4'"):
        NewLabels.read(Cache.open(cache), file, keep_unlisted=True)


def test_seeds_with_corrections(cache: Path, tmp_path: Path) -> None:
    labels = {"labels": write(tmp_path / "n.csv", CORRECTED, "id,label,split"), "keep_unlisted": True}
    quick = {"preset": "model4", "epochs": 1, "feedforward": 32, "device": "cpu"}
    outcomes = train_heads(cache, tmp_path / "many", seeds=2, **quick, **labels)  # type: ignore[arg-type]
    assert len(outcomes) == 2
    assert json.loads((tmp_path / "many" / "experiments.json").read_text())["new_labels"]["kept"] == {"count": 40}


def test_decisions_of_a_labelling_tool_are_labels(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)

    def task(id: str, label: str, *choices: str) -> dict[str, object]:
        value = [{"type": "choices", "from_name": "decision", "value": {"choices": [choice]}} for choice in choices]
        return {"data": {"haechi_id": id, "label": label}, "annotations": [{"completed_by": 1, "result": value}]}

    tasks = [task(IDS[0], "harmful", "safe"), task(IDS[1], "harmful"), task("video-0040.mp4", "unlabelled", "harmful")]
    (tmp_path / "export.json").write_text(json.dumps([*tasks, task("gone.mp4", "safe")]))
    new = NewLabels.read(opened, tmp_path / "export.json", keep_unlisted=True)
    before = labels_by_id(load_dataset(opened, TrainSettings()))
    dataset = load_dataset(opened, TrainSettings(), new_labels=new)
    assert labels_by_id(dataset) == before | {IDS[0]: 0, "video-0040.mp4": 1}
    assert new.notices[0] == "label from 'export.json'; split, group from the cache"
    assert "export of Label Studio: decisions for 2 of 4 tasks; the others keep the label in it" in new.notices
    assert "  - task 4: 'gone.mp4': not in the cache" in new.notices[-1]
    (tmp_path / "export.json").write_text("{}")
    done = run(cache, "--out", tmp_path / "run", "--labels", tmp_path / "export.json")
    assert (done.exit_code, "expected is an export of Label Studio" in done.output) == (1, True)


def test_a_file_of_the_caches_own_labels_changes_nothing(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    rows = [tuple(opened.media[name][i] for name in ("id", "label", "split", "group")) for i in range(42)]
    rows = [(id, {-1: ""}.get(label, label), *rest) for id, label, *rest in rows]
    file = write(tmp_path / "same.csv", rows[::-1], "id,label,split,group")
    for name, args in (("plain", []), ("same", ["--labels", file]), ("streamed", ["--labels", file, "--memory-gb", 0])):
        assert run(cache, "--out", tmp_path / name, *QUICK, *args).exit_code == 0
    plain, same, streamed = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "same", "streamed")
    )
    assert plain.pop("new_labels") is None
    assert same.pop("new_labels")["named"] == 42
    assert streamed.pop("new_labels")["removed"]["count"] == 0
    assert plain == same == streamed


@pytest.mark.parametrize("folds", [0, 2])
def test_a_run_equals_one_on_a_cache_with_these_labels(cache: Path, tmp_path: Path, folds: int) -> None:
    """In the cache that it is compared with, the videos that the file does not list are unlabelled."""
    rows = {id: (i // 3 % 2, ("train", "val", "test")[i % 3], f"room {i // 4}") for i, id in enumerate(IDS) if i % 7}
    file = write(tmp_path / "new.csv", [(id, *row) for id, row in rows.items()], "id,label,split,group")
    order = Cache.open(cache).media["id"].tolist()
    for number, start in enumerate(range(0, len(order), 8)):
        items = [
            synthetic.item(
                synthetic.media(id, **dict(zip(("label", "split", "group"), rows.get(id, (-1, "", "")), strict=True))),
                seed=i,
                shift=1.0 if i < 20 else -1.0 if i < 40 else 0.0,
            )
            for id in order[start : start + 8]
            for i in [int(id[6:10])]
        ]
        failures = [synthetic.failure(f"broken-{i:04d}.mp4") for i in range(3)] if number == 0 else []
        (tmp_path / "relabelled").mkdir(exist_ok=True)
        write_shard(shard_path(tmp_path / "relabelled", number), items, failures, synthetic.provenance())
    assert run(cache, "--out", tmp_path / "a", *QUICK, "--folds", folds, "--labels", file).exit_code == 0
    assert run(tmp_path / "relabelled", "--out", tmp_path / "b", *QUICK, "--folds", folds).exit_code == 0
    a, b = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert (a.pop("num_unlabelled"), b.pop("num_unlabelled")) == (0, 8)
    assert a.pop("new_labels")["removed"]["count"] == 8
    assert b.pop("new_labels") is None
    assert a == b
    assert (tmp_path / "a" / "predictions.csv").read_bytes() == (tmp_path / "b" / "predictions.csv").read_bytes()


@pytest.mark.parametrize("memory", [[], ["--memory-gb", 0]], ids=["memory", "streamed"])
def test_folds_seeds_grid_and_compare(cache: Path, tmp_path: Path, memory: list[object]) -> None:
    file = write(tmp_path / "new.csv", [(id, i % 2, "") for i, id in enumerate(IDS) if i % 7], "id,label,split")
    args = [*QUICK, *memory, "--labels", file, "--folds", 2]
    done = run(cache, "--out", tmp_path / "many", *args, "--seeds", 2, "--grid", "slowfast=pooled,none")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("removed: 8 videos") == 1
    record = json.loads((tmp_path / "many" / "experiments.json").read_text())["new_labels"]
    runs = sorted(path.parent for path in (tmp_path / "many").glob("*/*/metrics.json"))
    assert len(runs) == 4
    for folder in runs:
        assert json.loads((folder / "metrics.json").read_text())["new_labels"] == record
    done = CliRunner().invoke(haechi.cli.main, ["compare", *map(str, runs)])
    assert done.exit_code == 0, done.output
    assert "34 videos" in " ".join(done.output.split())
    assert run(cache, "--out", tmp_path / "old", *QUICK, "--folds", 2).exit_code == 0
    done = CliRunner().invoke(haechi.cli.main, ["compare", str(runs[0]), str(tmp_path / "old")])
    assert done.exit_code == 1
    assert "videos have another label" in done.output


def test_everything_wrong_in_the_file_is_reported_at_once(cache: Path, tmp_path: Path) -> None:
    rows = [(IDS[0], 3, ""), (IDS[1], 1, "dev"), (IDS[1], 1, ""), ("", 1, "")]
    done = run(cache, "--out", tmp_path / "run", "--labels", write(tmp_path / "n.csv", rows, "id,label,split"))
    assert done.exit_code == 1
    for text in (
        "wrong in 4 places",
        "line 2: label is '3'",
        "line 3: split",
        "line 4: id 'video-0001.mp4' is already on line",
    ):
        assert text in done.output
    assert "line 5: id and path are empty" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("write_file", "error", "expected"),
    [
        (lambda path: path / "gone.csv", ManifestError, "cannot be read"),
        (lambda path: write(path / "n.csv", []), ManifestError, "holds no rows"),
        (lambda path: write(path / "n.csv", [("x.mp4", 1)]), TrainError, "an id there is 'video-0"),
        (lambda path: write(path / "n.csv", [(IDS[0], "")]), TrainError, "has no label for the 1 video of"),
        (
            lambda path: write(path / "n.csv", [("video-0040.mp4", "val")], "id,split"),
            TrainError,
            "has no label for the",
        ),
    ],
)
def test_no_labelled_video_left(
    cache: Path, tmp_path: Path, write_file: Callable[[Path], Path], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        NewLabels.read(Cache.open(cache), write_file(tmp_path))


def test_labels_in_words_of_the_users_own(cache: Path, tmp_path: Path) -> None:
    rows = [(id, ("Fight", "Dance", "")[i % 3]) for i, id in enumerate(IDS)]
    file = write(tmp_path / "new.csv", rows)
    new = NewLabels.read(Cache.open(cache), file, positive_labels=["fight"])
    dataset = load_dataset(Cache.open(cache), TrainSettings(), new_labels=new)
    assert labels_by_id(dataset) == {id: 1 - i % 3 for i, id in enumerate(IDS) if i % 3 < 2}
    assert new.record()["positive_labels"] == ["fight"]
    assert "2 labels: Fight = harmful, Dance = safe (14 harmful, 13 safe, 13 unlabelled)" in new.notices
    with pytest.raises(ManifestError, match=r"labels in the file: 'Fight' 14 rows, (.|\n)*--positive-label NAME"):
        NewLabels.read(Cache.open(cache), file)
    with pytest.raises(ManifestError, match="no label 'war' in the file; there are: 'Dance', 'Fight'"):
        NewLabels.read(Cache.open(cache), file, positive_labels=["war"])
    done = run(cache, "--out", tmp_path / "run", "--positive-label", "fight")
    assert (done.exit_code, "name it with --labels FILE" in done.output) == (2, True)
    with pytest.raises(SettingsError, match="positive_labels is for the file of labels"):
        train_head(cache, tmp_path / "run", positive_labels="fight")


ODD_IDS = [f"{start}{i}.mp4" for i, start in enumerate(["-a", "=b", "'-c", "'d", "clips/e", "caf\u00e9"] * 4)]


@pytest.fixture
def odd_cache(tmp_path: Path) -> Path:
    """A cache with ids that a spreadsheet would run, that begin with an apostrophe, or that can be spelt otherwise."""
    media = [synthetic.media(id, label=i % 2) for i, id in enumerate(ODD_IDS)]
    items = [synthetic.item(each, seed=i, shift=each.label * 4 - 2) for i, each in enumerate(media)]
    (tmp_path / "odd").mkdir()
    write_shard(shard_path(tmp_path / "odd", 0), items, [], synthetic.provenance())
    return tmp_path / "odd"


def test_the_csv_of_a_run_can_be_its_labels(odd_cache: Path, tmp_path: Path) -> None:
    """predictions.csv and validation.csv put an apostrophe before an id such as `-a0.mp4`, and read it back."""
    assert run(odd_cache, "--out", tmp_path / "run", *QUICK, "--folds", 2, "--no-scenes").exit_code == 0
    (predictions,) = {path.resolve() for path in (tmp_path / "run").rglob("predictions.csv")}
    assert "\n'-a0.mp4," in predictions.read_text()
    new = NewLabels.read(Cache.open(odd_cache), predictions)
    assert (new.removed, new.unused) == ([], [])
    with (tmp_path / "validation.csv").open("w", newline="") as file:
        words = ("safe", "harmful", "unlabelled")
        csv.writer(file).writerows([["id", "label"], *([harmless(id), words[i % 3]] for i, id in enumerate(ODD_IDS))])
    new = NewLabels.read(Cache.open(odd_cache), tmp_path / "validation.csv")
    assert (new.removed, new.unused) == ([], [])
    by_id = dict(zip(Cache.open(odd_cache).media["id"].tolist(), new.media["label"].tolist(), strict=True))
    assert by_id == {id: (0, 1, -1)[i % 3] for i, id in enumerate(ODD_IDS)}


def test_ids_in_another_spelling_are_named_and_not_used(odd_cache: Path, tmp_path: Path) -> None:
    rows = [
        (r"clips\E4.mp4", 1),
        ("cafe\u03015.mp4", 1),
        ("gone.mp4", 1),
        *((id, i % 2) for i, id in enumerate(ODD_IDS[6:])),  # by hand, without the second apostrophe of '-c8.mp4
    ]
    new = NewLabels.read(Cache.open(odd_cache), write(tmp_path / "n.csv", rows))
    assert len(new.removed) == 9
    first, *lines = new.notices[-1].splitlines()
    assert first.endswith("has no features for 6 rows of 'n.csv'; 5 are there under another spelling")
    assert lines[:4] == [
        r"  - line 2: 'clips\E4.mp4': not in the cache, but there as 'clips/e4.mp4': use / in paths, "
        "other capital letters",
        "  - line 3: 'cafe\u03015.mp4': not in the cache, but there as 'caf\u00e95.mp4': "
        "another Unicode form of the same letters (NFC, NFD)",
        "  - line 4: 'gone.mp4': not in the cache",
        "  - line 7: '-c8.mp4': not in the cache, but there as ''-c8.mp4': "
        "an apostrophe in front (in CSV twice, before = + - @)",
    ]


def test_groups_by_a_regular_expression_replace_those_of_the_cache(cache: Path, tmp_path: Path) -> None:
    opened = Cache.open(cache)
    settings = TrainSettings(group_by=r"video-(\d\d\d)")
    dataset = load_dataset(opened, settings)
    assert dict(zip(dataset.ids, dataset.groups, strict=True)) == {id: id[6:9] for id in IDS}
    file = write(tmp_path / "n.csv", [(IDS[0], 1, "000"), (IDS[1], 0, ""), (IDS[20], 0, "mine")], "id,label,group")
    new = NewLabels.read(opened, file)
    dataset = load_dataset(opened, TrainSettings(group_by="(000)[0-9]"), new_labels=new)
    assert dict(zip(dataset.ids, dataset.groups, strict=True)) == {IDS[0]: "000", IDS[1]: "000", IDS[20]: "mine"}
    with pytest.raises(TrainError, match=f"id '{IDS[0]}': group is '000', and group_by gives '0000'"):
        load_dataset(opened, TrainSettings(group_by=r"\d+"), new_labels=new)
    with pytest.raises(SettingsError, match="matches none of the ids"):
        load_dataset(opened, TrainSettings(group_by="camera"))
    with pytest.raises(SettingsError, match="is not a regular expression: missing"):
        TrainSettings(group_by="(")
    done = run(cache, "--out", tmp_path / "run", *QUICK, "--folds", 2, "--no-scenes", "--group-by", r"-(\d{3}[02468])")
    assert done.exit_code == 0, done.output
    assert "20 groups; largest: '0000' 1 file," in " ".join(done.output.split())
    assert "…; 20 files without a group" in " ".join(done.output.split())
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (record["settings"]["group_by"], record["groups"]["source"]) == (r"-(\d{3}[02468])", "group_by")
    assert "group_by gives 20 groups; largest: " in record["split_notes"][0]
    assert "from the ids (group_by)" in (tmp_path / "run" / "report.html").read_text()
