"""Makes shards with a valid seal and wrong content, such as a stranger or a defect could make."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from haechi.cache.schema import USER_BLOCK_BYTES, Seal


def forge(path: Path, edit: Callable[[h5py.File], object]) -> Path:
    """Change a shard with h5py, then seal it again, so that nothing else is wrong with it."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        edit(file)
    return reseal(path)


def reseal(path: Path) -> Path:
    body = path.read_bytes()[USER_BLOCK_BYTES:]
    seal = Seal(sha256=hashlib.sha256(body).hexdigest(), num_bytes=len(body))
    path.write_bytes(seal.encode() + body)
    return path


def put(file: h5py.File, name: str, values: object, **options: object) -> None:
    """Replace a dataset. It has the form that the contract requires, except for `options`."""
    array = np.asarray(values)
    del file[name]
    form = {"chunks": tuple(max(1, n) for n in array.shape), "maxshape": (None, *array.shape[1:]), "fletcher32": True}
    file.create_dataset(name, data=array, **(form | options))


def put_text(file: h5py.File, name: str, value: bytes) -> None:
    """Replace a root attribute by a text, in the form that the contract requires."""
    file.attrs.create(name, value, dtype=h5py.string_dtype("utf-8", len(value) or 1))


def change(file: h5py.File, name: str, row: int, value: object) -> None:
    """Change one row of a dataset; a text may be longer than the column was."""
    values = list(file[name][:])
    values[row] = value
    if isinstance(value, bytes):
        put(file, name, np.array(values, dtype=h5py.string_dtype("utf-8", max(1, *map(len, values)))))
    else:
        put(file, name, np.array(values, dtype=file[name].dtype))
