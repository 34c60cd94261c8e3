"""The features of a set that is given as media, made with the settings that the heads were trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.groups import GroupRule
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.cache.text import counted
from haechi.extract.api import extract_features
from haechi.extract.folder import find_media
from haechi.extract.manifest import Entry, Manifest, grouped
from haechi.predict.head_settings import extract_settings, refuse_unnamed_clip
from haechi.predict.heads import Heads

# Arguments of `extract_features` that say how media are read; all others are fields of `ExtractSettings`.
READING = ("root", "positive", "group_by", "follow_symlinks", "allow_https")


def extract_set(
    heads: Heads,
    data: Path,
    cache: Path,
    *,
    positive_labels: Sequence[str],
    unlabelled: bool,
    progress: Progress,
    **options: Any,
) -> Cache:
    """Extract the media of `data` into the cache `cache`, and open it.

    `unlabelled`: all media in the folder `data` are taken without labels, whatever its subfolders are called. `options`
    are those of `READING` and fields of `ExtractSettings`. Raises what `extract_features` raises; `SettingsError` for
    `root` and `positive` with `unlabelled`.
    """
    model = next(iter(heads.models.values()))
    reading = {name: options.pop(name) for name in READING if name in options}
    settings = extract_settings(model, options, heads.path)
    refuse_unnamed_clip(settings, model, heads.path)
    if unlabelled:
        manifest = _unlabelled(data, **reading)
        done = extract_features(manifest, cache, settings=settings, progress=progress)
    else:
        done = extract_features(
            data, cache, positive_labels=positive_labels, settings=settings, progress=progress, **reading
        )
    if done.num_not_listed:
        raise HaechiError(
            f"{cache}: also holds {counted(done.num_not_listed, 'video')} that {data} does not list; name another "
            "folder with --cache"
        )
    opened = Cache.open(cache)
    heads.refuse_other_features(opened.settings)
    return opened


def _unlabelled(folder: Path, *, group_by: str | None = None, follow_symlinks: bool = False, **others: Any) -> Manifest:
    """All media in a folder, without labels; their ids are relative to it."""
    if given := [name for name, value in others.items() if value]:
        raise SettingsError([f"{', '.join(given)}: no effect on {folder}, a folder whose labels come from a file"])
    found = find_media(folder, follow_symlinks=follow_symlinks)
    if found.problems or not found.media:
        raise HaechiError("\n".join([f"{folder}: no media that can be used", *found.problems, *found.notices]))
    entries = [
        Entry(id=id, file=str(path.absolute()), label=UNLABELLED, split="", group="", line=0)
        for id, path in found.media
    ]
    manifest = Manifest(entries=tuple(entries), notices=tuple(found.notices))
    return manifest if group_by is None else grouped(folder, manifest, GroupRule.parse(group_by))
