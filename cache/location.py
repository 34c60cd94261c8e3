"""Names of files that are not on this machine: `s3://bucket/clips/a.mp4`, `https://host/a.mp4?signature`."""

import re

# What copies of caches in object stores may use together, 1e9 bytes.
SHARD_CACHE_GB = 50.0

_START = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(text: str) -> str:
    """The scheme in small letters, such as `s3`; empty for a local path."""
    found = _START.match(text) if "://" in text else None
    return found[1].lower() if found else ""


def without_secrets(text: str) -> str:
    """A location without the parts that can hold a password or a signature: user, query, fragment. A path as it is."""
    scheme = scheme_of(text)
    if not scheme:
        return text
    host, slash, key = text[len(scheme) + 3 :].partition("/")
    host, key = host.partition("?")[0], key.partition("?")[0]
    if scheme in ("http", "https"):
        host, key = host.partition("#")[0], key.partition("#")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{key}"
