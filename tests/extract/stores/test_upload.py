"""Caches in a real store, written slice by slice, each committed once. Rows need no decoder and no network."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import servers
from bench.servers import Fault, Proxy
from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError, SettingsError
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.slices import slice_of
from haechi.cache.status import read_status
from haechi.cache.stores.stored_cache import StoredCache, cache_location, folder_name
from haechi.extract import pipeline, upload
from haechi.extract.api import extract_features
from haechi.extract.manifest import Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.shard_queue import WriteError
from tests.extract.slice_race import MANIFEST, SETTINGS, MadeFlow
from tests.extract.stores.conftest import contents, put, use


def extract(place: str | Path, part: str | None = None, *, data: Manifest = MANIFEST, **options: Any) -> Extraction:
    settings = options.pop("settings", SETTINGS)
    return extract_features(data, place, slice=part, settings=settings, **options)


def files(place: str) -> set[str]:
    return set(StoredCache(cache_location(place)).files())


def work(folder: Path) -> list[str]:
    """Shards, records and rows of slices that are not in the store yet."""
    return [path.name for path in folder.rglob("*") if path.name.startswith("shard-") or path.name == "cache"]


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(pipeline, "open_flow", refuse)


def test_the_same_rows_as_in_a_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = extract(tmp_path / "local")
    done = extract(place)
    assert (done.name, done.slice, done.has_committed) == (place, None, True)
    assert (done.num_rows, done.num_used, done.failures) == (10, 7, {"damaged": 3})
    names = files(place)
    assert {name for name in names if name.endswith(".json")} == {"slices.json", "slice-00000.json"}
    assert len(names) == 2 + 5
    assert contents(place) == contents(local.cache)
    found = verify(place)
    assert (found.name, found.problems, found.notes) == (place, [], [])
    assert work(tmp_path / "user" / "haechi" / "work") == []
    no_work(monkeypatch)
    again = extract(place)
    assert (again.num_new, again.num_used, again.has_committed, again.fingerprint) == (0, 7, False, done.fingerprint)
    assert files(place) == names


def test_slices_of_two_machines(place: str, tmp_path: Path) -> None:
    machines = itertools.cycle([tmp_path / "one", tmp_path / "two"])
    for number, folder in zip(range(3), machines, strict=False):
        assert read_status(place).missing == list(range(number, 3)) if number else True
        done = extract(place, f"{number}/3", work=folder)
        assert (str(done.slice), done.has_committed) == (f"{number}/3", True)
        assert done.num_rows == sum(slice_of(entry.id, 3) == number for entry in MANIFEST.entries)
    status = read_status(place)
    assert (status.name, status.done, status.num_used, status.num_manifest_rows) == (place, [0, 1, 2], 7, 10)
    assert (verify(place).problems, verify(place).notes) == ([], [])
    assert contents(place) == contents(extract(tmp_path / "local").cache)
    assert extract(place).num_used == 7  # without --slice: nothing to do
    assert extract(place, "2/3").num_new == 0


def test_before_all_slices_are_finished_it_is_not_continued_whole(place: str) -> None:
    extract(place, "1/3")
    with pytest.raises(HaechiError, match=r"^s3://\S+/cache: 2 of 3 slices are not finished: 0,2; run `haechi"):
        extract(place)


def test_the_first_to_finish_commits(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second machine did not see that the first one has committed, and its features are others."""
    first = extract(place, "0/1", work=tmp_path / "one")
    before = files(place)
    rows = contents(place)
    monkeypatch.setattr(upload.Upload, "finished", lambda *_: [])
    monkeypatch.setattr(MadeFlow, "compute", SimpleNamespace(name="another", precision="fp32"))
    second = extract(place, "0/1", work=tmp_path / "two")
    assert (first.has_committed, second.has_committed) == (True, False)
    assert (second.num_used, second.failures) == (7, {"damaged": 3})
    assert files(place) == before
    assert Cache.open(place).shards[0].provenance.device == "cpu"
    assert contents(place) == rows
    assert work(tmp_path / "two") == []


