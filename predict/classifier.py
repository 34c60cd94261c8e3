"""Judges media as the run that trained the head would have: the same features, its head, its threshold."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.errors import HaechiError
from haechi.cache.kinds import IMAGE
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, Failure, Item, differing_fields
from haechi.cache.text import bullet_list
from haechi.extract.backbones.pair import Backbones
from haechi.extract.backbones.weights import LOCAL_MODEL, QUICKGELU
from haechi.extract.flow import open_flow
from haechi.extract.manifest import Entry
from haechi.extract.sampling import UNIFORM, WINDOWS
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import Stopwatch
from haechi.predict.media import gather
from haechi.predict.prediction import LONGER, Prediction, Window, not_judged
from haechi.predict.scoring import BLOCK_ROWS, TIMES, WINDOW_END, WINDOW_START, Piece, cut_windows, score_pieces
from haechi.train.data.features import split_into_batches
from haechi.train.model import checkpoint
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.run_folder import MODEL_FILE

# What the settings of a cache say of each sampling, under the names that `ExtractSettings` has for it.
SAMPLING_FIELDS = {UNIFORM: {"frames"}, WINDOWS: {"window_seconds", "stride_seconds", "clip_fps"}}

# The reason of media that no run is for; all others are extraction's.
NO_HEAD = "no_head"


class MismatchError(HaechiError):
    """Features of other settings than those that the head was trained on."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A file that could be used, with what the heads see of it."""

    id: str
    kind: str
    duration_seconds: float
    rows: Piece


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

    @property
    def sampling(self) -> str:
        """How the run's videos were sampled, one of `haechi.extract.sampling.SAMPLINGS`."""
        name: str = self._features["sampling"]["name"]
        return name

    def predict(self, media: Iterable[Path | str], *, progress: Progress = SILENT) -> list[Prediction]:
        """Judge files, folders and manifests; a prediction a file, in the order in which they were given.

        Raises `HaechiError` where nothing can be judged at all: no such weights, other weights than the run's, no
        media. A file that cannot be judged is a prediction with a reason.
        """
        entries, notices = gather(map(str, media))
        for text in notices:
            progress.notice(text)
        return list(self.judge(entries, progress=progress))

    def judge(self, entries: Sequence[Entry], *, progress: Progress = SILENT) -> Iterator[Prediction]:
        """Judge entries of a manifest, in their order, each as soon as those before it are judged.

        `progress` is started; the caller advances it with each prediction.
        """
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
                    (waiting[index],) = self._judged([self._extracted(row)])
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def predict_cache(self, cache: Cache) -> list[Prediction]:
        """Judge all media of a cache, labelled or not; its failures keep their reasons."""
        return list(self.judge_cache(cache))

    def judge_cache(self, cache: Cache) -> Iterator[Prediction]:
        """As `predict_cache`, each as soon as it is judged: a block of media is in memory at a time.

        Raises `MismatchError` for a cache of other features, `CacheError` for a damaged one.
        """
        self.refuse_other_features(cache.settings)
        for block in self._blocks(cache):
            yield from self._judged(block)
        yield from map(_failed, cache.failures)

    def refuse_other_features(self, settings: dict[str, Any]) -> None:
        """Raise `MismatchError` that names every field in which features of these settings differ from the run's."""
        if differing := differing_fields(self._features, settings):
            told = bullet_list([f"{name}: {old!r} in the run, {new!r} here" for name, old, new in differing])
            raise MismatchError(
                f"{self._path}: its head was trained on features of other settings, and would judge these at random:\n"
                f"{told}\n  Bring what the run was trained with (--clip-model, --clip-weights, --slowfast-weights), or "
                "train on such features."
            )

    @property
    def _arrays(self) -> list[str]:
        """The arrays of a cache that are needed."""
        return sorted({name for model in self.models.values() for name in model.streams} | set(TIMES))

    def _blocks(self, cache: Cache) -> Iterator[list[Extracted]]:
        """A cache's media in their order, as many at a time as `BLOCK_ROWS` allows."""
        offsets = {stream: cache.offset(stream) for stream in STREAMS}
        columns = list(zip(*(cache.media[name].tolist() for name in ("id", "kind", "duration_seconds")), strict=True))
        longest = np.max([np.diff(offset) for offset in offsets.values()], axis=0)  # (N,)
        for block in split_into_batches(longest, max_rows=BLOCK_ROWS):
            videos = np.arange(block.start, block.stop)
            arrays = {}
            for name in self._arrays:
                stream, _, array = name.partition("/")
                within = offsets[stream][videos[1:]] - offsets[stream][block.start]
                arrays[name] = np.split(cache.rows(stream, array, videos=videos), within)
            yield [
                Extracted(
                    id=id,
                    kind=kind,
                    duration_seconds=duration,
                    rows={name: of_block[i] for name, of_block in arrays.items()},
                )
                for i, (id, kind, duration) in enumerate(columns[block])
            ]

    def _extracted(self, item: Item) -> Extracted:
        return Extracted(
            id=item.media.id,
            kind=item.media.kind,
            duration_seconds=item.media.duration_seconds,
            rows={name: item.arrays[name] for name in self._arrays},
        )

    def _judged(self, block: Sequence[Extracted]) -> Iterator[Prediction]:
        scores = np.full(len(block), np.nan)
        for kind, model in self.models.items():
            of_kind = [i for i, file in enumerate(block) if file.kind == kind]
            scores[of_kind] = score_pieces(model, [block[i].rows for i in of_kind], ids=[block[i].id for i in of_kind])
        for file, score in zip(block, scores.tolist(), strict=True):
            yield self._prediction(file, score)

    def _prediction(self, file: Extracted, score: float) -> Prediction:
        model = self.models.get(file.kind)
        if model is None:
            told = f"an {file.kind}" if file.kind == IMAGE else f"a {file.kind}"
            return not_judged(file.id, NO_HEAD, f"{told}, and no run for {file.kind}s was given (--also RUN)")
        return Prediction(
            id=file.id,
            kind=file.kind,
            score=score,
            calibrated=float(model.calibration.apply(np.array([score]))[0]),
            threshold=model.best_threshold,
            is_harmful=score >= model.best_threshold,
            duration_seconds=file.duration_seconds,
            is_longer_than_trained=file.duration_seconds > LONGER * model.longest_seconds,
            windows=self._windows(model, file, score),
            reason="",
            message="",
        )

    def _windows(self, model: Checkpoint, file: Extracted, score: float) -> tuple[Window, ...]:
        """Each with the head's score of it alone; that of `uniform` sampling is the video, with its `score`.

        Players count from the first frame on, whatever the container's clock says of it.
        """
        starts, ends = (file.rows[name].astype(np.float64) for name in (WINDOW_START, WINDOW_END))
        if len(starts):
            starts, ends = (times - starts[0] for times in (starts, ends))
        scores = np.full(len(starts), score)
        if self.sampling == WINDOWS:
            scores = score_pieces(model, cut_windows(file.rows, model.streams), ids=[file.id] * len(starts))
        columns = (starts.tolist(), ends.tolist(), scores.tolist())
        return tuple(Window(start_seconds=s, end_seconds=e, score=p) for s, e, p in zip(*columns, strict=True))


def _failed(failure: Failure) -> Prediction:
    return not_judged(failure.id, failure.reason, failure.message)


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
        **_sampling_fields(held.get("sampling"), path),
        "store": held["store"],
        "clip_model": clip_model,
        "clip_weights": model.features["clip_weights"],
        "slowfast_model": held["slowfast"]["model"],
        "slowfast_weights": model.features["slowfast_weights"],
    }
    return ExtractSettings(**asked | changes)


def _sampling_fields(held: Any, path: Path) -> dict[str, Any]:
    """The fields of `ExtractSettings` that sample as the cache's settings say."""
    name = held.get("name") if isinstance(held, dict) else None
    if isinstance(name, str) and name in SAMPLING_FIELDS:
        fields = {field: held.get(field) for field in SAMPLING_FIELDS[name]}
        if all(isinstance(value, int | float) for value in fields.values()):
            return {"sampling": name, **fields}
    raise MismatchError(
        f"{path}: its features are sampled as {held!r}, which this Haechi cannot do; use the program that made them, "
        "or train on features of `haechi extract`"
    )
