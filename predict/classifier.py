"""Judges media with trained heads, on features made with the settings that the heads were trained on."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.errors import HaechiError, SettingsConflictError
from haechi.cache.kinds import IMAGE
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, Failure, Item, conflict_list
from haechi.cache.text import one_or_more
from haechi.extract import pixel_aspect
from haechi.extract.backbones.pair import Backbones
from haechi.extract.backbones.weights import LOCAL_MODEL, QUICKGELU
from haechi.extract.flow import open_flow
from haechi.extract.manifest import Entry
from haechi.extract.sampling import WINDOWS
from haechi.extract.settings import SAMPLING_FIELDS, ExtractSettings
from haechi.extract.timing import Stopwatch
from haechi.predict.media import gather
from haechi.predict.prediction import LONGER, Prediction, ScoredWindow, not_judged
from haechi.predict.scoring import BLOCK_ROWS, TIMES, WINDOW_END, WINDOW_START, Arrays, cut_windows, score_each
from haechi.train.data.features import split_into_batches
from haechi.train.model import checkpoint
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.run_folder import MODEL_FILE
from haechi.train.untrained import of_all_heads

# Reason for media of a kind that no run was given for. All other reasons come from extraction.
NO_HEAD = "no_head"


@dataclass(frozen=True, kw_only=True)
class HeadInput:
    """One usable file: its facts, and the arrays that the heads need."""

    id: str
    kind: str
    duration_seconds: float
    arrays: Arrays


def load_checkpoint(run: Path | str) -> Checkpoint:
    """The head in a run folder, or in a model.pt. Raises `TrainError` if there is none."""
    path = Path(run)
    return checkpoint.load(path / MODEL_FILE if path.is_dir() else path)


class Classifier:
    """Trained heads, at most one for each kind of media, with everything that they need to judge it.

    The backbones are loaded once, when they are first needed.
    """

    def __init__(self, models: dict[str, Checkpoint], settings: ExtractSettings, *, path: Path) -> None:
        """`models`: kind -> its head, all trained on the same features; `path` of the first run, for error messages."""
        self.models = models
        self._features: dict[str, Any] = next(iter(models.values())).features["settings"]
        self._settings, self._path = settings, path
        self._backbones: Backbones | None = None

    @classmethod
    def load(cls, *runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **changes: Any) -> "Classifier":
        """Load one run, or one run for videos and one for images. Each is a run folder or its model.pt.

        `changes` are fields of `ExtractSettings`: the device, and where the weights are now if they have moved since
        the cache was made. The weights themselves must be the same.

        Raises `HaechiError` without a run and for two runs for one kind of media, `TrainError` for a file that is not a
        model.pt, `SettingsError` for changes that cannot be used, `SettingsConflictError` for runs trained on different
        features.
        """
        paths = [Path(path) for each in runs for path in one_or_more(each)]
        if not paths:
            raise HaechiError("no run to load; pass the folder that `haechi train` wrote, or its model.pt")
        models: dict[str, Checkpoint] = {}
        for path in paths:
            model = load_checkpoint(path)
            if model.settings.media in models:
                raise HaechiError(
                    f"{path}: a second run for {model.settings.media}s; expected at most one of each kind"
                )
            models[model.settings.media] = model
        first = next(iter(models.values()))
        classifier = cls(models, _extract_settings(first, changes, paths[0]), path=paths[0])
        for model in models.values():
            classifier.refuse_other_features(model.features["settings"])
        return classifier

    @property
    def untrained(self) -> list[str]:
        """Backbones with random weights that a head sees, such as `["clip"]`: its scores are meaningless."""
        return of_all_heads(model.untrained for model in self.models.values())

    @property
    def sampling(self) -> str:
        """How the run's videos were sampled, one of `haechi.extract.sampling.SAMPLINGS`."""
        name: str = self._features["sampling"]["name"]
        return name

    def predict(
        self, media: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, progress: Progress = SILENT
    ) -> list[Prediction]:
        """Judge one or more files, folders and manifests; one prediction for each file, in the given order.

        `progress` receives notices too, such as which files of a folder were skipped.

        Raises `HaechiError` if nothing can be judged: weights that are missing or not those of the run, no media. A
        file that cannot be judged is a prediction with a reason.
        """
        entries, notices = gather(one_or_more(media))
        for text in notices:
            progress.notice(text)
        return list(self.judge(entries, progress=progress))

    def judge(self, entries: Sequence[Entry], *, progress: Progress = SILENT) -> Iterator[Prediction]:
        """Judge the entries of a manifest, in order; each is yielded once all before it are judged.

        Without entries, nothing is started or loaded.
        """
        if not entries:
            return
        with open_flow(self._settings, len(entries), backbones=self._backbones) as flow:
            self._backbones = flow.backbones
            self.refuse_other_features(flow.settings)
            progress.start(len(entries), f"judge on {flow.compute.name}, {flow.compute.precision}")
            waiting: dict[int, Prediction] = {}
            following = 0
            for index, row in flow.rows(entries, Stopwatch(), progress=progress):
                if isinstance(row, Failure):
                    waiting[index] = _failed(row)
                else:
                    (waiting[index],) = self._judge_block([self._head_input(row)])
                progress.advance(failed=bool(waiting[index].reason))
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def predict_cache(self, cache: Cache, *, progress: Progress = SILENT) -> list[Prediction]:
        """Judge all media of a cache, labelled or not; its failures keep their reasons."""
        return list(self.judge_cache(cache, progress=progress))

    def judge_cache(self, cache: Cache, *, progress: Progress = SILENT) -> Iterator[Prediction]:
        """Like `predict_cache`, but yields predictions as they are made. Holds one block of media in memory at a time.

        Raises `SettingsConflictError` for a cache of other features, `CacheError` for a damaged one.
        """
        self.refuse_other_features(cache.settings)
        progress.start(len(cache.media["id"]) + len(cache.failures), "judge a cache")
        for block in self._blocks(cache):
            for prediction in self._judge_block(block):
                progress.advance(failed=bool(prediction.reason))
                yield prediction
        for failure in cache.failures:
            progress.advance(failed=True)
            yield _failed(failure)

    def refuse_other_features(self, settings: dict[str, Any]) -> None:
        """Raise `SettingsConflictError` with every field in which these settings differ from those of the run."""
        if conflicts := conflict_list(self._features, settings, holder="the run"):
            raise SettingsConflictError(
                f"{self._path}: its head was trained on features of other settings, so its scores would mean nothing:\n"
                f"{conflicts}\n"
                "  Use the models and weights that the run was trained with (--clip-model, --clip-weights, "
                "--slowfast-weights), or train on such features."
            )

    @property
    def _array_names(self) -> list[str]:
        """The arrays of a cache that the heads need, and the times of their rows."""
        return sorted({name for model in self.models.values() for name in model.streams} | set(TIMES))

    def _blocks(self, cache: Cache) -> Iterator[list[HeadInput]]:
        """The media of a cache in order, in blocks of at most `BLOCK_ROWS` rows, or one longer video."""
        offsets = {stream: cache.offset(stream) for stream in STREAMS}
        columns = list(zip(*(cache.media[name].tolist() for name in ("id", "kind", "duration_seconds")), strict=True))
        longest = np.max([np.diff(offset) for offset in offsets.values()], axis=0)  # (N,)
        for block in split_into_batches(longest, max_rows=BLOCK_ROWS):
            videos = np.arange(block.start, block.stop)
            parts = {}
            for name in self._array_names:
                stream, _, array = name.partition("/")
                bounds = offsets[stream][videos[1:]] - offsets[stream][block.start]
                parts[name] = np.split(cache.rows(stream, array, videos=videos), bounds)
            yield [
                HeadInput(
                    id=id,
                    kind=kind,
                    duration_seconds=duration,
                    arrays={name: split[i] for name, split in parts.items()},
                )
                for i, (id, kind, duration) in enumerate(columns[block])
            ]

    def _head_input(self, item: Item) -> HeadInput:
        return HeadInput(
            id=item.media.id,
            kind=item.media.kind,
            duration_seconds=item.media.duration_seconds,
            arrays={name: item.arrays[name] for name in self._array_names},
        )

    def _judge_block(self, block: Sequence[HeadInput]) -> Iterator[Prediction]:
        scores = np.full(len(block), np.nan)
        for kind, model in self.models.items():
            same_kind = [i for i, file in enumerate(block) if file.kind == kind]
            arrays, ids = [block[i].arrays for i in same_kind], [block[i].id for i in same_kind]
            scores[same_kind] = score_each(model, arrays, ids=ids)
        for file, score in zip(block, scores.tolist(), strict=True):
            yield self._prediction(file, score)

    def _prediction(self, file: HeadInput, score: float) -> Prediction:
        model = self.models.get(file.kind)
        if model is None:
            what = f"an {file.kind}" if file.kind == IMAGE else f"a {file.kind}"
            return not_judged(file.id, NO_HEAD, f"{what}, and no run for {file.kind}s was given (--also RUN)")
        return Prediction(
            id=file.id,
            kind=file.kind,
            score=score,
            calibrated=float(model.calibration.apply(np.array([score]))[0]),
            threshold=model.best_threshold,
            is_harmful=score >= model.best_threshold,
            duration_seconds=file.duration_seconds,
            is_longer_than_trained=file.duration_seconds > LONGER * model.longest_seconds,
            windows=self._score_windows(model, file, score),
            reason="",
            message="",
        )

    def _score_windows(self, model: Checkpoint, file: HeadInput, score: float) -> tuple[ScoredWindow, ...]:
        """Each window with the head's score of it alone. With `uniform` sampling, one window: the video, with `score`.

        Times count from the first frame, as in players, not from 0 of the container's timestamps.
        """
        starts, ends = (file.arrays[name].astype(np.float64) for name in (WINDOW_START, WINDOW_END))
        if len(starts):
            starts, ends = (times - starts[0] for times in (starts, ends))
        scores = np.full(len(starts), score)
        if self.sampling == WINDOWS:
            scores = score_each(model, cut_windows(file.arrays, model.streams), ids=[file.id] * len(starts))
        columns = (starts.tolist(), ends.tolist(), scores.tolist())
        return tuple(ScoredWindow(start_seconds=s, end_seconds=e, score=p) for s, e, p in zip(*columns, strict=True))


