"""Stage 1 as one function, for notebooks and programs; `haechi extract` calls it too."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import haechi
from haechi.cache.errors import SettingsError
from haechi.cache.local_path import has_one_slash
from haechi.cache.location import scheme_of
from haechi.cache.progress import SILENT, Progress
from haechi.cache.slices import Pin, Slice
from haechi.cache.stores.location import Location
from haechi.cache.stores.stored_cache import cache_location
from haechi.cache.text import shown
from haechi.extract import pipeline
from haechi.extract.engines.coordinator import extract_on
from haechi.extract.engines.devices import parse_devices
from haechi.extract.engines.engine import Engine
from haechi.extract.engines.processes import Processes
from haechi.extract.job_array import AUTO, scheduled_slice
from haechi.extract.manifest import Manifest, located, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.slices import extract_slice
from haechi.extract.upload import extract_to_store, stored_slices, writable


def extract_features(
    data: str | Path | Location | Manifest,
    out: str | Path | Location,
    *,
    root: str | Path | None = None,
    positive: str | Iterable[str] | None = None,
    positive_labels: str | Iterable[str] | None = None,
    group_by: str | None = None,
    follow_symlinks: bool = False,
    allow_https: bool = False,
    retry: str | Iterable[str] = (),
    slice: str | Slice | None = None,
    work: str | Path | None = None,
    devices: str | None = None,
    engine: str = "local",
    address: str | None = None,
    progress: Progress = SILENT,
    settings: ExtractSettings | None = None,
    **changes: Any,
) -> Extraction:
    """Extract the CLIP and SlowFast features of videos and images into the cache `out`, as `haechi extract` does.

        done = extract_features("videos", "out/cache", sampling="windows")
        print(done.num_used, done.failures)

    Calling it again extracts only what is missing or has changed. A file that cannot be used is not an error: it is
    counted in `Extraction.failures`, and the cache records the reason.

    - `data`: a manifest (CSV or JSON Lines with the column `path`, and optionally `label`, `split`, `group`, `id`), a
      folder with the class folders `harmful` and `safe`, such as `"videos"` or `"s3://bucket/videos"`, or a
      `Manifest` that was read before
    - `out`: the folder of the cache, which is created if it does not exist, or a place in an object store, such as
      `"s3://bucket/cache"`
    - `root`: the folder that relative paths of a manifest start from; None: the manifest's folder
    - `positive`: the name of the harmful class folder, or several, in any case, if it is not `harmful`; all other class
      folders are safe
    - `positive_labels`: the same for the labels in a manifest
    - `group_by`: a regular expression that finds the group in each id: its first capture group, or the whole match
    - `follow_symlinks`: in a folder, also read symbolic links that lead out of it
    - `allow_https`: a manifest may name files of web servers, such as `https://example.org/a.mp4`
    - `retry`: reasons of failures that are tried again, such as `"timeout"` or `["timeout", "crashed"]`
    - `slice`: extract only one of N equal parts of the manifest, such as `"0/8"` for the first of eight, and commit it
      to the cache, which other processes fill at the same time (docs/scale.md); `"auto"`: the part that a job scheduler
      gives to this process
    - `work`: for a cache in a store: the folder where it is built before it is put there, and where a stopped run
      continues, on each machine of a cluster; None: in the user's folder for files that can be made again
    - `devices`: share the manifest out between several devices of this machine: `"all"` CUDA devices, some of them such
      as `"0,1,3"`, or `"cpu:2"` for two processes on the CPU. A program that uses this needs
      `if __name__ == "__main__":` around its own work, since it is imported in these processes
    - `engine`: `"ray"` shares the manifest out between the GPUs of a Ray cluster (or its CPUs; `devices`: `"all"` or
      `"cpu:N"`), which is at `address`; None: the cluster that this machine is part of
    - `progress`: receives progress and notices; by default nothing is shown
    - `settings`, `changes`: the settings, and fields of `ExtractSettings` to change in them, such as `device="cuda:1"`

    Raises `HaechiError`, whose text says what to do: `SettingsError` (unknown names or values), `ManifestError`,
    `SettingsConflictError` (the cache was made with other settings), `WeightsError`, `CacheError`,
    `InterruptedRunError` (Ctrl-C: finished rows are in the cache; a second Ctrl-C ends the process at once).
    """
    settings = (settings or ExtractSettings()).changed(**changes)
    place = cache_place(out)
    part = None if slice is None else chosen_slice(slice, place)
    chosen = chosen_engine(engine, address, devices, settings, part)
    if work is not None and isinstance(place, Path):
        raise SettingsError([f"work is for a cache in an object store, and {place} is a folder"])
    if isinstance(data, Manifest):
        if root is not None or positive or positive_labels or group_by is not None or follow_symlinks or allow_https:
            raise SettingsError(
                [
                    "root, positive, positive_labels, group_by, follow_symlinks and allow_https are for a path, and "
                    "data is a Manifest"
                ]
            )
        manifest = data
    else:
        root = None if root is None else Path(root)
        manifest = read_manifest(
            data if isinstance(data, Location) else located(data),
            root=root,
            positive=positive,
            positive_labels=positive_labels,
            group_by=group_by,
            follow_symlinks=follow_symlinks,
            allow_https=allow_https,
            is_needed=part.holds if part is not None else None,
        )
    for notice in manifest.notices:
        progress.notice(notice)
    producer = f"haechi {haechi.__version__}"
    folder = None if work is None else Path(work)
    if chosen is not None:
        if isinstance(chosen, Processes):
            settings = settings.changed(device=chosen.devices[0])
        return extract_on(
            chosen, manifest, place, settings, producer=producer, retry=retry, progress=progress, work=folder
        )
    if isinstance(place, Location):
        return extract_to_store(
            manifest,
            place,
            settings,
            part,
            producer=producer,
            retry=retry,
            progress=progress,
            work=folder,
        )
    if part is not None:
        return extract_slice(manifest, place, settings, part, producer=producer, retry=retry, progress=progress)
    return pipeline.extract(manifest, place, settings, producer=producer, retry=retry, progress=progress)


def cache_place(out: str | Path | Location) -> Path | Location:
    """The folder, or the place in a store. Raises `HaechiError` for a store that no cache is written to."""
    if isinstance(out, str) and scheme_of(out):
        out = cache_location(out)
    if isinstance(out, Location):
        return writable(out)
    if has_one_slash(os.fspath(out)):
        raise SettingsError(
            [f"out is {shown(os.fspath(out))}: a place in a store is a text with two slashes, as s3://bucket"]
        )
    return Path(out)


def chosen_engine(
    name: str, address: str | None, devices: str | None, settings: ExtractSettings, part: Slice | None
) -> Engine | None:
    """The engine that was asked for; None: none, the run is for one device. Raises `SettingsError`."""
    is_ray = name == "ray"
    problems = []
    if not is_ray and name != "local":
        problems.append(f"engine is {name!r}, expected local or ray")
    if address is not None and not is_ray:
        problems.append(f"--address {address} is for --engine ray")
    if is_ray or devices is not None:
        flag = "--engine ray" if is_ray else "--devices"
        if settings.device != ExtractSettings.device:
            problems.append(f"--device {settings.device} is for one device, and {flag} for several: give one of them")
        if part is not None:
            problems.append(f"--slice {part} is for one process, and {flag} does all slices of DATA: give one of them")
    if problems:
        raise SettingsError(problems)
    if is_ray:
        from haechi.extract.engines.actors import Actors  # loads ray, which need not be installed

        return Actors(address=address or "auto", devices=devices)
    return None if devices is None else Processes(parse_devices(devices))


def chosen_slice(request: str | Slice, out: Path | Location) -> Slice:
    """The slice that was asked for; for `auto` the one that the job scheduler gives. Raises `SettingsError`."""
    if isinstance(request, Slice):
        return request
    if request != AUTO:
        return Slice.parse(request)
    if isinstance(out, Location):
        return scheduled_slice(os.environ, pinned=stored_slices(out))
    pin = Pin.read(out)
    return scheduled_slice(os.environ, pinned=None if pin is None else pin.num_slices)
