"""Training in Python: `train_head` for one run, `train_heads` for several. `haechi train` only calls these two."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.local_path import local_path
from haechi.cache.location import SHARD_CACHE_GB
from haechi.cache.reader import Cache
from haechi.cache.rules import Number, Optional, Whole
from haechi.cache.slices import unfinished_slices
from haechi.cache.text import one_or_more
from haechi.device import find_device
from haechi.train.data.availability import fit_to_cache
from haechi.train.data.dataset import Dataset, input_key, load_dataset, video_key
from haechi.train.data.relabel import NewLabels
from haechi.train.errors import TrainError
from haechi.train.grid import plan_trials
from haechi.train.model.fit import DivergedError
from haechi.train.output.experiments import Outcome, write_summary
from haechi.train.output.save import save
from haechi.train.pipeline import carry_out
from haechi.train.plan import Grouping, make_plan
from haechi.train.progress import SILENT, TrainProgress
from haechi.train.result import Result
from haechi.train.run_folder import experiments_folder, run_folder
from haechi.train.settings import TrainSettings
from haechi.train.untrained import of_all_heads

MEMORY_GB = Optional(Number(least=0), "half of the available memory")
NUM_SEEDS = Whole(1, 1 << 32)


def train_head(
    cache: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    labels: str | Path | None = None,
    positive_labels: str | Iterable[str] | None = None,
    keep_unlisted: bool = False,
    memory_gb: float | None = None,
    shard_cache_gb: float = SHARD_CACHE_GB,
    media_root: str | Path | None = None,
    progress: TrainProgress = SILENT,
    command: str | None = None,
    **settings: Any,
) -> Result:
    """Train one head on the labelled videos of a cache and write the run folder `out`, as `haechi train` does.

        result = haechi.train_head("cache", "runs/first", epochs=20, lr=1e-3)
        result.metrics["test"]["f1"], result.threshold

    - `cache`: the cache that `haechi extract` wrote: its folder, or its place in a store, such as `"s3://bucket/cache"`
    - `out`: the folder of the run; an earlier run in it is replaced, a folder with other files is refused
    - `preset`: `"fast"`, `"network"`, `"model4"`, `"image"` or `"image_mlp"`; None: `"fast"`, or `"image"` with
      `media="image"`
    - `labels`: a manifest (CSV or JSON Lines) whose columns label, split and group replace those of the cache for this
      run, or the export (.json) of Label Studio or FiftyOne; videos that it does not list are left out
    - `positive_labels`: the label in that file that means harmful, or several, in any case; all others are safe
    - `keep_unlisted`: videos that the file does not list keep the label, split and group of the cache
    - `memory_gb`: features that take more memory are streamed from the cache; None: half of the available memory
    - `shard_cache_gb`: for a cache in an object store: what local copies of shards may use together, 1e9 bytes
    - `media_root`: the folder that the videos' ids are relative to; the page then shows frames of the worst mistakes
    - `progress`: receives epochs, folds and notices (see `TrainProgress`); by default nothing is shown
    - `command`: the command that the page shows; None: this call in Python
    - `settings`: fields of `TrainSettings`, such as `epochs`, `lr`, `folds` or `seed`; None: the value of the preset,
      without the features that the cache does not have

    Returns the head, all scores, the threshold and the figures. Raises `SettingsError` for unknown or invalid settings,
    `CacheError` for a missing or damaged cache, `TrainError` for data or a folder that cannot be used, and its subclass
    `DivergedError` when a loss is not finite. After an error, `out` is as it was before.
    """
    chosen = TrainSettings.from_preset(preset, **settings)
    positive = tuple(one_or_more(positive_labels or ()))
    _check_options(memory_gb, media_root, labels=labels, positive_labels=positive, keep_unlisted=keep_unlisted)
    options: dict[str, Any] = {
        "preset": preset,
        "labels": labels,
        "positive_labels": positive or None,
        "keep_unlisted": keep_unlisted or None,
        "memory_gb": memory_gb,
    }
    options |= {"media_root": media_root, **settings}
    out = local_path(out, what="out")
    find_device(chosen.device)  # before the cache is read
    opened, new_labels = _open(
        cache, labels, positive, progress, keep_unlisted=keep_unlisted, shard_cache_gb=shard_cache_gb
    )
    chosen, notices = fit_to_cache(chosen, opened, given=_given(settings))
    for notice in notices:
        progress.notice(notice)
    with run_folder(out) as partial:
        dataset = load_dataset(opened, chosen, new_labels=new_labels, memory_bytes=_memory_bytes(memory_gb))
        plan = make_plan(dataset, Grouping.find(dataset, chosen), chosen)
        progress.plan(plan)
        result = carry_out(plan, progress=progress)
        progress.trained(result)
        save(
            partial,
            result,
            name=out.name,
            command=_call(train_head, cache, out, options) if command is None else command,
            media_root=None if media_root is None else Path(media_root),
        )
    return result


def train_heads(
    cache: str | Path,
    out: str | Path,
    *,
    seeds: int = 1,
    grid: str | Sequence[str] = (),
    preset: str | None = None,
    labels: str | Path | None = None,
    positive_labels: str | Iterable[str] | None = None,
    keep_unlisted: bool = False,
    memory_gb: float | None = None,
    shard_cache_gb: float = SHARD_CACHE_GB,
    media_root: str | Path | None = None,
    progress: TrainProgress = SILENT,
    command: str | None = None,
    **settings: Any,
) -> list[Outcome]:
    """Train a head for each combination of `grid` and each of `seeds` seeds, every one in a run folder under `out`.

        from haechi.train.api import train_heads
        outcomes = train_heads("cache", "runs/rates", grid="lr=1e-4,3e-4", seeds=3)

    - `seeds`: the number of seeds; they are counted up from the setting `seed`
    - `grid`: texts such as `"lr=1e-4,3e-4"`, one for each setting; a single text is one of them

    The other arguments are those of `train_head`. experiments.json and experiments.csv in `out` compare the runs; they
    are written after each run, so that an interrupted call leaves all finished runs.

    Returns one `Outcome` for each run, in order; its `error` is empty unless the training diverged. Raises what
    `train_head` raises, except `DivergedError`, and `TrainError` if all runs diverged.
    """
    given_grid = (grid,) if isinstance(grid, str) else tuple(grid)
    positive = tuple(one_or_more(positive_labels or ()))
    _check_options(
        memory_gb, media_root, labels=labels, positive_labels=positive, keep_unlisted=keep_unlisted, seeds=seeds
    )
    trials = plan_trials(preset, settings, grid=given_grid, num_seeds=seeds)
    options: dict[str, Any] = {"seeds": seeds, "grid": given_grid or None, "preset": preset, "labels": labels}
    options |= {"positive_labels": positive or None, "keep_unlisted": keep_unlisted or None, "memory_gb": memory_gb}
    options |= {"media_root": media_root, **settings}
    shown_command = _call(train_heads, cache, out, options) if command is None else command
    out = local_path(out, what="out")
    for trial in trials:
        find_device(trial.settings.device)
    opened, new_labels = _open(
        cache, labels, positive, progress, keep_unlisted=keep_unlisted, shard_cache_gb=shard_cache_gb
    )
    fitted = [fit_to_cache(trial.settings, opened, given=_given(settings) | trial.point.keys()) for trial in trials]
    trials = [replace(trial, settings=each) for trial, (each, _) in zip(trials, fitted, strict=True)]
    for notice in dict.fromkeys(notice for _, notices in fitted for notice in notices):
        progress.notice(notice)
    dataset: Dataset | None = None
    key, groupings, outcomes = None, dict[tuple[Any, ...], Grouping](), list[Outcome]()
    untrained = list[list[str]]()
    with experiments_folder(out, [trial.folder for trial in trials]):
        for number, trial in enumerate(trials, start=1):
            progress.trial(trial, number, len(trials))
            if dataset is None or key != input_key(trial.settings):
                key = input_key(trial.settings)
                dataset = load_dataset(
                    opened, trial.settings, new_labels=new_labels, memory_bytes=_memory_bytes(memory_gb)
                )
            grouped_by = *video_key(trial.settings), trial.settings.scenes
            if grouped_by not in groupings:
                groupings[grouped_by] = Grouping.find(dataset, trial.settings)
            plan = make_plan(dataset, groupings[grouped_by], trial.settings)
            progress.plan(plan)
            untrained.append(dataset.untrained)
            try:
                result = carry_out(plan, progress=progress)
            except DivergedError as error:
                outcomes.append(Outcome.failed(trial, str(error)))
                progress.diverged(error)
            else:
                outcomes.append(Outcome.of(trial, result))
                progress.trained(result)
                with run_folder(out / trial.folder) as partial:
                    save(
                        partial,
                        result,
                        name=trial.folder,
                        command=shown_command,
                        media_root=None if media_root is None else Path(media_root),
                    )
            write_summary(
                out,
                outcomes,
                fingerprint=opened.fingerprint,
                untrained=of_all_heads(untrained),
                new_labels=new_labels.record() if new_labels else None,
            )
    if all(outcome.error for outcome in outcomes):
        raise TrainError(f"all {len(outcomes)} experiments diverged; try a lower learning rate (--lr)")
    return outcomes


def _open(
    cache: str | Path,
    labels: str | Path | None,
    positive_labels: tuple[str, ...],
    progress: TrainProgress,
    *,
    keep_unlisted: bool,
    shard_cache_gb: float = SHARD_CACHE_GB,
) -> tuple[Cache, NewLabels | None]:
    """The cache, and the file of new labels, whose notices go to `progress`."""
    opened = Cache.open(cache, shard_cache_gb=shard_cache_gb)
    if unfinished := unfinished_slices(opened.path):
        progress.notice(f"{opened.name}: {unfinished}; their videos are left out")
    if labels is None:
        return opened, None
    new_labels = NewLabels.read(opened, Path(labels), positive_labels=positive_labels, keep_unlisted=keep_unlisted)
    for notice in new_labels.notices:
        progress.notice(notice)
    return opened, new_labels


def _check_options(
    memory_gb: float | None,
    media_root: str | Path | None,
    *,
    labels: str | Path | None,
    positive_labels: tuple[str, ...],
    keep_unlisted: bool,
    seeds: int = 1,
) -> None:
    """Raise `SettingsError` for invalid options that are not fields of `TrainSettings`."""
    problems = [
        f"{name} is {value!r}, expected {rule.expected}"
        for name, value, rule in (("memory_gb", memory_gb, MEMORY_GB), ("seeds", seeds, NUM_SEEDS))
        if not rule.allows(value)
    ]
    if media_root is not None and not Path(media_root).is_dir():
        problems.append(f"media_root is {str(media_root)!r}, expected a folder that exists")
    if positive_labels and labels is None:
        problems.append("positive_labels is for the file of labels, and labels is None")
    if keep_unlisted and labels is None:
        problems.append("keep_unlisted is for the file of labels, and labels is None")
    if problems:
        raise SettingsError(problems)


def _given(settings: dict[str, Any]) -> set[str]:
    """The fields of `TrainSettings` that the caller chose."""
    return {name for name, value in settings.items() if value is not None}


def _memory_bytes(memory_gb: float | None) -> int | None:
    return None if memory_gb is None else int(memory_gb * 1e9)


def _call(function: Callable[..., Any], cache: str | Path, out: str | Path, options: dict[str, Any]) -> str:
    """The call in Python, without the options that are None."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    arguments = [repr(str(cache)), repr(str(out)), *(f"{n}={v!r}" for n, v in given.items() if v is not None)]
    return f"{function.__name__}({', '.join(arguments)})"
