"""Version 2 as HDF5 shows it to other programs: it must say the same as the index that Haechi reads."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.errors import DamageError
from haechi.cache.hdf5 import Datasets, attributes, is_utf8, open_hdf5, read_errors
from haechi.cache.indexed import Index, Place, read_index


def differences(path: Path, index: Index) -> list[tuple[str, str]]:
    """What HDF5 shows otherwise than the index says, as (dataset, problem). Reads no rows.

    Raises `CacheError` if the file cannot be read.
    """
    problems: list[tuple[str, str]] = []
    try:
        with open_hdf5(path) as file, read_errors(path):
            found, datasets = attributes(file), Datasets(file, version=2)
            problems += [
                ("", f"root attribute {name} is another for HDF5 than in the index")
                for name, value in found.items()
                if value != index.attributes.get(name)
            ]
            for name, place in index.datasets.items():
                shown = datasets.open(name)
                if what := shown if isinstance(shown, str) else _difference(shown, place):
                    problems.append((name, what))
    except DamageError as error:
        problems.append(("", str(error).removeprefix(f"{path}: ").removesuffix("; see `haechi verify`")))
    return problems


def _difference(shown: h5py.h5d.DatasetID, place: Place) -> str:
    """How a dataset of HDF5 differs from the place that the index gives; empty if it does not differ."""
    dtype, shape, offset = shown.dtype, shown.shape, shown.get_offset()
    if dtype.str != place.dtype or (dtype.kind == "S" and not is_utf8(dtype)):
        return f"has type {dtype} for HDF5, {place.dtype} in the index"
    if shape != place.shape:
        return f"has shape {shape} for HDF5, {place.shape} in the index"
    if place.num_bytes and offset != place.offset:
        return f"lies at byte {offset} for HDF5, {place.offset} in the index"
    return ""


def find_index(path: Path) -> tuple[int, Index | None]:
    """The format version of a shard whose seal is damaged, and its index in version 2.

    Datasets are where HDF5 shows them: a program such as `h5repack` moved them, and left index and seal as they were.
    Raises `DamageError` if HDF5 cannot read the file or there is no sound index; and as `read_errors` does.
    """
    with open_hdf5(path) as file, read_errors(path):
        if attributes(file)[schema.VERSION_ATTRIBUTE] != 2:  # another version is refused when attributes are checked
            return 1, None
        datasets = Datasets(file, version=2)
        found = datasets.open(schema.INDEX)
        if isinstance(found, str):
            raise DamageError(f"{path}: /{schema.INDEX} {found}")
        start, length = found.get_offset(), int(np.dtype(found.dtype).itemsize)
        index = read_index(path, start or 0, length)
        moved = {
            name: replace(place, offset=_offset(datasets, path, name, place)) for name, place in index.datasets.items()
        }
    return 2, replace(index, datasets=moved)


def _offset(datasets: Datasets, path: Path, name: str, place: Place) -> int:
    """Where HDF5 shows the rows of a dataset; if it shows none, where the index does."""
    try:
        with read_errors(path):
            found = datasets.open(name)
            shown = None if isinstance(found, str) else found.get_offset()
    except DamageError:
        shown = None
    return place.offset if shown is None else shown
