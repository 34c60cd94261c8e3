"""`haechi validate`: the checks of an extraction without its models."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib

from haechi.cache.atomic import replaced
from haechi.cache.errors import HaechiError
from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import LABEL_NAMES
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.text import harmless
from haechi.extract.decoding.decode import DecodedFile
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodedFrames, DecodePool
from haechi.extract.decoding.reasons import DEFECT, STAGES
from haechi.extract.decoding.supply import Rejected
from haechi.extract.interrupt import Interrupt
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores.fetcher import supply

COLUMNS = ("id", "label", "ok", "stage", "reason", "message")
KNOWN = ("duration_seconds", "fps", "num_frames", "width", "height", "sha256")

Check = tuple[Entry, DecodedFile | Rejected]
"""An entry of the manifest, with what is known of its file, or why it cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The checks of a manifest; not all of them if the run ended early."""

    checks: list[Check]
    """In the manifest's order."""
    num_rows: int
    """Rows of the manifest."""
    error: HaechiError | None
    """What ended the run early; None also after Ctrl-C."""

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> number of files that cannot be used because of it."""
        return dict(sorted(Counter(rejected.reason.value for rejected in self._rejected).items()))

    @property
    def num_failed(self) -> int:
        return len(self._rejected)

    @property
    def num_defects(self) -> int:
        """How many of the failures are due to an error in Haechi's own code."""
        return sum(rejected.message.startswith(DEFECT) for rejected in self._rejected)

    @property
    def traits(self) -> dict[str, int]:
        """`haechi.extract.decoding.container.Trait` -> how many of the files that can be used have it."""
        found = [result.traits for _, result in self.checks if isinstance(result, DecodedFile)]
        return dict(sorted(Counter(trait.value for traits in found for trait in traits).items()))

    @property
    def _rejected(self) -> list[Rejected]:
        return [result for _, result in self.checks if isinstance(result, Rejected)]


def check_all(manifest: Manifest, settings: ExtractSettings, *, progress: Progress = SILENT) -> Validation:
    """Decode every sampled frame of every video and keep none.

    After Ctrl-C no new video is started, and the entries that were not checked are missing in the result. They are
    missing too if the decoding processes fail, with the error of `DecodePool.run`.
    """
    entries = manifest.entries
    refuse_unusable_stores(entry.file for entry in entries)
    results: dict[int, DecodedFile | Rejected] = {}
    error = None
    progress.start(len(entries), "validate")
    pool = DecodePool(
        num_workers=max(1, min(settings.workers or joblib.cpu_count(), len(entries))),
        sampling=settings.sampler,
        limits=Limits.of(settings),
    )
    files = supply([entry.path for entry in entries], settings)
    with Interrupt(progress) as interrupt, pool, files as given:  # left last, it still listens while processes stop
        interrupt.listen()
        try:
            for index, result in pool.run(given, outputs=[], stopping=interrupt.poll):
                if not isinstance(result, DecodedFrames):
                    results[index] = result
                    progress.advance(failed=isinstance(result, Rejected))
        except HaechiError as failure:
            error = failure
    checks = [(entries[index], results[index]) for index in sorted(results)]
    return Validation(checks=checks, num_rows=len(entries), error=error)


def refuse_other_file(path: Path) -> None:
    """Raise `HaechiError` if `path` holds anything but an earlier result, or if its folder cannot be written to."""
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written to" if folder.is_dir() else "no such folder; create it first"
        raise HaechiError(f"{path}: {folder}: {what}")
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if file.readline().strip() != ",".join([*COLUMNS, *KNOWN]):
            raise HaechiError(f"{path}: exists and is not a result of `haechi validate`; name another file with --out")


def write_csv(path: Path, checks: Sequence[Check]) -> None:
    """Write one row for each check: the id, whether the file can be used, why not, and what is known of it."""
    with replaced(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *KNOWN])
        for entry, result in checks:
            head = [harmless(entry.id), LABEL_NAMES[entry.label]]
            if isinstance(result, Rejected):
                reason = result.reason
                row = [*head, 0, STAGES[reason], reason.value, harmless(result.message), *[""] * len(KNOWN)]
            else:
                row = [*head, 1, "", "", "", *(getattr(result, name) for name in KNOWN)]
            writer.writerow(row)
