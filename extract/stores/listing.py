"""Everything below a prefix, as the scan of a folder."""

import threading

from haechi.cache.errors import HaechiError
from haechi.extract.decoding.files import FileState
from haechi.extract.folder import FolderScan, scan_names
from haechi.extract.stores.check import refuse_unusable_stores
from haechi.extract.stores.errors import FetchError
from haechi.extract.stores.kinds import open_store
from haechi.extract.stores.location import Location
from haechi.extract.stores.retry import Retry


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
        except FetchError as error:
            try:
                retry.after(error)
            except FetchError:
                raise HaechiError(f"{prefix}: cannot be listed ({error.message})") from error
