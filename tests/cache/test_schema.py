"""The parts of the format: ids, storage types, fingerprints, seals."""

import numpy as np
import pytest

from haechi.cache.errors import CacheError, FeatureError
from haechi.cache.schema import (
    MAX_ID_BYTES,
    USER_BLOCK_BYTES,
    Seal,
    canonical_json,
    conflict_list,
    differing_fields,
    fingerprint_of,
    id_problem,
    to_store,
)
from haechi.cache.text import visible
from tests import synthetic

SEALS = [
    Seal(version=1, digest="0123456789abcdef" * 4, num_bytes=12345),
    Seal(version=2, digest="0123456789abcdef" * 2, num_bytes=12345, index=(512, 345)),
]
EACH_VERSION = pytest.mark.parametrize("seal", SEALS, ids=["version 1", "version 2"])


@pytest.mark.parametrize("id", ["a.mp4", "싸움/영상 1.mp4", "../up.mp4", "/absolute/a.mp4", "=1+1", "x" * MAX_ID_BYTES])
def test_ids_that_are_fit(id: str) -> None:
    assert id_problem(id) is None


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("", "empty"),
        ("a\x00", "control"),
        ("a\nb", "control"),
        ("\x1b[2J", "control"),
        ("a\x9b", "control"),
        ("a\udcff", "UTF-8"),
        ("x" * (MAX_ID_BYTES + 1), "4097 bytes"),
        ("영" * (MAX_ID_BYTES // 3 + 1), "bytes long"),
    ],
)
def test_ids_that_are_not(id: str, text: str) -> None:
    assert text in (id_problem(id) or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("영상 1.mp4", "영상 1.mp4"),
        ("a\u3000b", "a\u3000b"),
        ("\x1b[2Jx", r"\x1b[2Jx"),
        ("a\nb\x7f\x9b", r"a\nb\x7f\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_would_act_on_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_to_store_converts() -> None:
    stored = to_store(np.array([[0.1, 0.0]]), store="float16", what="x")
    assert stored.dtype == np.float16
    assert stored[0, 0] == np.float16(0.1)


@pytest.mark.parametrize(
    ("values", "store", "text"),
    [
        ([[1.0, np.nan]], "float16", "NaN or infinite values: 1 of 2"),
        ([[1.0, -np.inf]], "float32", "NaN or infinite"),
        ([[70000.0, 1.0]], "float16", "--store float32"),
        ([[1.0, 1.0], [0.0, 0.0]], "float16", "1 of 2 rows are all zero"),
        ([[1e-9, 1e-9]], "float16", "all zero"),  # converted to zero
    ],
)
def test_to_store_refuses(values: list[list[float]], store: str, text: str) -> None:
    with pytest.raises(FeatureError, match=text) as error:
        to_store(np.array(values, np.float64), store=store, what="a.mp4: clip")
    assert str(error.value).startswith("a.mp4: clip: ")


def test_large_values_fit_float32() -> None:
    assert to_store(np.array([[70000.0]]), store="float32", what="x")[0, 0] == 70000


def test_an_item_has_arrays_of_one_length() -> None:
    item = synthetic.item(synthetic.media("a"), seed=0)
    with pytest.raises(AssertionError, match="different lengths"):
        synthetic.with_arrays(item, {"clip/time_seconds": item.arrays["clip/time_seconds"][:-1]})


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint_of({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert canonical_json({"b": "영", "a": 1.5}) == '{"a":1.5,"b":"\\uc601"}'
    with pytest.raises(ValueError, match="JSON"):
        fingerprint_of({"a": float("nan")})


def test_differing_fields_are_named_with_dots() -> None:
    ours = {"clip": {"model": "a", "trained": True}, "store": "float16"}
    theirs = {"clip": {"model": "b", "trained": True}, "frames": 8, "store": "float16"}
    assert differing_fields(ours, theirs) == [("clip.model", "a", "b"), ("frames", None, 8)]
    assert conflict_list(ours, theirs) == (
        "  - clip.model: 'a' in the cache, 'b' here\n  - frames: None in the cache, 8 here"
    )
    assert conflict_list({"model": 1}, {"model": 2}, holder="the run", prefix="clip.") == (
        "  - clip.model: 1 in the run, 2 here"
    )
    assert conflict_list(ours, ours) == ""


@EACH_VERSION
def test_a_seal_reads_back(seal: Seal) -> None:
    block = seal.encode()
    assert len(block) == USER_BLOCK_BYTES
    assert Seal.decode(block, where="x") == seal


@EACH_VERSION
def test_every_changed_byte_of_a_seal_is_noticed(seal: Seal) -> None:
    block = seal.encode()
    for i in range(USER_BLOCK_BYTES):
        for flip in (0x01, 0x80):
            damaged = bytearray(block)
            damaged[i] ^= flip
            try:
                found = Seal.decode(bytes(damaged), where="x")
            except CacheError:
                continue
            assert found != seal, f"byte {i}"
            # If it still is a seal, its digest, size or index differs and does not match the file.
            assert found.encode() == bytes(damaged)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"", "not a Haechi shard"),
        (b"\x89HDF\r\n\x1a\n" + bytes(504), "not a Haechi shard"),
        (b"PK" * 256, "not a Haechi shard"),
        (SEALS[0].encode().replace(b"cache 1", b"cache 3"), "format version '3'.*reads versions 1 and 2"),
        (SEALS[0].encode().replace(b"cache 1", b"cache 2"), "damaged"),
        (SEALS[0].encode().replace(b"cache 1", b"cache \xff"), "format version"),
        (SEALS[0].encode().replace(b"12345", b"01234"), "damaged"),
        (SEALS[0].encode().replace(b"sha256 0", b"sha256 G"), "damaged"),
        (SEALS[0].encode()[:300], "damaged"),
        (SEALS[1].encode().replace(b"cache 2", b"cache 3"), "format version '3'.*reads versions 1 and 2"),
        (SEALS[1].encode().replace(b"cache 2", b"cache 1"), "damaged"),
        (SEALS[1].encode().replace(b"12345", b"01234"), "damaged"),
        (SEALS[1].encode().replace(b"xxh3-128 0", b"xxh3-128 G"), "damaged"),
        (SEALS[1].encode().replace(b"index 512", b"index 0512"), "damaged"),
        (SEALS[1].encode().replace(b"index", b"\n\n\n\n\n"), "damaged"),
        (SEALS[1].encode()[:300], "damaged"),
    ],
)
def test_seals_that_are_none(block: bytes, text: str) -> None:
    with pytest.raises(CacheError, match=text):
        Seal.decode(block, where="x")
