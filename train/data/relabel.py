"""Labels from a file instead of the cache, for one run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.labels import LabelRule
from haechi.cache.manifest_file import ManifestRow, read_manifest_file
from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.cache.spelling import Names, hint
from haechi.cache.text import bullet_list, counted, shown, visible
from haechi.train.errors import TrainError

# The columns that a file may replace.
REPLACED = ("label", "split", "group")

# The most ids that are listed of videos which are only in the cache or only in the file.
MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class NewLabels:
    """A file's labels, splits and groups for the N used videos of a cache."""

    file: str
    """Its name, without folders."""
    sha256: str
    """Hash of the file's bytes."""
    replaced: list[str]
    """The columns of `REPLACED` that the file has."""
    media: dict[str, np.ndarray]
    """Columns of `REPLACED`, each (N,): from the cache if the file lacks the column. For videos that the file does not
    list: -1 or empty, or with `keep_unlisted` from the cache."""
    is_named: np.ndarray
    """(N,) bool: the file lists the video."""
    keep_unlisted: bool
    """Whether videos that the file does not list are used as the cache has them."""
    unlisted: list[str]
    """The ids of the cache's used videos that the file does not list."""
    unused: list[tuple[ManifestRow, str]]
    """The file's rows that are not used videos of the cache, each with the reason why extraction failed; empty: not in
    the cache."""
    notes: list[str]
    """Other remarks on the file for the user."""
    positive_labels: list[str] = field(default_factory=list)
    """The names of its harmful labels, if the user gave them."""
    others: dict[str, str] = field(default_factory=dict)
    """Id of an unused row -> the id in the cache that it is another spelling of."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """Other columns that were asked for: name -> (N,) str; empty for videos that the file does not list."""

    @classmethod
    def read(
        cls,
        cache: Cache,
        file: Path,
        *,
        positive_labels: Sequence[str] = (),
        keep_unlisted: bool = False,
        extra: Sequence[str] = (),
    ) -> "NewLabels":
        """Read a manifest, or the export of a labelling tool, for a cache. Each of its rows needs an id or a path.

        `positive_labels`: the names of its harmful labels, in any case; all others are safe. `keep_unlisted`: videos
        that it does not list keep the label, split and group of the cache, and are left out otherwise. `extra`: other
        columns to keep.

        Raises `ManifestError` that lists everything wrong in the file; `TrainError` if it lists no used video, or if no
        labelled video is left.
        """
        rule = LabelRule(positive=tuple(positive_labels))
        read = read_manifest_file(file, keys=("id", "path"), extra=tuple(extra), rule=rule, exports=True)
        ids, by_id = cache.media["id"].tolist(), {row.id: row for row in read.rows}
        rows = [by_id.get(id) for id in ids]
        replaced = [name for name in REPLACED if name in read.columns]
        is_named = np.array([row is not None for row in rows], dtype=bool)
        media = {}
        for name in REPLACED:
            unlisted = cache.media[name] if keep_unlisted else UNLABELLED if name == "label" else ""
            values = np.where(is_named, cache.media[name], unlisted).astype(cache.media[name].dtype)
            if name in replaced:
                values[is_named] = [getattr(row, name) for row in rows if row is not None]
            media[name] = values
        used, reasons = set(ids), {failure.id: failure.reason for failure in cache.failures}
        unused = [(row, reasons.get(row.id, "")) for row in read.rows if row.id not in used]
        unknown = [row.id for row, reason in unused if not reason]
        names = Names([*ids, *reasons] if unknown else ())
        result = cls(
            file=visible(file.name),
            sha256=read.sha256,
            replaced=replaced,
            media=media,
            is_named=is_named,
            keep_unlisted=keep_unlisted,
            unlisted=[id for id, row in zip(ids, rows, strict=True) if row is None],
            unused=unused,
            notes=list(read.notices),
            positive_labels=list(positive_labels),
            others={id: other for id in unknown if (other := names.find(id)) is not None},
            extra={name: np.array([row.extra[name] if row else "" for row in rows], dtype=object) for name in extra},
        )
        if not is_named.any() or (result.media["label"] == UNLABELLED).all():
            raise TrainError("\n".join([f"{file}: {_explain_empty(result, cache)}", *result.notices]))
        return result

    @property
    def is_used(self) -> np.ndarray:
        """(N,) bool: the file lists the video, or it is kept as the cache has it."""
        return np.full_like(self.is_named, fill_value=True) if self.keep_unlisted else self.is_named

    @property
    def removed(self) -> list[str]:
        """The ids of the videos that are left out because the file does not list them."""
        return [] if self.keep_unlisted else self.unlisted

    @property
    def kept(self) -> list[str]:
        """The ids of the videos that the file does not list, and that are used as the cache has them."""
        return self.unlisted if self.keep_unlisted else []

    @property
    def notices(self) -> list[str]:
        """What the user should read before the first epoch."""
        kept = [name for name in REPLACED if name not in self.replaced]
        sources = ((self.replaced, shown(self.file)), (kept, "the cache"))
        notices = ["; ".join(f"{', '.join(names)} from {source}" for names, source in sources if names), *self.notes]
        if self.removed:
            notices.append(
                f"removed: {counted(len(self.removed), 'video')} of the cache left out, not listed in "
                f"{shown(self.file)}\n{bullet_list(list(map(shown, self.removed)), limit=MOST_NAMED)}"
            )
        if self.kept:
            notices.append(
                f"kept: {counted(len(self.kept), 'video')} not listed in {shown(self.file)}, with label, split and "
                "group of the cache"
            )
        if self.unused:
            failed = [reason for _, reason in self.unused if reason]
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.failures.items())
            lines = [
                f"{row.place}: {shown(row.id)}: {reason or 'not in the cache'}"
                + (f", but {hint(row.id, self.others[row.id])}" if row.id in self.others else "")
                for row, reason in self.unused
            ]
            notices.append(
                f"unused: the cache has no features for {counted(len(self.unused), 'row')} of {shown(self.file)}"
                + (f"; extraction failed for {len(failed):,} of them ({counts})" if failed else "")
                + (f"; {counted(len(self.others), 'is', 'are')} there under another spelling" if self.others else "")
                + f"\n{bullet_list(lines, limit=MOST_NAMED)}"
            )
        return notices

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> number of the file's videos for which extraction failed."""
        return dict(sorted(Counter(reason for _, reason in self.unused if reason).items()))

    def record(self) -> dict[str, Any]:
        """The entry of metrics.json; `kept` only with `keep_unlisted`."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "replaced": self.replaced,
            "positive_labels": self.positive_labels,
            "named": int(self.is_named.sum()),
            "removed": {"count": len(self.removed), "ids": self.removed[:MOST_NAMED]},
            "unused": {
                "count": len(self.unused),
                "ids": [row.id for row, _ in self.unused[:MOST_NAMED]],
                "failures": self.failures,
            },
            **({"kept": {"count": len(self.kept)}} if self.keep_unlisted else {}),
        }


def _explain_empty(labels: NewLabels, cache: Cache) -> str:
    """Why no labelled video is left, or that the file lists none that is used."""
    if labels.is_named.any():
        return f"has no label for the {counted(int(labels.is_named.sum()), 'video')} of {cache.name} that it lists"
    ours = f"an id there is {shown(labels.unlisted[0])}" if labels.unlisted else "that cache has none"
    theirs = f", one here is {shown(labels.unused[0][0].id)}" if labels.unused else ""
    return f"lists no used video of {cache.name}; {ours}{theirs}"
