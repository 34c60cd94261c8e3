"""Files in repositories of the Hugging Face Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub import errors as hub_errors
from huggingface_hub import utils as hub_utils
from huggingface_hub.errors import HfHubHTTPError

from haechi.cache.file_state import FileState
from haechi.cache.stores.errors import StoreError, Trouble, of_status
from haechi.cache.stores.location import Location
from haechi.cache.stores.store import CHUNK_BYTES, SILENCE_SECONDS

PAGE_ENTRIES = 1000


class Repository:
    """One revision of a repository. The commit is looked up once, so its files do not change while they are read."""

    def __init__(self, name: str) -> None:
        """`name`: such as `datasets/NAME/NAME@REVISION`."""
        *kind, owner, repository = name.split("/")
        repository, _, revision = repository.partition("@")
        self._kind = kind[0].removesuffix("s") if kind else "model"
        self._id, self._revision = f"{owner}/{repository}", unquote(revision) or None

    @cached_property
    def _commit(self) -> str:
        with _converted():
            return str(HfApi().repo_info(self._id, repo_type=self._kind, revision=self._revision).sha)

    @property
    def _place(self) -> dict[str, Any]:
        return {"repo_id": self._id, "repo_type": self._kind, "revision": self._commit}

    def head(self, location: Location) -> FileState:
        with _converted():
            for found in HfApi().get_paths_info(paths=[location.key], **self._place):
                if found.path == location.key and hasattr(found, "size"):
                    return _state(found)
        raise of_status(404)

    def read(self, location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        client: Any = hub_utils
        headers = {**client.build_hf_headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = hf_hub_url(filename=location.key, **self._place)
        options = {"headers": headers, "follow_redirects": True, "timeout": SILENCE_SECONDS}
        with _converted(), client.get_session().stream("GET", url, **options) as answer:
            if answer.status_code not in (200, 206):
                raise of_status(answer.status_code)
            skipped = 0 if answer.status_code == 206 else start  # a server may ignore the range
            for chunk in answer.iter_raw(CHUNK_BYTES):
                rest, skipped = chunk[skipped:], max(0, skipped - len(chunk))
                if rest:
                    yield memoryview(rest)

    def pages(self, prefix: str) -> Iterator[list[tuple[str, FileState]]]:
        with _converted():
            tree = HfApi().list_repo_tree(path_in_repo=prefix or None, recursive=True, **self._place)
            page: list[tuple[str, FileState]] = []
            for found in tree:
                if hasattr(found, "size"):
                    page.append((found.path, _state(found)))
                if len(page) == PAGE_ENTRIES:
                    yield page
                    page = []
            yield page


def _state(found: Any) -> FileState:
    """Git has no modification times; the hash of the content takes the place of an ETag."""
    etag = found.lfs.sha256 if found.lfs is not None else found.blob_id
    return FileState(size_bytes=found.size, mtime_ns=0, etag=etag)


@contextmanager
def _converted() -> Iterator[None]:
    """Convert the errors of huggingface_hub and its HTTP client to `StoreError`, without addresses."""
    http_error: Any = hub_errors.HTTPError  # type: ignore[attr-defined]  # of the HTTP client that it uses
    try:
        yield
    except HfHubHTTPError as error:
        raise of_status(error.response.status_code, code=type(error).__name__) from None
    except http_error as error:
        if "Timeout" in type(error).__name__:
            message = f"nothing arrived for {SILENCE_SECONDS:g} s"
            raise StoreError(Trouble.FETCH_TIMEOUT, message, is_temporary=True) from None
        raise StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True) from None
    except OSError:
        raise StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True) from None
