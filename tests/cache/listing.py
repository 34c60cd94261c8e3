"""Describes the content of a shard in the form that cache_schema.md shows.

`python -m tests.cache.listing SHARD` prints the document's three examples: seal, listing, settings.
"""

import json
import re
import sys
from pathlib import Path

import h5py

from haechi.cache.schema import USER_BLOCK_BYTES

MAX_VALUE_CHARACTERS = 66


def listing(path: Path) -> str:
    """One line for each root attribute with its value, then one for each dataset with its shape and type."""
    lines = []
    with h5py.File(path) as file:
        for name, value in sorted(file.attrs.items()):
            text = value.decode() if isinstance(value, bytes) else str(value)
            cut = text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"
            lines.append(f"{name:17} {cut}")
        names: list[str] = []
        file.visit(names.append)
        for name in names:
            if isinstance(node := file[name], h5py.Dataset):
                info = h5py.check_string_dtype(node.dtype)
                dtype = node.dtype.name if info is None else f"{info.encoding}, {info.length} bytes"
                shape = ", ".join(map(str, node.shape))
                lines.append(f"/{name:24} ({shape})".ljust(40) + dtype)
    return "\n".join(lines)


def structure(text: str) -> list[str]:
    """The lines of a listing without values and text lengths: equal for shards with equal numbers of rows."""
    return [
        re.sub(r"utf-8, \d+ bytes", "utf-8", line) if line.startswith("/") else line.split()[0]
        for line in text.splitlines()
    ]


def seal(path: Path) -> str:
    """The three lines at the start of a shard."""
    return path.read_bytes()[:USER_BLOCK_BYTES].decode("ascii").rstrip("\n")


def settings(path: Path) -> str:
    """settings_json on several lines; an object that fits on one line stays on it."""
    with h5py.File(path) as file:
        return _spread(json.loads(file.attrs["settings_json"].decode()))


def _spread(value: dict, *, indent: int = 0) -> str:
    lines = []
    for key, field in value.items():
        text = json.dumps(field)
        if isinstance(field, dict) and len(text) > MAX_VALUE_CHARACTERS:
            text = _spread(field, indent=indent + 2)
        lines.append(f"{' ' * (indent + 2)}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{' ' * indent}}}"


if __name__ == "__main__":
    shard = Path(sys.argv[1])
    sys.stdout.write("\n\n".join([seal(shard), listing(shard), settings(shard)]) + "\n")
