"""Paths that have to be on this machine, where a user may give the location of an object store."""

import os
import re
from pathlib import Path

from haechi.cache.errors import SettingsError
from haechi.cache.location import scheme_of, without_secrets
from haechi.cache.text import shown

_ONE_SLASH = re.compile(r"(s3|gs|az|hf|https?):/(?!/)")


def has_one_slash(text: str) -> bool:
    """Whether a text is a location that lacks a slash, as `Path` makes of `s3://bucket`."""
    return _ONE_SLASH.match(text) is not None


def local_path(path: str | os.PathLike[str], *, what: str) -> Path:
    """The path. Raises `SettingsError` if it is a location in a store or on a web server; `what` it is for."""
    text = os.fspath(path)
    if scheme_of(text) or has_one_slash(text):
        name = shown(without_secrets(text))
        raise SettingsError(
            [f"{what} is {name}, expected a path on this machine: only `haechi extract --out` writes to object stores"]
        )
    return Path(text)
