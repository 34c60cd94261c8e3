"""The format of a shard: names, types and rules. cache_schema.md describes the same for readers."""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xxhash

from haechi.cache.bad_rows import find_bad_rows
from haechi.cache.errors import CacheError, DamageError, FeatureError
from haechi.cache.text import bullet_list

FORMAT = "haechi-cache"
FORMAT_VERSION = 2
"""Of new caches."""
VERSIONS = (1, 2)
"""That are read. A cache is continued in its own version."""

SHARD_PATTERN = "shard-*.h5"
MAX_JSON_BYTES = 1 << 24  # ours, of the pin and of records of slices: a record of 100,000 shards has half of it

USER_BLOCK_BYTES = 512  # the smallest size that HDF5 allows; holds the seal (see `Seal`)

HARMFUL, SAFE, UNLABELLED = 1, 0, -1
LABEL_NAMES = {HARMFUL: "harmful", SAFE: "safe", UNLABELLED: "unlabelled"}
SPLITS = ("train", "val", "test")
STORE_TYPES = ("float16", "float32")

MAX_ID_BYTES = 4096  # PATH_MAX on Linux: an id is a path
MAX_MESSAGE_BYTES = 1000
MAX_SECONDS = 10**9  # 31 years, before or after 0; times in some containers start below 0

# Version 1: chunks have this size, which is 1024 rows of 512 float16 values. A smaller dataset is one chunk.
CHUNK_BYTES = 1 << 20
# Version 2: there is a checksum for each block of at most this many bytes, in whole rows (at least one): 64 rows of 512
# float16 values. Larger blocks would mean that reading one video also reads many others; with smaller ones, calling the
# hash function takes longer than hashing.
BLOCK_BYTES = 1 << 16

INDEX = "index"
"""Version 2: the dataset that says where all others are, and has their checksums (see `haechi.cache.indexed`)."""


@dataclass(frozen=True, kw_only=True)
class Media:
    """One used video or image: one row of every `/media/*` dataset."""

    id: str
    """Path relative to the data root, separated by `/`, or the `id` column of the manifest (rules: `id_problem`)."""
    kind: str
    """One of `haechi.cache.kinds.KINDS`."""
    sha256: str
    """SHA-256 of the file's bytes: 64 lower-case hexadecimal digits."""
    size_bytes: int
    mtime_ns: int
    """Modification time of the file, nanoseconds since 1970 (UTC)."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    """One of `SPLITS`; empty if not given."""
    group: str
    """Videos of one group are always in the same split; empty if not given."""
    duration_seconds: float
    """From the start of the first frame to the end of the last frame."""
    fps: float
    """Average frames per second."""
    num_frames: int
    width: int
    """Pixels as shown: after rotation metadata is applied and pixels that are not square are stretched in width."""
    height: int
    etag: str = ""
    """What an object store calls this version of the file; empty for a file of a file system."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video or image that could not be used: one row of every `/failure/*` dataset."""

    id: str
    stage: str
    """Where it failed: `fetch`, `validate`, `decode` or `features`."""
    reason: str
    """A code of `haechi.extract.decoding.reasons`, such as `damaged` or `timeout`."""
    message: str
    """Explanation for the user, at most `MAX_MESSAGE_BYTES` bytes."""
    size_bytes: int
    """0 if the file is missing."""
    mtime_ns: int
    etag: str = ""


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
    "etag": str,
}
FAILURE_TYPES: dict[str, Any] = {
    "id": str,
    "stage": str,
    "reason": str,
    "message": str,
    "size_bytes": np.int64,
    "mtime_ns": np.int64,
    "etag": str,
}
assert list(MEDIA_TYPES) == [f.name for f in fields(Media)]
assert list(FAILURE_TYPES) == [f.name for f in fields(Failure)]

# Columns of text that are left out of a shard if all their values are empty.
OPTIONAL = frozenset({"media/etag", "failure/etag"})

