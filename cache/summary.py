"""Shows what is in a cache: as plain data for programs, and on one screen for people."""

import difflib
import importlib.resources
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from haechi.cache import schema
from haechi.cache.bad_rows import find_bad_rows
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.indexed import BadRows
from haechi.cache.kinds import KINDS, VIDEO
from haechi.cache.reader import Cache
from haechi.cache.shard import Shard
from haechi.cache.slices import array_expression
from haechi.cache.status import slice_status
from haechi.cache.text import bullet_list, counted, visible
from haechi.cache.threads import num_threads

NUM_ACTIONS = 5
MAX_ROWS_SHOWN = 32  # for each stream of a video; the number of frames in the default sampling
MAX_IDS_COMPARED = 20_000  # comparing texts is slow; more ids would take seconds


def summarise(cache: Cache, *, deep: bool = False) -> dict[str, Any]:
    """What `haechi inspect --json` prints. Rows that a later shard supersedes count only in `superseded` and `shards`.

    `deep`: every row of features is read. Otherwise the features of a shard are read only where the numbers of bad rows
    that its writer left in it are not those of the rows that count: in version 1, which has none, and where superseded
    rows are among the bad ones.

    - `path`, `format_version` (the highest of its shards), `fingerprint`, `settings` (the fingerprint is their hash)
    - `trained`: whether all backbones are trained; `untrained`: those that are not, such as `["clip", "slowfast"]`
    - `videos`: number of used videos and images; `labels`: number for each of `harmful`, `safe`, `unlabelled`;
      `splits`: these three numbers for each of `train`, `val`, `test`, `none`; `kinds`: number for each of `video`,
      `image`
    - `failed`: number of videos that could not be used; `failures`: number for each reason
    - `superseded`: number of rows that a later shard replaces
    - `streams`: stream -> array -> `shape`, `dtype`
    - `zero_rows`, `nonfinite_rows`: numbers of rows that are all zero, and that contain NaN or infinity, in all
      two-dimensional arrays together
    - `frames`: number of frames in all used files, as their containers give it
    - `duration_seconds`: `total`, `min`, `median`, `max` of the used videos; null if there are none
    - `slices`: what `haechi status --json` prints; only in a cache that was made with slices
    - `bytes`; `shards`: for each shard `name`, `bytes`, `videos`, `failed`, `created`, `device`, `precision`,
      `producer`, `versions`, `clip_weights`, `slowfast_weights`

    Raises `CacheError` if a shard is damaged or cannot be read.
    """
    media, failures = _count_rows(cache)
    status = slice_status(cache.path)
    durations = np.concatenate(media.durations)  # (N,) of the videos among them
    sizes = [schema.USER_BLOCK_BYTES + shard.seal.num_bytes for shard in cache.shards]
    return {
        "path": cache.name,
        "format_version": max(shard.version for shard in cache.shards),
        "fingerprint": cache.fingerprint,
        "settings": cache.settings,
        "trained": not cache.untrained,
        "untrained": cache.untrained,
        "videos": sum(media.counts.values()),
        "labels": media.labels(),
        "splits": {split or "none": media.labels(split=split) for split in (*schema.SPLITS, "")},
        "kinds": {kind: sum(n for key, n in media.counts.items() if key[0] == kind.encode()) for kind in KINDS},
        "failed": sum(failures.values()),
        "failures": {reason.decode(errors="replace"): count for reason, count in failures.most_common()},
        "superseded": sum(int((~mask).sum()) for masks in cache.live for mask in masks.values()),
        "streams": _describe_streams(cache),
        **_count_bad_rows(cache, deep=deep),
        "frames": media.num_frames,
        "duration_seconds": _spread(durations),
        **({"slices": replace(status, location=cache.location).as_json()} if status is not None else {}),
        "bytes": sum(sizes),
        "shards": [
            {
                "name": shard.path.name,
                "bytes": size,
                "videos": shard.num_items,
                "failed": shard.num_failures,
                "created": shard.created,
                "device": shard.provenance.device,
                "precision": shard.provenance.precision,
                "producer": shard.provenance.producer,
                "versions": shard.provenance.versions,
                **{f"{stream}_weights": request for stream, request in shard.provenance.weights.items()},
            }
            for shard, size in zip(cache.shards, sizes, strict=True)
        ],
    }


