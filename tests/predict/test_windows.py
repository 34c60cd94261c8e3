"""Windows of long videos: their scores, the most harmful moment, and how both are shown."""

import contextlib
import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from haechi.cache.errors import SettingsConflictError, SettingsError
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import Item
from haechi.extract.manifest import Entry
from haechi.extract.samples import write_video
from haechi.extract.sampling import Windows
from haechi.predict import classifier as classifier_module
from haechi.predict import heads, scoring
from haechi.predict.classifier import Classifier
from haechi.predict.heads import load_checkpoint
from haechi.predict.media import gather
from haechi.predict.player_time import player_time
from haechi.predict.prediction import Prediction, ScoredWindow, not_judged
from haechi.predict.scoring import CLIP_TIME, WINDOW_END, WINDOW_START, cut_windows
from haechi.train.data.dataset import open_features
from haechi.train.model.checkpoint import feature_recipe
from haechi.train.model.scores import compute_logits, compute_scores
from tests import synthetic
from tests.miniature import shrink_slowfast
from tests.predict import film
from tests.predict.conftest import QUICK, WEIGHTS, call, flags
from tests.train.output.test_plots import red_pixels

BAD = (12.0, 14.0)  # the seventh window of 31


@pytest.fixture(scope="module", params=film.HEADS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film.train_run(tmp_path_factory.mktemp("windows"), *film.HEADS[request.param])


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film.train_run(tmp_path_factory.mktemp("windows"))


@pytest.fixture
def long_film() -> Item:
    """61 s: its last window is shifted by one, to 59 s to 61 s."""
    return film.film(film.media("film.mp4", 61.0), seed=99, bad=BAD)


def judge(run: Path, folder: Path, *items: Item) -> list[Prediction]:
    cache = film.write_cache(folder, list(items))
    return [p for p in Classifier.load(run, device="cpu").predict_cache(Cache.open(cache)) if not p.reason]


def cut(item: Item, start: float, end: float) -> Item:
    """What extraction would make of this window alone."""
    shown = (item.arrays["clip/time_seconds"] >= start) & (item.arrays["clip/time_seconds"] < end)
    (own,) = np.flatnonzero(
        (item.arrays["slowfast/start_seconds"] == start) & (item.arrays["slowfast/end_seconds"] == end)
    )
    return Item(
        media=replace(item.media, id=f"{start:04.1f}.mp4", duration_seconds=end - start),
        arrays={
            "clip/features": item.arrays["clip/features"][shown],
            "clip/time_seconds": item.arrays["clip/time_seconds"][shown],
            "slowfast/features": item.arrays["slowfast/features"][own : own + 1],
            "slowfast/logits": item.arrays["slowfast/logits"][own : own + 1],
            "slowfast/start_seconds": item.arrays["slowfast/start_seconds"][own : own + 1],
            "slowfast/end_seconds": item.arrays["slowfast/end_seconds"][own : own + 1],
        },
    )


def test_a_window_scores_as_if_it_were_the_video(run: Path, tmp_path: Path, long_film: Item) -> None:
    (prediction,) = judge(run, tmp_path / "film", long_film)
    times = [(window.start_seconds, window.end_seconds) for window in prediction.windows]
    assert times == [*((2.0 * i, 2.0 * i + 2) for i in range(30)), (59.0, 61.0)]
    alone = judge(run, tmp_path / "cut", *(cut(long_film, *each) for each in times))
    np.testing.assert_allclose([w.score for w in prediction.windows], [p.score for p in alone], atol=1e-6)
    for each in alone:
        (window,) = each.windows
        assert window.score == pytest.approx(each.score, abs=1e-6)


def test_times_count_from_the_first_frame_in_all_containers(run: Path, tmp_path: Path, long_film: Item) -> None:
    """Timestamps of recorders and broadcasts begin anywhere."""
    origin = np.float32(50_000)
    moved = synthetic.with_arrays(
        long_film,
        {
            "clip/time_seconds": long_film.arrays["clip/time_seconds"] + origin,
            "slowfast/start_seconds": long_film.arrays["slowfast/start_seconds"] + origin,
            "slowfast/end_seconds": long_film.arrays["slowfast/end_seconds"] + origin,
        },
    )
    assert judge(run, tmp_path / "moved", moved) == judge(run, tmp_path / "film", long_film)


def test_the_moment_is_the_bad_window(run: Path, tmp_path: Path, long_film: Item) -> None:
    (prediction,) = judge(run, tmp_path / "film", long_film)
    assert prediction.moment is not None
    assert (prediction.moment.start_seconds, prediction.moment.end_seconds) == BAD
    assert prediction.moment.score == max(window.score for window in prediction.windows)
    others = [window.score for window in prediction.windows if window != prediction.moment]
    assert max(others) < prediction.threshold <= prediction.moment.score
    assert prediction.is_harmful is False
    assert prediction.decision == "harmful moment"


def test_the_score_of_the_whole_is_the_heads_on_all_rows(run: Path, tmp_path: Path, long_film: Item) -> None:
    (prediction,) = judge(run, tmp_path / "film", long_film)
    model, cache = load_checkpoint(run), Cache.open(tmp_path / "film")
    features, _ = open_features(cache, np.array([0]), model.settings)
    expected = compute_scores(compute_logits(model.head, features, torch.tensor([0])))[0]
    assert prediction.score == pytest.approx(expected, abs=1e-6)


def test_scores_of_the_run(run: Path) -> None:
    cache = Cache.open(run.parent / "clips")
    found = {p.id: p.score for p in Classifier.load(run, device="cpu").predict_cache(cache) if not p.reason}
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        expected = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert found == pytest.approx(expected, abs=1e-4)


def test_media_and_caches_are_judged_alike(
    one_run: Path, tmp_path: Path, long_film: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extraction is replaced by its results."""
    items = [long_film, film.film(film.media("b.mp4", 1.5))]
    from_cache = judge(one_run, tmp_path / "cache", *items)

    @contextlib.contextmanager
    def open_flow(settings: Any, num_media: int, **options: Any) -> Iterator[SimpleNamespace]:
        assert settings.sampler == Windows(window_seconds=2.0, stride_seconds=2.0, clip_fps=2.0)
        yield SimpleNamespace(
            backbones=None,
            settings=film.provenance().settings,
            compute=SimpleNamespace(name="cpu", precision="fp32"),
            rows=lambda entries, watch, **options: reversed(list(enumerate(items))),
        )

    monkeypatch.setattr(classifier_module, "open_flow", open_flow)
    entries = [Entry(id=item.media.id, file=item.media.id, label=-1, split="", group="", line=0) for item in items]
    from_media = list(Classifier.load(one_run, device="cpu").judge(entries))
    assert from_media == [
        replace(
            each,
            score=pytest.approx(each.score, abs=1e-6),
            calibrated=pytest.approx(each.calibrated, abs=1e-6),
            windows=tuple(replace(w, score=pytest.approx(w.score, abs=1e-6)) for w in each.windows),
        )
        for each in from_cache
    ]


def test_a_cache_in_small_blocks_gives_the_same(one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [film.film(film.media(f"{i}.mp4", seconds), seed=i) for i, seconds in enumerate((2, 61, 1, 7, 30, 2, 2))]
    cache = Cache.open(film.write_cache(tmp_path / "cache", films[:3], [], films[3:]))
    judge = Classifier.load(one_run, device="cpu").predict_cache
    at_once = judge(cache)
    assert [p.id for p in at_once] == [*(f"{i}.mp4" for i in range(7)), "broken.mp4"]
    for module in (heads, scoring):
        monkeypatch.setattr(module, "BLOCK_ROWS", 9)
    reads = []
    honest = Cache.rows
    monkeypatch.setattr(
        Cache,
        "rows",
        lambda self, *name, videos: reads.append(rows := honest(self, *name, videos=videos)) or rows,
    )
    in_blocks = judge(cache)
    assert max(map(len, reads)) == 122  # the longest film's alone
    for one, other in zip(at_once, in_blocks, strict=True):
        assert (one.id, one.reason, len(one.windows)) == (other.id, other.reason, len(other.windows))
        assert other.score == (one.score and pytest.approx(one.score, abs=1e-6))
        np.testing.assert_allclose([w.score for w in other.windows], [w.score for w in one.windows], atol=1e-6)


@pytest.mark.parametrize(
    ("times", "window", "rows"),
    [
        ([0, 0.5, 1, 1.5, 2], (0, 2), [0, 1, 2, 3]),
        ([0, 0.5, 1, 1.5, 2], (0.5, 1), [1]),
        ([0, 0.5, 1, 1.5, 2], (2, 2), [4]),
        ([0, 5], (2, 3), [0]),
        ([0, 5], (3, 4), [1]),
        ([0, 5], (2, 3.5), [1]),
        ([0, 4], (1, 3), [0]),
        ([3], (0, 2), [0]),
        ([3], (4, 5), [0]),
        ([-1, 1, 1, 2], (1, 2), [1, 2]),
    ],
)
def test_the_rows_of_a_window(times: list[float], window: tuple[float, float], rows: list[int]) -> None:
    video = {
        "clip/features": np.arange(len(times))[:, None],
        CLIP_TIME: np.array(times, np.float32),
        "slowfast/features": np.array([[7], [8]]),
        WINDOW_START: np.array([-9, window[0]], np.float32),
        WINDOW_END: np.array([-8, window[1]], np.float32),
    }
    _, piece = cut_windows(video, ["clip/features", "slowfast/features"])
    assert piece["clip/features"].ravel().tolist() == rows
    assert piece["slowfast/features"].tolist() == [[8]]


def prediction(score: float, *windows: float, threshold: float = 0.5) -> Prediction:
    return replace(
        not_judged("a.mp4", "", ""),
        kind="video",
        score=score,
        calibrated=score,
        threshold=threshold,
        is_harmful=score >= threshold,
        duration_seconds=2.0 * len(windows),
        is_longer_than_trained=False,
        windows=tuple(
            ScoredWindow(start_seconds=2.0 * i, end_seconds=2.0 * i + 2, score=p) for i, p in enumerate(windows)
        ),
    )


@pytest.mark.parametrize(
    ("given", "decision", "moment"),
    [
        (prediction(0.5, 0.5), "harmful", 0.0),
        (prediction(0.7, 0.1, 0.2), "harmful", 2.0),
        (prediction(0.4, 0.4), "safe", 0.0),
        (prediction(0.4, 0.1, 0.5, 0.5), "harmful moment", 2.0),
        (prediction(0.4, 0.49, 0.3), "safe", 0.0),
        (prediction(0.4), "safe", None),
        (not_judged("a.mp4", "damaged", "is damaged"), "not judged", None),
    ],
)
def test_decisions(given: Prediction, decision: str, moment: float | None) -> None:
    assert given.decision == decision
    assert (given.moment and given.moment.start_seconds) == moment


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0:00"), (9.99, "0:09"), (61, "1:01"), (3599.9, "59:59"), (3730, "1:02:10"), (36000, "10:00:00")),
        (-1.5, "-0:01"),
    ],
)
def test_the_clock(seconds: float, text: str) -> None:
    assert player_time(seconds) == text


def test_what_is_printed(one_run: Path, tmp_path: Path, long_film: Item) -> None:
    safe = film.film(film.media("safe.mp4", 6.0))
    film.write_cache(tmp_path / "cache", [safe, long_film])
    arguments = ["predict", one_run, "--cache", tmp_path / "cache", "--device", "cpu"]
    records = [json.loads(line) for line in call(*arguments, "--json").stdout.splitlines()]
    assert [record["decision"] for record in records] == ["safe", "harmful moment", "not judged"]
    assert [len(record["windows"]) for record in records] == [3, 31, 0]
    bad = records[1]["windows"][6]
    assert records[1]["moment"] == bad == {"start_seconds": 12.0, "end_seconds": 14.0, "score": bad["score"]}
    assert records[1]["is_harmful"] is False
    assert records[2]["moment"] is None
    assert [record["is_longer_than_trained"] for record in records] == [True, True, None]  # the clips last 2 s

    text = call(*arguments).stdout
    head, *lines = [line.split() for line in text.splitlines() if line.strip()]
    assert head == ["score", "calibrated", "moment", "decision", "file"]
    row = next(line for line in lines if line[-1] == "film.mp4")
    assert row[2:] == [f"{bad['score']:.3f}", "at", "0:12", "harmful", "moment", "film.mp4"]
    assert "3 files: 1 safe, 1 harmful moment, 1 not judged" in text
    words = " ".join(text.split())
    assert "harmful moment: a window reaches the threshold, the whole video does not" in words
    longer = "2 videos last more than 2 times as long as the longest video that the head was trained on: do not rely on"
    assert longer in words


def test_one_window_a_video_needs_no_column(one_run: Path) -> None:
    text = call("predict", one_run, "--cache", one_run.parent / "clips", "--device", "cpu").stdout
    assert text.split()[:4] == ["score", "calibrated", "decision", "file"]
    assert "harmful moment" not in text
    assert "times as long" not in text


def test_sampling_is_that_of_the_run(one_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Classifier.load(one_run).sampling == "windows"
    with pytest.raises(SettingsError, match="frames is 8, but is for --sampling uniform"):
        Classifier.load(one_run, frames=8)
    honest = load_checkpoint(one_run)
    for sampling in (None, {"name": "scenes"}, {"name": "uniform"}, {**film.SAMPLING, "clip_fps": "2"}, {"name": []}):
        settings = honest.features["settings"] | {"sampling": sampling}
        other = replace(honest, features=honest.features | {"settings": settings})
        monkeypatch.setattr(heads, "load_checkpoint", lambda run, other=other: other)
        with pytest.raises(SettingsConflictError, match="its features are sampled as"):
            Classifier.load(one_run)


def test_a_cache_of_other_windows_is_refused(one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(film.SAMPLING, "clip_fps", 4.0)
    cache = Cache.open(film.write_cache(tmp_path / "cache", [film.film(film.media("a.mp4", 3.0))]))
    assert feature_recipe(cache)["settings"]["sampling"]["clip_fps"] == 4.0
    with pytest.raises(SettingsConflictError, match=r"sampling\.clip_fps: 2\.0 in the run, 4\.0 here"):
        Classifier.load(one_run).predict_cache(cache)


@pytest.fixture(scope="module")
def real_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos` (eight of 2 s and one of 7.3 s), their `cache` with windows of 2 s every 1.5 s, and a `run`."""
    into = tmp_path_factory.mktemp("of-videos")
    for label in ("harmful", "safe"):
        (into / "videos" / label).mkdir(parents=True)
        for path in sorted((folder / "videos" / label).glob(f"{label}-*.mp4")):
            (into / "videos" / label / path.name).symlink_to(path)
    rng = np.random.default_rng(0)
    pictures = [np.full((64, 96, 3), rng.integers(256), np.uint8) for _ in range(73)]
    write_video(into / "videos" / "safe" / "long.mp4", pictures, fps=10)
    windows = ["--sampling", "windows", "--stride-seconds", "1.5"]
    with pytest.MonkeyPatch.context() as patch:
        shrink_slowfast(patch)
        extracted = ["extract", into / "videos", "--out", into / "cache", "--follow-symlinks", *windows]
        done = call(*extracted, *flags(folder), *WEIGHTS)
    assert done.exit_code == 0, done.output
    done = call("train", into / "cache", "--out", into / "run", *QUICK)
    assert done.exit_code == 0, done.output
    return into


def test_real_videos_are_judged_as_in_their_cache(folder: Path, real_run: Path) -> None:
    judged = Classifier.load(
        real_run / "run", clip_model=f"local-dir:{folder / 'clip'}", device="cpu", precision="fp32"
    )
    cached = {p.id: p for p in judged.predict_cache(Cache.open(real_run / "cache"))}
    progress = Counting()
    paths = sorted((real_run / "videos").glob("*/*.mp4"))
    entries, _ = gather(map(str, paths))
    predictions = list(judged.judge(entries, progress=progress))
    with (real_run / "run" / "predictions.csv").open(encoding="utf-8") as file:
        run_scores = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert len(predictions) == len(cached) == len(run_scores) == 9
    for prediction in predictions:
        id = Path(prediction.id).relative_to(real_run / "videos").as_posix()
        assert prediction.score == pytest.approx(run_scores[id], abs=1e-4)
        assert len(prediction.windows) == (5 if id == "safe/long.mp4" else 1)
        for window, cached_window in zip(prediction.windows, cached[id].windows, strict=True):
            assert window == replace(cached_window, score=pytest.approx(cached_window.score, abs=1e-4))
    assert [w.start_seconds for w in cached["safe/long.mp4"].windows] == pytest.approx([0, 1.5, 3, 4.5, 5.3], abs=0.1)
    assert progress.num_windows == 8 + 5
    assert progress.started == [(9, "judge on cpu, fp32")]
    assert progress.num_done == 9
    assert progress.num_failed == 0


class Counting(Progress):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.started: list[tuple[int, str]] = []
        self.num_done = self.num_failed = self.num_windows = 0

    def start(self, total: int, what: str) -> None:
        self.started.append((total, what))

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        self.num_done += count
        self.num_failed += count * failed

    def windows(self, count: int) -> None:
        self.num_windows += count


def test_a_picture_of_real_videos(folder: Path, real_run: Path, tmp_path: Path) -> None:
    media = ["predict", real_run / "run", real_run / "videos" / "safe" / "long.mp4", *flags(folder)]
    done = call(*media, "--timeline", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    assert " at 0:0" in done.stdout  # the moment
    assert red_pixels(tmp_path / "a.png") > 100  # UNTRAINED
