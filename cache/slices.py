"""Slices: N equal parts of a manifest, each extracted by a process of its own and committed whole.

CACHE/slices.json                 the pin: N and the settings, created once
CACHE/slice-00003.json            the record of a finished slice, created once
CACHE/shard-00003-00000-*.h5      its shards: they belong to the cache if the record names them
CACHE/.work/                      what running slices have finished so far
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haechi.cache import schema
from haechi.cache.atomic import create_text
from haechi.cache.errors import CacheError, SettingsError
from haechi.cache.indexed import Index
from haechi.cache.lock import is_held
from haechi.cache.shard import settings_are_complete
from haechi.cache.text import bullet_list, counted, shown

PIN_NAME = "slices.json"
PIN_FORMAT, RECORD_FORMAT = "haechi-slices", "haechi-slice"
JSON_VERSION = 1
SHARD_NAME = re.compile(r"shard-(\d{5})-\d{5}-[0-9a-f]{12}\.h5")
WORK_NAME = ".work"

# Part of the names of work folders: locks may not hold between machines, so none uses the folder of another one.
HOST = re.sub("[^0-9A-Za-z]", "_", os.uname().nodename)[:64]

# Shards of slices are numbered by slice, and later shards of the cache continue after them, up to shard-99999.h5.
MAX_SLICES = 10_000

# Columns that `haechi.cache.writer.rewrite_media` replaces when labels or times change. The digest in a record leaves
# them out.
REWRITTEN = frozenset(f"media/{name}" for name in ("label", "split", "group", "mtime_ns"))

# What `os.link` reports where a file system has no hard links, or none between two folders.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One of N parts of a manifest. Raises `SettingsError` if there is no such part."""

    number: int
    """From 0."""
    num_slices: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_slices <= MAX_SLICES:
            raise SettingsError([f"slice {self}: the number of slices must be from 1 to {MAX_SLICES}"])
        if not 0 <= self.number < self.num_slices:
            raise SettingsError(
                [f"slice {self}: there is no such slice; slices are numbered from 0 to {self.num_slices - 1}"]
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.num_slices}"

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """The slice that a text such as `3/8` names: the fourth of eight. Raises `SettingsError`."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise SettingsError([f"slice {shown(text)}: expected i/N, such as 0/8 for the first of eight, or auto"])
        return cls(number=int(found[1]), num_slices=int(found[2]))

    def holds(self, id: str) -> bool:
        """Whether the row with this id is in the slice."""
        return slice_of(id, self.num_slices) == self.number


def slice_of(id: str, num_slices: int) -> int:
    """The number of the slice that the row with this id is in."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest(), "big") % num_slices


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What all slices of a cache have in common."""

    path: Path
    """The cache."""
    num_slices: int
    shard_size: int
    """Largest number of rows in a shard."""
    created: str
    """When the pin was made, ISO 8601. All shards of slices have this time, so that the clock changes no byte."""
    settings: dict[str, Any]
    """Everything that decides a feature's value."""
    weights: dict[str, str]
    """Stream -> the requested weights, as in `Provenance`."""

    @property
    def fingerprint(self) -> str:
        return schema.fingerprint_of(self.settings)

    @property
    def fields(self) -> dict[str, Any]:
        """What must be equal in all slices, by name."""
        return {"slices": self.num_slices, "shard_size": self.shard_size, **self.settings}

    @classmethod
    def read(cls, cache: Path) -> "Pin | None":
        """The pin of a cache; None if the cache was made without slices. Raises `CacheError` for a pin that is none."""
        content = _content(cache / PIN_NAME)
        return None if content is None else cls.decode(content, cache, where=str(cache / PIN_NAME))

    @classmethod
    def decode(cls, content: bytes, cache: Path, *, where: str) -> "Pin":
        """The pin of a cache, of the content of its file. Raises `CacheError`."""
        found = _json_object(content, PIN_FORMAT, where)
        pin = cls(
            path=cache,
            num_slices=found.get("slices", 0),
            shard_size=found.get("shard_size", 0),
            created=found.get("created", ""),
            settings=found.get("settings", {}),
            weights=found.get("weights", {}),
        )
        is_sound = (
            _is_count(pin.num_slices, least=1, most=MAX_SLICES)
            and _is_count(pin.shard_size, least=1)
            and isinstance(pin.created, str)
            and settings_are_complete(pin.settings)
            and isinstance(pin.weights, dict)
            and pin.weights.keys() == schema.STREAMS.keys()
            and all(isinstance(request, str) for request in pin.weights.values())
        )
        if not is_sound:
            raise CacheError(f"{where}: lacks fields that cache_schema.md requires, or has them with other types")
        return pin

    def encode(self) -> str:
        """The content of its file."""
        fields = {
            "format": PIN_FORMAT,
            "format_version": JSON_VERSION,
            "slices": self.num_slices,
            "shard_size": self.shard_size,
            "created": self.created,
            "settings": self.settings,
            "weights": self.weights,
        }
        return json.dumps(fields, indent=2) + "\n"

    def create(self) -> "Pin":
        """Write the pin unless the cache has one, and return the one that it has. `OSError` as `os.link` raises it."""
        work = self.path / WORK_NAME
        work.mkdir(parents=True, exist_ok=True)
        try:
            create_text(self.path / PIN_NAME, self.encode(), folder=work)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise CacheError(
                f"{self.path}: its file system has no hard links ({error.strerror}), which slices need so that each is "
                "committed once; use a folder on another file system"
            ) from error
        found = Pin.read(self.path)
        assert found is not None, self.path
        return found


