"""Which slices of a cache are finished, running and missing: for `haechi status` and `haechi inspect`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haechi.cache.location import SHARD_CACHE_GB, scheme_of
from haechi.cache.lock import LOCK_NAME, is_held
from haechi.cache.reader import Cache
from haechi.cache.slices import Pin, Record, array_expression, read_records, running_slices
from haechi.cache.text import counted, visible


@dataclass(frozen=True, kw_only=True)
class Status:
    """The slices of a cache by what is known of them. A cache without slices is one slice of one."""

    path: Path
    location: str = ""
    """Where in an object store the cache is, if `path` is a copy of it."""
    is_sliced: bool
    num_slices: int
    done: list[int]
    running: list[int]
    """Not finished, and a living process works on them. Processes on other machines are seen if the file system shares
    locks."""
    missing: list[int]
    """Neither finished nor running."""
    num_manifest_rows: int | None
    """Rows of the manifest that the slices were cut from: of the longest, if they differ. None if nothing says it."""
    num_used: int
    """In the finished slices, as they were committed."""
    failures: dict[str, int]

    @property
    def name(self) -> str:
        """What the user calls the cache."""
        return self.location or str(self.path)

    @property
    def array(self) -> str:
        """What `sbatch --array=` needs to do the missing slices."""
        return array_expression(self.missing)

    def as_json(self) -> dict[str, Any]:
        """What `haechi status --json` prints."""
        return {
            "path": self.name,
            "slices": self.num_slices,
            "done": self.done,
            "running": self.running,
            "missing": self.missing,
            "array": self.array,
            "manifest_rows": self.num_manifest_rows,
            "rows": self.num_used + sum(self.failures.values()),
            "used": self.num_used,
            "failures": self.failures,
        }


def read_status(path: Path | str, *, shard_cache_gb: float = SHARD_CACHE_GB) -> Status:
    """The status of a cache. Of one in a store, such as `s3://bucket/cache`, only the records of slices are fetched.

    `shard_cache_gb` is for a cache in a store without slices, whose shards are copied. Raises `CacheError` if there is
    no cache, or a record cannot be used.
    """
    if scheme_of(str(path)):
        from haechi.cache.local_copy import local_copy, named_as, records_copy  # only if there is a store
        from haechi.cache.stores.stored_cache import cache_location

        location = cache_location(str(path))
        folder = records_copy(location) or local_copy(location, shard_cache_gb=shard_cache_gb)
        with named_as(location, folder):
            return replace(read_status(folder), location=str(location))
    path = Path(path)
    return slice_status(path) or _of_whole(path)


def slice_status(path: Path) -> Status | None:
    """The status of a cache with slices; None for one without. Raises as `read_status` does."""
    pin = Pin.read(path)
    if pin is None:
        return None
    records = read_records(pin)
    running = sorted(running_slices(path) - records.keys())
    return Status(
        path=path,
        is_sliced=True,
        num_slices=pin.num_slices,
        done=sorted(records),
        running=running,
        missing=sorted(set(range(pin.num_slices)) - records.keys() - set(running)),
        num_manifest_rows=max((record.num_manifest_rows for record in records.values()), default=None),
        num_used=sum(record.num_used for record in records.values()),
        failures=_summed(records.values()),
    )


def _of_whole(path: Path) -> Status:
    """The status of a cache without slices. Its rows are those that count now."""
    cache = Cache.open(path)
    is_running = is_held(path / LOCK_NAME)
    return Status(
        path=path,
        is_sliced=False,
        num_slices=1,
        done=[] if is_running else [0],
        running=[0] if is_running else [],
        missing=[],
        num_manifest_rows=None,
        num_used=sum(int(live["media"].sum()) for live in cache.live),
        failures=cache.failure_counts,
    )


def _summed(records: Iterable[Record]) -> dict[str, int]:
    failures: dict[str, int] = {}
    for record in records:
        for reason, count in record.failures.items():
            failures[reason] = failures.get(reason, 0) + count
    return dict(sorted(failures.items()))


def show_status(status: Status, console: Console) -> None:
    """Print a status."""
    console.print(f"[bold]{escape(visible(status.name))}[/]", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in _rows(status).items():
        table.add_row(name, value)
    console.print(table)


def _rows(status: Status) -> dict[str, str]:
    """Name -> text with rich markup, for a table."""
    if not status.is_sliced:
        state = "a run is writing to it" if status.running else "no run is writing to it"
        return {"slices": f"none: the cache is one slice of one; {state}"}
    rows = {"slices": f"{len(status.done)} of {status.num_slices} finished"}
    if status.running:
        rows["running"] = array_expression(status.running)
    if status.missing:
        rows["missing"] = f"[bold red]{status.array}[/]"
        rows["to do them"] = f"sbatch --array={status.array} …, or `haechi extract … --slice i/{status.num_slices}`"
    num_failed = sum(status.failures.values())
    rows["rows"] = f"{status.num_used + num_failed} = {status.num_used} used + {num_failed} failed"
    if status.num_manifest_rows is not None:
        rows["rows"] += f", of {counted(status.num_manifest_rows, 'row')} in the manifest"
    return rows
