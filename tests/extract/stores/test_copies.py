"""Caches in a real store are read through copies on this machine: fetched once, checked, bounded."""

import json
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

import haechi.cli
from bench.servers import Proxy
from haechi.cache import local_copy
from haechi.cache.errors import CacheError, SettingsError
from haechi.cache.file_state import FileState
from haechi.cache.reader import Cache
from haechi.cache.schema import MAX_JSON_BYTES
from haechi.cache.status import read_status
from haechi.cache.stores.stored_cache import StoredCache, cache_location, user_folder
from haechi.extract.api import extract_features
from haechi.predict.api import evaluate_head
from haechi.train.api import train_head
from tests.extract.slice_race import MANIFEST, SETTINGS
from tests.extract.stores.conftest import put
from tests.synthetic import write_cache

GB = 1e9


def end_commands() -> None:
    """Let go of all copies, as a command does when it ends."""
    for descriptor in local_copy._HELD.values():
        local_copy.os.close(descriptor)
    local_copy._HELD.clear()


@pytest.fixture
def stored(place: str, tmp_path: Path) -> str:
    """A cache in the store: that of the folder `local`, without slices."""
    write_cache(tmp_path / "local")
    return upload(tmp_path / "local", place)


def upload(folder: Path, place: str) -> str:
    for path in folder.glob("*.h5"):
        put(f"{cache_location(place).key}/{path.name}", path.read_bytes())
    return place


def shards(place: str) -> dict[str, int]:
    """Name -> bytes."""
    found = StoredCache(cache_location(place)).files()
    return {name: state.size_bytes for name, state in found.items() if name.endswith(".h5")}


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(haechi.cli.main, [str(each) for each in arguments])


def fetched(proxy: Proxy) -> list[str]:
    """Names of the files that were fetched since the last call; listings have none."""
    names = [path.rpartition("/")[2] for method, path in proxy.requests if method == "GET" and path != "/videos"]
    proxy.requests.clear()
    return sorted(names)


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "user" / "haechi" / "shards").glob("*/shard-*.h5"))


def test_a_second_command_fetches_only_the_listing(stored: str, proxy: Proxy, tmp_path: Path) -> None:
    first = json.loads(command("inspect", stored, "--json").output)
    assert fetched(proxy) == sorted(shards(stored))
    local = json.loads(command("inspect", tmp_path / "local", "--json").output)
    assert first["path"] == stored
    assert {**first, "path": ""} == {**local, "path": ""}
    proxy.requests.clear()
    assert json.loads(command("inspect", stored, "--json").output) == first
    assert proxy.requests == [("GET", "/videos")]
    verified = json.loads(command("verify", stored, "--json").output)
    assert (verified["path"], verified["ok"], verified["shards"]) == (stored, True, 3)
    assert json.loads(command("status", stored, "--json").output)["path"] == stored
    assert fetched(proxy) == []


def test_status_fetches_only_pin_and_records(place: str, proxy: Proxy, tmp_path: Path) -> None:
    for number in (0, 2):
        extract_features(MANIFEST, place, slice=f"{number}/3", settings=SETTINGS)
    proxy.requests.clear()
    status = read_status(place)
    assert (status.name, status.done, status.missing, status.array) == (place, [0, 2], [1], "1")
    assert fetched(proxy) == ["slice-00000.json", "slice-00002.json", "slices.json"]
    assert read_status(place) == status
    assert fetched(proxy) == []
    shown = json.loads(command("inspect", place, "--json").output)
    assert (shown["path"], shown["slices"]["path"]) == (place, place)
    assert fetched(proxy) == sorted(shards(place))
    extract_features(MANIFEST, place, slice="1/3", settings=SETTINGS)
    proxy.requests.clear()
    assert len(Cache.open(place).media["id"]) == 7
    assert [name for name in fetched(proxy) if not name.startswith("shard-00001-")] == ["slice-00001.json"]


def test_a_cache_that_was_made_again_is_fetched_again(stored: str, tmp_path: Path) -> None:
    assert len(Cache.open(stored).media["id"]) == 20
    for name in shards(stored):
        StoredCache(cache_location(stored)).remove(name)
    write_cache(tmp_path / "other", num_harmful=3, num_safe=3, shift=2)
    upload(tmp_path / "other", stored)
    assert len(Cache.open(stored).media["id"]) == 6
    assert len(copies(tmp_path)) == 1


