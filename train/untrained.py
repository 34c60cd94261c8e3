"""Which backbones with random weights a head depends on: those whose features it sees."""

from collections.abc import Iterable

from haechi.cache.schema import STREAMS


def seen_by_head(untrained: Iterable[str], streams: Iterable[str]) -> list[str]:
    """Of a cache's backbones with random weights, those whose features a head sees.

    `streams` are the arrays of the cache that the head sees, such as `clip/features`.
    """
    seen = {stream.partition("/")[0] for stream in streams}
    return [name for name in untrained if name in seen]


def of_all_heads(untrained: Iterable[Iterable[str]]) -> list[str]:
    """The backbones with random weights that at least one of several heads sees, in the order of `STREAMS`."""
    found = {name for names in untrained for name in names}
    return [stream for stream in STREAMS if stream in found]
