"""What a shard is: its names, types and rules. cache_schema.md states the same for people."""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from haechi.cache.errors import CacheError, FeatureError, VersionError
from haechi.cache.text import bullet_list

FORMAT = "haechi-cache"
FORMAT_VERSION = 1

SHARD_PATTERN = "shard-*.h5"

USER_BLOCK_BYTES = 512  # the smallest HDF5 allows; holds the seal (see `Seal`)

HARMFUL, SAFE, UNLABELLED = 1, 0, -1
LABEL_NAMES = {HARMFUL: "harmful", SAFE: "safe", UNLABELLED: "unlabelled"}
SPLITS = ("train", "val", "test")
STORE_TYPES = ("float16", "float32")

MAX_ID_BYTES = 4096  # PATH_MAX on Linux: an id is a path
MAX_MESSAGE_BYTES = 1000
MAX_SECONDS = 10**9  # 31 years, before or after 0; some containers begin below 0

# Rows of 512 float16 values make chunks of 1 MiB; smaller shards get one chunk a dataset.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Media:
    """One used video: a row of every `/media/*` dataset."""

    id: str
    """Path relative to the data root, `/`-separated, or what the manifest's `id` column says (see `id_problem`)."""
    kind: str
    """One of `haechi.cache.kinds.KINDS`."""
    sha256: str
    """Of the file's bytes, 64 lower-case hexadecimal digits."""
    size_bytes: int
    mtime_ns: int
    """Modification time of the file, nanoseconds since 1970 (UTC)."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    """One of `SPLITS`, or empty: not said."""
    group: str
    """Videos of one group never stand on both sides of a split; empty: not said."""
    duration_seconds: float
    """From the first frame's start to the last frame's end."""
    fps: float
    """Average frames per second."""
    num_frames: int
    width: int
    """Pixels as shown, after rotation metadata is applied."""
    height: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that could not be used: a row of every `/failure/*` dataset."""

    id: str
    stage: str
    """Where it failed: `validate`, `decode` or `features`."""
    reason: str
    """A code of `haechi.extract.decoding.reasons`, such as `damaged` or `timeout`."""
    message: str
    """What a person needs to know, at most `MAX_MESSAGE_BYTES` bytes."""
    size_bytes: int
    """0 where the file is missing."""
    mtime_ns: int


MEDIA_TYPES: dict[str, Any] = {
    "id": str,
    "kind": str,
    "sha256": str,
    "size_bytes": np.int64,
    "mtime_ns": np.int64,
    "label": np.int8,
    "split": str,
    "group": str,
    "duration_seconds": np.float64,
    "fps": np.float64,
    "num_frames": np.int64,
    "width": np.int32,
    "height": np.int32,
}
FAILURE_TYPES: dict[str, Any] = {
    "id": str,
    "stage": str,
    "reason": str,
    "message": str,
    "size_bytes": np.int64,
    "mtime_ns": np.int64,
}
assert list(MEDIA_TYPES) == [f.name for f in fields(Media)]
assert list(FAILURE_TYPES) == [f.name for f in fields(Failure)]

# Arrays of a stream, by the kind of its rows: name -> number of axes, the first of which is the row.
#
#     features          (rows, width): what the backbone makes of the frame (not normalised), or of the window (pooled,
#                       before its classifier)
#     logits            (rows, width): the outputs of the classifier
#     time_seconds      (rows,): when the frame is first shown
#     start_seconds     (rows,): when the window's first frame is first shown
#     end_seconds       (rows,): until when its last frame is shown
FRAME_ARRAYS = {"features": 2, "time_seconds": 1}
WINDOW_ARRAYS = {"features": 2, "logits": 2, "start_seconds": 1, "end_seconds": 1}

# Stream -> its arrays. An image backbone writes the first, a motion backbone the second, whichever models they are.
STREAMS: dict[str, dict[str, int]] = {"clip": FRAME_ARRAYS, "slowfast": WINDOW_ARRAYS}
FRAME_STREAM, WINDOW_STREAM = STREAMS

# Dataset -> number of axes, of all streams.
DATASETS = {f"{stream}/{name}": num_axes for stream, arrays in STREAMS.items() for name, num_axes in arrays.items()}


def id_problem(id: str) -> str | None:
    """What makes `id` unfit to name a video, as in "is empty", or None."""
    if not id:
        return "is empty"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in id):
        return "holds control characters or bytes that are not UTF-8"
    if (num_bytes := len(id.encode())) > MAX_ID_BYTES:
        return f"is {num_bytes} bytes long, at most {MAX_ID_BYTES} are allowed"
    return None


