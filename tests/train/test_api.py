"""Training from Python: the same run as from the command line, with every problem reported before any work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.train.api import train_head, train_heads
from haechi.train.grid import Trial
from haechi.train.model.fit import DivergedError, Epoch
from haechi.train.plan import Plan
from haechi.train.progress import TrainProgress
from haechi.train.result import Fold, Result
from haechi.train.run_folder import ARTEFACTS
from haechi.train.settings import TrainSettings
from tests import synthetic

QUICK = {"preset": "model4", "epochs": 2, "feedforward": 32, "device": "cpu"}
FLAGS = ["--preset", "model4", "--epochs", "2", "--feedforward", "32", "--device", "cpu"]


class Recorder(TrainProgress):
    """Remembers every event, with consecutive batches added up."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def start(self, total: int, what: str) -> None:
        self.events.append(("start", total, what))

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        if self.events[-1][0] == "advance":
            count += self.events.pop()[1]  # type: ignore[operator]
        self.events.append(("advance", count))

    def notice(self, text: str) -> None:
        self.events.append(("notice", text.splitlines()[0]))

    def trial(self, trial: Trial, number: int, total: int) -> None:
        self.events.append(("trial", trial.folder, number, total))

    def plan(self, plan: Plan) -> None:
        self.events.append(("plan", len(plan.splits)))

    def epoch(self, epoch: Epoch) -> None:
        self.events.append(("epoch", epoch.number))

    def fold(self, fold: Fold) -> None:
        self.events.append(("fold", fold.number))

    def trained(self, result: Result) -> None:
        self.events.append(("trained", result.best_epoch))

    def diverged(self, error: DivergedError) -> None:
        self.events.append(("diverged", "learning rate" in str(error)))


def test_train_head_writes_the_run_of_the_command(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", shift=0.1)
    result = train_head(str(cache), str(tmp_path / "python"), **QUICK, folds=0, media_root=tmp_path)
    args = ["train", str(cache), "--out", str(tmp_path / "shell"), *FLAGS, "--folds", "0"]
    assert CliRunner().invoke(haechi.cli.main, args).exit_code == 0
    assert {path.name for path in (tmp_path / "python").iterdir()} == set(ARTEFACTS)
    for name in ("metrics.json", "predictions.csv", "model.pt"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "shell" / name).read_bytes()
    assert (result.settings.epochs, result.headline) == (2, "test")
    pages = {name: (tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("python", "shell")}
    assert f"train_head(&#39;{cache}&#39;, " in pages["python"]
    assert "epochs=2, feedforward=32, device=&#39;cpu&#39;, folds=0)" in pages["python"]
    assert f"haechi train {cache} --out {tmp_path / 'shell'} --preset model4" in pages["shell"]
    assert "train_head(" not in pages["shell"]


@pytest.mark.parametrize("train", [train_head, train_heads])
def test_unknown_settings_are_listed_and_nothing_is_written(tmp_path: Path, train) -> None:
    with pytest.raises(SettingsError) as caught:
        train(tmp_path / "cache", tmp_path / "run", warmup=3, epochs=2, learning_rate=1e-3)
    assert str(caught.value).startswith("no such settings: 'warmup', 'learning_rate'; the settings are preset, media,")
    assert not (tmp_path / "run").exists()


def test_invalid_options_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        train_heads(tmp_path / "cache", tmp_path / "run", seeds=0, memory_gb=-1, media_root=tmp_path / "gone")
    assert caught.value.problems == [
        "memory_gb is -1, expected a number at least 0, or None (half of the available memory)",
        "seeds is 0, expected a whole number from 1 to 4294967296",
        f"media_root is '{tmp_path / 'gone'}', expected a folder that exists",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("settings", "preset"), [({}, "fast"), ({"media": "image"}, "image")])
def test_the_default_preset_is_that_of_the_kind_of_media(tmp_path: Path, settings: dict, preset: str) -> None:
    with pytest.raises(SettingsError, match="epochs is 0"):
        train_head(tmp_path / "cache", tmp_path / "run", epochs=0, **settings)
    assert TrainSettings.from_preset(None, **settings).preset == preset


def test_every_event_of_a_split_is_reported_in_order(tmp_path: Path) -> None:
    cache, progress = synthetic.write_cache(tmp_path / "cache", shift=0.1), Recorder()
    labels = tmp_path / "new.csv"
    labels.write_text("id,label\n" + "".join(f"video-{i:04d}.mp4,{i % 2}\n" for i in range(20)))
    result = train_head(cache, tmp_path / "run", **QUICK, folds=0, labels=str(labels), progress=progress)
    num_videos = len(result.split.rows("train"))
    assert progress.events == [
        ("notice", "label from 'new.csv'; split, group from the cache"),
        ("plan", 1),
        ("start", 2 * num_videos, "training"),
        *[("advance", num_videos), ("epoch", 1), ("advance", num_videos), ("epoch", 2)],
        ("trained", result.best_epoch),
    ]


def test_every_event_of_folds_is_reported_in_order(tmp_path: Path) -> None:
    cache, progress = synthetic.write_cache(tmp_path / "cache", shift=0.1), Recorder()
    result = train_head(cache, tmp_path / "run", **QUICK, folds=3, progress=progress)
    expected: list[tuple[object, ...]] = [("plan", 3)]
    for fold in result.folds:
        num_videos = len(fold.split.rows("train"))
        expected += [("start", 2 * num_videos, f"fold {fold.number} of 3"), ("advance", num_videos), ("epoch", 1)]
        expected += [("advance", num_videos), ("epoch", 2), ("fold", fold.number)]
    expected += [("start", 2 * 20, "on all videos"), ("advance", 20 * result.best_epoch)]
    assert progress.events == [*expected, ("trained", result.best_epoch)]


def test_train_heads_returns_each_outcome_and_reports_it(tmp_path: Path) -> None:
    cache, progress = synthetic.write_cache(tmp_path / "cache"), Recorder()
    outcomes = train_heads(cache, tmp_path / "out", **QUICK, folds=0, grid="lr=1e30,1e-3", progress=progress)
    assert [(outcome.trial.folder, bool(outcome.error)) for outcome in outcomes] == [
        ("lr=1e+30/seed-0", True),
        ("lr=0.001/seed-0", False),
    ]
    kept = [event for event in progress.events if event[0] in {"trial", "plan", "diverged", "trained"}]
    assert kept == [
        *[("trial", "lr=1e+30/seed-0", 1, 2), ("plan", 1), ("diverged", True)],
        *[("trial", "lr=0.001/seed-0", 2, 2), ("plan", 1), ("trained", outcomes[1].best_epoch)],
    ]
    page = (tmp_path / "out" / "lr=0.001" / "seed-0" / "report.html").read_text(encoding="utf-8")
    assert "train_heads(" in page
    assert "grid=(&#39;lr=1e30,1e-3&#39;,)" in page


def test_an_error_leaves_an_earlier_run_as_it_was(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache")
    train_head(cache, tmp_path / "run", **QUICK, folds=0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(DivergedError):
        train_head(cache, tmp_path / "run", **QUICK, folds=0, lr=1e30)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
