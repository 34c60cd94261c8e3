"""What `bench.extract` compares `haechi extract` with. Each runs in its own process.

`python -m bench.contestants NAME MANIFEST` prints JSON: the seconds for all videos, measured after a warm-up.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.videos import local_paths
from haechi.extract.decoding.limits import Limits
from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.settings import ExtractSettings

if TYPE_CHECKING:
    import numpy as np

    from haechi.extract.decoding.pool import DecodePool
    from haechi.extract.decoding.shared_frames import Output

# Decoding processes import this file too, so heavy packages are imported inside functions.


def report(manifest: Manifest, settings: ExtractSettings) -> float:
    """The report's method, with warm networks."""
    import torch

    from bench.measure import device_kind, timed
    from bench.report_extract import ReportExtractor

    extractor = ReportExtractor(settings, torch.device(device_kind()))
    paths = local_paths(manifest)
    extractor.extract(paths[0])
    return timed(lambda: [extractor.extract(path) for path in paths])


def decode(manifest: Manifest, settings: ExtractSettings) -> float:
    """Decoding alone, with one warm process for each core."""
    from haechi.extract.backbones.device import Compute
    from haechi.extract.backbones.pair import Backbones

    outputs = Backbones(settings, Compute.choose(settings)).outputs
    with _pool(settings) as pool:
        _decoded(pool, manifest, outputs)
        started = time.perf_counter()
        for _ in pool.run(local_paths(manifest), outputs):
            pass
        return time.perf_counter() - started


def model(manifest: Manifest, settings: ExtractSettings) -> float:
    """The warm backbones alone, on the same batches, which are decoded before."""
    from bench.measure import timed
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
        return timed(run)


def _pool(settings: ExtractSettings) -> "DecodePool":
    """One decoding process for each core."""
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
    """The frames of all videos, in memory, under the keys that the batch queue needs."""
    from haechi.extract.decoding.pool import DecodedFrames
    from haechi.extract.decoding.supply import Rejected

    pieces = []
    for index, result in pool.run(local_paths(manifest), outputs):
        assert not isinstance(result, Rejected), result
        if isinstance(result, DecodedFrames):
            pieces.append(((index, result.attempt), [array.copy() for array in result.frames]))
    return pieces


CONTESTANTS = {"report": report, "model": model, "decode": decode}


@click.command()
@click.argument("name", type=click.Choice(list(CONTESTANTS)))
@click.argument("manifest", type=click.Path(path_type=Path, exists=True))
@click.option("--settings", required=True, help="Fields of ExtractSettings that differ from the defaults, as JSON.")
@click.option("--small", is_flag=True, help="Use a tiny SlowFast network.")
def main(name: str, manifest: Path, settings: str, *, small: bool) -> None:
    """Run the contestant NAME on the videos of MANIFEST."""
    if small:
        from bench.networks import shrink_slowfast

        shrink_slowfast()
    work_seconds = CONTESTANTS[name](read_manifest(manifest), ExtractSettings(**json.loads(settings)))
    click.echo(json.dumps({"work_seconds": work_seconds}))


if __name__ == "__main__":
    main()
