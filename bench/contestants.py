"""What `haechi extract` competes with in `bench.extract`, each in a process of its own.

`python -m bench.contestants NAME MANIFEST` prints JSON: the seconds from the first video to the last, all being warm.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haechi.extract.decoding.limits import Limits
from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.settings import ExtractSettings

if TYPE_CHECKING:
    import numpy as np

    from haechi.extract.decoding.pool import DecodePool
    from haechi.extract.decoding.shared_frames import Output

# Decoding processes load this file too: what is heavy is imported where it is needed.


def report(manifest: Manifest, settings: ExtractSettings) -> float:
    """The report's way, its networks warm."""
    import torch

    from bench.measure import device_kind, seconds_of
    from bench.report_extract import ReportExtractor

    extractor = ReportExtractor(settings, torch.device(device_kind()))
    extractor.extract(manifest.entries[0].path)
    return seconds_of(lambda: [extractor.extract(entry.path) for entry in manifest.entries])


def decode(manifest: Manifest, settings: ExtractSettings) -> float:
    """Only decoding, by a process a core, all of them warm."""
    from haechi.extract.backbones.device import Compute
    from haechi.extract.backbones.pair import Backbones

    outputs = Backbones(settings, Compute.choose(settings)).outputs
    with _pool(settings) as pool:
        _decoded(pool, manifest, outputs)
        started = time.perf_counter()
        for _ in pool.run([entry.path for entry in manifest.entries], outputs):
            pass
        return time.perf_counter() - started


def model(manifest: Manifest, settings: ExtractSettings) -> float:
    """Only the backbones, warm, on the same batches, decoded before."""
    from bench.measure import seconds_of
    from haechi.extract.backbones.batch_queue import BatchQueue
    from haechi.extract.backbones.device import Compute
    from haechi.extract.backbones.pair import Backbones

    compute = Compute.choose(settings)
    backbones = Backbones(settings, compute)
    with _pool(settings) as pool:
        pieces = _decoded(pool, manifest, backbones.outputs)

    def run() -> None:
        queue = BatchQueue(backbones)
        for key, frames in pieces:
            queue.add(key, frames)
        queue.drain()

    with compute.applied():
        run()
        return seconds_of(run)


def _pool(settings: ExtractSettings) -> "DecodePool":
    """A decoding process a core."""
    import joblib

    from haechi.extract.decoding.pool import DecodePool

    return DecodePool(
        num_workers=joblib.cpu_count(),
        sampling=settings.sampler,
        limits=Limits.of(settings),
    )


def _decoded(
    pool: "DecodePool", manifest: Manifest, outputs: "list[Output]"
) -> "list[tuple[tuple[int, int], list[np.ndarray]]]":
    """Every video's frames in memory."""
    from haechi.extract.decoding.pool import DecodedFrames, Rejected

    pieces = []
    for index, result in pool.run([entry.path for entry in manifest.entries], outputs):
        assert not isinstance(result, Rejected), result
        if isinstance(result, DecodedFrames):
            pieces.append(((index, result.attempt), [array.copy() for array in result.frames]))
    return pieces


CONTESTANTS = {"report": report, "model": model, "decode": decode}


@click.command()
@click.argument("name", type=click.Choice(list(CONTESTANTS)))
@click.argument("manifest", type=click.Path(path_type=Path, exists=True))
@click.option("--settings", required=True, help="The fields of ExtractSettings that differ, as JSON.")
@click.option("--small", is_flag=True, help="With a SlowFast in miniature.")
def main(name: str, manifest: Path, settings: str, *, small: bool) -> None:
    """Let one of them run on the videos of MANIFEST."""
    if small:
        from bench.networks import shrink_slowfast

        shrink_slowfast()
    work_seconds = CONTESTANTS[name](read_manifest(manifest), ExtractSettings(**json.loads(settings)))
    click.echo(json.dumps({"work_seconds": work_seconds}))


if __name__ == "__main__":
    main()
