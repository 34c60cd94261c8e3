"""A process that extracts the same slices as another one, at the same time; its rows need no decoder and no network."""

import functools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from haechi.cache.file_state import MISSING
from haechi.cache.schema import Failure, Item
from haechi.extract import commit, pipeline
from haechi.extract.api import extract_features
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings
from tests import synthetic

SETTINGS = ExtractSettings(clip_weights="random:0", slowfast_weights="random:0", shard_size=2)
MANIFEST = Manifest(
    entries=tuple(
        Entry(id=f"{i}.mp4", file=f"/nowhere/{i}.mp4", label=1, split="", group="", line=0) for i in range(10)
    ),
    notices=(),
)


def _feature_settings() -> dict[str, Any]:
    """As if `SETTINGS` had been used."""
    found: dict[str, Any] = synthetic.settings() | {"sampling": SETTINGS.sampler.settings}
    for stream, model in SETTINGS.models.items():
        found[stream]["model"] = model
    return found


class MadeFlow:
    """In place of `haechi.extract.flow.Flow`: every fourth row is a failure."""

    settings = _feature_settings()
    compute = SimpleNamespace(name="cpu", precision="fp32")
    num_workers = 1

    def __init__(self, meet: Callable[[], object]) -> None:
        self._meet = meet
        self.traits, self.num_saved = Counter[str](), Counter[str]()

    @classmethod
    @contextmanager
    def opened(
        cls, settings: ExtractSettings, num_media: int, *, meet: Callable[[], object] = lambda: None
    ) -> Iterator["MadeFlow"]:
        yield cls(meet)

    def renewed(self) -> "MadeFlow":
        return MadeFlow(self._meet)

    def rows(self, entries: Sequence[Entry], *_: object, **__: object) -> Iterator[tuple[int, Item | Failure]]:
        self._meet()
        for index, entry in enumerate(entries):
            number = int(entry.id.removesuffix(".mp4"))
            row = synthetic.item(synthetic.media(entry.id), seed=number)
            yield index, row if number % 4 else replace(synthetic.failure(entry.id), **vars(MISSING))


def extract_all(outs: list[Path], barrier: Any, is_doomed: bool) -> None:
    """Extract the only slice of each cache. One that is doomed is killed before its last record."""

    def meet() -> None:
        barrier.wait(100)

    pipeline.open_flow = functools.partial(MadeFlow.opened, meet=meet)  # type: ignore[assignment]
    for out in outs:
        if is_doomed and out == outs[-1]:
            commit.create_text = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        meet()
        done = extract_features(MANIFEST, out, slice="0/1", settings=SETTINGS)
        result = {"out": out.name, "has_committed": done.has_committed, "num_used": done.num_used}
        (out.parent / f"{out.name}-{is_doomed}.json").write_text(json.dumps(result))