# Arrays of a stream: name -> number of axes. The first axis is the rows; a row is a frame or a window.
#
#     features          (rows, width): the backbone's output for the frame (not normalised), or for the window (pooled,
#                       before the classifier)
#     logits            (rows, width): the output of the classifier
#     time_seconds      (rows,): when the frame is first shown
#     start_seconds     (rows,): when the first frame of the window is first shown
#     end_seconds       (rows,): when the last frame of the window stops being shown
FRAME_ARRAYS = {"features": 2, "time_seconds": 1}
WINDOW_ARRAYS = {"features": 2, "logits": 2, "start_seconds": 1, "end_seconds": 1}

# Stream -> its arrays. The image backbone writes the first stream, the motion backbone the second, with any model.
STREAMS: dict[str, dict[str, int]] = {"clip": FRAME_ARRAYS, "slowfast": WINDOW_ARRAYS}
FRAME_STREAM, WINDOW_STREAM = STREAMS

# The model, in a cache's settings and in those of an extraction, of a stream whose features were not extracted.
NO_MODEL = "none"

# Dataset -> number of axes, for the arrays of all streams.
DATASETS = {f"{stream}/{name}": num_axes for stream, arrays in STREAMS.items() for name, num_axes in arrays.items()}

# Root attributes: all texts, and one integer.
TEXT_ATTRIBUTES = (
    "format",
    "fingerprint",
    "settings_json",
    "versions_json",
    *(f"{stream}_weights" for stream in STREAMS),
    "device",
    "precision",
    "producer",
    "created",
)
VERSION_ATTRIBUTE = "format_version"


def without_model(stream: str) -> dict[str, Any]:
    """A stream's part of the settings if its features are not extracted: they have the width 0."""
    widths = {name: 0 for name, num_axes in STREAMS[stream].items() if num_axes == 2}
    return {"model": NO_MODEL, "weights_sha256": "", "trained": True, "widths": widths}


def has_features(settings: dict[str, Any], stream: str) -> bool:
    """Whether a cache with these settings has features in a stream."""
    return bool(settings[stream]["model"] != NO_MODEL)


def id_problem(id: str) -> str | None:
    """Why `id` cannot be the id of a video, such as "is empty"; None if it can."""
    if not id:
        return "is empty"
    if not id.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in id):
        return "holds control characters or bytes that are not UTF-8"
    if 4 * len(id) > MAX_ID_BYTES and (num_bytes := len(id.encode())) > MAX_ID_BYTES:
        return f"is {num_bytes} bytes long, at most {MAX_ID_BYTES} are allowed"
    return None


@dataclass(frozen=True, kw_only=True)
class Item:
    """A used video with its features, as the writer needs it.

    Features are in the cache's storage type (see `to_store`); times are float32 seconds.
    """

    media: Media
    arrays: dict[str, np.ndarray]
    """Dataset -> the rows of this video, for each name in `DATASETS`, such as `clip/features`."""

    def __post_init__(self) -> None:
        assert self.arrays.keys() == set(DATASETS), f"{self.media.id}: arrays {sorted(self.arrays)}"
        for stream, arrays in STREAMS.items():
            lengths = {len(self.arrays[f"{stream}/{name}"]) for name in arrays}
            assert len(lengths) == 1, f"{self.media.id}: /{stream} arrays of different lengths {lengths}"


def to_store(values: np.ndarray, *, store: str, what: str) -> np.ndarray:
    """Convert features (rows, width) to the storage type.

    Raises `FeatureError` if a value is NaN or infinite, before or after the conversion (the largest float16 is 65504),
    or if a whole row is zero. `what` starts its text, such as `a.mp4: clip`.
    """
    if not np.isfinite(values).all():
        raise FeatureError(f"{what}: NaN or infinite values: {int((~np.isfinite(values)).sum())} of {values.size}")
    with np.errstate(over="ignore"):
        stored = values.astype(store)
    if not np.isfinite(stored).all():
        raise FeatureError(
            f"{what}: largest value {np.abs(values).max():.6g} does not fit {store}; use --store float32"
        )
    if (num_zero := int(find_bad_rows(stored)[1].sum())) > 0:
        raise FeatureError(f"{what}: {num_zero} of {len(stored)} rows are all zero")
    return stored


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a shard was made: its root attributes."""

    settings: dict[str, Any]
    """Everything that decides a feature's value; the fingerprint is its hash."""
    weights: dict[str, str]
    """Stream -> the requested weights: a name, a path, or `random:SEED`. Their hash is in `settings`."""
    device: str
    """The device that computed the features, such as `cpu` or `cuda (NVIDIA H100)`."""
    precision: str
    """Numeric precision of the backbones: `fp32`, `bf16` or `fp16`."""
    producer: str
    """`haechi VERSION`."""
    versions: dict[str, str]
    """Package -> version, for the packages that have an effect on features."""