def describe_video(cache: Cache, id: str) -> dict[str, Any]:
    """What `haechi inspect --video ID --json` prints.

    - `id`, `shard` (file name), `failed`
    - for a failed video: `stage`, `reason`, `message`, `size_bytes`, `mtime_ns`, and `etag` if there is one
    - for a used video: the other columns of `schema.Media`; `clip`: `time_seconds` and `norm` (Euclidean norm of the
      features), lists of T numbers; `slowfast`: `start_seconds`, `end_seconds` and `norm`, lists of S numbers
      (`norm` is empty if the stream was extracted without a model)
    - `slowfast_trained`; `actions`: `name` and `probability` (softmax, mean over the windows) of the most probable
      Kinetics-400 actions, in descending order; empty if there are no windows or the logits have other classes

    Raises `CacheError` for an id that is not in the cache, with similar ids in its text, and if the shard is damaged or
    cannot be read.
    """
    if id not in cache.locations:
        similar = [known for known in cache.locations if id and id in known][:3]
        similar = similar or difflib.get_close_matches(id, itertools.islice(cache.locations, MAX_IDS_COMPARED))
        hint = f"; did you mean\n{bullet_list([visible(known) for known in similar])}" if similar else ""
        raise CacheError(f"{cache.name}: no video has the id {visible(id)!r}{hint}")
    number, table, row = cache.locations[id]
    shard = cache.shards[number]
    types = schema.MEDIA_TYPES if table == "media" else schema.FAILURE_TYPES
    values = shard.read(*(f"{table}/{column}" for column in types), rows=slice(row, row + 1))
    columns = {column: value.tolist()[0] for column, value in zip(types, values, strict=True)}
    if not columns["etag"]:
        del columns["etag"]
    description = {"id": columns.pop("id"), "shard": shard.path.name, "failed": table == "failure", **columns}
    if table == "failure":
        return description
    for stream, arrays in schema.STREAMS.items():
        rows = _video_rows(shard, stream, row)
        times = {name: rows[name].tolist() for name, num_axes in arrays.items() if num_axes == 1}
        norm = np.linalg.norm(rows["features"].astype(np.float32), axis=1)  # (rows,)
        description[stream] = {**times, "norm": norm.tolist() if schema.has_features(cache.settings, stream) else []}
    description["slowfast_trained"] = "slowfast" not in cache.untrained
    description["actions"] = _strongest_actions(rows["logits"])
    return description


def kinetics_names() -> list[str]:
    """The 400 actions of Kinetics-400, in the order of the classes of pytorchvideo's `kinetics400` weights."""
    return (
        (importlib.resources.files("haechi.cache") / "kinetics400_labels.txt").read_text(encoding="utf-8").splitlines()
    )


@dataclass(kw_only=True)
class _Counts:
    """What is counted of the used videos, shard by shard: their columns of a million videos would fill memory."""

    counts: Counter[tuple[bytes, bytes, int]] = field(default_factory=Counter)
    """(kind, split, label) -> number."""
    num_frames: int = 0
    durations: list[np.ndarray] = field(default_factory=list)
    """Of the videos, without images."""

    def labels(self, *, split: str | None = None) -> dict[str, int]:
        """Number for each label; of one split, or of all."""
        return {
            name: sum(
                count
                for (_, found, number), count in self.counts.items()
                if number == label and split in (None, found.decode(errors="replace"))
            )
            for label, name in schema.LABEL_NAMES.items()
        }


