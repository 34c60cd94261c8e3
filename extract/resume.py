"""What an earlier run left, against what is asked for now: which entries are still to do, and whether they may join."""

import copy
import os
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from haechi.cache import schema
from haechi.cache.errors import HaechiError, SettingsConflictError
from haechi.cache.integrity.repair import DAMAGED_SUFFIX
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import conflict_list, fingerprint_of
from haechi.extract.backbones.weights import QUICKGELU, WEIGHTS_FLAGS, Weights, model_identity
from haechi.extract.decoding.files import FileState, sha256_of
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the cache holds of one id."""

    state: FileState
    sha256: str
    """Empty for a failure."""
    reason: str
    """Empty for a used video."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the manifest asks for beyond what the cache holds."""

    to_do: list[Entry]
    num_changed: int
    """Of those to do: files whose bytes changed since they were extracted."""
    num_not_listed: int
    """Ids in the cache that the manifest does not name; they stay."""
    readable: frozenset[str]
    """Ids of those to do whose files were there, and open to us."""


def open_existing(out: Path) -> Cache | None:
    """The cache in `out`, None where there is none yet. Raises `HaechiError` for a folder of other things."""
    if not out.exists():
        return None
    if shard_paths(out):
        return Cache.open(out)
    ours = (".*", schema.SHARD_PATTERN + DAMAGED_SUFFIX + "*")  # what `haechi verify --repair` put aside
    if strangers := sorted(p.name for p in out.iterdir() if not any(fnmatch(p.name, pattern) for pattern in ours)):
        raise HaechiError(
            f"{out}: not empty and holds no shards, but {', '.join(strangers[:5])}; name a new folder with --out"
        )
    return None


def plan(manifest: Manifest, cache: Cache | None, *, retry: Collection[str] = ()) -> Plan:
    """Subtract finished work from the manifest.

    An entry is done where the cache holds it, used or failed, and its file did not change since. A file of the same
    size but another modification time is hashed to tell. Failures whose reason is in `retry` are tried again.
    """
    known = _known(cache) if cache else {}
    to_do, num_changed = [], 0
    for entry in manifest.entries:
        old = known.get(entry.id)
        if old is None or old.reason in retry:
            to_do.append(entry)
        elif _changed(entry.path, old):
            num_changed += 1
            to_do.append(entry)
    listed = {entry.id for entry in manifest.entries}
    return Plan(
        to_do=to_do,
        num_changed=num_changed,
        num_not_listed=len(known.keys() - listed),
        readable=frozenset(e.id for e in to_do if os.path.isfile(e.path) and os.access(e.path, os.R_OK)),  # noqa: PTH113 (Path.is_file raises for names too long)
    )


def _changed(path: Path, old: Known) -> bool:
    now = FileState.of(path)
    if now == old.state:
        return False
    missing = FileState(size_bytes=0, mtime_ns=0)
    if now == missing and not old.reason:
        return False  # a used video whose file is gone: its features stay good
    if now.size_bytes == old.state.size_bytes and old.sha256:
        try:
            return sha256_of(path) != old.sha256
        except OSError:
            return True  # the attempt will tell why
    return True


def _known(cache: Cache) -> dict[str, Known]:
    columns = [cache.media[name].tolist() for name in ("id", "size_bytes", "mtime_ns", "sha256")]
    used = {
        id: Known(state=FileState(size_bytes=size, mtime_ns=mtime), sha256=sha256, reason="")
        for id, size, mtime, sha256 in zip(*columns, strict=True)
    }
    failed = {
        row.id: Known(state=FileState(size_bytes=row.size_bytes, mtime_ns=row.mtime_ns), sha256="", reason=row.reason)
        for row in cache.failures
    }
    return used | failed


def refuse_other_settings(ours: dict[str, Any], cache: Cache) -> None:
    """Raise `SettingsConflictError` that names every field in which a cache's settings differ from ours."""
    if conflicts := conflict_list(cache.settings, ours):
        raise SettingsConflictError(
            f"{cache.path}: made with other settings, and features of two settings never mix "
            f"(fingerprint {cache.fingerprint[:12]} in the cache, {fingerprint_of(ours)[:12]} here):\n"
            f"{conflicts}\n"
            "  Extract into a new folder, or use the settings of the cache."
        )


def refuse_other_request(settings: ExtractSettings, cache: Cache) -> None:
    """`refuse_other_settings` as far as it can be told without loading a model.

    Weights of the name that the cache remembers are taken for the same until they are loaded and hashed.
    """
    held = cache.settings
    ours = copy.deepcopy(held)
    ours["store"] = settings.store
    ours["sampling"] = settings.sampler.settings
    for stream, model in settings.models.items():
        name = model_identity(model)
        if name != held[stream]["model"].removesuffix(QUICKGELU):
            ours[stream]["model"] = name
    for stream, request in settings.weights.items():
        remembered = cache.shards[0].provenance.weights[stream]
        wanted = Weights.parse(request, flag=WEIGHTS_FLAGS[stream])
        if wanted.file is not None:
            ours[stream]["weights_sha256"] = sha256_of(wanted.file)
        elif request != remembered and (wanted.seed is not None or not Weights.names_a_file(remembered)):
            ours[stream]["weights_sha256"] = f"that of {request}"
    refuse_other_settings(ours, cache)
