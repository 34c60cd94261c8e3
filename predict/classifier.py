"""Judges media as the run that trained the head would have: the same features, its head, its threshold."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import HaechiError, bullet_list
from cache.kinds import IMAGE
from cache.reader import Cache
from cache.schema import Failure, Item, differing_fields
from extract.backbones import Backbones
from extract.flow import opened
from extract.manifest import Entry
from extract.settings import ExtractSettings
from extract.steps import Stopwatch
from extract.weights import LOCAL_MODEL, QUICKGELU
from predict.media import gather
from train import checkpoint
from train.checkpoint import Checkpoint
from train.dataset import open_features
from train.features import build_features
from train.fit import logits_of, scores_of
from train.run import MODEL_FILE

# The reason of media that no run is for; all others are extraction's.
NO_HEAD = "no_head"


class MismatchError(HaechiError):
    """Features of other settings than those that the head was trained on."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A piece of a video, with the head's score of it alone."""

    start_seconds: float
    end_seconds: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one file. Either it has a score, or a reason why not."""

    id: str
    """The path as it was given; of a manifest or a cache, its id."""
    kind: str
    """`video` or `image`; empty where it is not judged."""
    score: float | None
    """0 to 1."""
    calibrated: float | None
    """The score as a probability, as far as the run's validation videos tell."""
    threshold: float | None
    is_harmful: bool | None
    """Whether the score reaches the threshold."""
    duration_seconds: float | None
    windows: tuple[Window, ...]
    reason: str
    """A code of `extract.reasons`, or `NO_HEAD`. Empty where there is a score."""
    message: str
    """The reason in words."""


def load_checkpoint(run: Path | str) -> Checkpoint:
    """The head of a run's folder, or of its model.pt. Raises `TrainError` where there is none."""
    path = Path(run)
    return checkpoint.load(path / MODEL_FILE if path.is_dir() else path)