def _count_rows(cache: Cache) -> tuple[_Counts, Counter[bytes]]:
    """The used videos, and the number of failures for each reason."""
    media, failures = _Counts(), Counter[bytes]()
    names = [f"media/{column}" for column in ("kind", "split", "label", "num_frames", "duration_seconds")]
    for shard, live in zip(cache.shards, cache.live, strict=True):
        *columns, reasons = shard.read_raw(*names, "failure/reason")
        kind, split, label, num_frames, duration = (column[live["media"]] for column in columns)
        media.counts.update(zip(kind.tolist(), split.tolist(), label.tolist(), strict=True))
        media.num_frames += int(num_frames.sum())
        media.durations.append(duration[kind == VIDEO.encode()])
        failures.update(reasons[live["failure"]].tolist())
    return media, failures


def _spread(seconds: np.ndarray) -> dict[str, float | None]:
    if not len(seconds):
        return dict.fromkeys(("total", "min", "median", "max"))
    found = {"total": seconds.sum(), "min": seconds.min(), "median": np.median(seconds), "max": seconds.max()}
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def _describe_streams(cache: Cache) -> dict[str, Any]:
    """Stream -> array -> shape of the rows that count, and type."""
    store = np.dtype(cache.settings["store"]).name
    streams: dict[str, Any] = {}
    for stream, arrays in schema.STREAMS.items():
        num_rows, widths = int(cache.offset(stream)[-1]), cache.settings[stream]["widths"]
        streams[stream] = {
            name: {"shape": [num_rows, widths[name]], "dtype": store}
            if num_axes == 2
            else {"shape": [num_rows], "dtype": "float32"}
            for name, num_axes in arrays.items()
        }
    return streams


def _count_bad_rows(cache: Cache, *, deep: bool) -> dict[str, int]:
    """Numbers of bad rows of features. Only one array of a few shards is in memory at a time."""
    written, read = [], []
    for number, (shard, live) in enumerate(zip(cache.shards, cache.live, strict=True)):
        bad = shard.bad_rows
        is_known = bad is not None and (live["media"].all() or bad == BadRows(zero=0, nonfinite=0))
        if bad is not None and is_known and not deep:
            written.append(bad)
        else:
            read.append(number)
    with ThreadPoolExecutor(num_threads(), thread_name_prefix="inspect") as pool:
        found = [*written, *pool.map(lambda number: _read_bad_rows(cache, number), read)]
    return {
        "zero_rows": sum(bad.zero for bad in found),
        "nonfinite_rows": sum(bad.nonfinite for bad in found),
    }


def _read_bad_rows(cache: Cache, number: int) -> BadRows:
    zero_rows = nonfinite_rows = 0
    for stream, arrays in schema.STREAMS.items():
        for name, num_axes in arrays.items():
            values = cache.rows_of_shard(number, stream, name)
            if num_axes == 2:
                nonfinite, zero = find_bad_rows(values)
                nonfinite_rows += int(nonfinite.sum())
                zero_rows += int(zero.sum())
    return BadRows(zero=zero_rows, nonfinite=nonfinite_rows)


def _video_rows(shard: Shard, stream: str, row: int) -> dict[str, np.ndarray]:
    """Array -> the rows of the video in row `row` of `/media`, for every array of a stream."""
    (offset,) = shard.read(f"{stream}/offset", rows=slice(row, row + 2))
    start, stop = offset.tolist()
    if not 0 <= start <= stop <= shard.num_rows[stream]:
        raise DamageError(f"{shard.path}: /{stream}/offset points outside the rows of the stream; see `haechi verify`")
    names = list(schema.STREAMS[stream])
    arrays = shard.read(*(f"{stream}/{name}" for name in names), rows=slice(start, stop))
    return dict(zip(names, arrays, strict=True))


def _strongest_actions(logits: np.ndarray) -> list[dict[str, Any]]:
    """The `NUM_ACTIONS` most probable actions, given the logits (S, 400) of the windows."""
    names = kinetics_names()
    if not len(logits) or logits.shape[1] != len(names) or not np.isfinite(logits).all():
        return []
    scores = logits.astype(np.float64)  # (S, 400)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)  # (400,)
    strongest = np.argsort(-probabilities, kind="stable")[:NUM_ACTIONS]
    return [{"name": names[i], "probability": float(probabilities[i])} for i in strongest.tolist()]


