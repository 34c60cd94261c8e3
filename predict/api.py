"""Evaluation in Python: `evaluate_head` for one run, `evaluate_heads` for one of videos and one of images.

`haechi evaluate` only calls these two.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from haechi.cache import manifest_file
from haechi.cache.errors import SettingsError
from haechi.cache.kinds import VIDEO
from haechi.cache.local_path import local_path
from haechi.cache.location import SHARD_CACHE_GB, scheme_of
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import SHARD_PATTERN
from haechi.cache.slices import unfinished_slices
from haechi.cache.text import named, one_or_more
from haechi.extract.sampling import WINDOWS
from haechi.predict.evaluation.evaluate import evaluate
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.media import read_media
from haechi.predict.evaluation.output.exports import check_exports, write_export
from haechi.predict.evaluation.output.save import Output, exported_videos, save
from haechi.predict.evaluation.questions import Questions
from haechi.predict.heads import Heads
from haechi.predict.prediction import ScoredWindow
from haechi.train.data.relabel import NewLabels
from haechi.train.errors import TrainError
from haechi.train.evaluate.compare import FinishedRun
from haechi.train.evaluate.requirement import parse_requirements
from haechi.train.evaluate.subsets import ALWAYS_SHOWN
from haechi.train.run_folder import EVALUATION, EVALUATION_ARTEFACTS, run_folder
from haechi.train.training_set import TrainingSet


def evaluate_head(run: str | Path, data: str | Path, out: str | Path | None = None, **options: Any) -> Evaluation:
    """Evaluate the head of one run on the media of a set, as `haechi evaluate` does.

        found = haechi.evaluate_head("out/run", "out/other-cache", prevalence=0.01)
        found.figures["f1"], found.causes.threshold.value

    `options` and errors are those of `evaluate_heads`.
    """
    (evaluation,) = evaluate_heads([run], data, out, **options)
    return evaluation


def evaluate_heads(
    runs: Iterable[str | Path],
    data: str | Path,
    out: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    positive_labels: str | Iterable[str] | None = None,
    by: str | Iterable[str] = (),
    prevalence: float | Sequence[float] = (),
    budget: int | Sequence[int] = (),
    require: str | Iterable[str] = (),
    by_point: bool = False,
    keep_overlap: bool = False,
    scenes: bool = True,
    media_root: str | Path | None = None,
    exports: Mapping[str, str | Path] | None = None,
    url_prefix: str = "",
    cache: str | Path | None = None,
    shard_cache_gb: float = SHARD_CACHE_GB,
    progress: Progress = SILENT,
    command: str | None = None,
    **reading: Any,
) -> list[Evaluation]:
    """Evaluate a run of videos, a run of images, or both, on the media of a set. Nothing is trained or chosen.

    - `runs`: the folders that `haechi train` wrote, at most one for each kind of media
    - `data`: a cache, in a folder or a store (`"s3://bucket/cache"`), or media as `haechi.extract_features` takes
      them: a manifest, or a folder
    - `out`: the folder for the results, with several runs a folder in it for each kind; an earlier evaluation in it is
      replaced; None: nothing is written
    - `labels`: a manifest whose labels and groups replace those of `data`; media that it does not list are left out
    - `positive_labels`: the labels that mean harmful, in any case; all others are safe
    - `by`: columns of `labels`, or of `data` if that is a manifest; the figures are shown for each of their values
    - `prevalence`: shares of harmful videos in real traffic, such as 0.01
    - `budget`: numbers of videos that can be reviewed, those with the highest scores first
    - `require`: requirements such as `"f1>=0.75"`; see `Evaluation.verdicts`
    - `by_point`: requirements are met by the figure itself, not by the lower end of its interval
    - `keep_overlap`: also evaluate videos that the head was trained or chosen on
    - `scenes`: whether near-duplicate scenes are found by their features; files of equal bytes always are
    - `media_root`: the folder that ids are relative to; the page then shows frames of disagreements. None: the folder
      of `data` if that is media
    - `exports`: name of a tool (`"label-studio"`, `"fiftyone"`) -> file to write for it, after the results; with
      several runs a file for each kind, whose name ends in it
    - `url_prefix`: put before the ids in these files, instead of `media_root`
    - `cache`: a folder that keeps the features of `data` if that is media; None: they are deleted at the end
    - `shard_cache_gb`: for a cache in a store: what local copies of shards may use together, 1e9 bytes
    - `progress`: receives progress and notices; by default nothing is shown
    - `command`: the command that the page shows; None: this call in Python
    - `reading`: for media: `root`, `positive`, `group_by`, `follow_symlinks`, `allow_https` of `extract_features`, and
      fields of `ExtractSettings`, such as `device` or the place of the weights

    Returns one `Evaluation` for each run, in order. Raises `HaechiError`: `SettingsError` for arguments that cannot be
    used, `TrainError` for a run or a folder that cannot be used, `ManifestError`, `CacheError`,
    `SettingsConflictError` for features that the head was not trained on.
    """
    paths, named_data = [Path(run) for run in runs], str(data)
    out = None if out is None else local_path(out, what="out")
    cache = None if cache is None else local_path(cache, what="cache")
    is_stored = bool(scheme_of(named_data))
    data = Cache.open(named_data, shard_cache_gb=shard_cache_gb).path if is_stored else Path(data)
    questions = Questions(
        prevalences=_several(prevalence),
        budgets=_several(budget),
        requirements=parse_requirements(one_or_more(require)),
        by_point=by_point,
        keep_overlap=keep_overlap,
    )
    files = {name: Path(path) for name, path in (exports or {}).items()}
    given = _Set(
        data=data,
        location=named_data if is_stored else "",
        labels=None if labels is None else Path(labels),
        positive_labels=tuple(one_or_more(positive_labels or ())),
        columns=tuple(one_or_more(by)),
        cache=cache,
        reading=reading,
    )
    given.check(exports=files, out=out)
    heads = Heads.load(*paths)
    finished = {kind: _Finished.load(path) for kind, path in zip(heads.models, paths, strict=True)}
    output = Output(
        command=_call(paths, named_data, out) if command is None else command,
        media_root=given.media_root if media_root is None else Path(media_root),
    )
    evaluations, exported = [], {}
    with contextlib.ExitStack() as stack:
        folders = _folders(out, list(finished))
        partial = {kind: stack.enter_context(run_folder(folder, EVALUATION)) for kind, folder in folders.items()}
        opened = stack.enter_context(given.opened(heads, progress))
        new_labels = given.new_labels(opened, progress)
        for kind, model in heads.models.items():
            run = finished[kind]
            with_means = scenes and run.known is not None and run.known.scenes is not None
            media = read_media(opened, model, new_labels=new_labels, with_means=with_means, progress=progress)
            if not len(media):
                raise TrainError(
                    f"{named_data}: holds no usable {kind} that the head of {run.finished.path} could judge"
                )
            evaluations.append(
                evaluate(
                    run.finished,
                    model,
                    run.known,
                    media,
                    opened,
                    name=given.name,
                    new_labels=new_labels,
                    questions=questions,
                )
            )
            if kind in partial:
                save(partial[kind], evaluations[-1], output)
            if files:
                moments = _moments(heads, opened) if kind == VIDEO and heads.sampling == WINDOWS else {}
                exported[kind] = exported_videos(evaluations[-1], media, moments)
    for evaluation in evaluations:
        kind = evaluation.run.kind
        for tool, file in files.items():
            write_export(
                tool,
                file if len(finished) == 1 else file.with_stem(f"{file.stem}-{kind}"),
                exported[kind],
                evaluation.run,
                media_root=None if url_prefix else output.media_root,
                url_prefix=url_prefix,
            )
    return evaluations


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """What a run folder holds about its own videos."""

    finished: FinishedRun
    known: TrainingSet | None

    @classmethod
    def load(cls, path: Path) -> "_Finished":
        if not path.is_dir():
            raise TrainError(
                f"{path}: not the folder of a run; an evaluation needs the whole folder that `haechi train` wrote, "
                "since the run's own figures are in it"
            )
        return cls(finished=FinishedRun.load(path), known=TrainingSet.load(path))


@dataclass(frozen=True, kw_only=True)
class _Set:
    """The set, as the user names it."""

    data: Path
    location: str
    """Where in an object store the cache is, if `data` is a copy of it."""
    labels: Path | None
    positive_labels: tuple[str, ...]
    columns: tuple[str, ...]
    cache: Path | None
    reading: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the cache, folder or manifest."""
        if self.location:
            return self.location.rstrip("/").rpartition("/")[2]
        return self.data.resolve().name

    @cached_property
    def is_cache(self) -> bool:
        """Whether it holds shards; an empty folder or a missing one is read as media, whose errors say more."""
        return self.data.is_dir() and any(self.data.glob(SHARD_PATTERN))

    @property
    def shown(self) -> str:
        """What the user calls it."""
        return self.location or str(self.data)

    @property
    def media_root(self) -> Path | None:
        """The folder that ids of media are relative to; None for a cache."""
        if self.is_cache:
            return None
        return self.data if self.data.is_dir() else Path(self.reading.get("root") or self.data.parent)

    def check(self, *, exports: Mapping[str, Path], out: Path | None) -> None:
        """Raise `SettingsError` that lists all arguments that cannot be used."""
        problems = check_exports(exports)
        problems += [
            f"{file}: an export would replace this file of the evaluation; name another file"
            for file in exports.values()
            if out is not None and file.name in EVALUATION_ARTEFACTS and file.resolve().is_relative_to(out.resolve())
        ]
        problems += [
            f"by is {name!r}: the figures are shown by {name} in any case; give a column of your own another name"
            for name in self.columns
            if name in ALWAYS_SHOWN
        ]
        if self.columns and self.labels is None and self.data.suffix.lower() not in manifest_file.SUFFIXES:
            problems.append(
                f"by is {named(list(self.columns))}, and {self.shown} has no columns of your own: name a file with "
                "--labels"
            )
        if self.is_cache and self.cache is not None:
            problems.append(f"cache is {str(self.cache)!r}, and {self.shown} is a cache already")
        if self.is_cache and self.reading:
            problems.append(f"{', '.join(self.reading)}: for media, and {self.shown} is a cache")
        if self.is_cache and self.positive_labels and self.labels is None:
            problems.append("positive_labels is for the labels in a file, and no file of labels is given")
        if problems:
            raise SettingsError(problems)

    @contextlib.contextmanager
    def opened(self, heads: Heads, progress: Progress) -> Iterator[Cache]:
        """The cache, or one with the features of the media: temporary, unless `cache` is given."""
        if self.is_cache:
            cache = replace(Cache.open(self.data), location=self.location)
            if unfinished := unfinished_slices(self.data):
                progress.notice(f"{self.shown}: {unfinished}; their videos are left out")
            heads.refuse_other_features(cache.settings)
            yield cache
            return
        from haechi.predict.evaluation.extraction import extract_set  # a cache needs no backbone

        with tempfile.TemporaryDirectory(prefix="haechi-") as folder:
            yield extract_set(
                heads,
                self.data,
                self.cache or Path(folder),
                positive_labels=self.positive_labels,
                unlabelled=self.labels is not None and self.data.is_dir(),
                progress=progress,
                **self.reading,
            )

    def new_labels(self, cache: Cache, progress: Progress) -> NewLabels | None:
        """The file of labels, or of columns; None if neither is asked for."""
        file = self.labels if self.labels is not None else self.data if self.columns else None
        if file is None:
            return None
        labels = NewLabels.read(cache, file, positive_labels=self.positive_labels, extra=self.columns)
        for notice in labels.notices:
            progress.notice(notice)
        return labels


def _moments(heads: Heads, cache: Cache) -> dict[str, list[ScoredWindow]]:
    """Id of each video of a cache -> its windows that reach the threshold, in time order."""
    return {
        each.id: [window for window in each.windows if each.threshold is not None and window.score >= each.threshold]
        for each in heads.judge_cache(cache)
    }


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, int | float) else tuple(value)


def _folders(out: Path | None, kinds: list[str]) -> dict[str, Path]:
    """Kind -> the folder for the results of its head; empty if nothing is written."""
    if out is None:
        return {}
    return {kinds[0]: out} if len(kinds) == 1 else {kind: out / kind for kind in kinds}


def _call(runs: list[Path], data: str, out: str | Path | None) -> str:
    """The call in Python."""
    where = "" if out is None else f", {str(out)!r}"
    if len(runs) == 1:
        return f"evaluate_head({str(runs[0])!r}, {data!r}{where})"
    return f"evaluate_heads({[str(run) for run in runs]!r}, {data!r}{where})"
