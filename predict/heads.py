"""Trained heads on features that exist already: those of a cache, or of files that `classifier` has decoded."""

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
from haechi.cache.schema import STREAMS, conflict_list
from haechi.cache.text import one_or_more
from haechi.extract.sampling import WINDOWS
from haechi.predict.prediction import LONGER, Prediction, ScoredWindow, failed, not_judged
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


class Heads:
    """Trained heads, at most one for each kind of media, all trained on the same features."""

    def __init__(self, models: dict[str, Checkpoint], *, path: Path) -> None:
        """`models`: kind -> its head; `path` of the first run, for error messages."""
        self.models, self.path = models, path

    @classmethod
    def load(cls, *runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> "Heads":
        """Load one run, or one run for videos and one for images. Each is a run folder or its model.pt.

        Raises `HaechiError` without a run and for two runs for one kind of media, `TrainError` for a file that is not a
        model.pt, `SettingsConflictError` for runs trained on different features.
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
        heads = cls(models, path=paths[0])
        for model in models.values():
            heads.refuse_other_features(model.features["settings"])
        return heads

    @property
    def features(self) -> dict[str, Any]:
        """The settings that the features of all heads were made with; the fingerprint hashes them."""
        settings: dict[str, Any] = next(iter(self.models.values())).features["settings"]
        return settings

    @property
    def untrained(self) -> list[str]:
        """Backbones with random weights that a head sees, such as `["clip"]`: its scores are meaningless."""
        return of_all_heads(model.untrained for model in self.models.values())

    @property
    def sampling(self) -> str:
        """How the run's videos were sampled, one of `haechi.extract.sampling.SAMPLINGS`."""
        name: str = self.features["sampling"]["name"]
        return name

    @property
    def array_names(self) -> list[str]:
        """The arrays of a cache that the heads need, and the times of their rows."""
        return sorted({name for model in self.models.values() for name in model.streams} | set(TIMES))

    def judge_cache(self, cache: Cache, *, progress: Progress = SILENT) -> Iterator[Prediction]:
        """Judge all media of a cache, labelled or not; its failures keep their reasons.

        Predictions are yielded as they are made, with one block of media in memory at a time.

        Raises `SettingsConflictError` for a cache of other features, `CacheError` for a damaged one.
        """
        self.refuse_other_features(cache.settings)
        progress.start(len(cache.media["id"]) + len(cache.failures), "judge a cache")
        for block in self._blocks(cache):
            for prediction in self.judge(block):
                progress.advance(failed=bool(prediction.reason))
                yield prediction
        for failure in cache.failures:
            progress.advance(failed=True)
            yield failed(failure)

    def refuse_other_features(self, settings: dict[str, Any]) -> None:
        """Raise `SettingsConflictError` with every field in which these settings differ from those of the run."""
        if conflicts := conflict_list(self.features, settings, holder="the run"):
            raise SettingsConflictError(
                f"{self.path}: its head was trained on features of other settings, so its scores would mean nothing:\n"
                f"{conflicts}\n"
                "  Use the models and weights that the run was trained with (--clip-model, --clip-weights, "
                "--slowfast-weights), or train on such features."
            )

    def judge(self, block: Sequence[HeadInput]) -> Iterator[Prediction]:
        """The prediction for each file of a block."""
        scores = np.full(len(block), np.nan)
        for kind, model in self.models.items():
            same_kind = [i for i, file in enumerate(block) if file.kind == kind]
            arrays, ids = [block[i].arrays for i in same_kind], [block[i].id for i in same_kind]
            scores[same_kind] = score_each(model, arrays, ids=ids)
        for file, score in zip(block, scores.tolist(), strict=True):
            yield self._prediction(file, score)

    def _blocks(self, cache: Cache) -> Iterator[list[HeadInput]]:
        """The media of a cache in order, in blocks of at most `BLOCK_ROWS` rows, or one longer video."""
        offsets = {stream: cache.offset(stream) for stream in STREAMS}
        columns = list(zip(*(cache.media[name].tolist() for name in ("id", "kind", "duration_seconds")), strict=True))
        longest = np.max([np.diff(offset) for offset in offsets.values()], axis=0)  # (N,)
        for block in split_into_batches(longest, max_rows=BLOCK_ROWS):
            videos = np.arange(block.start, block.stop)
            parts = {}
            for name in self.array_names:
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