@pytest.mark.parametrize("is_sliced", [False, True])
def test_a_damaged_shard_is_not_used(place: str, tmp_path: Path, is_sliced: bool) -> None:
    if is_sliced:
        extract_features(MANIFEST, place, slice="0/1", settings=SETTINGS)
    else:
        write_cache(tmp_path / "local")
        upload(tmp_path / "local", place)
    whole = Cache.open(place)
    damaged, other = sorted(shards(place))[:2]
    content = bytearray((whole.path / damaged).read_bytes())
    content[-5000] ^= 1
    put(f"{cache_location(place).key}/{damaged}", bytes(content))
    with pytest.raises(CacheError, match=f"1 of . shards cannot be used:\n  - {damaged}: its bytes are not") as caught:
        Cache.open(place)
    assert str(caught.value).startswith(f"{place}: ")
    if is_sliced:  # a shard that is whole, and another one than the record says
        put(f"{cache_location(place).key}/{damaged}", (whole.path / other).read_bytes())
        with pytest.raises(CacheError, match=f"{damaged}: has another content than when it was committed"):
            Cache.open(place)
        StoredCache(cache_location(place)).remove(damaged)
        with pytest.raises(CacheError, match=f"shards that records name are not there:\n  - {damaged}"):
            Cache.open(place)


