"""What a cache holds: by id, for comparing caches that came about in different ways, and whether it is sound."""

from collections import Counter
from pathlib import Path

from haechi.cache.atomic import PARTIAL_PREFIX
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import STREAMS

Held = dict[str, tuple[object, ...]]


def held(path: Path) -> Held:
    """Id -> all columns, features and times of a video, or all columns of a failure."""
    cache = Cache.open(path)
    rows: Held = {failure.id: tuple(vars(failure).values()) for failure in cache.failures}
    columns = [column.tolist() for column in cache.media.values()]
    arrays = [(cache.offset(stream), cache.rows(stream, name)) for stream, names in STREAMS.items() for name in names]
    for i, values in enumerate(zip(*columns, strict=True)):
        features = tuple(values_of[offset[i] : offset[i + 1]].tobytes() for offset, values_of in arrays)
        rows[values[0]] = (*values, *features)
    return rows


def flaws(path: Path, *, finished: bool) -> list[str]:
    """What is wrong with a cache: problems that verify finds, ids that stand twice, files that do not belong in it.

    Only a run that is not `finished` may leave shards in the making. A folder without shards is sound.
    """
    if not path.is_dir() or not shard_paths(path):
        return []
    found = [f"{problem.shard} {problem.dataset} {problem.what}" for problem in verify(path).problems]
    if found:
        return found
    ids = Counter(
        id for shard in Cache.open(path).shards for ids in shard.read("media/id", "failure/id") for id in ids.tolist()
    )
    found += [f"{id} stands {count} times" for id, count in ids.items() if count > 1]
    strangers = {file.name for file in path.iterdir()} - {shard.name for shard in shard_paths(path)} - {".lock"}
    found += [f"{name} lies in it" for name in strangers if finished or not name.startswith(PARTIAL_PREFIX)]
    return found


def differences(got: Held, expected: Held) -> list[str]:
    """Ids on one side only, and those whose rows differ."""
    missing = [f"{id} is missing" for id in expected.keys() - got.keys()]
    extra = [f"{id} is extra" for id in got.keys() - expected.keys()]
    return missing + extra + [f"{id} differs" for id in expected.keys() & got.keys() if got[id] != expected[id]]