@dataclass(frozen=True, kw_only=True)
class SliceShard:
    """One shard of a finished slice."""

    name: str
    """Its file name."""
    num_rows: int
    """Used and failed."""
    digest: str
    """See `content_digest`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished slice: what its shards hold."""

    number: int
    num_slices: int
    fingerprint: str
    num_manifest_rows: int
    """Rows of the whole manifest that the slice was cut from."""
    num_used: int
    failures: dict[str, int]
    """Reason -> number of rows."""
    ids_sha256: str
    """See `ids_digest`."""
    shards: tuple[SliceShard, ...]

    @property
    def num_failed(self) -> int:
        return sum(self.failures.values())

    @property
    def num_rows(self) -> int:
        return self.num_used + self.num_failed

    def encode(self) -> str:
        fields = {
            "format": RECORD_FORMAT,
            "format_version": JSON_VERSION,
            "slice": self.number,
            "slices": self.num_slices,
            "fingerprint": self.fingerprint,
            "manifest_rows": self.num_manifest_rows,
            "rows": self.num_rows,
            "used": self.num_used,
            "failures": self.failures,
            "ids_sha256": self.ids_sha256,
            "shards": [{"name": each.name, "rows": each.num_rows, "digest": each.digest} for each in self.shards],
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def read(cls, pin: Pin, number: int) -> "Record | None":
        """The record of a slice; None if the slice is not finished. Raises `CacheError` for one that cannot be used."""
        path = record_path(pin.path, number)
        content = _content(path)
        return None if content is None else cls.decode(content, pin, number, where=str(path))

    @classmethod
    def decode(cls, content: bytes, pin: Pin, number: int, *, where: str) -> "Record":
        """The record of a slice, of the content of its file. Raises `CacheError`."""
        found = _json_object(content, RECORD_FORMAT, where)
        problem = _record_problem(found, pin, number)
        if problem:
            raise CacheError(
                f"{where}: {problem}; remove it, and run `haechi extract --slice {number}/{pin.num_slices}` again"
            )
        return cls(
            number=number,
            num_slices=pin.num_slices,
            fingerprint=found["fingerprint"],
            num_manifest_rows=found["manifest_rows"],
            num_used=found["used"],
            failures=found["failures"],
            ids_sha256=found["ids_sha256"],
            shards=tuple(
                SliceShard(name=each["name"], num_rows=each["rows"], digest=each["digest"]) for each in found["shards"]
            ),
        )


def _record_problem(found: dict[str, Any], pin: Pin, number: int) -> str:
    """What is wrong with the fields of a record; empty if they can be used."""
    failures, shards = found.get("failures"), found.get("shards")
    texts = ("fingerprint", "ids_sha256")
    is_sound = (
        all(_is_count(found.get(name)) for name in ("slice", "slices", "manifest_rows", "rows", "used"))
        and all(isinstance(found.get(name), str) for name in texts)
        and isinstance(failures, dict)
        and all(_is_count(count) for count in failures.values())
        and isinstance(shards, list)
        and all(
            isinstance(each, dict)
            and all(isinstance(each.get(name), str) for name in ("name", "digest"))
            and _is_count(each.get("rows"))
            for each in shards
        )
    )
    if not is_sound or failures is None or shards is None:
        return "lacks fields that cache_schema.md requires, or has them with other types"
    if (found["slice"], found["slices"]) != (number, pin.num_slices):
        return f"is of slice {found['slice']}/{found['slices']}, expected {number}/{pin.num_slices}"
    if found["fingerprint"] != pin.fingerprint:
        return f"was made with other settings than {PIN_NAME} has"
    if foreign := [each["name"] for each in shards if shard_slice(each["name"]) != number]:
        return f"names {shown(foreign[0])}, which is no shard of this slice"
    if len({each["name"] for each in shards}) != len(shards):
        return "names a shard twice"
    if found["used"] + sum(failures.values()) != found["rows"]:
        return f"says {found['used']} used + {sum(failures.values())} failed = {found['rows']} rows"
    return ""


def _is_count(value: Any, *, least: int = 0, most: int = 1 << 62) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _content(path: Path) -> bytes | None:
    """What a file holds, up to a byte more than it may hold; None if there is no file. Raises `CacheError`."""
    try:
        with path.open("rb") as file:
            return file.read(schema.MAX_JSON_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror})") from error


