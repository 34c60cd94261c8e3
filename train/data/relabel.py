"""Labels of a file in place of the cache's, for one run."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.manifest_file import ManifestRow, read_manifest_file
from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.cache.text import bullet_list, shown, visible
from haechi.train.errors import TrainError

# The columns that a file may replace.
REPLACED = ("label", "split", "group")

# As many ids are named of those that stand on one side only.
MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class NewLabels:
    """What a file says of the N used videos of a cache."""

    file: str
    """Its name, without folders."""
    sha256: str
    """Of its bytes."""
    replaced: list[str]
    """Those of `REPLACED` that it has."""
    media: dict[str, np.ndarray]
    """Columns of `REPLACED`, each (N,): the cache's where the file lacks the column; -1 or empty where it does not name
    the video."""
    is_named: np.ndarray
    """(N,) bool"""
    removed: list[str]
    """The ids of the cache's used videos that it does not name."""
    unused: list[tuple[ManifestRow, str]]
    """Its rows that are no used videos of the cache, each with the reason of its failure in extraction; empty: the
    cache does not know it."""
    notes: list[str]
    """What else a user should know of the file."""

    @classmethod
    def of(cls, cache: Cache, file: Path) -> "NewLabels":
        """Read a manifest for a cache, of which each row needs an id or a path.

        Raises `ManifestError` that lists everything wrong in the file; `TrainError` where it leaves no labelled video.
        """
        read = read_manifest_file(file, keys=("id", "path"))
        ids, row_of = cache.media["id"].tolist(), {row.id: row for row in read.rows}
        rows = [row_of.get(id) for id in ids]
        replaced = [name for name in REPLACED if name in read.columns]
        is_named = np.array([row is not None for row in rows], dtype=bool)
        media = {}
        for name in REPLACED:
            values = np.full_like(cache.media[name], UNLABELLED if name == "label" else "")
            theirs = [getattr(row, name) for row in rows if row is not None]
            values[is_named] = theirs if name in replaced else cache.media[name][is_named]
            media[name] = values
        used, reasons = set(ids), {failure.id: failure.reason for failure in cache.failures}
        result = cls(
            file=visible(file.name),
            sha256=read.sha256,
            replaced=replaced,
            media=media,
            is_named=is_named,
            removed=[id for id, row in zip(ids, rows, strict=True) if row is None],
            unused=[(row, reasons.get(row.id, "")) for row in read.rows if row.id not in used],
            notes=list(read.notices),
        )
        if (result.media["label"] == UNLABELLED).all():
            raise TrainError("\n".join([f"{file}: {_why_nothing_is_left(result, cache)}", *result.notices]))
        return result

    @property
    def notices(self) -> list[str]:
        """What a user should know before the first epoch."""
        kept = [name for name in REPLACED if name not in self.replaced]
        sources = ((self.replaced, shown(self.file)), (kept, "the cache"))
        notices = ["; ".join(f"{', '.join(names)} from {source}" for names, source in sources if names), *self.notes]
        if self.removed:
            notices.append(
                f"removed: {len(self.removed):,} videos of the cache that {shown(self.file)} does not name are left "
                f"out\n{bullet_list(list(map(shown, self.removed)), limit=MOST_NAMED)}"
            )
        if self.unused:
            failed = [reason for _, reason in self.unused if reason]
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.failures.items())
            lines = [f"line {row.line}: {shown(row.id)}: {reason or 'not in it'}" for row, reason in self.unused]
            notices.append(
                f"{len(self.unused):,} videos that {shown(self.file)} names are no used videos of the cache"
                + (f", of which {len(failed):,} failed in extraction ({counts})" if failed else "")
                + f"\n{bullet_list(lines, limit=MOST_NAMED)}"
            )
        return notices

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> videos that the file names and extraction could not use."""
        return dict(sorted(Counter(reason for _, reason in self.unused if reason).items()))

    def record(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "replaced": self.replaced,
            "named": int(self.is_named.sum()),
            "removed": {"count": len(self.removed), "ids": self.removed[:MOST_NAMED]},
            "unused": {
                "count": len(self.unused),
                "ids": [row.id for row, _ in self.unused[:MOST_NAMED]],
                "failures": self.failures,
            },
        }


def _why_nothing_is_left(labels: NewLabels, cache: Cache) -> str:
    if labels.is_named.any():
        return f"labels none of the {int(labels.is_named.sum()):,} videos of {cache.path} that it names"
    ours = f"ids there are such as {shown(labels.removed[0])}" if labels.removed else "it holds none"
    theirs = f", here such as {shown(labels.unused[0][0].id)}" if labels.unused else ""
    return f"names no used video of {cache.path}; {ours}{theirs}"