def show_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the result of `summarise`."""
    console.print(f"[bold]{_text(summary['path'])}[/]", soft_wrap=True)
    console.print(_verdict(summary))

    splits = {split: counts for split, counts in summary["splits"].items() if split == "none" or sum(counts.values())}
    videos = Table("media", box=box.SIMPLE_HEAD, pad_edge=False)
    for split in splits:
        videos.add_column("no split" if split == "none" else split, justify="right")
    videos.add_column("all", justify="right")
    for label, total in summary["labels"].items():
        videos.add_row(label, *(str(counts[label]) for counts in splits.values()), str(total))
    totals = [str(sum(counts.values())) for counts in splits.values()]
    videos.add_row("all", *totals, str(summary["videos"]), style="bold")

    arrays = Table("dataset", "shape", "type", box=box.SIMPLE_HEAD, pad_edge=False)
    for stream, found in summary["streams"].items():
        for name, array in found.items():
            shape = " x ".join(map(str, array["shape"]))
            arrays.add_row(f"/{stream}/{name}", shape, _text(array["dtype"]))

    console.print(Columns([videos, arrays], padding=(0, 3)))  # one below the other if the terminal is narrow

    facts = _facts_table()
    if summary["failures"]:
        reasons = ", ".join(f"{_text(reason)} {count}" for reason, count in summary["failures"].items())
        facts.add_row("failures", reasons)
    for stream in schema.STREAMS:
        weights = _each(summary["shards"], f"{stream}_weights")
        settings = summary["settings"][stream]
        if not schema.has_features(summary["settings"], stream):
            facts.add_row(stream, f"not extracted (--{stream}-model {schema.NO_MODEL})")
            continue
        state = "[bold red]UNTRAINED[/] " if stream in summary["untrained"] else ""
        facts.add_row(stream, f"{state}{_text(settings['model'])}, weights {weights}")
    if sampling := summary["settings"].get("sampling"):
        facts.add_row("sampling", _sampling_text(sampling))
    if slices := summary.get("slices"):
        unfinished = array_expression(sorted([*slices["running"], *slices["missing"]]))
        facts.add_row(
            "slices",
            f"{len(slices['done'])} of {slices['slices']} finished" + (f", not {unfinished}" if unfinished else ""),
        )
    device, precision = _each(summary["shards"], "device"), _each(summary["shards"], "precision")
    facts.add_row("computed on", f"{device}, {precision}")
    if decoders := _decoders(summary["shards"]):
        facts.add_row("decoded with", decoders)
    facts.add_row("fingerprint", _text(summary["fingerprint"]))
    producer = _each(summary["shards"], "producer")
    facts.add_row("format", f"{schema.FORMAT} version {summary['format_version']}, written by {producer}")
    superseded = f", {counted(summary['superseded'], 'row')} superseded" if summary["superseded"] else ""
    facts.add_row("on disk", f"{decimal(summary['bytes'])}, {counted(len(summary['shards']), 'shard')}{superseded}")
    seconds = summary["duration_seconds"]
    if seconds["total"] is not None:
        facts.add_row(
            "media",
            f"{counted(summary['frames'], 'frame')}, {_duration(seconds['total'])}; a video lasts "
            f"{_duration(seconds['min'])} to {_duration(seconds['max'])}, median {_duration(seconds['median'])}",
        )
    bad = f"{summary['zero_rows']} all zero, {summary['nonfinite_rows']} not finite"
    facts.add_row("bad rows", f"[bold red]{bad}[/]" if summary["zero_rows"] or summary["nonfinite_rows"] else "none")
    console.print(facts)


def show_video(description: dict[str, Any], console: Console) -> None:
    """Print the result of `describe_video`."""
    state = "[bold red]failed[/]" if description["failed"] else "used"
    console.print(f"[bold]{_text(description['id'])}[/]", soft_wrap=True)
    console.print(f"{state}, in {_text(description['shard'])}\n", soft_wrap=True)
    facts = _facts_table()
    for name, value in description.items():
        if name == "label":
            facts.add_row(name, schema.LABEL_NAMES.get(value, f"{value}, not a valid label"))
        elif isinstance(value, str | int | float) and name not in ("id", "shard", "failed", "slowfast_trained"):
            facts.add_row(name, "-" if value == "" else _text(str(value)))
    console.print(facts)
    if description["failed"]:
        return

    clip, slowfast = description["clip"], description["slowfast"]
    frames = [f"{time:8.2f} s" for time in clip["time_seconds"]]
    _show_rows("/clip/features", "time", frames, clip["norm"], console)
    spans = zip(slowfast["start_seconds"], slowfast["end_seconds"], strict=True)
    windows = [f"{start:8.2f} to {end:8.2f} s" for start, end in spans]
    _show_rows("/slowfast/features", "window", windows, slowfast["norm"], console)

    if description["actions"]:
        meaning = "" if description["slowfast_trained"] else ": [bold red]UNTRAINED weights, the actions are random[/]"
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        for action in description["actions"]:
            table.add_row(f"{action['probability']:8.4f}", _text(action["name"]))
        console.print(f"\nmost probable Kinetics-400 actions{meaning}")
        console.print(table)
    else:
        console.print("\nno actions: there are no windows, or the logits are not those of Kinetics-400")


def _show_rows(name: str, what: str, times: list[str], norms: list[float], console: Console) -> None:
    """Print the times and norms of a stream's rows in columns, ordered downwards; without norms, the times alone."""
    cells = [f"{time} {norm:8.3f}" for time, norm in zip(times, norms, strict=True)] if norms else times
    shown = f"{what} and norm" if norms or not times else f"{what}; the features were not extracted"
    console.print(f"\n{name}, {counted(len(times), 'row')}: {shown}")
    console.print(Columns(cells[:MAX_ROWS_SHOWN], padding=(0, 3), equal=True, column_first=True))
    if len(cells) > MAX_ROWS_SHOWN:
        console.print(f"  … and {len(cells) - MAX_ROWS_SHOWN} more; --json shows all")