def test_copies_are_bounded(stored: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several caches, the copy that was used longest ago is deleted, unless a process reads it."""
    size = sum(shards(stored).values())
    proxy.requests.clear()
    with pytest.raises(CacheError, match=r"^s3://\S+: its shards have .* kB, more than the .* kB of --shard-cache-gb"):
        Cache.open(stored, shard_cache_gb=0.9 * size / GB)
    assert fetched(proxy) == []
    others = [upload(tmp_path / "local", f"{stored}-{number}") for number in range(2)]
    for place in (stored, others[0], stored):
        Cache.open(place, shard_cache_gb=2 * size / GB)
    with pytest.raises(CacheError, match="running commands read copies of"):
        Cache.open(others[1], shard_cache_gb=2 * size / GB)
    end_commands()
    Cache.open(others[1], shard_cache_gb=2 * size / GB)
    proxy.requests.clear()
    Cache.open(stored)
    assert fetched(proxy) == []
    Cache.open(others[0])
    assert len(fetched(proxy)) == 3


def test_a_process_that_reads_a_copy_keeps_it(stored: str, tmp_path: Path) -> None:
    Cache.open(stored)
    end_commands()
    code = f"from haechi.cache.reader import Cache; Cache.open({stored!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        (folder,) = {path.parent for path in copies(tmp_path)}
        assert not local_copy._deleted(folder)
        process.communicate(b"\n")
    assert local_copy._deleted(folder)
    assert not folder.exists()


def test_a_slice_that_is_committed_between_two_pages_of_a_listing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page with its record has it, and the page with its shards, which was fetched before, has not."""
    extract_features(MANIFEST, place, slice="0/1", settings=SETTINGS)
    listed, late = StoredCache.files, iter([".h5"])

    def files(self: StoredCache) -> dict[str, FileState]:
        ending = next(late, "no ending")
        return {name: state for name, state in listed(self).items() if not name.endswith(ending)}

    monkeypatch.setattr(StoredCache, "files", files)
    assert len(Cache.open(place).media["id"]) == 7


def test_who_waits_for_another_process_gets_what_it_fetched(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extract_features(MANIFEST, place, slice="0/2", settings=SETTINGS)

    def wait(path: Path) -> FileLock:
        monkeypatch.setattr(local_copy, "FileLock", FileLock)
        extract_features(MANIFEST, place, slice="1/2", settings=SETTINGS)
        return FileLock(path)

    monkeypatch.setattr(local_copy, "FileLock", wait)
    assert len(Cache.open(place).media["id"]) == 7


def test_records_that_are_too_large_are_not_fetched(place: str, proxy: Proxy) -> None:
    extract_features(MANIFEST, place, slice="0/2", settings=SETTINGS)
    large = b" " * (MAX_JSON_BYTES + 1)
    put(f"{cache_location(place).key}/slice-00001.json", large)
    proxy.requests.clear()
    with pytest.raises(CacheError, match=r"^s3://\S+: records larger than 16.8 MB, .*:\n  - slice-00001.json$"):
        Cache.open(place)
    assert fetched(proxy) == []
    with pytest.raises(CacheError, match=r"slice-00001.json' has 16777217 bytes, expected at most 16777216$"):
        extract_features(MANIFEST, place, slice="1/2", settings=SETTINGS)


def test_names_that_lead_out_of_the_copy_are_not_fetched(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, fetch, names = StoredCache.files, StoredCache.fetch, list[str]()
    bad = ["../shard-1.h5", "shard-/../../1.h5", "/shard-1.h5", "../slice-00001.json", "..", "shard-1.h5/../../../1.h5"]

    def remember(self: StoredCache, name: str, state: FileState, path: Path) -> None:
        names.append(name)
        fetch(self, name, state, path)

    state = FileState(size_bytes=1, mtime_ns=1, etag="1")
    monkeypatch.setattr(StoredCache, "files", lambda self: listed(self) | dict.fromkeys(bad, state))
    monkeypatch.setattr(StoredCache, "fetch", remember)
    assert len(Cache.open(stored).media["id"]) == 20
    assert sorted(names) == sorted(path.name for path in copies(tmp_path))


def test_a_copy_is_deleted_in_one_step(stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is free before its files are deleted: who opens the cache meanwhile loses none."""
    folder = Cache.open(stored).path
    end_commands()
    there: list[bool] = []
    monkeypatch.setattr(local_copy.shutil, "rmtree", lambda *_, **__: there.append(folder.exists()))
    assert local_copy._deleted(folder)
    assert there == [False]


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(CacheError, match="this user has no home folder; set XDG_CACHE_HOME"):
        user_folder()


def test_a_place_without_a_cache(place: str, tmp_path: Path) -> None:
    put(f"{tmp_path.name}/strange/notes.txt", b"x")
    for cache, problem in (
        (place, "no cache there; make one with `haechi extract DATA --out s3://"),
        (f"s3://videos/{tmp_path.name}/strange", "other files, and no cache there"),
        ("s3://nowhere/cache", "there is no such bucket"),
        ("https://host/cache?signature=SECRET", "a web server holds no cache"),
        ("ftp://host/cache", "the scheme ftp:// is not read"),
    ):
        for name in ("inspect", "status", "verify"):
            result = command(name, cache)
            assert result.exit_code == 1
            assert problem in result.output
            assert "SECRET" not in result.output
            assert len(result.output.splitlines()) == 1
    assert copies(tmp_path) == []


def test_train_evaluate_and_predict(stored: str, tmp_path: Path) -> None:
    result = train_head(stored, tmp_path / "run", epochs=1)
    assert result.plan.dataset.cache.name == stored
    found = evaluate_head(tmp_path / "run", stored, keep_overlap=True)
    assert found.figures
    local = command("predict", tmp_path / "run", "--cache", tmp_path / "local", "--clip-model", "local-dir:.", "--json")
    ours = command("predict", tmp_path / "run", "--cache", stored, "--clip-model", "local-dir:.", "--json")
    assert ours.exit_code == local.exit_code
    assert ours.stdout == local.stdout
    done = command("evaluate", tmp_path / "run", stored, "--keep-overlap")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run-on-cache").is_dir()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "CACHE", "--out", "s3://bucket/run"],
        ["predict", "RUN", "--cache", "CACHE", "--timeline", "s3://bucket/plot.png"],
        ["evaluate", "RUN", "CACHE", "--out", "s3://bucket/out"],
        ["evaluate", "RUN", "CACHE", "--cache", "s3://bucket/features"],
        ["evaluate", "RUN", "CACHE", "--export", "fiftyone", "s3://bucket/out.json"],
        ["export", "RUN", "--onnx", "s3://bucket/head.onnx"],
        ["validate", "CACHE", "--out", "gs://bucket/validation.csv"],
        ["extract", "CACHE", "--out", "s3://bucket/cache", "--work", "az://bucket/work"],
        ["compare", "s3://bucket/run", "RUN"],
    ],
)
def test_what_is_only_on_this_machine_refuses_a_store(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"RUN": "tests/archive/run", "CACHE": "tests/archive/cache"}
    root = Path(__file__).parents[3]
    result = command(*(root / places[each] if each in places else each for each in arguments))
    assert result.exit_code == 2
    assert "expected a path on this machine: only `haechi extract --out` writes to object stores" in result.output
    assert list(tmp_path.iterdir()) == []


def test_runs_are_written_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cache(tmp_path / "cache")
    for out in ("s3://bucket/run", Path("s3://bucket/run")):
        with pytest.raises(SettingsError, match=r"out is 's3:/.*', expected a path on this machine"):
            train_head(tmp_path / "cache", out)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