def _json_object(content: bytes, format: str, where: str) -> dict[str, Any]:
    """A JSON object with this `format` and a known version. Raises `CacheError`."""
    try:
        found = json.loads(content) if len(content) <= schema.MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != format:
        raise CacheError(f"{where}: not a JSON object of the format {format}; restore it from a copy")
    if found.get("format_version") != JSON_VERSION:
        raise CacheError(
            f"{where}: format version {shown(str(found.get('format_version')))}, this Haechi reads {JSON_VERSION}; use "
            "the Haechi that wrote it"
        )
    return found


def record_path(cache: Path, number: int) -> Path:
    """The path of the record of a slice."""
    return cache / f"slice-{number:05d}.json"


def shard_name(number: int, position: int, digest: str) -> str:
    """The file name of a slice's shard.

    `position` is its place among the shards of the slice. `digest` is that of its seal, which other labels change.
    """
    return f"shard-{number:05d}-{position:05d}-{digest[:12]}.h5"


def shard_slice(name: str) -> int | None:
    """The slice that a shard with this file name is of; None for other shards."""
    found = SHARD_NAME.fullmatch(name)
    return int(found[1]) if found else None


def read_records(pin: Pin) -> dict[int, Record]:
    """The records of all finished slices, by number. Raises `CacheError` that lists all that cannot be used."""
    records, problems = {}, []
    for number in range(pin.num_slices):
        try:
            record = Record.read(pin, number)
        except CacheError as error:
            problems.append(str(error))
            continue
        if record is not None:
            records[number] = record
    if problems:
        raise CacheError(f"{pin.path}: records of slices that cannot be used:\n{bullet_list(problems)}")
    return records


def unfinished_slices(cache: Path) -> str:
    """Which slices of a cache are not finished, such as `2 of 8 slices are not finished: 3,7`; empty if all are."""
    pin = Pin.read(cache)
    if pin is None:
        return ""
    missing = [number for number in range(pin.num_slices) if not record_path(cache, number).exists()]
    if not missing:
        return ""
    verb = "is" if len(missing) == 1 else "are"
    return f"{len(missing)} of {counted(pin.num_slices, 'slice')} {verb} not finished: {array_expression(missing)}"


