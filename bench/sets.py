"""Caches as datasets to compare classifiers on."""

from dataclasses import replace
from pathlib import Path

from bench.recordings import read_recordings
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.settings import TrainSettings


def usable_slowfast(cache: Cache) -> str:
    """`none` where only SlowFast's weights are random: its features would only add noise to trained ones."""
    return "none" if cache.untrained == ["slowfast"] else "logits"


def load_grouped(cache: Cache, settings: TrainSettings, groups: Path | None) -> Dataset:
    """The labelled videos of a cache without its split, with its groups or those of a CSV (see `read_recordings`)."""
    dataset = load_dataset(cache, settings)
    dataset.splits[:] = ""
    return dataset if groups is None else replace(dataset, groups=read_recordings(dataset.ids, groups))


def image_features(cache: Cache) -> str:
    """`trained image features` or `untrained image features`."""
    return f"{'untrained' if 'clip' in cache.untrained else 'trained'} image features"
