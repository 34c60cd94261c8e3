"""Judges media with trained heads, on features made with the settings that the heads were trained on."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import Failure, Item
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.text import one_or_more
from haechi.extract.backbones.pair import Backbones
from haechi.extract.flow import open_flow
from haechi.extract.manifest import Entry
from haechi.extract.timing import Stopwatch
from haechi.predict.head_settings import extract_settings, refuse_unnamed_clip
from haechi.predict.heads import HeadInput, Heads
from haechi.predict.media import gather
from haechi.predict.prediction import Prediction, failed
from haechi.train.model.checkpoint import Checkpoint


class Classifier:
    """Trained heads, at most one for each kind of media, with everything that they need to judge it.

    The backbones are loaded once, when they are first needed.
    """

    def __init__(self, heads: Heads, **changes: Any) -> None:
        """`changes` and errors as in `load`."""
        self.heads = heads
        self._model = next(iter(heads.models.values()))  # all are trained on the same features
        self._settings = extract_settings(self._model, changes, heads.path)
        self._backbones: Backbones | None = None

    @classmethod
    def load(cls, *runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **changes: Any) -> "Classifier":
        """Load one run, or one run for videos and one for images. Each is a run folder or its model.pt.

        `changes` are fields of `ExtractSettings`: the device, and where the weights are now if they have moved since
        the cache was made. The weights themselves must be the same.

        Raises what `Heads.load` raises, `SettingsError` for changes that cannot be used, `SettingsConflictError` for
        features that this version cannot make.
        """
        return cls(Heads.load(*runs), **changes)

    @property
    def models(self) -> dict[str, Checkpoint]:
        """Kind -> its head."""
        return self.heads.models

    @property
    def untrained(self) -> list[str]:
        """Backbones with random weights that a head sees, such as `["clip"]`: its scores are meaningless."""
        return self.heads.untrained

    @property
    def sampling(self) -> str:
        """How the run's videos were sampled, one of `haechi.extract.sampling.SAMPLINGS`."""
        return self.heads.sampling

    def predict(
        self,
        media: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        allow_https: bool = False,
        progress: Progress = SILENT,
    ) -> list[Prediction]:
        """Judge one or more files, folders and manifests; one prediction for each file, in the given order.

        `allow_https`: media may be files of web servers. `progress` receives notices too, such as which files of a
        folder were skipped.

        Raises `HaechiError` if nothing can be judged: weights that are missing or not those of the run, no media. A
        file that cannot be judged is a prediction with a reason.
        """
        entries, notices = gather(one_or_more(media), allow_https=allow_https)
        for text in notices:
            progress.notice(text)
        return list(self.judge(entries, progress=progress))

    def judge(self, entries: Sequence[Entry], *, progress: Progress = SILENT) -> Iterator[Prediction]:
        """Judge the entries of a manifest, in order; each is yielded once all before it are judged.

        Without entries, nothing is started or loaded. Raises as `predict` does.
        """
        if not entries:
            return
        refuse_unusable_stores(entry.file for entry in entries)
        refuse_unnamed_clip(self._settings, self._model, self.heads.path)
        with open_flow(self._settings, len(entries), backbones=self._backbones) as flow:
            self._backbones = flow.backbones
            self.heads.refuse_other_features(flow.settings)
            progress.start(len(entries), f"judge on {flow.compute.name}, {flow.compute.precision}")
            waiting: dict[int, Prediction] = {}
            following = 0
            for index, row in flow.rows(entries, Stopwatch(), progress=progress):
                if isinstance(row, Failure):
                    waiting[index] = failed(row)
                else:
                    (waiting[index],) = self.heads.judge([self._head_input(row)])
                progress.advance(failed=bool(waiting[index].reason))
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def predict_cache(self, cache: Cache, *, progress: Progress = SILENT) -> list[Prediction]:
        """Judge all media of a cache, labelled or not; its failures keep their reasons.

        Raises what `Heads.judge_cache` raises.
        """
        return list(self.heads.judge_cache(cache, progress=progress))

    def _head_input(self, item: Item) -> HeadInput:
        return HeadInput(
            id=item.media.id,
            kind=item.media.kind,
            duration_seconds=item.media.duration_seconds,
            arrays={name: item.arrays[name] for name in self.heads.array_names},
        )
