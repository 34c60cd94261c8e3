"""Times reading from an object store against reading from this machine: `python -m bench.stores [--data VIDEOS]`.

The store is a SeaweedFS server on this machine, behind a proxy that adds a latency to each request and limits the bytes
per second. Real decoders, and miniature networks, so that most of the time is decoding.
"""

import csv
import json
import os
import tempfile
import threading
from pathlib import Path

import click
import obstore
from obstore.store import S3Store

from bench import measure, servers
from bench.figures import show
from bench.measure import Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.videos import pick_videos, write_manifest

LATENCY_SECONDS, BYTES_PER_SECOND = 0.1, 50e6
SPOOL_GB = 0.05

# Our mark; the spool stays within its bound too.
MARK_RATIO = 1.10

# How often the spool is looked at.
SAMPLE_SECONDS = 0.02


@click.command()
@common
@click.option("--rows", "num_rows", type=click.IntRange(min=2), default=500, show_default=True)
@click.option("--videos", "num_videos", type=click.IntRange(min=2), default=91, show_default=True)
def main(*, data: Path | None, out: Path, rounds: int, quick: bool, num_rows: int, num_videos: int) -> None:
    """Extract the same rows from the store and from this machine, in turn."""
    num_rows, num_videos = (8, 2) if quick else (num_rows, num_videos)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "server").mkdir()
        small = {"height": 96, "width": 128, "num_frames": 40} if quick else {}
        videos = pick_videos(data, folder / "videos", num_videos=num_videos, **small)
        local = write_manifest(folder / "local.csv", videos, num_rows=num_rows)
        megabytes = sum(videos[i % len(videos)].stat().st_size for i in range(num_rows)) / 1e6
        model = write_clip_config(folder / "clip")
        most_spooled: list[int] = []
        with servers.seaweedfs(folder / "server") as address:
            stored = _stored_manifest(folder / "stored.csv", local, _put(videos, address))
            proxy = servers.Proxy(
                target=address.removeprefix("http://"),
                latency_seconds=LATENCY_SECONDS,
                bytes_per_second=BYTES_PER_SECOND,
            )
            with proxy.running() as slow:
                os.environ |= environment(slow)

                def extract(manifest: Path) -> dict[str, float]:
                    spool = folder / "spool"
                    spool.mkdir(exist_ok=True)
                    with tempfile.TemporaryDirectory(dir=folder) as cache, _Watch(spool) as watch:
                        command: list[str | Path] = ["bench.tiny", "extract", manifest, "--out", Path(cache) / "cache"]
                        command += ["--clip-model", model, "--clip-weights", "random:0"]
                        command += ["--slowfast-weights", "random:0", "--spool", spool, "--spool-gb", str(SPOOL_GB)]
                        found: dict[str, float] = json.loads(measure.run([*command, "--json"]).stdout)
                    assert found["num_used"] == num_rows, found
                    most_spooled.append(watch.most_bytes)
                    return found

                runs: dict[str, list[dict[str, float]]] = {"local": [], "stored": []}
                if not quick:
                    extract(local)  # files and code are in memory then
                for number in range(rounds):
                    for which in ("local", "stored") if number % 2 else ("stored", "local"):
                        runs[which].append(extract(local if which == "local" else stored))

    seconds = {
        name: {which: [run[name] for run in found] for which, found in runs.items()}
        for name in ("seconds", "work_seconds")
    }
    whole, working = seconds["seconds"], seconds["work_seconds"]
    latency = f"{LATENCY_SECONDS * 1000:g} ms, {BYTES_PER_SECOND / 1e6:g} MB/s"
    rows = [
        Measurement(what="from this machine", unit="s", values=whole["local"]),
        Measurement(what=f"from a store ({latency})", unit="s", values=whole["stored"]),
        Measurement(
            what="store / this machine",
            unit="x",
            values=measure.ratios(whole["stored"], whole["local"]),
            at_most=MARK_RATIO,
        ),
        Measurement(
            what="the same, without start-up", unit="x", values=measure.ratios(working["stored"], working["local"])
        ),
        Measurement(
            what="largest size of the spool", unit="MB", values=[max(most_spooled) / 1e6], at_most=SPOOL_GB * 1000
        ),
    ]
    show(
        measure.write(
            out, "stores", rows, untrained=True, networks="miniatures", num_rows=num_rows, megabytes=round(megabytes)
        )
    )


def environment(address: str) -> dict[str, str]:
    """S3 at an address."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": servers.KEY_ID,
        "AWS_SECRET_ACCESS_KEY": servers.SECRET,
    }


def _put(videos: list[Path], address: str) -> dict[str, str]:
    """Put the videos into the store. Returns path -> location."""
    store = S3Store(
        servers.BUCKETS[0],
        endpoint=address,
        access_key_id=servers.KEY_ID,
        secret_access_key=servers.SECRET,
        client_options={"allow_http": True},
    )
    found = {}
    for number, video in enumerate(videos):
        key = f"clips/{number:05d}{video.suffix}"
        obstore.put(store, key, video)
        found[str(video)] = f"s3://{servers.BUCKETS[0]}/{key}"
    return found


def _stored_manifest(path: Path, local: Path, locations: dict[str, str]) -> Path:
    """The same manifest, whose files are in the store."""
    with local.open(newline="", encoding="utf-8") as source, path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(file, rows.fieldnames or ())
        writer.writeheader()
        writer.writerows({**row, "path": locations[row["path"]]} for row in rows)
    return path


class _Watch:
    """Looks at the size of a folder while this context manager is open."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most_bytes = 0

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.most_bytes = max(self.most_bytes, sum(_size(path) for path in self._folder.rglob("*")))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # it was deleted meanwhile
        return 0


if __name__ == "__main__":
    main()