def test_another_machine_begins_at_the_same_time(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pin appears after this one looked for it, and before this one looked for other files."""
    extract(place, "0/2", work=tmp_path / "one")
    look, found = StoredCache.text, iter([None])
    monkeypatch.setattr(StoredCache, "text", lambda self, name: next(found, look(self, name)))
    assert extract(place, "1/2", work=tmp_path / "two").has_committed
    assert verify(place).notes == []


def test_one_process_builds_a_slice_in_a_folder(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(self: MadeFlow, *_: object, **__: object) -> Any:
        with pytest.raises(HaechiError, match=r"another process of this machine extracts slice 0/1; .* --work"):
            extract(place)
        monkeypatch.undo()
        return iter(())

    monkeypatch.setattr(MadeFlow, "rows", meanwhile)
    with pytest.raises(CacheError, match="no shards"):  # our iterator has no rows
        extract(place)


def test_a_lost_answer(place: str, proxy: Proxy) -> None:
    """The request for the record succeeded, its answer was lost, and its repetition finds the record."""
    proxy.plan = lambda method, path, number: Fault(is_lost=True) if method == "PUT" and number == 0 else None
    assert extract(place).has_committed
    assert verify(place).problems == []


def test_what_a_process_left_that_was_killed_after_its_commit(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command, which finds the cache finished, deletes it."""
    create = StoredCache.create

    def stopped(self: StoredCache, name: str, text: str) -> bool:
        is_ours = create(self, name, text)
        if name.startswith("slice-"):
            raise KeyboardInterrupt
        return is_ours

    with monkeypatch.context() as patch:
        patch.setattr(StoredCache, "create", stopped)
        with pytest.raises(KeyboardInterrupt):
            extract(place)
    assert work(tmp_path / "user")
    assert extract(place).num_used == 7
    assert work(tmp_path / "user") == []


def test_a_store_that_overwrites_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = pytest.importorskip("haechi.cache.stores.bucket", reason="the extra `stores` is not installed")

    def overwrite(self: Any, key: str, content: bytes) -> bool:
        put(key, content)
        return True

    monkeypatch.setattr(bucket.Bucket, "create", overwrite)
    no_work(monkeypatch)
    with pytest.raises(CacheError, match=r"this store overwrites a file .* write the cache to a folder") as caught:
        extract(place)
    assert "\n" not in str(caught.value)
    assert files(place) == set()


@pytest.mark.parametrize("status", [500, 403, 507])
def test_a_store_that_is_full_or_not_writable_any_more(place: str, proxy: Proxy, tmp_path: Path, status: int) -> None:
    """Nothing is committed, and the same command puts what is finished."""
    local = extract(tmp_path / "local")

    def plan(method: str, path: str, number: int) -> Fault | None:
        is_full = method == "PUT" and "/shard-00000-00002-" in path
        return Fault(status=status) if is_full else None

    proxy.plan = plan
    with pytest.raises(WriteError, match=r"Slice 0/1 is not committed; its 10 finished rows are safe in .*/user/"):
        extract(place)
    assert read_status(place).done == []
    with pytest.raises(CacheError, match=r"^s3://\S+: none of its 1 slice is finished"):
        Cache.open(place)
    proxy.plan = lambda method, path, number: None
    proxy.requests.clear()
    done = extract(place)
    assert (done.num_new, done.has_committed) == (0, True)
    assert sum("/shard-" in path for method, path in proxy.requests if method == "PUT") == 3
    assert contents(place) == contents(local.cache)


def test_what_changed_before_the_commit_is_committed(place: str, proxy: Proxy) -> None:
    """A slice was finished here and not put: labels and rows that changed since then are those that count."""
    proxy.plan = lambda method, path, number: Fault(status=403) if path.endswith("slice-00000.json") else None
    with pytest.raises(WriteError):
        extract(place)
    proxy.plan = lambda method, path, number: None
    more = replace(MANIFEST.entries[0], id="11.mp4")
    entries = (*(replace(entry, label=0) for entry in MANIFEST.entries), more)
    done = extract(place, data=Manifest(entries=entries, notices=()))
    assert (done.num_rows, done.num_new, done.num_relabelled) == (11, 1, 7)
    cache = Cache.open(place)
    assert sorted(cache.media["label"].tolist()) == [0, 0, 0, 0, 0, 0, 0, 1]
    assert len(files(place)) == 2 + 6
    assert verify(place).problems == []


def test_a_finished_cache_is_not_changed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(place)
    before = files(place)
    no_work(monkeypatch)
    fewer = Manifest(entries=MANIFEST.entries[1:], notices=())
    for data, options, error, problem in (
        (fewer, {}, HaechiError, r"it is finished with 10 rows, and the manifest has other ones now \(9\); .* copy it"),
        (fewer, {"part": "0/1"}, HaechiError, "it is finished with 10 rows"),
        (MANIFEST, {"retry": "damaged"}, HaechiError, "failures with the reason damaged are not tried again"),
        (MANIFEST, {"settings": SETTINGS.changed(frames=9)}, SettingsConflictError, "begun with other settings"),
        (MANIFEST, {"part": "0/2"}, SettingsConflictError, "slices.*1.*2"),
    ):
        with pytest.raises(error, match=problem) as caught:
            extract(place, data=data, **options)  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"{place}: ")
        assert "user/haechi" not in str(caught.value)
    assert files(place) == before


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_cache_that_was_replaced_during_the_run(place: str, monkeypatch: pytest.MonkeyPatch, is_gone: bool) -> None:
    """No record of the old cache gets into the new one."""
    rows, stored = MadeFlow.rows, StoredCache(cache_location(place))

    def meanwhile(self: MadeFlow, *arguments: Any, **options: Any) -> Any:
        text = stored.text("slices.json") or ""
        stored.remove("slices.json")
        if not is_gone:
            stored.create("slices.json", text.replace('"slices": 1', '"slices": 2'))
        return rows(self, *arguments, **options)

    monkeypatch.setattr(MadeFlow, "rows", meanwhile)
    with pytest.raises(WriteError, match=r"its slices\.json is another one .* Slice 0/1 is not committed"):
        extract(place, "0/1")
    assert "slice-00000.json" not in files(place)


