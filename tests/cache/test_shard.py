"""Opening a shard: each kind of problem has a shard made by hand and a message of its own."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from xxhash import xxh3_64_hexdigest

from haechi.cache import schema
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.hdf5 import MAX_ATTRIBUTE_BYTES, Hdf5Content, open_hdf5
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.schema import TEXT_ATTRIBUTES, USER_BLOCK_BYTES
from haechi.cache.shard import Shard, read_attributes, read_seal, structure_problems
from haechi.cache.writer import write_shard
from tests import synthetic
from tests.cache.forge import forge, forge_index, put, put_text, reseal

Edit = Callable[[h5py.File], object]


@pytest.fixture
def path(tmp_path: Path, version: int) -> Path:
    """A shard of five videos and a failure, of each version in turn."""
    synthetic.write_cache(tmp_path, num_harmful=3, num_safe=2, num_failures=1)
    assert read_seal(tmp_path / "shard-00000.h5").version == version
    return tmp_path / "shard-00000.h5"


@pytest.fixture
def path_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same shard of version 1, which is read through HDF5."""
    monkeypatch.setitem(write_shard.__kwdefaults__, "version", 1)  # type: ignore[arg-type]
    synthetic.write_cache(tmp_path, num_harmful=3, num_safe=2, num_failures=1)
    return tmp_path / "shard-00000.h5"


@pytest.fixture
def path_2(tmp_path: Path) -> Path:
    """The same shard of version 2, which is read by its index."""
    synthetic.write_cache(tmp_path, num_harmful=3, num_safe=2, num_failures=1)
    return tmp_path / "shard-00000.h5"


def _refused(path: Path, text: str) -> None:
    """Check that the shard is refused when opened, and that verify reports the same problem."""
    with pytest.raises(CacheError, match=text) as error:
        Shard.open(path)
    assert str(error.value).startswith(f"{path}: ")
    found = "\n".join(f"{problem.dataset} {problem.what}" for problem in verify(path.parent).problems)
    assert re.search(text, found)


def test_a_forged_shard_without_an_edit_is_sound(path: Path) -> None:
    """Otherwise the refusals in the tests below could come from `forge` itself."""
    forge(path, lambda file: put(file, "clip/features", file["clip/features"][:]))
    assert Shard.open(path).num_items == 5
    assert verify(path.parent).problems == []


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: b"", "not a Haechi shard"),
        (lambda data: b"path,label\na.mp4,1\n" * 99, "not a Haechi shard"),
        (lambda data: data[USER_BLOCK_BYTES:], "not a Haechi shard"),
        (lambda data: data[:400], "seal .* is damaged"),
        (_cut, "cut off or appended to"),
        (lambda data: data[:-1], "cut off or appended to"),
        (lambda data: data + b"\0", "cut off or appended to"),
        (lambda data: b"haechi-cache 3" + data[14:], "format version '3'.*reads versions 1 and 2"),
        (
            lambda data: data[:USER_BLOCK_BYTES] + bytes(len(data) - USER_BLOCK_BYTES),
            "HDF5 cannot read it|its index is",
        ),
    ],
)
def test_files_that_are_not_a_whole_shard(path: Path, damage: Callable[[bytes], bytes], text: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    _refused(path, text)


def test_no_hdf5_under_a_right_seal(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:USER_BLOCK_BYTES] + b"text" * 100)
    _refused(reseal(path), "HDF5 cannot read it|its index is damaged")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_not_a_file(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)
    _refused(path, "not a file")


def test_a_shard_that_vanished(path: Path) -> None:
    path.unlink()
    with pytest.raises(CacheError, match="cannot be read"):
        Shard.open(path)


@pytest.mark.parametrize("name", [*TEXT_ATTRIBUTES, "format_version"])
def test_a_root_attribute_is_missing(path: Path, name: str) -> None:
    forge(path, lambda file: file.attrs.__delitem__(name))
    _refused(path, name if name != "format_version" else "version None")