def _failed(failure: Failure) -> Prediction:
    return not_judged(failure.id, failure.reason, failure.message)


def _extract_settings(model: Checkpoint, changes: dict[str, Any], path: Path) -> ExtractSettings:
    """The settings that make the head's features, as far as they are known before the backbones are loaded."""
    features = model.features["settings"]
    clip_model = features["clip"]["model"].removesuffix(QUICKGELU)
    if clip_model.startswith(LOCAL_MODEL) and "clip_model" not in changes:
        raise SettingsConflictError(
            f"{path}: its features come from a CLIP of your own, with an open_clip_config.json of SHA-256 "
            f"{clip_model.removeprefix(LOCAL_MODEL)[:12]}…; name its folder: --clip-model local-dir:PATH"
        )
    settings = {
        **_sampling_fields(features.get("sampling"), path),
        "store": features["store"],
        "pixel_aspect": pixel_aspect.of_settings(features),
        "clip_model": clip_model,
        "clip_weights": model.features["clip_weights"],
        "slowfast_model": features["slowfast"]["model"],
        "slowfast_weights": model.features["slowfast_weights"],
    }
    return ExtractSettings().changed(**settings | changes)


def _sampling_fields(sampling: Any, path: Path) -> dict[str, Any]:
    """The fields of `ExtractSettings` that sample like `sampling`, an entry of a cache's settings."""
    name = sampling.get("name") if isinstance(sampling, dict) else None
    if isinstance(name, str) and name in SAMPLING_FIELDS:
        fields = {field: sampling.get(field) for field in SAMPLING_FIELDS[name]}
        if all(isinstance(value, int | float) for value in fields.values()):
            return {"sampling": name, **fields}
    raise SettingsConflictError(
        f"{path}: its features are sampled as {sampling!r}, which this version of Haechi does not support; use the "
        "program that made them, or train on features made by `haechi extract`"
    )
