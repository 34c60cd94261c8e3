"""`haechi evaluate` on caches of random features: a run trained on one, evaluated on others."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from haechi.cache.errors import HaechiError, SettingsConflictError, SettingsError
from haechi.cache.reader import Cache
from haechi.cache.writer import shard_path, write_shard
from haechi.predict.api import evaluate_head
from haechi.train.errors import TrainError
from haechi.train.evaluate.requirement import NOT_MET
from haechi.train.run_folder import EVALUATION_ARTEFACTS, TRAINING_SET_FILE
from tests import synthetic
from tests.predict.conftest import call

SAMPLED = {"sampling": {"name": "uniform", "frames": 4}}


def source() -> Any:
    """As of a cache that this version extracts."""
    plain = synthetic.provenance(trained=True)
    return replace(plain, settings=plain.settings | SAMPLED)


def write_set(
    path: Path, *, first: int, num_harmful: int, num_safe: int, num_unlabelled: int = 0, shift: float = 0.25
) -> Path:
    """A cache of videos that are called and made by their number from `first` on: equal numbers are equal files."""
    path.mkdir(parents=True)
    labels = [1] * num_harmful + [0] * num_safe + [-1] * num_unlabelled
    truth = np.random.default_rng(first).random(len(labels)) < 0.1
    items = []
    for i, label in enumerate(labels, start=first):
        sign = label if label >= 0 else int(truth[i - first])
        media = replace(synthetic.media(f"video-{i:04d}.mp4", label=label), duration_seconds=2.0 + i % 20)
        items.append(synthetic.item(media, seed=i, shift=shift * (2 * sign - 1), source=source()))
    order = np.random.default_rng(0).permutation(len(items))
    failed = [synthetic.failure("broken.mp4")]
    write_shard(shard_path(path, 0), [items[i] for i in order], failed, source())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`own` (260 videos) and a `run` on it with a test part; `other`: 180 other videos, and 40 of `own`."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_set(folder / "own", first=0, num_harmful=100, num_safe=160)
    write_set(folder / "other", first=220, num_harmful=80, num_safe=140, num_unlabelled=60, shift=0.15)
    done = call("train", folder / "own", "--out", folder / "run", "--seed", 1, "--test-fraction", 0.3)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "metrics.json").read_text())
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_on_its_own_cache_it_gives_its_own_test_figures(folder: Path, metrics: dict[str, Any]) -> None:
    """Videos of train and val are left out; the test part is left."""
    found = evaluate_head(folder / "run", folder / "own")
    counts = metrics["counts"]
    assert len(found.here) == sum(counts["test"].values())
    assert len(found.overlap.pairs) == sum(sum(counts[part].values()) for part in ("train", "val"))
    assert {pair.kind for pair in found.overlap.pairs} == {"same bytes"}
    assert {pair.other_part for pair in found.overlap.pairs} == {"train", "val"}
    assert found.overlap.num_test == len(found.here)
    for name, value in metrics["metrics"]["test"].items():
        assert found.figures[name] == pytest.approx(value, abs=1e-12)
    for change in found.changes:
        assert change.difference == pytest.approx(0, abs=1e-12)
        assert change.own_interval == pytest.approx(metrics["intervals"]["test"][change.metric.name])
        assert change.difference_interval is not None
        assert change.difference_interval[0] < 0 < change.difference_interval[1]
    assert found.causes is not None
    assert found.causes.fall.value == pytest.approx(0, abs=1e-12)
    expected = {row["id"]: row for row in rows_of(folder / "run" / "predictions.csv") if row["split"] == "test"}
    for id, score, calibrated in zip(found.ids, found.here.scores, found.here.calibrated, strict=True):
        assert score == pytest.approx(float(expected[id]["score"]), abs=1e-6)
        assert calibrated == pytest.approx(float(expected[id]["calibrated"]), abs=1e-6)


def test_overlap_is_named_and_left_out_unless_it_is_kept(folder: Path) -> None:
    found = evaluate_head(folder / "run", folder / "other")
    shared = {f"video-{i:04d}.mp4" for i in range(220, 260)}
    test = {row["id"] for row in rows_of(folder / "run" / "predictions.csv") if row["split"] == "test"}
    assert {pair.id for pair in found.overlap.pairs} == shared - test
    assert all(pair.id == pair.other_id for pair in found.overlap.pairs)
    assert found.overlap.num_test == len(shared & test)
    assert not {pair.id for pair in found.overlap.pairs} & set(found.ids.tolist())
    assert len(found.here) == 220 - len(shared - test)
    kept = evaluate_head(folder / "run", folder / "other", keep_overlap=True)
    assert len(kept.here) == 220
    assert (kept.overlap.kept, kept.overlap.pairs) == (True, found.overlap.pairs)


def test_the_files_hold_the_evaluation(folder: Path, tmp_path: Path) -> None:
    done = call("evaluate", folder / "run", folder / "other", "--out", tmp_path / "out", "--prevalence", "1%-10%")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(EVALUATION_ARTEFACTS)
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [each["prevalence"] for each in record["prevalences"]] == pytest.approx([0.01, 0.1**1.5, 0.1])
    rows = rows_of(tmp_path / "out" / "scores.csv")
    assert len(rows) == sum(record["counts"]["here"].values()) + 60
    assert sum(row["label"] == "" for row in rows) == 60
    assert record["data"]["failures"] == {"damaged": 1}
    assert record["estimate"]["num_videos"] == 60
    labelled = [row for row in rows if row["label"]]
    wrong = {row["id"] for row in labelled if row["prediction"] != row["label"]}
    assert wrong <= {row["id"] for row in rows_of(tmp_path / "out" / "disagreements.csv")}
    f1 = record["changes"]["f1"]
    assert f1["difference"] == f1["here"] - f1["own"]
    causes = record["causes"]
    assert causes["ranking"]["value"] + causes["threshold"]["value"] == pytest.approx(-f1["difference"], abs=1e-12)
    for word in ("harmful ones; on its own test it found", "separation", "unlabelled videos"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines()[3:30])) <= 80


def test_equal_evaluations_give_equal_files(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert call("evaluate", folder / "run", folder / "other", "--out", tmp_path / name).exit_code == 0
    for file in ("evaluation.json", "scores.csv", "disagreements.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_out_it_writes_beside_the_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    for _ in range(2):  # an evaluation is replaced
        done = call("evaluate", tmp_path / "run", folder / "other", "--json")
        assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "run-on-other" / "evaluation.json").read_text())
    assert "run-on-other" not in done.stdout
    done = call("evaluate", tmp_path / "run", folder / "other", "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert "holds files but no evaluation" in done.stderr
    assert "only an earlier evaluation is replaced" in done.stderr


def test_labels_and_columns_come_from_a_file(folder: Path, tmp_path: Path) -> None:
    rows = ["id,label,city"]
    for i in range(260, 440):
        rows.append(f"video-{i:04d}.mp4,{int(i < 300)},{'Busan' if i % 3 else 'Jeju'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = evaluate_head(folder / "run", folder / "other", labels=tmp_path / "labels.csv", by="city")
    assert (found.here.num_harmful, found.here.num_safe) == (40, 140)
    cities = {each.subset.name: each for each in found.slices if each.subset.by == "city"}
    assert {name: each.subset.count for name, each in cities.items()} == {"Busan": 120, "Jeju": 60}
    assert all(each.difference_interval is not None for each in cities.values())
    assert any("left out that the file of labels does not list" in notice for notice in found.notices)
    done = call(
        "evaluate", folder / "run", folder / "other", "--labels", tmp_path / "labels.csv", "--by", "town", "--json"
    )
    assert done.exit_code == 1
    assert "no column 'town'; the columns of your own in it are: 'city'" in done.stderr


def test_rows_of_the_file_that_match_nothing_are_counted(folder: Path, tmp_path: Path) -> None:
    rows = [f"video-{i:04d}.mp4,{i % 2}" for i in range(260, 300)] + [
        "./Video-0300.mp4,1",
        "gone.mp4,0",
        "broken.mp4,1",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]))
    found = evaluate_head(folder / "run", folder / "other", labels=tmp_path / "labels.csv")
    assert (
        "3 rows of the file of labels not used: this set has no features for these ids; 1 of them is there under "
        "another spelling."
    ) in found.notices


def test_figures_of_validation_videos_are_called_too_good(folder: Path, tmp_path: Path) -> None:
    command = ["train", folder / "own", "--out", tmp_path / "run", "--test-fraction", 0, "--folds", 0, "--moments", 0]
    assert call(*command).exit_code == 0
    done = call("evaluate", tmp_path / "run", folder / "other", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "The run has no test part: its own figures are from the validation videos" in done.stdout
    assert "The run has no test part" in (tmp_path / "out" / "evaluation.html").read_text()
    assert any("too good" in text for text in json.loads((tmp_path / "out" / "evaluation.json").read_text())["notices"])


def test_unlabelled_videos_have_an_estimated_share(folder: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "new", first=5000, num_harmful=0, num_safe=0, num_unlabelled=300)
    found = evaluate_head(folder / "run", tmp_path / "new", tmp_path / "out")
    assert (len(found.here), found.changes) == (0, [])
    assert len(found.unlabelled) + len(found.overlap.pairs) == 300
    assert found.estimate is not None
    assert (found.estimate.source, found.estimate.num_videos) == ("own", len(found.unlabelled))
    assert found.estimate.interval is not None
    assert found.estimate.interval[0] <= 0.1 <= found.estimate.interval[1]
    done = call("evaluate", folder / "run", tmp_path / "new", "--require", "f1>=0.1", "--no-scenes")
    assert done.exit_code == NOT_MET
    assert "Of your 300 unlabelled videos an estimated" in done.stdout
    assert "f1>=0.1 is not met: F1 is undefined" in done.stdout


def test_the_gate_is_the_lower_end_of_the_interval(folder: Path, tmp_path: Path) -> None:
    found = evaluate_head(folder / "run", folder / "other")
    f1 = next(change for change in found.changes if change.metric.name == "f1")
    assert f1.here is not None
    assert f1.here_interval is not None
    between = f"f1>={(f1.here + f1.here_interval[0]) / 2:.3f}"
    command = ["evaluate", folder / "run", folder / "other", "--out", tmp_path / "out", "--require", "recall>=0.01"]
    assert call(*command, "--require", f"f1>={f1.here_interval[0] - 0.01:.3f}").exit_code == 0
    done = call(*command, "--require", between)
    assert done.exit_code == NOT_MET
    assert f"{between} is not met: F1 is {f1.here:.3f}" in done.stdout
    assert (tmp_path / "out" / "evaluation.html").exists()
    assert call(*command, "--require", between, "--point").exit_code == 0
    assert "requirement 'f1=1'" in call(*command, "--require", "f1=1").stderr


def test_training_has_the_gate_too(folder: Path, tmp_path: Path, metrics: dict[str, Any]) -> None:
    low = metrics["intervals"]["test"]["f1"][0]
    command = ["train", folder / "own", "--out", tmp_path / "run", "--seed", 1, "--test-fraction", 0.3, "--require"]
    done = call(*command, f"f1>={low + 0.001:.4f}")
    assert done.exit_code == NOT_MET
    assert "is not met: F1 is" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()
    assert call(*command, f"f1>={low - 0.001:.4f}").exit_code == 0
    shutil.rmtree(tmp_path / "run")
    assert call(*command, "f1>=2").exit_code == 1
    assert not (tmp_path / "run").exists()
    assert call(*command, "f1>=0.1", "--seeds", 2).exit_code == 2


def test_a_head_trained_on_all_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    assert call("train", folder / "own", "--out", tmp_path / "run", "--folds", 3, "--moments", 0).exit_code == 0
    with pytest.raises(TrainError, match=r"on all of its 260 videos: none is left to evaluate; --keep-overlap"):
        evaluate_head(tmp_path / "run", folder / "own", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = evaluate_head(tmp_path / "run", folder / "own", keep_overlap=True)
    assert found.run.is_folds
    f1 = next(change for change in found.changes if change.metric.name == "f1")
    assert f1.own != f1.here  # out of fold against the last head, which was trained on these videos


def test_older_runs_do_not_say_what_they_were_trained_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / TRAINING_SET_FILE).unlink()
    found = evaluate_head(tmp_path / "run", folder / "other")
    assert len(found.here) == 220
    assert "made by an older version" in found.overlap.unchecked


def test_near_duplicates_are_found(folder: Path, tmp_path: Path) -> None:
    """Copies of training videos that were encoded again, under other names; and other videos, which stay."""
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    opened = Cache.open(folder / "own")
    ids = opened.media["id"].tolist()
    bounds = opened.offset("clip")
    items = []
    for i in range(100, 140):
        row = ids.index(f"video-{i:04d}.mp4")
        frames = opened.rows("clip", "features")[bounds[row] : bounds[row + 1]]
        copy = synthetic.item(synthetic.media(f"copy-{i}.mp4", label=0), seed=i, source=source())
        noisy = (frames + 0.05 * rng.normal(size=frames.shape)).astype(frames.dtype)
        items.append(synthetic.with_arrays(copy, {"clip/features": noisy}))
    items += [
        synthetic.item(synthetic.media(f"new-{i}.mp4", label=i % 2), seed=9000 + i, source=source()) for i in range(40)
    ]
    write_shard(shard_path(tmp_path / "set", 0), items, [], source())
    found = evaluate_head(folder / "run", tmp_path / "set")
    test = {row["id"] for row in rows_of(folder / "run" / "predictions.csv") if row["split"] == "test"}
    pairs = {pair.id: pair for pair in found.overlap.pairs}
    for i in range(100, 140):
        if f"video-{i:04d}.mp4" not in test:
            assert pairs[f"copy-{i}.mp4"].other_id == f"video-{i:04d}.mp4"
            assert pairs[f"copy-{i}.mp4"].kind == "near-duplicate"
    assert not [id for id in pairs if id.startswith("new")]
    unseen = evaluate_head(folder / "run", tmp_path / "set", scenes=False)
    assert (unseen.overlap.pairs, len(unseen.here)) == ([], 80)
    assert "only files with the same bytes (--no-scenes)" in unseen.overlap.unchecked


def test_features_of_other_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path / "cache")
    with pytest.raises(SettingsConflictError, match="would mean nothing"):
        evaluate_head(folder / "run", tmp_path / "cache")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prevalence": 1.5}, "prevalence is 1.5"),
        ({"budget": 0}, "budget is 0"),
        ({"by": "city"}, "has no columns of your own: name a file with --labels"),
        ({"by": "duration"}, "the figures are shown by duration in any case"),
        ({"exports": {"label-studio": "tasks.xml"}}, "the labelling configuration is written beside as .xml"),
        ({"exports": {"label-studio": "a.json", "fiftyone": "a.json"}}, "a.json: two exports to one file"),
        ({"exports": {"label-studio": "a.json", "fiftyone": "a.xml"}}, "a.xml: two exports to one file"),
        ({"exports": {"fiftyone": "out/scores.csv"}, "out": "out"}, "would replace this file of the evaluation"),
        ({"exports": {"fiftyone": "."}}, "is a folder, not a file"),
        ({"exports": {"cvat": "file.json"}}, "export is 'cvat', expected 'label-studio' or 'fiftyone'"),
        ({"cache": "there"}, "is a cache already"),
        ({"device": "cpu"}, "device: for media"),
        ({"positive_labels": "x"}, "positive_labels is for the labels in a file"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=text):
        evaluate_head(folder / "run", folder / "other", **options)


def test_a_checkpoint_alone_is_not_enough(folder: Path) -> None:
    with pytest.raises(TrainError, match="needs the whole folder"):
        evaluate_head(folder / "run" / "model.pt", folder / "other")


def test_corrections_come_back(folder: Path, tmp_path: Path) -> None:
    """disagreements.csv and an export for Label Studio are read by `haechi train --labels`."""
    exported = tmp_path / "tasks.json"
    command = ["evaluate", folder / "run", folder / "other", "--out", tmp_path / "out"]
    assert call(*command, "--export", "label-studio", exported, "--url-prefix", "https://media/").exit_code == 0
    tasks = json.loads(exported.read_text())
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len(tasks) == sum(record["counts"]["here"].values()) + 60
    done = call("train", folder / "other", "--out", tmp_path / "again", "--labels", exported, "--moments", 0)
    assert done.exit_code == 0, done.output
    corrected = tmp_path / "out" / "disagreements.csv"
    lines = corrected.read_text().splitlines()
    first = lines[1].split(",")
    lines[1] = ",".join([first[0], str(1 - int(first[1])), *first[2:]])
    corrected.write_text("\n".join(lines))
    command = ["train", folder / "other", "--out", tmp_path / "better", "--labels", corrected, "--moments", 0]
    done = call(*command, "--keep-unlisted")
    assert done.exit_code == 0, done.output
    labels = {row["id"]: row["label"] for row in rows_of(tmp_path / "better" / "predictions.csv")}
    assert len(labels) == 220
    assert labels[first[0]] == str(1 - int(first[1]))


def test_exports_may_lie_in_the_folder_of_the_results(folder: Path, tmp_path: Path) -> None:
    """Also in one that does not exist yet, and again; a file that cannot be written does not take the results along."""
    exported = tmp_path / "out" / "tools" / "tasks.json"
    command = ["evaluate", folder / "run", folder / "other", "--out", tmp_path / "out", "--export", "fiftyone"]
    for _ in range(2):
        done = call(*command, exported)
        assert done.exit_code == 0, done.output
        assert exported.exists()
        assert (tmp_path / "out" / "evaluation.html").exists()
    (tmp_path / "file").write_text("")
    shutil.rmtree(tmp_path / "out")
    done = call(*command, tmp_path / "file" / "tasks.json")
    assert done.exit_code == 1
    assert "the export for fiftyone was not written, the evaluation was" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(EVALUATION_ARTEFACTS)


def test_one_tool_has_one_file(folder: Path, tmp_path: Path) -> None:
    files = ["--export", "fiftyone", tmp_path / "a.json", "--export", "fiftyone", tmp_path / "b.json"]
    done = call("evaluate", folder / "run", folder / "other", "--out", tmp_path / "out", *files)
    assert done.exit_code == 2
    assert "--export is given twice for one tool" in done.stderr


def test_sets_whose_names_have_dots_have_folders_of_their_own(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "other", tmp_path / "site-1.5")
    assert call("evaluate", tmp_path / "run", tmp_path / "site-1.5").exit_code == 0
    assert (tmp_path / "run-on-site-1.5" / "evaluation.json").exists()


def test_a_missing_set_is_an_error_in_words(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HaechiError):
        evaluate_head(folder / "run", tmp_path / "empty")