@pytest.mark.parametrize("name", [*TEXT_ATTRIBUTES, "format_version"])
@pytest.mark.parametrize(
    "value",
    [7.5, np.arange(3), np.array([b"a", b"b"]), "variable length", b"\xff\xfe", b"x" * (MAX_ATTRIBUTE_BYTES + 1)],
    ids=["number", "numbers", "texts", "variable", "bytes", "long"],
)
def test_a_root_attribute_is_something_else(path: Path, name: str, value: object) -> None:
    def edit(file: h5py.File) -> None:
        if isinstance(value, bytes):
            put_text(file, name, value)
        else:
            file.attrs[name] = value

    forge(path, edit)
    _refused(path, name if name != "format_version" else "version None|version ")


@pytest.mark.parametrize(("name", "value"), [("format", np.bytes_(b"other")), ("format_version", np.int64(7))])
def test_another_format_or_version(path: Path, version: int, name: str, value: object) -> None:
    forge(path, lambda file: file.attrs.__setitem__(name, value))
    _refused(path, f"expected 'haechi-cache' version {version}")


def _settings(change: Callable[[dict], object], *, canonical: bool = True) -> Edit:
    def edit(file: h5py.File) -> None:
        settings = json.loads(file.attrs["settings_json"].decode())
        change(settings)
        text = schema.canonical_json(settings) if canonical else json.dumps(settings)
        put_text(file, "fingerprint", schema.fingerprint_of(settings).encode())
        put_text(file, "settings_json", text.encode())

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda file: put_text(file, "fingerprint", b"0" * 64),
        lambda file: put_text(file, "settings_json", b"{"),
        lambda file: put_text(file, "settings_json", b"[" * 50_000),
        lambda file: put_text(file, "settings_json", b'{"a":NaN}'),
        lambda file: put_text(file, "settings_json", b"9" * 10_000),
        _settings(lambda settings: None, canonical=False),
    ],
)
def test_settings_that_do_not_hash_to_the_fingerprint(path: Path, edit: Edit) -> None:
    forge(path, edit)
    _refused(path, "not the canonical JSON whose hash is the fingerprint")


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.clear(),
        lambda settings: settings.update(store="float64"),
        lambda settings: settings.update(store=["float16"]),
        lambda settings: settings.pop("slowfast"),
        lambda settings: settings.update(clip="ViT-B-32"),
        lambda settings: settings["clip"].pop("trained"),
        lambda settings: settings["clip"].update(trained="yes"),
        lambda settings: settings["clip"].update(model={}),
        lambda settings: settings["clip"].pop("weights_sha256"),
        lambda settings: settings["slowfast"]["widths"].pop("logits"),
        lambda settings: settings["slowfast"]["widths"].update(more=1),
        lambda settings: settings["clip"]["widths"].update(features=0),
        lambda settings: settings["clip"]["widths"].update(features=1 << 40),
        lambda settings: settings["clip"]["widths"].update(features=8.0),
    ],
)
def test_settings_that_lack_fields(path: Path, change: Callable[[dict], object]) -> None:
    forge(path, _settings(change))
    _refused(path, "settings_json lacks fields")


@pytest.mark.parametrize("versions", [b"[]", b'{"torch":2}', b"{"])
def test_versions_that_are_none(path: Path, versions: bytes) -> None:
    forge(path, lambda file: put_text(file, "versions_json", versions))
    _refused(path, "versions_json is not a JSON object of texts|canonical")


def _link(name: str, link: object) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return edit


def _replace(name: str, **options: object) -> Edit:
    return lambda file: put(file, name, file[name][:], **options)


def _as_type(name: str, dtype: object) -> Edit:
    return lambda file: put(file, name, file[name][:].astype(dtype))


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=file["clip/features"].shape, dtype="float16")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=layout.shape)
    del file["clip/features"]
    file.create_virtual_dataset("clip/features", layout)


def _external_storage(file: h5py.File) -> None:
    del file["media/label"]
    file.create_dataset("media/label", (5,), "int8", external=[("/etc/hostname", 0, 5)])


def _group(file: h5py.File) -> None:
    del file["clip/features"]
    file.create_group("clip/features")


