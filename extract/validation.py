"""`haechi validate`: the checks of an extraction without its models."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import joblib

from haechi.cache.errors import HaechiError
from haechi.cache.schema import LABEL_NAMES
from haechi.cache.text import harmless
from haechi.extract.decoding.decode import Sampled
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodePool, Piece, Rejected
from haechi.extract.decoding.reasons import STAGE_OF
from haechi.extract.manifest import Manifest
from haechi.extract.settings import ExtractSettings

COLUMNS = ("id", "label", "ok", "stage", "reason", "message")
KNOWN = ("duration_seconds", "fps", "num_frames", "width", "height", "sha256")


def check_all(
    manifest: Manifest, settings: ExtractSettings, *, on_video: Callable[[bool], None]
) -> list[Sampled | Rejected]:
    """Decode every sampled frame of every video and keep none; a result an entry, in the manifest's order.

    `on_video` hears of each as it is done, and whether it failed.
    """
    results: dict[int, Sampled | Rejected] = {}
    pool = DecodePool(
        num_workers=min(settings.workers or joblib.cpu_count(), len(manifest.entries)),
        sampling=settings.sampler,
        limits=Limits.of(settings),
    )
    with pool:
        for index, result in pool.run([entry.path for entry in manifest.entries], outputs=[]):
            if not isinstance(result, Piece):
                results[index] = result
                on_video(isinstance(result, Rejected))
    return [results[index] for index in range(len(manifest.entries))]


def refuse_other_file(path: Path) -> None:
    """Raise `HaechiError` where `path` holds anything but an earlier result, such as the manifest itself."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if file.readline().strip() != ",".join([*COLUMNS, *KNOWN]):
            raise HaechiError(f"{path}: exists and is no result of `haechi validate`; name another file with --out")


def write_csv(path: Path, manifest: Manifest, results: Sequence[Sampled | Rejected]) -> None:
    """A row an entry: its id, whether it can be used, why not, and what is known of it. Replaces the file whole."""
    temporary = path.with_name(f".partial-{path.name}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *KNOWN])
            for entry, result in zip(manifest.entries, results, strict=True):
                head = [harmless(entry.id), LABEL_NAMES[entry.label]]
                if isinstance(result, Rejected):
                    reason = result.reason
                    writer.writerow(
                        [*head, 0, STAGE_OF[reason], reason.value, harmless(result.message)] + [""] * len(KNOWN)
                    )
                else:
                    writer.writerow([*head, 1, "", "", "", *(getattr(result, name) for name in KNOWN)])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
