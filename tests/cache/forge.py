"""Makes shards with a valid seal and wrong content, such as a stranger or a defect could make."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.indexed import BadRows, Index, place, read_index
from haechi.cache.schema import USER_BLOCK_BYTES, Seal


def forge(path: Path, edit: Callable[[h5py.File], object]) -> Path:
    """Change a shard with h5py, then index (version 2) and seal it again, so that nothing else is wrong with it."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        edit(file)
        index = _write_index(file) if schema.INDEX in file else (0, 0)
    return reseal(path, index=index)


def reseal(path: Path, *, index: tuple[int, int] | None = None) -> Path:
    """Seal a shard again, of version 1 or 2 as in its seal; `index`: the place of a new index."""
    content = path.read_bytes()
    old = Seal.decode(content[:USER_BLOCK_BYTES], where="the test")
    body = content[USER_BLOCK_BYTES:]
    digest = schema.new_digest(old.version)
    digest.update(body)
    new = Seal(version=old.version, digest=digest.hexdigest(), num_bytes=len(body), index=index or old.index)
    path.write_bytes(new.encode() + body)
    return path


def forge_index(path: Path, edit: Callable[[dict], object]) -> Path:
    """Change the fields of a shard's index, which HDF5 does not see, and seal the shard again."""
    import json
    from dataclasses import asdict

    from xxhash import xxh3_64_hexdigest

    seal = Seal.decode(path.read_bytes()[:USER_BLOCK_BYTES], where="the test")
    fields = json.loads(json.dumps(asdict(read_index(path, *seal.index))))
    edit(fields)
    line = json.dumps(fields).encode() + b"\n"
    content = line + xxh3_64_hexdigest(line).encode() + b"\n"
    start = path.stat().st_size
    with path.open("ab") as file:  # HDF5 ignores what follows its end
        file.write(content)
    return reseal(path, index=(start, len(content)))


def _write_index(file: h5py.File) -> tuple[int, int]:
    """Write the index of what is in the file, as far as an index can say it."""
    del file[schema.INDEX]
    attributes: dict[str, str | int] = {}
    for name, value in file.attrs.items():
        if isinstance(value, bytes):
            try:
                attributes[name] = value.decode()
            except UnicodeDecodeError:
                continue
        elif isinstance(value, np.integer):
            attributes[name] = int(value)
    found = {}

    def add(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.chunks is None and node.shape and not node.is_virtual:
            found[name] = place(node[:], node.id.get_offset() or 0)

    file.visititems(add)
    content = Index(attributes=attributes, datasets=found, bad_rows=_bad_rows(file)).encode()
    dtype = h5py.string_dtype("utf-8", len(content))
    written = file.create_dataset(schema.INDEX, data=np.array(content, dtype=dtype))
    return written.id.get_offset(), len(content)


def _bad_rows(file: h5py.File) -> BadRows:
    zero = nonfinite = 0
    for name, num_axes in schema.DATASETS.items():
        if num_axes == 2 and isinstance(node := file.get(name), h5py.Dataset) and node.dtype.kind == "f":
            finite = np.isfinite(node[:]).all(axis=1)
            nonfinite += int((~finite).sum())
            zero += int((~node[:].any(axis=1)).sum())
    return BadRows(zero=zero, nonfinite=nonfinite)


def put(file: h5py.File, name: str, values: object, **options: object) -> None:
    """Replace a dataset. It has the form that the contract requires, except for `options`."""
    array = np.asarray(values)
    del file[name]
    form: dict[str, object] = {}
    if schema.INDEX not in file:
        chunks = tuple(max(1, n) for n in array.shape)
        form = {"chunks": chunks, "maxshape": (None, *array.shape[1:]), "fletcher32": True}
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