def shards_that_count(cache: Path, found: Sequence[Path]) -> list[Path]:
    """Those of the shards `found` in a cache that belong to it, and those that a record names and that are not there.

    In a cache with slices, a shard of a slice belongs to it only if the record of the slice names it.
    """
    pin = Pin.read(cache)
    if pin is None:
        return list(found)
    named = {cache / each.name for record in read_records(pin).values() for each in record.shards}
    return sorted({path for path in found if shard_slice(path.name) is None} | named)


def unnamed_shards(pin: Pin, records: Iterable[Record]) -> list[Path]:
    """Shards of finished slices that their records do not name: a run was stopped, or was the second to finish."""
    names = {each.name for record in records for each in record.shards}
    numbers = {record.number for record in records}
    found = sorted(pin.path.glob(schema.SHARD_PATTERN))
    return [path for path in found if shard_slice(path.name) in numbers and path.name not in names]


def work_folder(cache: Path, number: int, attempt: int) -> Path:
    """The folder in which a process extracts a slice; each process that does so at the same time has its own."""
    return cache / WORK_NAME / f"slice-{number:05d}-{HOST}-{attempt}"


def work_folders(cache: Path, number: int | None = None) -> list[Path]:
    """All work folders, of this machine and of others, in use or not; with `number`, those of one slice."""
    pattern = "slice-*-*" if number is None else f"slice-{number:05d}-*"
    return [path for path in sorted((cache / WORK_NAME).glob(pattern)) if path.is_dir()]


def work_lock(folder: Path) -> Path:
    """The lock that a process holds while it uses a work folder."""
    return folder.with_name(folder.name + ".lock")


def running_slices(cache: Path) -> set[int]:
    """The slices whose work folder is locked by a living process."""
    locks = (cache / WORK_NAME).glob("slice-*-*.lock")
    return {number for lock in locks if (number := _work_slice(lock)) is not None and is_held(lock)}


def finished_work(cache: Path, numbers: Collection[int]) -> list[Path]:
    """Work folders of finished slices that no process uses: a run was stopped before it removed its folder."""
    return [path for path in work_folders(cache) if _work_slice(path) in numbers and not is_held(work_lock(path))]


def _work_slice(path: Path) -> int | None:
    """The slice that a work folder or its lock is of; None for other names."""
    found = re.fullmatch(r"slice-(\d{5})-\w*-\d+(\.lock)?", path.name)
    return int(found[1]) if found else None


def array_expression(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm's `--array=` takes them, such as `3,7-9`; empty for none."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in runs)


def remove_unnamed(cache: Path) -> None:
    """Delete what runs of finished slices left: shards that no record names, and work folders. Other slices stay."""
    pin = Pin.read(cache)
    if pin is None:
        return
    records = read_records(pin)
    for path in unnamed_shards(pin, records.values()):
        path.unlink(missing_ok=True)
    remove_finished_work(cache, records)


def remove_finished_work(cache: Path, numbers: Collection[int]) -> None:
    """Delete the work folders of finished slices that no process uses."""
    for folder in finished_work(cache, numbers):
        shutil.rmtree(folder, ignore_errors=True)
        work_lock(folder).unlink(missing_ok=True)


def content_digest(index: Index) -> str:
    """SHA-256 of a shard's attributes and of the checksums of its datasets, without those of `REWRITTEN` columns.

    New labels do not change it; a change of any other byte of the rows does.
    """
    places = {
        name: {key: value for key, value in asdict(place).items() if key != "offset"}
        for name, place in index.datasets.items()
        if name not in REWRITTEN
    }
    content = schema.canonical_json({"attributes": index.attributes, "datasets": places})
    return hashlib.sha256(content.encode()).hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of ids in ascending order, each ended by a line feed."""
    return hashlib.sha256("".join(f"{id}\n" for id in sorted(ids)).encode()).hexdigest()
