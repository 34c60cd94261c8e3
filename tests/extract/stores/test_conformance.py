"""One behaviour over every store: caches in folders and in each server, and what is read from each server.

As integration.rs of arrow-rs-object-store: https://github.com/apache/arrow-rs-object-store
"""

from pathlib import Path

import numpy as np
import pytest

from haechi.cache.errors import CacheError, SettingsConflictError
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.slices import slice_of
from haechi.cache.status import read_status
from haechi.cache.stores import kinds
from haechi.cache.stores.errors import StoreError, Trouble
from haechi.cache.stores.location import Location
from haechi.cache.stores.stored_cache import StoredCache, cache_location
from haechi.extract.api import extract_features
from haechi.extract.pipeline import Extraction
from tests.extract.slice_race import MANIFEST, SETTINGS
from tests.extract.stores.conftest import contents, made_rows, prepare, put, use

WRITABLE, READABLE = ("seaweedfs", "moto"), ("seaweedfs", "moto", "rclone")


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a server, which is that of S3 in this test; `folder` for none."""
    if request.param != "folder":
        use(monkeypatch, request.getfixturevalue(request.param))
    prepare(monkeypatch, tmp_path)
    made_rows(monkeypatch)
    return str(request.param)


@pytest.fixture
def place(server: str, tmp_path: Path) -> str:
    """An empty place for a cache."""
    return str(tmp_path / "cache") if server == "folder" else f"s3://videos/{tmp_path.name}/cache"


def extract(place: str, part: str) -> Extraction:
    return extract_features(MANIFEST, place, slice=part, settings=SETTINGS)


every_place = pytest.mark.parametrize("server", ["folder", *WRITABLE], indirect=True)
every_server = pytest.mark.parametrize("server", READABLE, indirect=True)


@every_place
def test_slices_are_committed_once(place: str, tmp_path: Path) -> None:
    for number in (2, 0):
        done = extract(place, f"{number}/3")
        assert (done.name, str(done.slice), done.has_committed) == (place, f"{number}/3", True)
        assert done.num_rows == sum(slice_of(entry.id, 3) == number for entry in MANIFEST.entries)
        again = extract(place, f"{number}/3")
        assert (again.num_new, again.has_committed, again.num_used) == (0, False, done.num_used)
    status = read_status(place)
    assert (status.name, status.done, status.missing) == (place, [0, 2], [1])
    assert verify(place).notes == ["1 of 3 slices is not finished: 1"]
    extract(place, "1/3")
    found, status = verify(place), read_status(place)
    assert (found.problems, found.notes, status.missing) == ([], [], [])
    assert status.num_used + sum(status.failures.values()) == status.num_manifest_rows == 10
    extract_features(MANIFEST, tmp_path / "whole", settings=SETTINGS)
    assert contents(place) == contents(tmp_path / "whole")
    assert extract_features(MANIFEST, place, settings=SETTINGS).num_used == 7


@every_place
def test_shards_have_the_same_bytes_in_every_place(place: str, tmp_path: Path) -> None:
    """Their names have the digests of their bytes; the pin has the time when the cache was made."""
    extract(place, "0/1")
    opened = Cache.open(place)
    pin = opened.path / "slices.json"
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "slices.json").write_bytes(pin.read_bytes())
    extract(str(tmp_path / "again"), "0/1")
    for ours, theirs in zip(shard_paths(opened.path), shard_paths(tmp_path / "again"), strict=True):
        assert (ours.name, ours.read_bytes()) == (theirs.name, theirs.read_bytes())


@every_place
def test_another_number_of_slices_is_refused(place: str) -> None:
    extract(place, "0/3")
    with pytest.raises(SettingsConflictError, match=r"slices: 3 in slices\.json, 4 here") as caught:
        extract(place, "1/4")
    assert str(caught.value).startswith(f"{place}: its slices were begun with other settings")


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_a_server_that_overwrites_is_refused(place: str) -> None:
    with pytest.raises(CacheError, match=r"this store overwrites a file .*; write the cache to a folder or another"):
        extract(place, "0/1")
    assert StoredCache(cache_location(place)).files() == {}


@pytest.mark.parametrize("server", WRITABLE, indirect=True)
def test_a_file_is_created_once(place: str) -> None:
    stored = StoredCache(cache_location(place))
    assert [stored.create("a.json", text) for text in ("first", "second", "first")] == [True, False, False]
    assert (stored.text("a.json"), stored.text("b.json")) == ("first", None)
    stored.refuse_overwriting()
    assert set(stored.files()) == {"a.json"}
    stored.remove("a.json")
    stored.remove("a.json")  # it is gone
    assert stored.files() == {}


@every_server
def test_what_is_put_is_read(place: str, tmp_path: Path) -> None:
    """A file of several parts, whole and from its middle, with a name of many letters."""
    content = np.random.default_rng(0).bytes((11 << 20) + 5)
    (tmp_path / "file").write_bytes(content)
    stored = StoredCache(cache_location(place))
    name = "한국 #1 %20+&=.mp4"
    stored.put(name, tmp_path / "file")
    at, held = stored.at(name), kinds.open_store(stored.location)
    state = held.head(at)
    assert (state.size_bytes, bool(state.etag)) == (len(content), True)
    assert state.mtime_ns > 1.7e18
    assert b"".join(held.read(at, state, start=0)) == content
    assert b"".join(held.read(at, state, start=7_000_001)) == content[7_000_001:]
    assert stored.files() == {name: state}
    stored.fetch(name, state, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


@every_server
def test_a_changed_file_is_not_read(place: str) -> None:
    stored = StoredCache(cache_location(place))
    at, held = stored.at("a.mp4"), kinds.open_store(stored.location)
    put(at.key, b"x" * 1000)
    state = held.head(at)
    put(at.key, b"y" * 999)
    with pytest.raises(StoreError) as caught:
        b"".join(held.read(at, state, start=0))
    assert caught.value.reason is Trouble.CHANGED_WHILE_READ


@every_server
def test_what_is_not_there(place: str) -> None:
    stored = StoredCache(cache_location(place))
    with pytest.raises(StoreError) as caught:
        kinds.open_store(stored.location).head(stored.at("gone.mp4"))
    assert (caught.value.reason, caught.value.is_temporary) == (Trouble.NOT_FOUND, False)
    assert stored.files() == {}
    with pytest.raises(CacheError, match="there is no such bucket"):
        StoredCache(Location.parse("s3://nothing/cache")).files()


@every_server
def test_a_listing_of_many_pages(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all names below the prefix, and none of a prefix that only begins with the same letters."""
    bucket = pytest.importorskip("haechi.cache.stores.bucket", reason="the extra `stores` is not installed")
    monkeypatch.setattr(bucket, "PAGE_ENTRIES", 5)
    stored = StoredCache(cache_location(place))
    names = [f"{i % 2}/{i:02d}" for i in range(11)]
    for name in names:
        put(stored.at(name).key, b"x")
    put(f"{stored.location.key}-other/a", b"x")
    assert sorted(stored.files()) == sorted(names)