def _huge(file: h5py.File) -> None:
    del file["clip/features"]
    file.create_dataset("clip/features", (1 << 40, 8), "float16", chunks=(4, 8), fletcher32=True)


def _unwritten(file: h5py.File) -> None:
    del file["clip/features"]
    file.create_dataset("clip/features", (20, 8), "float16", chunks=(4, 8), fletcher32=True)


def _huge_chunks(file: h5py.File) -> None:
    values = file["clip/features"][:]
    del file["clip/features"]
    shape = {"shape": values.shape, "maxshape": (None, 8), "chunks": (1 << 24, 8)}
    file.create_dataset("clip/features", dtype="float16", fletcher32=True, **shape)


def _fewer_rows(name: str, keep: int) -> Edit:
    return lambda file: put(file, name, file[name][:keep])


STRUCTURE = {
    "missing dataset": (lambda file: file.__delitem__("media/label"), "/media/label is missing"),
    "missing group": (lambda file: file.__delitem__("failure"), "/failure/id is missing"),
    "soft link": (_link("clip/features", h5py.SoftLink("/slowfast/features")), "/clip/features is a soft or external"),
    "dangling soft link": (_link("clip/features", h5py.SoftLink("/no")), "/clip/features is a soft or external"),
    "external link": (_link("media/id", h5py.ExternalLink("/etc/hostname", "/x")), "/media/id is a soft or external"),
    "external group": (_link("clip", h5py.ExternalLink("/no/such/file", "/x")), "/clip/features is a soft or external"),
    "virtual dataset": (_virtual, "/clip/features keeps its data in another file"),
    "external storage": (_external_storage, "/media/label keeps its data in another file"),
    "group for dataset": (_group, "/clip/features is not a dataset"),
    "dataset for group": (_link("clip", np.zeros(3)), "/clip/features is missing"),
    "named type": (_link("clip/features", np.dtype("f2")), "/clip/features is not a dataset"),
    "no checksum": (_replace("clip/features", fletcher32=False), "/clip/features must be chunked, with the Fletcher32"),
    "not chunked": (
        _replace("clip/features", fletcher32=None, chunks=None, maxshape=None),
        "/clip/features must be chunked",
    ),
    "gzip": (_replace("clip/features", compression="gzip"), "/clip/features must be chunked, with the Fletcher32"),
    "shuffle": (_replace("clip/features", shuffle=True), "/clip/features must be chunked, with the Fletcher32"),
    "other store": (_as_type("clip/features", "float32"), "/clip/features has type float32, expected float16"),
    "other endian": (_as_type("clip/features", ">f2"), "/clip/features has type >f2, expected float16"),
    "other integer": (_as_type("clip/offset", "int32"), "/clip/offset has type int32, expected int64"),
    "variable text": (
        lambda file: put(file, "media/id", file["media/id"].asstr()[:], fletcher32=False),  # HDF5 allows it no filter
        "/media/id must be chunked, with the Fletcher32",
    ),
    "ascii text": (_as_type("media/id", h5py.string_dtype("ascii", 14)), "/media/id has type .*expected fixed-length"),
    "references": (
        lambda file: put(file, "media/label", np.array([file.ref] * 5, dtype=h5py.ref_dtype), fletcher32=True),
        "/media/label has type object, expected int8",
    ),
    "no axis": (_link("media/label", np.int8(1)), "/media/label must be chunked"),
    "another axis": (lambda file: put(file, "media/label", np.zeros((5, 1), "int8")), r"has shape \(5, 1\)"),
    "other width": (lambda file: put(file, "clip/features", np.ones((20, 9), "float16")), r"expected \(any, 8\)"),
    "short column": (_fewer_rows("media/label", 4), r"/media/label has shape \(4,\), expected \(5\)"),
    "short offsets": (_fewer_rows("clip/offset", 5), r"/clip/offset has shape \(5,\), expected \(6\)"),
    "short times": (_fewer_rows("clip/time_seconds", 19), r"time_seconds has shape \(19,\), expected \(20\)"),
    "short logits": (_fewer_rows("slowfast/logits", 4), r"/slowfast/logits has shape \(4, 5\), expected \(5, 5\)"),
    "huge": (_huge, "/clip/features declares 17592186044416 bytes, more than the file holds"),
    "huge chunks": (_huge_chunks, "/clip/features declares chunks"),
    "unwritten": (_unwritten, "/clip/features has rows that were never written"),
}