def test_a_cache_that_was_deleted_is_made_again(place: str) -> None:
    """What the folder on this machine remembers of it does not count."""
    extract(place, "0/1")
    stored = StoredCache(cache_location(place))
    for name in stored.files():
        stored.remove(name)
    for number in range(2):
        assert extract(place, f"{number}/2").has_committed
    assert read_status(place).num_slices == 2
    assert verify(place).problems == []
    assert len(Cache.open(place).media["id"]) == 7


def test_places_that_are_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch)
    put(f"{tmp_path.name}/strange/notes.txt", b"x")
    put(f"{tmp_path.name}/whole/shard-00000.h5", b"x")
    for out, problem in (
        (f"s3://videos/{tmp_path.name}/strange", "not empty and holds no cache, but 'notes.txt'"),
        (f"s3://videos/{tmp_path.name}/whole", "was made without slices"),
        ("s3://nowhere/cache", "there is no such bucket"),
        ("hf://datasets/some/set/cache", "no cache is written to hf://"),
        ("https://host/cache?signature=SECRET", "a web server holds no cache"),
        ("ftp://host/cache", "the scheme ftp:// is not read"),
        ("s3://KEY:SECRET@bucket/cache", "has a user or password"),
        ("s3:/bucket/cache", "a place in a store is a text with two slashes"),
        (Path("s3://bucket/cache"), "a place in a store is a text with two slashes"),
    ):
        with pytest.raises(HaechiError, match=problem) as caught:
            extract(out)
        assert "SECRET" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="work is for a cache in an object store"):
        extract(tmp_path / "local", work=tmp_path)
    assert work(tmp_path) == []
    assert not (tmp_path / "local").exists()


@pytest.mark.parametrize(
    ("bucket", "key", "secret", "problem"),
    [
        ("videos", "UNKNOWN", servers.SECRET, r"access denied \(HTTP 403, InvalidAccessKeyId\); set AWS_ACCESS_KEY_ID"),
        ("open", servers.READER_ID, servers.READER_SECRET, r"access denied \(HTTP 403.*\); set AWS_ACCESS_KEY_ID"),
    ],
)
def test_without_permission(
    place: str,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bucket: str,
    key: str,
    secret: str,
    problem: str,
) -> None:
    use(monkeypatch, s3, key=key, secret=secret)
    no_work(monkeypatch)
    with pytest.raises(HaechiError, match=problem) as caught:
        extract(f"s3://{bucket}/{tmp_path.name}")
    assert "\n" not in str(caught.value)
    use(monkeypatch, s3)
    assert files(f"s3://{bucket}/{tmp_path.name}") == set()


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (301, "PermanentRedirect", "the bucket is in another region; set AWS_REGION to it"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION to it"),
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock of this machine differs from the store's by more than it allows"),
    ],
)
def test_errors_of_the_whole_store(place: str, proxy: Proxy, status: int, code: str, problem: str) -> None:
    fault = Fault(status=status, body=f"<Error><Code>{code}</Code></Error>")
    proxy.plan = lambda method, path, number: fault if method != "HEAD" else Fault(status=404)
    with pytest.raises(HaechiError, match=problem):
        extract(place)


def test_a_work_folder_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HaechiError, match=r"the work of slices cannot be written there .* --work"):
        extract(place, work=tmp_path / "file")


def test_names_of_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """They differ between stores, and show no part of an address or a key."""
    names = set()
    for address in ("http://KEY:SECRET@one", "http://two"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        names |= {folder_name(cache_location(text)) for text in ("s3://b/c", "s3://b/c/", "s3://b/d")}
    assert len(names) == 4
    assert all(name.startswith("b-") and "SECRET" not in name for name in names)


def test_auto_takes_the_number_of_slices_from_the_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(place, "0/3")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert str(extract(place, "auto").slice) == "2/3"
