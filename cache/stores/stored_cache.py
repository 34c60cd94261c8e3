"""A cache in an object store: its files, read whole, put whole, or created once."""

import contextlib
import hashlib
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from haechi.cache.errors import CacheError
from haechi.cache.file_state import FileState
from haechi.cache.schema import MAX_JSON_BYTES
from haechi.cache.stores.check import in_words
from haechi.cache.stores.errors import StoreError, Trouble
from haechi.cache.stores.kinds import open_bucket, open_store
from haechi.cache.stores.location import BUCKETS, WEB, Location, LocationError
from haechi.cache.stores.retry import Retry, retried

if TYPE_CHECKING:
    from haechi.cache.stores.bucket import Bucket

T = TypeVar("T")

PROBE_PREFIX = ".probe-"

# Variables that decide which store a name such as s3://bucket is in.
PLACES = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_S3_ENDPOINT"),
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL", "HF_ENDPOINT"),
)


def cache_location(text: str) -> Location:
    """Where in a store a cache is. Raises `CacheError` for schemes that hold none."""
    try:
        location = Location.parse(text, allow_https=True)
    except LocationError as error:
        raise CacheError(f"{error}; {_places()}") from error
    if location.scheme == WEB:
        raise CacheError(f"{location}: a web server holds no cache; {_places()}")
    return location


def _places() -> str:
    return f"a cache is a folder, or below {', '.join(f'{scheme}://' for scheme in BUCKETS)} or hf://"


def user_folder() -> Path:
    """Haechi's folder below the user's folder for files that can be made again."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "haechi"
    except RuntimeError as error:
        raise CacheError("this user has no home folder; set XDG_CACHE_HOME to one that can be written to") from error


def folder_name(location: Location) -> str:
    """A name for a folder on this machine: the same for the same place in the same store."""
    place = "\n".join([*(os.environ.get(name, "") for name in PLACES), str(location).rstrip("/")])
    readable = re.sub(r"[^0-9A-Za-z.]", "-", location.container).strip(".")[:40]
    return f"{readable}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


class StoredCache:
    """The files directly below a prefix. Methods repeat requests, and raise `CacheError` in words."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._folder, self._never = location.key.rstrip("/"), threading.Event()
        with self._in_words():
            self._store = open_store(location)

    @cached_property
    def _bucket(self) -> "Bucket":
        with self._in_words():
            return open_bucket(self.location)

    def at(self, name: str) -> Location:
        """Where a file of the cache is."""
        return self.location.below(name)

    def files(self) -> dict[str, FileState]:
        """The names and states of all files; names in folders have slashes in them."""
        start = len(self._folder) + 1 if self._folder else 0

        def listed() -> dict[str, FileState]:
            pages = self._store.pages(self._folder)
            return {key[start:]: state for page in pages for key, state in page if len(key) > start}

        return self._asked(listed)

    def text(self, name: str) -> str | None:
        """The content of a pin or a record; None if it is not there."""

        def read() -> str | None:
            try:
                return self._bucket.get(self.at(name).key, most=MAX_JSON_BYTES).decode(errors="replace")
            except StoreError as error:
                if error.reason is Trouble.NOT_FOUND and error.code != "NoSuchBucket":
                    return None
                raise

        return self._asked(read)

    def fetch(self, name: str, state: FileState, path: Path) -> None:
        """Write a file that is as `state` says to `path`. A broken connection goes on where it broke."""
        retry, num_bytes = Retry(self._never), 0
        with self._in_words(name), path.open("wb") as copy:
            while num_bytes < state.size_bytes:
                try:
                    for chunk in self._store.read(self.at(name), state, start=num_bytes):
                        copy.write(chunk)
                        num_bytes += len(chunk)
                        retry.progressed()
                    if num_bytes < state.size_bytes:
                        raise StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True)
                except StoreError as error:
                    retry.after(error)

    def put(self, name: str, path: Path) -> None:
        """Write a file of this machine whole, over what has its name."""
        self._asked(lambda: self._bucket.put(self.at(name).key, path), name)

    def create(self, name: str, text: str) -> bool:
        """Write a small file unless its name exists. Returns whether it is ours.

        Exactly one of several processes that create one name with different texts gets True.
        """
        key, content = self.at(name).key, text.encode()
        is_lost = False  # whether an answer was lost, so that the file that is there may be ours

        def try_to_create() -> bool:
            nonlocal is_lost
            try:
                if self._bucket.create(key, content):
                    return True
            except StoreError as error:
                is_lost = is_lost or error.is_temporary
                raise
            found = self.text(name)
            if found is None:  # another request for this name was on its way, and failed
                raise StoreError(
                    Trouble.FETCH_FAILED, "requests for one name were in each other's way", is_temporary=True
                )
            return is_lost and found == text

        return self._asked(try_to_create, name)

    def remove(self, name: str) -> None:
        """Delete a file, if that is allowed."""
        with contextlib.suppress(StoreError):
            retried(lambda: self._bucket.delete(self.at(name).key), self._never)

    def refuse_overwriting(self) -> None:
        """Raise `CacheError` if the store cannot be written to, or does not create a file only if it is absent."""
        name = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
        self.create(name, "first")
        try:
            is_kept = not self.create(name, "second") and self.text(name) == "first"
        finally:
            self.remove(name)
        if not is_kept:
            raise CacheError(
                f"{self.location}: this store overwrites a file that must be created only if it is absent (it ignores "
                "If-None-Match), so two processes could commit one slice; write the cache to a folder or another store"
            )

    def _asked(self, request: Callable[[], T], name: str = "") -> T:
        with self._in_words(name):
            return retried(request, self._never)

    @contextlib.contextmanager
    def _in_words(self, name: str = "") -> Iterator[None]:
        """Convert `StoreError`. `name`: the file that is asked for."""
        try:
            yield
        except StoreError as error:
            where = self.at(name) if name else self.location
            raise CacheError(f"{where}: {in_words(self.location, error)}") from error