@pytest.mark.parametrize(("edit", "text"), STRUCTURE.values(), ids=STRUCTURE.keys())
def test_structure_that_breaks_the_contract(path_1: Path, edit: Edit, text: str) -> None:
    forge(path_1, edit)
    _refused(path_1, text)


# The edits of `STRUCTURE` that an index can say.
STRUCTURE_2 = {
    "missing dataset": "/media/label is missing",
    "missing group": "/failure/id is missing",
    "group for dataset": "/clip/features is missing",
    "dataset for group": "/clip/features is missing",
    "other store": "/clip/features has type float32, expected float16",
    "other endian": "/clip/features has type '>f2', which no dataset of a shard has",
    "other integer": "/clip/offset has type int32, expected int64",
    "another axis": r"has shape \(5, 1\)",
    "other width": r"expected \(any, 8\)",
    "short column": r"/media/label has shape \(4,\), expected \(5\)",
    "short offsets": r"/clip/offset has shape \(5,\), expected \(6\)",
    "short times": r"time_seconds has shape \(19,\), expected \(20\)",
    "short logits": r"/slowfast/logits has shape \(4, 5\), expected \(5, 5\)",
}


@pytest.mark.parametrize(("name", "text"), STRUCTURE_2.items(), ids=STRUCTURE_2.keys())
def test_an_index_that_breaks_the_contract(path_2: Path, name: str, text: str) -> None:
    forge(path_2, STRUCTURE[name][0])
    _refused(path_2, text)


def _field(name: str, field: str, value: object) -> Callable[[dict], object]:
    return lambda index: index["datasets"][name].update({field: value})


NOT_AS_REQUIRED = "index is not as cache_schema.md requires"

INDEX = {
    "no datasets": (lambda index: index.pop("datasets"), NOT_AS_REQUIRED),
    "no attributes": (lambda index: index.pop("attributes"), NOT_AS_REQUIRED),
    "no bad rows": (lambda index: index.pop("bad_rows"), NOT_AS_REQUIRED),
    "a list": (lambda index: index.update(datasets=[]), NOT_AS_REQUIRED),
    "a number for true": (
        lambda index: index["bad_rows"].update(zero=True),
        NOT_AS_REQUIRED,
    ),
    "an attribute is a list": (
        lambda index: index["attributes"].update(device=[]),
        NOT_AS_REQUIRED,
    ),
    "a dataset is a number": (
        lambda index: index["datasets"].update({"clip/features": 3}),
        NOT_AS_REQUIRED,
    ),
    "shape of texts": (_field("clip/features", "shape", ["20", "8"]), NOT_AS_REQUIRED),
    "no axis": (_field("clip/features", "shape", []), "has 0 axes, expected 1 or 2"),
    "many axes": (_field("clip/features", "shape", [1] * 100_000), "has 100000 axes, expected 1 or 2"),
    "negative": (_field("clip/features", "shape", [-1, 8]), "a number is not from 0 to 9223372036854775807"),
    "negative bad rows": (lambda index: index["bad_rows"].update(zero=-3), "a number is not from 0"),
    "huge": (_field("clip/features", "shape", [1 << 40, 8]), "declares 17592186044416 bytes, more than the file"),
    "huger": (_field("clip/features", "shape", [(1 << 63) - 1, 8]), "declares .* bytes, more than the file"),
    "more than 64 bits": (_field("clip/features", "shape", [10**4299, 8]), "a number is not from 0"),
    "no such version": (lambda index: index["attributes"].update(format_version=10**4299), "a number is not from 0"),
    "objects": (_field("clip/features", "dtype", "|O"), r"has type '\|O', which no dataset of a shard has"),
    "no type": (_field("clip/features", "dtype", "f2,f2"), "which no dataset of a shard has"),
    "type that a terminal obeys": (_field("media/id", "dtype", "\x1b[31m"), r"has type '\\x1b\[31m', which"),
    "half a character": (lambda index: index["attributes"].update(device="\ud800"), "surrogates not allowed"),
    "half a character as name": (
        lambda index: index["datasets"].update({"\ud800": index["datasets"]["media/id"]}),
        "surrogates not allowed",
    ),
    "long text": (_field("media/id", "dtype", "|S99999999"), "which no dataset of a shard has"),
    "before the data": (_field("clip/features", "offset", 0), "lies at byte 0, outside the shard"),
    "negative offset": (_field("clip/features", "offset", -5), "a number is not from 0"),
    "after the end": (_field("clip/features", "offset", 1 << 62), "outside the shard"),
    "few checksums": (_field("clip/features", "checksums", ""), "has checksums of 0 digits, expected 16"),
}