def _facts_table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _verdict(summary: dict[str, Any]) -> str:
    failed = f"[red]{summary['failed']} failed[/]" if summary["failed"] else "0 failed"
    untrained = "" if summary["trained"] else ", [bold red]UNTRAINED[/]"
    kinds = ", ".join(counted(count, kind) for kind, count in summary["kinds"].items() if count or kind == VIDEO)
    return f"{kinds}, {failed}{untrained}"


def _each(shards: list[dict[str, Any]], name: str) -> str:
    """The different values of a field of the shards, in order, separated by commas."""
    return ", ".join(_text(value) for value in dict.fromkeys(shard[name] for shard in shards))


def _decoders(shards: list[dict[str, Any]]) -> str:
    """The decoders that made the shards, with their versions; empty if no shard names PyAV."""
    found = []
    for versions in (shard["versions"] for shard in shards if "av" in shard["versions"]):
        pyav = f"PyAV {versions['av']}"
        found.append(
            f"decord {versions['decord']}, {pyav}" if "decord" in versions else f"{pyav} (decord was not installed)"
        )
    return _text("; ".join(dict.fromkeys(found)))


def _text(text: str) -> str:
    """Text of unknown origin, with rich markup and control characters escaped."""
    return escape(visible(text))


def _sampling_text(sampling: Any) -> str:
    """The sampling settings on one line, such as `uniform, frames 32, short repeat`."""
    if not isinstance(sampling, dict):
        return _text(str(sampling))
    rest = [f"{name} {value}" for name, value in sampling.items() if name != "name"]
    return _text(", ".join([str(sampling.get("name", "")), *rest]))


def _duration(seconds: float | None) -> str:
    """A duration such as `2.0 s`, `3:05 min` or `2:10:00 h`."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"
