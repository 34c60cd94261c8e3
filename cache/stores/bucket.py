"""Buckets of S3, Google Cloud Storage and Azure, through obstore.

obstore is Rust's object_store: it has no event loop of its own in Python, its calls release Python's lock, and it reads
with conditions (`If-Match`). Its own repetition of requests is switched off: `haechi.cache.stores.retry` repeats.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from haechi.cache.file_state import FileState
from haechi.cache.stores.errors import CHANGED, MISCONFIGURED, NO_CREDENTIALS, StoreError, Trouble, of_status
from haechi.cache.stores.location import Location
from haechi.cache.stores.store import CHUNK_BYTES, CONNECT_SECONDS, SILENCE_SECONDS
from haechi.cache.text import shown

# Parts of 5 MB of a large file. Each has to be sent within SILENCE_SECONDS, so more need a faster connection.
PARTS_AT_ONCE = 4

PAGE_ENTRIES = 1000  # of S3's ListObjectsV2

CLIENT: Any = {
    "allow_http": True,  # of an endpoint that the environment names; all others are https
    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
    "read_timeout": timedelta(seconds=SILENCE_SECONDS),
    "timeout": timedelta(days=7),  # of a whole file: haechi.extract.stores.fetcher has the real limit
}
NO_RETRIES: Any = {"max_retries": 0}


class Bucket:
    """A bucket."""

    def __init__(self, scheme: str, name: str) -> None:
        kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme]
        try:
            self._store = kind(name, client_options=CLIENT, retry_config=NO_RETRIES)
        except (exceptions.BaseError, OSError, ValueError):
            message = "its configuration in the environment cannot be used"
            raise StoreError(Trouble.FETCH_FAILED, message, code=MISCONFIGURED) from None

    def head(self, location: Location) -> FileState:
        with _converted():
            return _state(obstore.head(self._store, location.key))

    def read(self, location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        options: Any = {"if_match": f'"{state.etag}"'} if state.etag and not state.etag.startswith("W/") else {}
        with _converted():
            found = self._opened(location.key, options, start)
            if found.meta["size"] != state.size_bytes or found.range[0] not in (0, start):
                raise StoreError(Trouble.CHANGED_WHILE_READ, CHANGED)
            skipped = start - found.range[0]
            stream = iter(found.stream(min_chunk_size=CHUNK_BYTES))
        while True:
            with _converted():
                chunk = next(stream, None)
            if chunk is None:
                return
            rest, skipped = memoryview(chunk)[skipped:], max(0, skipped - len(chunk))
            if rest:
                yield rest

    def _opened(self, key: str, options: Any, start: int) -> Any:
        """The answer from byte `start` on; from 0 on if the server ignores ranges, as that of rclone does."""
        if not start:
            return obstore.get(self._store, key, options=options)
        try:
            ranged: Any = {**options, "range": {"offset": start}}
            return obstore.get(self._store, key, options=ranged)
        except exceptions.GenericError as error:
            if "non-partial" not in str(error):
                raise
            return obstore.get(self._store, key, options=options)

    def get(self, key: str, *, most: int) -> bytes:
        """The content of a small object. Raises `StoreError` too if it has more than `most` bytes."""
        with _converted():
            found = obstore.get(self._store, key)
            if (size := found.meta["size"]) > most:
                name = shown(key.rpartition("/")[2])
                raise StoreError(Trouble.FETCH_FAILED, f"{name} has {size} bytes, expected at most {most}")
            return bytes(found.bytes())

    def put(self, key: str, path: Path) -> None:
        """Write a file of this machine whole, over what has its key."""
        with _converted():
            obstore.put(self._store, key, path, max_concurrency=PARTS_AT_ONCE)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object unless its key exists. Returns False if the key exists, or was in use by another request."""
        with _converted():
            try:
                obstore.put(self._store, key, content, mode="create")
            except exceptions.AlreadyExistsError:
                return False
        return True

    def delete(self, key: str) -> None:
        with _converted():
            obstore.delete(self._store, key)

    def pages(self, prefix: str) -> Iterator[list[tuple[str, FileState]]]:
        with _converted():
            listing = iter(obstore.list(self._store, prefix or None, chunk_size=PAGE_ENTRIES))
        while True:
            with _converted():
                page = next(listing, None)
            if page is None:
                return
            yield [(meta["path"], _state(meta)) for meta in page]


def _state(meta: Any) -> FileState:
    mtime_ns = int(meta["last_modified"].timestamp()) * 10**9  # HTTP dates have whole seconds, listings sometimes more
    etag = (meta["e_tag"] or "").strip('"')  # Azure's listings have them without quotes, its other answers with them
    return FileState(size_bytes=meta["size"], mtime_ns=mtime_ns, etag=etag)


@contextmanager
def _converted() -> Iterator[None]:
    """Convert obstore's errors to `StoreError`. Their texts name addresses and answers, and are not passed on."""
    try:
        yield
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _error(error) from None


def _error(error: Exception) -> StoreError:
    text = str(error)
    status, code = re.search(r"status code: (\d{3})", text), re.search(r"<Code>(\w{1,64})</Code>", text)
    name = code[1] if code else ""
    if "169.254.169.254" in text or "metadata.google.internal" in text:  # where cloud machines get credentials from
        return StoreError(Trouble.FORBIDDEN, "no credentials were found", code=NO_CREDENTIALS)
    if name in ("SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "ServerBusy"):
        return of_status(503, code=name)
    if isinstance(error, exceptions.PreconditionError):
        return of_status(412, code=name)
    if status:
        return of_status(int(status[1]), code=name)
    if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
        return of_status(404, code=name)
    if "redirect" in text.lower():
        return StoreError(Trouble.FETCH_FAILED, "the store redirects to another region", code="PermanentRedirect")
    if "kind: Timeout" in text or "timed out" in text or "TimedOut" in text:
        message = f"nothing arrived for {SILENCE_SECONDS:g} s"
        return StoreError(Trouble.FETCH_TIMEOUT, message, is_temporary=True)
    if "kind: Connect" in text:
        return StoreError(Trouble.FETCH_FAILED, "the store cannot be reached", is_temporary=True)
    if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError):
        return of_status(403, code=name)
    if isinstance(error, exceptions.InvalidPathError | ValueError):
        return StoreError(Trouble.FETCH_FAILED, "its key cannot be used")
    return StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True)