@pytest.mark.parametrize(("edit", "text"), INDEX.values(), ids=INDEX.keys())
def test_an_index_that_nobody_can_follow(path_2: Path, edit: Callable[[dict], object], text: str) -> None:
    forge_index(path_2, edit)
    _refused(path_2, text)


@pytest.mark.parametrize("content", [b"[" * 100_000 + b"\n", b"3\n", b"{\n", b"9" * 10_000 + b"\n", b'"\xff"\n'])
def test_an_index_that_is_none(path_2: Path, content: bytes) -> None:
    start = path_2.stat().st_size
    content += xxh3_64_hexdigest(content).encode() + b"\n"
    path_2.write_bytes(path_2.read_bytes() + content)
    _refused(reseal(path_2, index=(start, len(content))), NOT_AS_REQUIRED)


@pytest.mark.parametrize("index", [(0, 0), (512, 10**17), (10**17, 5), (512, 16)])
def test_a_seal_that_gives_a_wrong_place_of_the_index(path_2: Path, index: tuple[int, int]) -> None:
    _refused(reseal(path_2, index=index), "its index is damaged|declares an index of")


def _copy(file: h5py.File) -> None:
    file["copy"] = file["clip/features"][:]
    del file["clip/features"]
    file["clip/features"] = file["copy"]


# What HDF5 shows to other programs, while the index is that of a sound shard.
HDF5_VIEW: dict[str, tuple[Edit, str]] = {
    "missing dataset": (lambda file: file.__delitem__("media/label"), "/media/label is missing"),
    "soft link": (_link("clip/features", h5py.SoftLink("/slowfast/features")), "/clip/features is a soft or external"),
    "external link": (_link("media/id", h5py.ExternalLink("/etc/hostname", "/x")), "/media/id is a soft or external"),
    "virtual dataset": (_virtual, "/clip/features keeps its data in another file"),
    "external storage": (_external_storage, "/media/label keeps its data in another file"),
    "group for dataset": (_group, "/clip/features is not a dataset"),
    "gzip": (_replace("clip/features", compression="gzip"), "/clip/features must be contiguous, without filters"),
    "checksum": (_replace("clip/features", fletcher32=True), "/clip/features must be contiguous, without filters"),
    "other store": (_as_type("clip/features", "float32"), "/clip/features has type float32 for HDF5, <f2 in the index"),
    "ascii text": (_as_type("media/id", h5py.string_dtype("ascii", 14)), "/media/id has type .* for HDF5"),
    "fewer rows": (_fewer_rows("media/label", 4), r"/media/label has shape \(4,\) for HDF5, \(5,\) in the index"),
    "elsewhere": (_copy, "/clip/features lies at byte .* for HDF5, .* in the index"),
    "attribute": (lambda file: put_text(file, "device", b"other"), "root attribute device is another for HDF5"),
}