def canonical_json(value: dict[str, Any]) -> str:
    """`value` as JSON for hashing: sorted keys, no spaces, ASCII. Raises `ValueError` for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint_of(settings: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of settings: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def differing_fields(ours: dict[str, Any], theirs: dict[str, Any], *, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two settings differ: (dotted name, our value, their value), None for a missing field."""
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


DIGESTS: dict[int, tuple[str, int]] = {1: ("sha256", 64), 2: ("xxh3-128", 32)}
"""Version -> name of its digest, and number of hexadecimal digits."""


def new_digest(version: int) -> Any:
    """An empty digest of the kind that shards of a version are sealed with, with the methods of `hashlib`'s."""
    return hashlib.sha256() if version == 1 else xxhash.xxh3_128()


@dataclass(frozen=True, kw_only=True)
class Seal:
    """The first bytes of a shard, its HDF5 user block: shows whether the shard is complete and unaltered."""

    version: int
    """One of `VERSIONS`."""
    digest: str
    """Digest of all bytes after the user block, in hexadecimal: see `DIGESTS`."""
    num_bytes: int
    """Number of bytes after the user block."""
    index: tuple[int, int] = (0, 0)
    """Version 2: first byte of the index in the file, and its number of bytes."""

    def encode(self) -> bytes:
        lines = [
            f"{FORMAT} {self.version}",
            f"{DIGESTS[self.version][0]} {self.digest}",
            f"bytes {self.num_bytes}",
            *([f"{INDEX} {self.index[0]} {self.index[1]}"] if self.version > 1 else []),
        ]
        return "".join(f"{line}\n" for line in lines).encode("ascii").ljust(USER_BLOCK_BYTES, b"\n")

    @classmethod
    def decode(cls, block: bytes, *, where: str) -> "Seal":
        """The seal in a user block. Raises `DamageError` if there is none, `CacheError` for another version."""
        name, _, number = block.partition(b"\n")[0].partition(b" ")
        if name != FORMAT.encode():
            raise DamageError(f"{where}: not a Haechi shard (its first line is not '{FORMAT} {FORMAT_VERSION}')")
        version = next((known for known in VERSIONS if number == str(known).encode()), None)
        if version is None:
            kind = CacheError if number.isdigit() else DamageError
            raise kind(
                f"{where}: format version {number[:20].decode('ascii', errors='backslashreplace')!r}, "
                f"this Haechi reads versions {' and '.join(map(str, VERSIONS))}; "
                "use the Haechi that wrote it, or extract again into a new folder"
            )
        digest, num_digits = DIGESTS[version]
        index = rb"index ([0-9]{1,18}) ([0-9]{1,18})\n" if version > 1 else b"()()"
        found = re.match(
            rb"[^\n]*\n%b ([0-9a-f]{%d})\nbytes ([0-9]{1,18})\n%b" % (digest.encode(), num_digits, index), block
        )
        seal = None
        if found:
            start, length = (int(text or b"0") for text in found.groups()[2:])
            seal = cls(version=version, digest=found[1].decode(), num_bytes=int(found[2]), index=(start, length))
        if seal is None or seal.encode() != block:
            raise DamageError(
                f"{where}: the seal in its first {USER_BLOCK_BYTES} bytes is damaged; see `haechi verify`"
            )
        return seal
