"""Haechi: videos and images to a harmful-content classifier, in two stages with a file format between them.

    extract_features(data, out)     stage 1: media to a feature cache (`haechi extract`)
    train_head(cache, out)          stage 2: a feature cache to a trained head (`haechi train`)
    Classifier.load(run)            the head on new media (`haechi predict`)
    Cache.open(path)                what a cache holds

Each is loaded when it is first asked for: `import haechi` itself loads neither torch nor h5py.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haechi.cache.reader import Cache
    from haechi.predict.classifier import Classifier

__version__ = "0.1.0"

__all__ = ["Cache", "Classifier", "__version__"]

# Public name -> the module that holds it.
PUBLIC = {
    "Cache": "haechi.cache.reader",
    "Classifier": "haechi.predict.classifier",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
