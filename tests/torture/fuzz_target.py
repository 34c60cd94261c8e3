"""Fuzzes one reader in this process: `python -m tests.torture.fuzz_target NAME FOLDER SECONDS SEED`.

Writes to the folder: `progress.json`, and for each exception that is not a `HaechiError` its input and its traceback.
"""

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_hexdigest

try:
    import atheris
except ModuleNotFoundError:
    atheris = None

with atheris.instrument_imports(include=["haechi"]) if atheris else contextlib.nullcontext():
    from haechi.cache.errors import HaechiError
    from haechi.cache.indexed import TYPES, Index, Place, place
    from haechi.cache.integrity.verify import verify
    from haechi.cache.reader import Cache
    from haechi.cache.schema import STREAMS, USER_BLOCK_BYTES, VERSIONS, Seal, new_digest
    from haechi.extract.manifest import read_manifest

from tests import synthetic
from tests.torture.hdf5_checksums import fix_checksums

TIMEOUT_SECONDS, MEMORY_MEGABYTES = 30, 2000

CSV = 'path,label,split,group,id\na/b.mp4,1,train,g,x\n"c,d.mp4",safe,,,\n../e.mp4,,test,h,\n'
JSON = '{"path": "a.mp4", "label": 1}\n{"path": "b.mp4", "label": "safe", "split": "val", "group": "g", "id": "ü"}\n'


def read_cache(data: bytes, folder: Path) -> None:
    """Read everything in a cache whose one shard has these bytes, with a valid seal and correct checksums."""
    body = fix_checksums(data[USER_BLOCK_BYTES:])
    index = (0, 0)
    with contextlib.suppress(HaechiError):
        index = Seal.decode(data[:USER_BLOCK_BYTES], where="the input").index
    version = 2 if any(index) else 1
    if version == 2:
        body = _with_right_index(body, index)
    digest = new_digest(version)
    digest.update(body)
    seal = Seal(version=version, digest=digest.hexdigest(), num_bytes=len(body), index=index)
    (folder / "shard-00000.h5").write_bytes(seal.encode() + body)
    with contextlib.suppress(HaechiError):
        verify(folder)
    with contextlib.suppress(HaechiError):
        cache = Cache.open(folder)
        assert len(cache.media["id"]) + len(cache.failures) == len(cache.locations)
        for stream, names in STREAMS.items():
            for name in names:
                assert len(cache.rows(stream, name)) == cache.offset(stream)[-1]


def _with_right_index(body: bytes, index: tuple[int, int]) -> bytes:
    """`body` of a shard of version 2 with the right checksums of its index, and of blocks if the index can be read."""
    start, length = index[0] - USER_BLOCK_BYTES, index[1]
    if start < 0 or start + length > len(body) or length < 17:
        return body
    line = body[start : start + length - 17]
    fixed = line + xxh3_64_hexdigest(line).encode() + b"\n"
    with contextlib.suppress(HaechiError):
        found = Index.decode(fixed, where="the input")
        datasets = {name: _with_right_checksums(body, each) for name, each in found.datasets.items()}
        again = replace(found, datasets=datasets).encode()
        fixed = again if len(again) == length else fixed
    return body[:start] + fixed + body[start + length :]


def _with_right_checksums(body: bytes, found: Place) -> Place:
    """A place with the checksums of the bytes that are there, if it is inside the file."""
    if not TYPES.fullmatch(found.dtype) or not found.shape or min(found.shape) < 0:
        return found
    start = found.offset - USER_BLOCK_BYTES
    if start < 0 or start + found.num_bytes > len(body):
        return found
    values = np.frombuffer(body, found.dtype, found.num_bytes // np.dtype(found.dtype).itemsize, start)
    return place(values.reshape(found.shape), found.offset)


def read_labels(data: bytes, folder: Path) -> None:
    """Read a manifest with these bytes: as JSON Lines if they start with a brace, otherwise as CSV."""
    path = folder / ("labels.jsonl" if data[:1] == b"{" else "labels.csv")
    path.write_bytes(data)
    with contextlib.suppress(HaechiError):
        read_manifest(path)


def seed_inputs(name: str, folder: Path) -> list[bytes]:
    """Valid inputs to start from: manifests, or shards that are written to `folder`."""
    if name == "manifest":
        return [CSV.encode(), JSON.encode(), b"\xef\xbb\xbf" + CSV.encode()]
    found = []
    for version in VERSIONS:
        for num_failures in (0, 2):
            cache = synthetic.write_cache(
                folder / f"valid-{version}-{num_failures}",
                num_harmful=2,
                num_safe=1,
                num_failures=num_failures,
                version=version,
            )
            found.append((cache / "shard-00000.h5").read_bytes())
    return found


TARGETS: dict[str, Callable[[bytes, Path], None]] = {"cache": read_cache, "manifest": read_labels}


class Fuzzing:
    """Calls one target, counts the calls and saves each exception that is not a `HaechiError` once per line of code."""

    def __init__(self, name: str, folder: Path) -> None:
        self._target, self._folder = TARGETS[name], folder
        self._work = folder / "work"
        self._work.mkdir()
        self._seen: set[str] = set()
        self.number = 0

    def __call__(self, data: bytes) -> None:
        self.number += 1
        try:
            self._target(data, self._work)
        except Exception as error:  # noqa: BLE001 (each is a finding)
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
            if key not in self._seen:
                self._seen.add(key)
                (self._folder / f"raised-{key}.input").write_bytes(data)
                (self._folder / f"raised-{key}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        if self.number % 100 == 1:
            self.write_progress()

    def write_progress(self) -> None:
        (self._folder / "progress.json").write_text(json.dumps({"number": self.number, "guided": atheris is not None}))


def main(name: str, folder: Path, seconds: int, seed: int) -> None:
    inputs = seed_inputs(name, folder)
    fuzzing = Fuzzing(name, folder)
    for data in inputs:
        fuzzing(data)
    if atheris is None:
        _at_random(fuzzing, inputs, seconds, seed)
        return
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, data in enumerate(inputs):
        (corpus / str(i)).write_bytes(data)
    flags = [
        *(f"-max_total_time={seconds}", f"-timeout={TIMEOUT_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}"),
        *(f"-artifact_prefix={folder}/died-", f"-max_len={2 * max(map(len, inputs))}", "-verbosity=0"),
        f"-seed={seed + 1}",  # 0 would take the seed from the clock
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], fuzzing)
    atheris.Fuzz()  # ends this process


def _at_random(fuzzing: Fuzzing, inputs: list[bytes], seconds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = bytearray(inputs[int(rng.integers(len(inputs)))])
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        fuzzing(bytes(data))
    fuzzing.write_progress()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
