"""Haechi: from videos and images to a harmful-content classifier, in two stages with a file format between them.

    extract_features(data, out)     stage 1: from media to a feature cache (`haechi extract`)
    train_head(cache, out)          stage 2: from a feature cache to a trained head (`haechi train`)
    evaluate_head(run, data)        what that head is worth on other media (`haechi evaluate`)
    Classifier.load(run)            a trained head for new media (`haechi predict`)
    Cache.open(path)                the contents of a cache

Each is imported when it is first used: `import haechi` itself imports neither torch nor h5py.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haechi.cache.reader import Cache
    from haechi.extract.api import extract_features
    from haechi.predict.api import evaluate_head
    from haechi.predict.classifier import Classifier
    from haechi.train.api import train_head

__version__ = "0.1.0"

__all__ = ["Cache", "Classifier", "__version__", "evaluate_head", "extract_features", "train_head"]

# Public name -> its module.
PUBLIC = {
    "Cache": "haechi.cache.reader",
    "Classifier": "haechi.predict.classifier",
    "evaluate_head": "haechi.predict.api",
    "extract_features": "haechi.extract.api",
    "train_head": "haechi.train.api",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