class Classifier:
    """Trained heads, one for each kind of media, with all that they need to judge it.

    Loads the backbones once, when they are first needed.
    """

    def __init__(self, models: dict[str, Checkpoint], settings: ExtractSettings, *, path: Path) -> None:
        """`models`: kind -> the head for it, all of the same features; `path` is told of where these do not fit."""
        self.models = models
        self._features: dict[str, Any] = next(iter(models.values())).features["settings"]
        self._settings, self._path = settings, path
        self._backbones: Backbones | None = None

    @classmethod
    def load(cls, *runs: Path | str, **changes: Any) -> "Classifier":
        """The heads of one run, or of one for videos and one for images: each a run's folder, or its model.pt.

        `changes` are fields of `ExtractSettings`: those that say where the backbones run, and where their weights lie
        if that is another place than the one that the cache was made from. The weights must be the same.

        Raises `TrainError` for a file that is none, `SettingsError` for changes that cannot be, `MismatchError` for
        runs on different features, `HaechiError` for two of one kind.
        """
        models: dict[str, Checkpoint] = {}
        for run in runs:
            model = load_checkpoint(run)
            if model.settings.media in models:
                raise HaechiError(f"{run}: a second run for {model.settings.media}s; one of each kind is taken")
            models[model.settings.media] = model
        first = next(iter(models.values()))
        classifier = cls(models, _extract_settings(first, changes, Path(runs[0])), path=Path(runs[0]))
        for model in models.values():
            classifier.refuse_other_features(model.features["settings"])
        return classifier

    @property
    def untrained(self) -> list[str]:
        """Backbones whose weights are random: the scores mean nothing yet."""
        return next(iter(self.models.values())).untrained

    def predict(self, media: Iterable[Path | str]) -> list[Prediction]:
        """Judge files, folders and manifests; a prediction a file, in the order in which they were given.

        Raises `HaechiError` where nothing can be judged at all: no such weights, other weights than the run's, no
        media. A file that cannot be judged is a prediction with a reason.
        """
        entries, _ = gather(map(str, media))
        return list(self.judge(entries))

    def judge(
        self,
        entries: Sequence[Entry],
        *,
        on_start: Callable[[str], None] = lambda where: None,
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Prediction]:
        """Judge entries of a manifest, in their order, each as soon as those before it are judged."""
        with opened(self._settings, len(entries), on_notice=on_notice, backbones=self._backbones) as flow:
            self._backbones = flow.backbones
            self.refuse_other_features(flow.settings)
            on_start(f"{flow.compute.name}, {flow.compute.precision}")
            waiting: dict[int, Prediction] = {}
            following = 0
            for index, row in flow.rows(entries, Stopwatch()):
                waiting[index] = _failed(row) if isinstance(row, Failure) else self._judged(row)
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def predict_cache(self, cache: Cache) -> list[Prediction]:
        """Judge all media of a cache, labelled or not; its failures keep their reasons."""
        self.refuse_other_features(cache.settings)
        ids, kinds, durations = (cache.media[name] for name in ("id", "kind", "duration_seconds"))
        scores = np.full(len(ids), np.nan)
        for kind, model in self.models.items():
            if len(of_kind := np.flatnonzero(kinds == kind)):
                features, _ = open_features(cache, of_kind, model.settings)
                scores[of_kind] = scores_of(logits_of(model.head, features, torch.arange(len(of_kind))))
        offset = cache.offset("slowfast")
        times = np.stack([cache.rows("slowfast", f"{name}_seconds") for name in ("start", "end")], axis=1)  # (S, 2)
        judged = [
            self._prediction(
                str(ids[i]), str(kinds[i]), float(scores[i]), float(durations[i]), times[offset[i] : offset[i + 1]]
            )
            for i in range(len(ids))
        ]
        return judged + [_failed(failure) for failure in cache.failures]

    def refuse_other_features(self, settings: dict[str, Any]) -> None:
        """Raise `MismatchError` that names every field in which features of these settings differ from the run's."""
        if differing := differing_fields(self._features, settings):
            told = bullet_list([f"{name}: {old!r} in the run, {new!r} here" for name, old, new in differing])
            raise MismatchError(
                f"{self._path}: its head was trained on features of other settings, and would judge these at random:\n"
                f"{told}\n  Bring what the run was trained with (--clip-model, --clip-weights, --slowfast-weights), or "
                "train on such features."
            )

    def _judged(self, item: Item) -> Prediction:
        score, media = np.nan, item.media
        if model := self.models.get(media.kind):
            arrays = {name: item.array(*name.split("/")) for name in model.streams}
            lengths = {name: np.array([len(rows)]) for name, rows in arrays.items()}
            features = build_features(arrays, lengths, ids=np.array([media.id], dtype=object))
            score = float(scores_of(logits_of(model.head, features, torch.tensor([0])))[0])
        times = np.stack([item.slowfast_start_seconds, item.slowfast_end_seconds], axis=1)  # (S, 2)
        return self._prediction(media.id, media.kind, score, media.duration_seconds, times)

    def _prediction(self, id: str, kind: str, score: float, duration_seconds: float, times: np.ndarray) -> Prediction:
        """`times` (S, 2): start and end of the video's windows in seconds. Sampling makes one, which is the video."""
        model = self.models.get(kind)
        if model is None:
            told = f"an {kind}" if kind == IMAGE else f"a {kind}"
            return _not_judged(id, NO_HEAD, f"{told}, and no run for {kind}s was given (--also RUN)")
        return Prediction(
            id=id,
            kind=kind,
            score=score,
            calibrated=float(model.calibration.apply(np.array([score]))[0]),
            threshold=model.best_threshold,
            is_harmful=score >= model.best_threshold,
            duration_seconds=duration_seconds,
            windows=tuple(Window(start_seconds=start, end_seconds=end, score=score) for start, end in times.tolist()),
            reason="",
            message="",
        )


def _failed(failure: Failure) -> Prediction:
    return _not_judged(failure.id, failure.reason, failure.message)


def _not_judged(id: str, reason: str, message: str) -> Prediction:
    return Prediction(
        id=id,
        kind="",
        score=None,
        calibrated=None,
        threshold=None,
        is_harmful=None,
        duration_seconds=None,
        windows=(),
        reason=reason,
        message=message,
    )


def _extract_settings(model: Checkpoint, changes: dict[str, Any], path: Path) -> ExtractSettings:
    """What makes the features that the head was trained on, as far as it can be told before the models are loaded."""
    held = model.features["settings"]
    clip_model = held["clip"]["model"].removesuffix(QUICKGELU)
    if clip_model.startswith(LOCAL_MODEL) and "clip_model" not in changes:
        raise MismatchError(
            f"{path}: its features come from a CLIP of one's own, open_clip_config.json of SHA-256 "
            f"{clip_model.removeprefix(LOCAL_MODEL)[:12]}…; say where it lies: --clip-model local-dir:PATH"
        )
    asked = {
        "frames": held["sampling"]["frames"],
        "store": held["store"],
        "clip_model": clip_model,
        "clip_weights": model.features["clip_weights"],
        "slowfast_model": held["slowfast"]["model"],
        "slowfast_weights": model.features["slowfast_weights"],
    }
    return ExtractSettings(**asked | changes)