@pytest.mark.parametrize(("edit", "text"), HDF5_VIEW.values(), ids=HDF5_VIEW.keys())
def test_hdf5_that_shows_other_programs_something_else(path_2: Path, edit: Edit, text: str) -> None:
    """Haechi does not follow it, `haechi verify` finds it, and a repair loses no row."""
    before = Shard.open(path_2).read("clip/features", "media/id")
    with h5py.File(path_2, "r+", libver=("v110", "v110")) as file:
        file.create_dataset("filler", data=np.zeros(5000))  # so that nothing is written over the rows
        edit(file)
    reseal(path_2)
    for old, now in zip(before, Shard.open(path_2).read("clip/features", "media/id"), strict=True):
        np.testing.assert_array_equal(now, old)
    found = "\n".join(f"{problem.dataset} {problem.what}" for problem in verify(path_2.parent).problems)
    assert re.search(text, found), found
    done = repair(path_2.parent)
    assert (done.is_sound, done.to_redo, done.left.num_videos) == (True, [], 5)


def test_an_index_that_counts_wrong_is_found(path_2: Path) -> None:
    forge_index(path_2, lambda index: index["bad_rows"].update(zero=3))
    (problem,) = verify(path_2.parent).problems
    assert problem.dataset == "/index"
    assert problem.what == "gives 3 rows that are all zero and 0 that are not finite, there are 0 and 0"
    assert repair(path_2.parent).is_sound


