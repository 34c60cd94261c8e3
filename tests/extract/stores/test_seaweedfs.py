"""Buckets of a real server: the store itself, and extraction from it against extraction from this machine."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bench import servers
from bench.servers import Fault, Proxy
from haechi.cache.errors import HaechiError
from haechi.cache.file_state import MISSING, FileState
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.manifest_file import ManifestError
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import DATASETS
from haechi.cache.slices import slice_of
from haechi.cache.stores import kinds
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.stores.errors import StoreError, Trouble
from haechi.cache.stores.location import Location
from haechi.cli import main
from haechi.extract import flow
from haechi.extract.api import extract_features
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.reasons import Reason
from haechi.extract.decoding.supply import Rejected
from haechi.extract.manifest import Manifest, located, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores import fetcher, spool, states
from haechi.extract.stores.states import current_states
from tests.extract.conftest import manifest_of
from tests.extract.stores.conftest import contents, put, use

NAMES = ["sound.mp4", "vfr.mp4", "empty.mp4", "one_frame.mp4", "text.mp4", "mpeg4.avi"]


@pytest.fixture
def clips(s3: str, videos: Path) -> Path:
    """The folder `NAMES` are in on this machine; they are in the bucket `videos` too, below `clips/`."""
    for name in NAMES:
        put(f"clips/{name}", (videos / name).read_bytes())
    return videos


def manifest_in(folder: Path, keys: list[str], *, bucket: str = "videos") -> Manifest:
    lines = [f"{key},s3://{bucket}/clips/{key},{i % 2}" for i, key in enumerate(keys)]
    (folder / "m.csv").write_text("\n".join(["id,path,label", *lines]) + "\n")
    return read_manifest(folder / "m.csv")


def at(text: str) -> Location:
    return Location.parse(text)


def failures(cache: Path) -> dict[str, tuple[str, str]]:
    return {row.id: (row.stage, row.reason) for row in Cache.open(cache).failures}


def spool_is_empty(tmp_path: Path) -> bool:
    return not list((tmp_path / "spool").glob("haechi-spool-*"))


def test_head_and_read(s3: str) -> None:
    content = np.random.default_rng(0).bytes(3 << 20)
    put("한국 #1 %20.mp4", content)
    location = at("s3://videos/한국 #1 %20.mp4")
    held = kinds.open_store(location)
    state = held.head(location)
    assert state.size_bytes == len(content)
    assert state.etag
    assert state.mtime_ns > 1.7e18
    assert b"".join(held.read(location, state, start=0)) == content
    assert b"".join(held.read(location, state, start=1_000_001)) == content[1_000_001:]
    assert dict(entry for page in held.pages("") for entry in page)[location.key] == state
    put(location.key, content[::-1])
    with pytest.raises(StoreError) as caught:
        b"".join(held.read(location, state, start=0))
    assert caught.value.reason is Trouble.CHANGED_WHILE_READ
    with pytest.raises(StoreError) as caught:
        held.head(at("s3://videos/gone.mp4"))
    assert (caught.value.reason, caught.value.is_temporary) == (Trouble.NOT_FOUND, False)


@pytest.mark.parametrize(("given", "expected"), [('"0x8D"', "0x8D"), ("0x8D", "0x8D"), ('W/"1"', 'W/"1'), (None, "")])
def test_etags_are_the_same_from_a_listing_and_from_a_request(given: str | None, expected: str) -> None:
    bucket = pytest.importorskip("haechi.cache.stores.bucket", reason="the extra `stores` is not installed")
    meta = {"size": 1, "last_modified": datetime.fromtimestamp(1.5, UTC), "e_tag": given}
    assert bucket._state(meta) == FileState(size_bytes=1, mtime_ns=10**9, etag=expected)


def test_the_same_rows_as_from_this_machine(clips: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(clips / name, folder)
    # In batches of one video: files come in any order, and last bits depend on which share a batch.
    local = run(manifest_of(folder, [*NAMES, "gone.mp4"]), "local", batch_windows=1)
    done = run(manifest_in(tmp_path, [*NAMES, "gone.mp4"]), "stored", batch_windows=1)
    assert (done.num_rows, done.num_used, done.num_failed) == (7, 4, 3)
    assert done.fingerprint == local.fingerprint
    ours, theirs = Cache.open(done.cache), Cache.open(local.cache)
    for name in DATASETS:
        np.testing.assert_array_equal(ours.rows(*name.split("/")), theirs.rows(*name.split("/")))
    for name in ours.media.keys() - {"mtime_ns", "etag"}:
        assert ours.media[name].tolist() == theirs.media[name].tolist(), name
    assert all(ours.media["etag"])
    assert set(theirs.media["etag"]) == {""}
    assert failures(done.cache) == {
        "empty.mp4": ("validate", "empty_file"),
        "text.mp4": ("validate", "not_media"),
        "gone.mp4": ("fetch", "not_found"),
    }
    assert verify(done.cache).problems == []
    assert spool_is_empty(tmp_path)


def test_from_and_to_the_store(clips: Path, tiny_settings: ExtractSettings, tmp_path: Path) -> None:
    """With real decoders: the same rows as from and to this machine, to the last bit."""
    folder, place = tmp_path / "data", f"s3://videos/{tmp_path.name}/cache"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(clips / name, folder)
    settings = tiny_settings.changed(batch_windows=1)  # last bits depend on which videos share a batch
    local = extract_features(manifest_of(folder, NAMES), tmp_path / "local", settings=settings)
    manifest = manifest_in(tmp_path, NAMES)
    done = extract_features(manifest, place, settings=settings)
    assert (done.num_used, done.failures) == (local.num_used, local.failures)
    assert done.num_used + done.num_failed == done.num_rows == len(NAMES)
    ours, theirs = contents(place), contents(local.cache)
    assert ours.keys() == theirs.keys()
    for id in ours:
        for name in ours[id].keys() - {"mtime_ns", "etag"}:
            assert ours[id][name] == theirs[id][name], (id, name)
    assert verify(place).problems == []


def test_resume_by_etag(
    clips: Path, run: Callable[..., Extraction], no_models: Callable[[], None], tmp_path: Path
) -> None:
    manifest = manifest_in(tmp_path, ["sound.mp4", "vfr.mp4", "text.mp4", "late.mp4"])
    first = run(manifest)
    put("clips/vfr.mp4", (clips / "short.mp4").read_bytes())
    put("clips/late.mp4", (clips / "sound.mp4").read_bytes())
    done = run(manifest)
    assert (first.num_used, done.num_used, done.num_new, done.num_changed) == (2, 3, 2, 2)
    cache = Cache.open(done.cache)
    hashes = dict(zip(cache.media["id"].tolist(), cache.media["sha256"].tolist(), strict=True))
    assert hashes["vfr.mp4"] == sha256_of(clips / "short.mp4")
    no_models()
    assert run(manifest).num_new == 0
    shutil.rmtree(tmp_path / "spool")  # nothing is fetched, so no spool is needed
    assert run(manifest).num_new == 0


def test_relabelling_and_repair_keep_the_etags(clips: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    manifest = manifest_in(tmp_path, ["sound.mp4", "text.mp4", "one_frame.mp4"])
    done = run(manifest)
    before = Cache.open(done.cache).media["etag"].tolist()
    text = (tmp_path / "m.csv").read_text().replace("sound.mp4,0", "sound.mp4,1")
    (tmp_path / "m.csv").write_text(text)
    assert run(read_manifest(tmp_path / "m.csv")).num_relabelled == 1
    assert Cache.open(done.cache).media["etag"].tolist() == before
    shard = shard_paths(done.cache)[0]
    found = Cache.open(done.cache).shards[0].index
    assert found is not None
    content = bytearray(shard.read_bytes())
    place = found.datasets["media/sha256"]  # of two videos, one is damaged together with its block: both are dropped
    content[place.offset] ^= 1
    shard.write_bytes(content)
    repair(done.cache)
    assert failures(done.cache) == {"text.mp4": ("validate", "not_media")}
    assert [bool(row.etag) for row in Cache.open(done.cache).failures] == [True]


def test_a_prefix_as_data(clips: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    names = ["train/Fight/a.mp4", "train/Safe/b.mp4", "val/Fight/c.mp4", "val/Safe/.hidden.mp4", "val/Safe/notes.txt"]
    for name in [*names, "metadata.csv", "train/.thumbs/x.mp4"]:
        put(f"sets/one/{name}", (clips / "short.mp4").read_bytes())
    put("sets/one-other/train/Fight/d.mp4", b"x")
    manifest = read_manifest(located("s3://videos/sets/one/"), positive="fight")
    assert [(entry.id, entry.label, entry.split) for entry in manifest.entries] == [
        ("train/Fight/a.mp4", 1, "train"),
        ("train/Safe/b.mp4", 0, "train"),
        ("val/Fight/c.mp4", 1, "val"),
    ]
    notices = "\n".join(manifest.notices)
    assert "files skipped: 1 .csv, 1 .txt, 1 hidden" in notices
    assert "'metadata.csv' is not read, since it lies in a store" in notices
    assert run(manifest).num_used == 3
    for empty in ("s3://videos/nothing/here", "s3://videos/sets/one/val/Safe"):
        with pytest.raises(ManifestError, match="no videos or images"):
            read_manifest(located(empty))


def test_throttled_requests_are_repeated(
    clips: Path, proxy: Proxy, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    slow_down = Fault(status=503, body="<Error><Code>SlowDown</Code></Error>")
    proxy.plan = lambda method, path, number: slow_down if number < 2 and path.endswith(".mp4") else None
    assert run(manifest_in(tmp_path, ["sound.mp4", "vfr.mp4"])).num_used == 2
    proxy.plan = lambda method, path, number: slow_down if path.endswith("one_frame.mp4") else None
    done = run(manifest_in(tmp_path, ["sound.mp4", "one_frame.mp4"]), "other")
    assert failures(done.cache) == {"one_frame.mp4": ("fetch", "throttled")}
    proxy.plan = lambda method, path, number: None
    assert run(manifest_in(tmp_path, ["sound.mp4", "one_frame.mp4"]), "other").num_used == 2


def test_a_broken_connection_goes_on_where_it_broke(
    clips: Path, proxy: Proxy, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    half = (clips / "sound.mp4").stat().st_size // 2
    proxy.plan = lambda method, path, number: Fault(cut_bytes=half) if method == "GET" and number == 0 else None
    done = run(manifest_in(tmp_path, ["sound.mp4"]))
    assert Cache.open(done.cache).media["sha256"].tolist() == [sha256_of(clips / "sound.mp4")]
    assert proxy.requests.count(("GET", "/videos/clips/sound.mp4")) == 2


def test_files_that_cannot_be_fetched(
    clips: Path, s3: str, proxy: Proxy, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    def plan(method: str, path: str, number: int) -> Fault | None:
        if method == "GET" and path.endswith("vfr.mp4") and number == 0:
            put("clips/vfr.mp4", b"another file", endpoint=s3)
        faults = {"one_frame.mp4": Fault(status=403), "mpeg4.avi": Fault(status=500)}
        return faults.get(path.rpartition("/")[2])

    proxy.plan = plan
    done = run(manifest_in(tmp_path, ["sound.mp4", "vfr.mp4", "one_frame.mp4", "mpeg4.avi"]))
    assert done.num_used == 1
    assert failures(done.cache) == {
        "vfr.mp4": ("fetch", "changed_while_read"),
        "one_frame.mp4": ("fetch", "forbidden"),
        "mpeg4.avi": ("fetch", "fetch_failed"),
    }
    assert spool_is_empty(tmp_path)


def test_a_slow_store_is_a_timeout(clips: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetcher, "BYTES_PER_TIMEOUT", 10**12)
    proxy.plan = lambda method, path, number: Fault(hang_seconds=0.2) if method == "GET" else None
    held = spool.Spool(folder=tmp_path, max_bytes=10**9)
    with fetcher.Fetcher([at("s3://videos/clips/sound.mp4")], held, timeout_seconds=0.1) as files:
        wait(files.arrivals)
        taken = files.take(below=1)
    assert taken is not None
    assert isinstance(taken[1], Rejected)
    assert (taken[1].reason, taken[1].message) == (Reason.FETCH_TIMEOUT, "not fetched within 0 s (--timeout)")
    assert taken[1].state == MISSING  # the next run tries again


def test_the_spool_keeps_its_bound(clips: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    names = []
    for number in range(8):
        names.append(f"many-{number}.mp4")
        put(f"clips/{names[-1]}", (clips / "short.mp4").read_bytes())
    put("clips/large.mp4", (clips / "sound.mp4").read_bytes() + bytes(2 << 20))
    most: list[int] = []

    class Watched(fetcher.Fetcher):
        def __exit__(self, *details: object) -> None:
            super().__exit__(*details)  # type: ignore[arg-type]
            most.append(self.most_bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetcher, "Fetcher", Watched)
        done = run(manifest_in(tmp_path, [*names, "large.mp4"]), spool_gb=0.001)
    assert done.num_used == 8
    (failure,) = Cache.open(done.cache).failures
    assert (failure.reason, failure.stage) == ("too_large", "validate")
    assert failure.message.endswith(" GB, more than the 0.001 GB of --spool-gb")
    assert 0 < most[0] <= 1e6


@pytest.mark.parametrize(
    ("bucket", "key", "secret", "problem"),
    [
        ("nothing", servers.KEY_ID, servers.SECRET, "'s3://nothing': there is no such bucket"),
        (
            "videos",
            "UNKNOWN",
            servers.SECRET,
            r"'s3://videos': access denied \(HTTP 403, InvalidAccessKeyId\); set AWS",
        ),
        (
            "videos",
            servers.KEY_ID,
            "WRONG",
            r"'s3://videos': access denied \(HTTP 403, SignatureDoesNotMatch\); set AWS",
        ),
        ("videos", servers.READER_ID, servers.READER_SECRET, r"'s3://videos': access denied \(HTTP 403\); set AWS"),
    ],
)
def test_a_store_that_cannot_be_used_ends_the_run(
    clips: Path,
    s3: str,
    run: Callable[..., Extraction],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bucket: str,
    key: str,
    secret: str,
    problem: str,
) -> None:
    use(monkeypatch, s3, key=key, secret=secret)
    with pytest.raises(HaechiError, match=problem) as caught:
        run(manifest_in(tmp_path, NAMES, bucket=bucket))
    assert "\n" not in str(caught.value)
    assert not shard_paths(tmp_path / "cache")


def test_all_unusable_stores_are_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HaechiError, match="these stores cannot be used") as caught:
        refuse_unusable_stores([at("s3://one/a.mp4"), at("s3://two/a.mp4"), Path("a.mp4")])
    assert len(str(caught.value).splitlines()) == 3
    use(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(HaechiError, match="'s3://videos': the store cannot be reached"):
        refuse_unusable_stores([at("s3://videos/a.mp4")])
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(HaechiError, match=r"'az://videos': its configuration in .*; set AZURE_STORAGE_ACCOUNT_NAME"):
        refuse_unusable_stores([at("az://videos/a.mp4")])


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (301, "PermanentRedirect", "the bucket is in another region; set AWS_REGION to it"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION to it"),
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock of this machine differs from the store's by more than it allows"),
        (400, "InvalidRequest", r"the store answered with an error \(HTTP 400, InvalidRequest\)"),
    ],
)
def test_errors_of_the_whole_store(proxy: Proxy, status: int, code: str, problem: str) -> None:
    fault = Fault(status=status, body=f"<Error><Code>{code}</Code></Error>")
    proxy.plan = lambda method, path, number: fault
    with pytest.raises(HaechiError, match=problem):
        refuse_unusable_stores([at("s3://videos/a.mp4")])


def test_who_may_read_and_not_list_can_extract(
    clips: Path, s3: str, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put("clips/sound.mp4", (clips / "sound.mp4").read_bytes(), bucket="open")
    use(monkeypatch, s3, key=servers.READER_ID, secret=servers.READER_SECRET)
    manifest = manifest_in(tmp_path, ["gone.mp4", "sound.mp4"], bucket="open")
    assert run(manifest).num_used == 1
    assert run(manifest).num_new == 0


def test_a_store_that_goes_away_ends_the_run_and_keeps_what_is_done(
    clips: Path, proxy: Proxy, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    names = [f"copy-{i:02d}.mp4" for i in range(30)]  # more than are fetched at the same time
    for name in names:
        put(f"clips/{name}", (clips / "one_frame.mp4").read_bytes())
    gone = threading.Event()

    def plan(method: str, path: str, number: int) -> Fault | None:
        if path.endswith("copy-02.mp4") and method == "GET":
            gone.set()
        return Fault(status=403, body="<Error><Code>ExpiredToken</Code></Error>") if gone.is_set() else None

    proxy.plan = plan
    with pytest.raises(HaechiError, match=r"the credentials have expired.* Finished videos are kept"):
        run(manifest_in(tmp_path, names))
    proxy.plan = lambda method, path, number: None
    done = run(manifest_in(tmp_path, names))
    assert (done.num_used, done.num_failed) == (30, 0)


def test_files_that_are_gone_where_no_list_is_allowed(
    clips: Path, proxy: Proxy, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    """S3 answers 403 for them then, as for files that may not be read. The run goes on for the others."""
    denied = Fault(status=403, body="<Error><Code>AccessDenied</Code></Error>")
    proxy.plan = lambda method, path, number: denied if path == "/videos" or "/gone-" in path else None
    gone = [f"gone-{i:02d}.mp4" for i in range(2 * flow.MAX_VANISHED)]
    done = run(manifest_in(tmp_path, [*gone[:12], "sound.mp4", "vfr.mp4"]))
    assert (done.num_used, done.failures) == (2, {"forbidden": 12})
    done = run(manifest_in(tmp_path, [*gone, "sound.mp4", "vfr.mp4"]))  # only files that are gone are left
    assert (done.num_used, done.num_new, done.failures) == (2, 8, {"forbidden": 20})
    done = run(manifest_in(tmp_path, [*gone[:5], "sound.mp4", *gone[5:]]), "in_between")
    assert (done.num_used, done.failures) == (1, {"forbidden": 20})
    proxy.plan = lambda method, path, number: denied
    with pytest.raises(HaechiError, match=r"'s3://videos': access denied \(HTTP 403.*\); set AWS"):
        run(manifest_in(tmp_path, [*gone, "sound.mp4"]), "all")


def test_states_of_many_files_take_few_requests(clips: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        put(f"many/{i % 2}/{i}.mp4", b"x" * i)
    proxy.requests.clear()
    monkeypatch.setattr(states, "FILES_PER_PAGE", 10)
    asked = [at(f"s3://videos/many/{i % 2}/{i}.mp4") for i in range(40)] + [at("s3://videos/clips/sound.mp4")]
    found = current_states(asked)
    assert [found[each].size_bytes for each in asked[:40]] == [*range(30), *[0] * 10]  # type: ignore[union-attr]
    assert found[asked[35]] == MISSING
    assert found[asked[-1]] == kinds.open_store(asked[-1]).head(asked[-1])
    assert [method for method, _ in proxy.requests].count("HEAD") == 2  # the one that is alone, and ours
    assert len(proxy.requests) == 4


def test_a_listing_that_shows_other_files_is_given_up(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        num_pages = 0
        head = kinds.open_store(at("s3://videos/clips")).head

        def pages(self, prefix: str) -> Iterator[list[tuple[str, object]]]:
            while True:
                Endless.num_pages += 1
                yield []

    monkeypatch.setattr(states, "open_store", lambda location: Endless())
    asked = [at(f"s3://videos/clips/{name}") for name in NAMES]
    monkeypatch.setattr(states, "FILES_PER_PAGE", 3)
    found = current_states(asked)
    assert found[asked[0]] == kinds.open_store(asked[0]).head(asked[0])
    assert Endless.num_pages == 1 + len(NAMES) // 3 + 1


def test_no_credentials_in_anything_that_is_written(
    clips: Path, s3: str, run: Callable[..., Extraction], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.csv").write_text("path\ns3://videos/clips/sound.mp4\ns3://videos/clips/gone.mp4\n")
    done = run(read_manifest(tmp_path / "m.csv"))
    cache = Cache.open(done.cache)
    assert cache.media["id"].tolist() == ["s3://videos/clips/sound.mp4"]
    with pytest.raises(SystemExit):
        main(["inspect", str(done.cache), "--json"])
    with pytest.raises(SystemExit):
        main(["inspect", str(done.cache), "--video", "s3://videos/clips/sound.mp4", "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out[shown.out.rindex('{\n  "id"') :])["etag"]
    for secret in (servers.KEY_ID, servers.SECRET, s3.removeprefix("http://")):
        assert secret not in shown.out + shown.err
        assert all(secret.encode() not in path.read_bytes() for path in shard_paths(done.cache))


def test_slices_ask_only_for_their_own_files(
    clips: Path, proxy: Proxy, tiny_settings: ExtractSettings, tmp_path: Path
) -> None:
    """Each file is fetched by one slice, and its ETag is in the committed row."""
    manifest = manifest_in(tmp_path, [*NAMES, "gone.mp4"])
    for number in range(2):
        proxy.requests.clear()
        mine = {name for name in [*NAMES, "gone.mp4"] if slice_of(name, 2) == number}
        done = extract_features(manifest, tmp_path / "sliced", slice=f"{number}/2", settings=tiny_settings)
        assert done.num_rows == len(mine) > 0
        asked = {path.rpartition("/")[2] for _, path in proxy.requests}
        assert asked & {*NAMES, "gone.mp4"} == mine
    proxy.requests.clear()
    cache = Cache.open(tmp_path / "sliced")
    assert set(cache.media["id"]) | failures(cache.path).keys() == {*NAMES, "gone.mp4"}
    assert all(cache.media["etag"])
    assert [row.id for row in cache.failures if not row.etag] == ["gone.mp4"]
    assert verify(cache.path).problems == []
    assert extract_features(manifest, cache.path, settings=tiny_settings).num_new == 0
