"""The contents of a cache by id, to compare caches, and checks that a cache is free of damage."""

from collections import Counter
from pathlib import Path

from haechi.cache.atomic import PARTIAL_PREFIX
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import STREAMS

Contents = dict[str, tuple[object, ...]]


def read_contents(path: Path) -> Contents:
    """Id -> all columns, features (as bytes) and times of a video, or all columns of a failure."""
    cache = Cache.open(path)
    rows: Contents = {failure.id: tuple(vars(failure).values()) for failure in cache.failures}
    columns = [column.tolist() for column in cache.media.values()]
    arrays = [(cache.offset(stream), cache.rows(stream, name)) for stream, names in STREAMS.items() for name in names]
    for i, values in enumerate(zip(*columns, strict=True)):
        features = tuple(array[offset[i] : offset[i + 1]].tobytes() for offset, array in arrays)
        rows[values[0]] = (*values, *features)
    return rows


def flaws(path: Path, *, finished: bool) -> list[str]:
    """Everything wrong with a cache: problems that verify finds, ids stored twice, unexpected files. One line each.

    Partly written shards are allowed only if the run is not `finished`. A folder without shards has no flaws.
    """
    if not path.is_dir() or not shard_paths(path):
        return []
    found = [f"{problem.shard} {problem.dataset} {problem.what}" for problem in verify(path).problems]
    if found:
        return found
    ids = Counter(
        id for shard in Cache.open(path).shards for ids in shard.read("media/id", "failure/id") for id in ids.tolist()
    )
    found += [f"{id} is stored {count} times" for id, count in ids.items() if count > 1]
    unexpected = {file.name for file in path.iterdir()} - {shard.name for shard in shard_paths(path)} - {".lock"}
    found += [f"unexpected file {name}" for name in unexpected if finished or not name.startswith(PARTIAL_PREFIX)]
    return found


def differences(got: Contents, expected: Contents) -> list[str]:
    """One line for each id that only one of the two caches holds, or whose rows differ."""
    missing = [f"{id} is missing" for id in expected.keys() - got.keys()]
    extra = [f"{id} is not expected" for id in got.keys() - expected.keys()]
    return missing + extra + [f"{id} differs" for id in expected.keys() & got.keys() if got[id] != expected[id]]
