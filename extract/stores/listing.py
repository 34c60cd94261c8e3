"""Everything below a prefix, as the scan of a folder."""

import threading

from haechi.cache.errors import HaechiError
from haechi.cache.file_state import FileState
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.stores.errors import StoreError
from haechi.cache.stores.kinds import open_store
from haechi.cache.stores.location import Location
from haechi.cache.stores.retry import Retry
from haechi.extract.folder import FolderScan, scan_names


def list_media(prefix: Location) -> tuple[FolderScan, dict[str, FileState]]:
    """The scan of all names below a prefix, by the rules for a folder, and the state of each name.

    Raises `HaechiError` if the store cannot be used or does not list.
    """
    refuse_unusable_stores([prefix])
    folder = prefix.key.rstrip("/")
    start, retry = len(folder) + 1 if folder else 0, Retry(threading.Event())
    while True:
        states: dict[str, FileState] = {}
        try:
            for page in open_store(prefix).pages(folder):
                states |= {key[start:]: state for key, state in page if not key.endswith("/") and len(key) > start}
            return scan_names(sorted(states)), states
        except StoreError as error:
            try:
                retry.after(error)
            except StoreError:
                raise HaechiError(f"{prefix}: cannot be listed ({error.message})") from error