def test_all_that_is_wrong_is_listed_at_once(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        del file["media/fps"], file["clip/offset"]
        put(file, "media/label", np.zeros(5, "int16"))

    forge(path, edit)
    with pytest.raises(CacheError) as error:
        Shard.open(path)
    for name in ("/media/fps", "/clip/offset", "/media/label"):
        assert name in str(error.value)


def test_more_than_the_contract_asks_for_is_ignored(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file.attrs["note"] = "x"
        file["audio/features"] = np.zeros((3, 3))
        file["media/camera"] = np.arange(5)

    forge(path, edit)
    assert Shard.open(path).num_items == 5
    assert verify(path.parent).problems == []


def test_rows_of_a_dataset(path: Path) -> None:
    shard = Shard.open(path)
    (whole,) = shard.read("clip/features")
    some, ids = shard.read("clip/features", "media/id", rows=slice(1, 3))
    np.testing.assert_array_equal(some, whole[1:3])
    assert ids.tolist() == shard.read("media/id")[0][1:3].tolist()


@pytest.mark.parametrize("ranges", [[(0, 20)], [(3, 4)], [(0, 2), (5, 9), (19, 20)]])
def test_runs_of_rows_fill_an_array(path: Path, ranges: list[tuple[int, int]]) -> None:
    shard = Shard.open(path)
    (whole,) = shard.read("clip/features")
    expected = np.concatenate([whole[start:stop] for start, stop in ranges])
    found = np.empty_like(expected)
    shard.read_into(found, "clip/features", ranges=ranges)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(CacheError, match="/clip/features has 20 rows, row 20 was requested"):
        shard.read_into(np.empty((21, 8), "float16"), "clip/features", ranges=[(0, 21)])


def test_altered_rows_are_refused_when_read(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (features,) = Shard.open(path).read("clip/features")
    data[data.index(features.tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match="/clip/features is damaged"):
        Shard.open(path).read("clip/features")
    for ranges in ([(0, 20)], [(0, 1), (2, 3)]):
        with pytest.raises(CacheError, match="/clip/features is damaged"):
            Shard.open(path).read_into(np.empty((20, 8), "float16"), "clip/features", ranges=ranges)


def test_text_that_is_not_utf8_is_refused_when_read(path: Path) -> None:
    forge(path, lambda file: put(file, "media/id", np.array([b"\xff"] * 5, dtype=h5py.string_dtype("utf-8", 1))))
    with pytest.raises(CacheError, match="/media/id holds bytes that are not UTF-8"):
        Shard.open(path).read("media/id")


@contextlib.contextmanager
def _failing_disk(file: h5py.File) -> Iterator[None]:
    """In the block, every read of HDF5 from disk fails with EIO: the file descriptor leads to unmapped memory."""
    descriptor = file.id.get_vfd_handle()
    original, unreadable = os.dup(descriptor), os.open("/proc/self/mem", os.O_RDONLY)
    os.dup2(unreadable, descriptor)
    try:
        yield
    finally:
        os.dup2(original, descriptor)
        os.close(original)
        os.close(unreadable)


@pytest.mark.parametrize(
    "read",
    [
        lambda content, path: read_attributes(content, path, version=1),
        lambda content, path: structure_problems(content, synthetic.settings(), num_bytes=path.stat().st_size),
        lambda content, path: content.array("media/id"),
    ],
)
def test_an_io_error_of_the_disk_is_not_damage(path_1: Path, read: Callable[[Hdf5Content, Path], object]) -> None:
    """HDF5 raises it as OSError, KeyError or RuntimeError, depending on the operation."""
    path = path_1
    with open_hdf5(path) as file, _failing_disk(file), pytest.raises(CacheError) as error:
        read(Hdf5Content(file, path), path)
    assert str(error.value) == f"{path}: cannot be read (Input/output error)"
    assert not isinstance(error.value, DamageError)


def _reads_that_fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Reading rows fails: in h5py, and in the system's files that are read without a buffer."""

    def fail(*_: object) -> None:
        raise error

    class Failing(FileIO):
        readinto = fail

    def opened(path: Path, mode: str, buffering: int = -1) -> object:
        return Failing(path) if buffering == 0 else honest(path, mode, buffering)

    honest = Path.open
    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    monkeypatch.setattr(h5py.Dataset, "read_direct", fail)
    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Can't synchronously read data"), "Input/output error"),
        (MemoryError(), "not enough memory"),
        (OSError("Can't synchronously read data (memory allocation failed for raw data chunk)"), "not enough memory"),
    ],
    ids=["EIO", "MemoryError", "memory of HDF5"],
)
def test_what_the_system_refuses_is_not_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    shard = Shard.open(path)
    _reads_that_fail(monkeypatch, error)
    for read in (
        lambda: shard.read("clip/features"),
        lambda: shard.read_into(np.empty((20, 8), "float16"), "clip/features", ranges=[(0, 20)]),
    ):
        with pytest.raises(CacheError) as found:
            read()
        assert str(found.value) == f"{path}: cannot be read ({reason})"
        assert not isinstance(found.value, DamageError)
    assert [problem.what for problem in verify(path.parent).problems] == [f"cannot be read ({reason})"]
    done = repair(path.parent)
    assert (done.shards, [problem.what for problem in done.left.problems]) == ([], [f"cannot be read ({reason})"])


def test_a_file_that_vanishes_before_it_is_opened_again_is_not_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = read_seal(path)
    monkeypatch.setattr("haechi.cache.shard.read_seal", lambda _: seal)
    path.unlink()
    with pytest.raises(CacheError, match=r"shard-00000.h5: cannot be read \(No such file or directory\)$") as error:
        Shard.open(path)
    assert not isinstance(error.value, DamageError)


@pytest.mark.parametrize("error", [KeyError("ours"), TypeError("ours"), OSError(28, "ours"), MemoryError()])
def test_errors_of_the_callers_own_code_pass_unchanged(path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as found, open_hdf5(path):
        raise error
    assert found.value is error


def test_an_error_in_our_own_checks_is_not_called_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("haechi.cache.shard.settings_are_complete", fail)
    with pytest.raises(KeyError, match="ours"):
        Shard.open(path)
    with pytest.raises(KeyError, match="ours"):
        verify(path.parent)


@pytest.mark.parametrize("function", ["hdf5.Datasets.open", "shard._mismatch", "hdf5._attribute"])
@pytest.mark.parametrize("error", [KeyError("ours"), TypeError("ours"), ValueError("ours")])
def test_an_error_in_our_own_code_between_reads_is_not_called_damage(
    path_1: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"haechi.cache.{function}", fail)
    with pytest.raises(type(error)) as found:
        Shard.open(path_1)
    assert found.value is error