@dataclass(frozen=True, kw_only=True)
class Item:
    """A used video with its features: what the writer is given.

    Feature arrays have the cache's storage type already (see `to_store`); times are float32 seconds.
    """

    media: Media
    arrays: dict[str, np.ndarray]
    """Dataset -> its rows of this video: one array for each name in `DATASETS`, such as `clip/features`."""

    def __post_init__(self) -> None:
        assert self.arrays.keys() == set(DATASETS), f"{self.media.id}: arrays {sorted(self.arrays)}"
        for stream, arrays in STREAMS.items():
            lengths = {len(self.arrays[f"{stream}/{name}"]) for name in arrays}
            assert len(lengths) == 1, f"{self.media.id}: /{stream} arrays of different lengths {lengths}"


def to_store(values: np.ndarray, *, store: str, what: str) -> np.ndarray:
    """Convert features (rows, width) to the storage type, refusing what must never be stored.

    Raises `FeatureError` where a value is NaN or infinite, before or after the conversion (float16 ends at 65504),
    or where a whole row is zero.
    """
    if not np.isfinite(values).all():
        raise FeatureError(f"{what}: {int((~np.isfinite(values)).sum())} values are NaN or infinite")
    with np.errstate(over="ignore"):
        stored = values.astype(store)
    if not np.isfinite(stored).all():
        raise FeatureError(
            f"{what}: largest value {np.abs(values).max():.6g} does not fit {store}; use --store float32"
        )
    if (zero_rows := int((~stored.any(axis=1)).sum())) > 0:
        raise FeatureError(f"{what}: {zero_rows} of {len(stored)} rows are all zero")
    return stored


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who made a shard and with what: the root attributes."""

    settings: dict[str, Any]
    """All that decides a feature's value; the fingerprint is its hash."""
    weights: dict[str, str]
    """Stream -> the weights as asked for: a name, a path, or `random:SEED`. Their hash stands in `settings`."""
    device: str
    """The device that computed the features, such as `cpu` or `cuda (NVIDIA H100)`."""
    precision: str
    """`fp32`, `bf16` or `fp16`: the arithmetic of the backbones."""
    producer: str
    """`haechi VERSION`."""
    versions: dict[str, str]
    """Of the packages that shaped the features."""


def canonical_json(value: dict[str, Any]) -> str:
    """The one spelling of `value` that is hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint_of(settings: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def differing_fields(ours: dict[str, Any], theirs: dict[str, Any], *, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The dotted names under which two settings differ, with both values (None: absent)."""
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differing_fields(a, b, prefix=f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def conflict_list(held: dict[str, Any], ours: dict[str, Any], *, holder: str = "the cache", prefix: str = "") -> str:
    """One line for each field in which two settings differ, such as `  - clip.trained: True in the cache, False here`.

    `holder` names what has the settings `held`; `prefix` goes before every field's name. Empty if nothing differs.
    """
    differing = differing_fields(held, ours, prefix=prefix)
    return bullet_list([f"{name}: {old!r} in {holder}, {new!r} here" for name, old, new in differing])


@dataclass(frozen=True, kw_only=True)
class Seal:
    """The user block at the head of a shard: makes an incomplete or altered shard visible."""

    sha256: str
    """Of all bytes after the user block."""
    num_bytes: int
    """How many bytes follow the user block."""

    def encode(self) -> bytes:
        text = f"{FORMAT} {FORMAT_VERSION}\nsha256 {self.sha256}\nbytes {self.num_bytes}\n"
        return text.encode("ascii").ljust(USER_BLOCK_BYTES, b"\n")

    @classmethod
    def decode(cls, block: bytes, *, where: str) -> "Seal":
        """Read a seal back. Raises `CacheError` for a file without one, or of another version."""
        name, _, version = block.partition(b"\n")[0].partition(b" ")
        if name != FORMAT.encode():
            raise CacheError(f"{where}: not a Haechi shard (its first line is not '{FORMAT} {FORMAT_VERSION}')")
        if version != str(FORMAT_VERSION).encode():
            kind = VersionError if version.isdigit() else CacheError
            raise kind(
                f"{where}: format version {version[:20].decode('ascii', errors='backslashreplace')!r}, "
                f"this Haechi reads version {FORMAT_VERSION}; "
                "use the Haechi that wrote it, or extract again into a new folder"
            )
        found = re.match(rb"[^\n]*\nsha256 ([0-9a-f]{64})\nbytes ([0-9]{1,18})\n", block)
        seal = cls(sha256=found[1].decode(), num_bytes=int(found[2])) if found else None
        if seal is None or seal.encode() != block:
            raise CacheError(f"{where}: the seal in its first {USER_BLOCK_BYTES} bytes is damaged; see `haechi verify`")
        return seal
