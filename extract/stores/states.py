"""What stores say now about many files: with few listings where they lie together, else with one request for each."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from haechi.cache.file_state import MISSING, FileState
from haechi.cache.stores.errors import StoreError, Trouble
from haechi.cache.stores.kinds import open_store
from haechi.cache.stores.location import WEB, Location
from haechi.cache.stores.retry import retried
from haechi.cache.stores.store import Store
from haechi.extract.stores.fetcher import NUM_THREADS

# A listing brings 1,000 files with a request. It is given up if it takes more than one request for each of so many
# files: then most of what it brings is not asked for.
FILES_PER_PAGE = 10


def current_states(locations: Iterable[Location]) -> dict[Location, FileState | None]:
    """The state of each file: `MISSING` if there is none, None if the store does not tell.

    A file that came from a listing keeps the state that it said.
    """
    states: dict[Location, FileState | None] = {}
    unknown: dict[str, list[Location]] = defaultdict(list)
    for location in locations:
        if location.state is not None:
            states[location] = location.state
        else:
            unknown[location.store].append(location)
    for group in unknown.values():
        states |= _of_store(open_store(group[0]), group)
    return states


def _of_store(store: Store, locations: Sequence[Location]) -> dict[Location, FileState | None]:
    by_key = {location.key: location for location in locations}
    states: dict[Location, FileState | None] = {}
    with ThreadPoolExecutor(2 * NUM_THREADS, thread_name_prefix="state") as pool:
        for listed in pool.map(lambda folder: _listed(store, *folder), _prefixes(locations)):
            states |= {by_key[key]: state for key, state in listed.items()}
        # not by key: addresses of web servers may differ in their queries alone
        rest = [location for location in dict.fromkeys(locations) if location not in states]
        states |= zip(rest, pool.map(lambda location: _head(store, location), rest), strict=True)
    return states


def _prefixes(locations: Sequence[Location]) -> list[tuple[str, set[str]]]:
    """The folders to list, and the keys in each: those that hold many files, or what all files have in common."""
    folders: dict[str, set[str]] = defaultdict(set)
    for location in locations:
        if location.scheme != WEB:
            folders[location.key.rpartition("/")[0]].add(location.key)
    if len(folders) * FILES_PER_PAGE > len(locations):
        folders = {os.path.commonpath(folders) if folders else "": set().union(*folders.values())}
    return [(folder, keys) for folder, keys in folders.items() if len(keys) >= FILES_PER_PAGE]


def _listed(store: Store, prefix: str, keys: set[str]) -> dict[str, FileState]:
    """The states of those keys that a listing shows; all others are missing if it came to its end."""
    found: dict[str, FileState] = {}
    most = 1 + len(keys) // FILES_PER_PAGE
    try:
        for number, page in enumerate(store.pages(prefix)):
            if number == most:
                return found
            found.update((key, state) for key, state in page if key in keys)
    except StoreError:
        return found  # a listing may be forbidden where reading is not
    return dict.fromkeys(keys, MISSING) | found


def _head(store: Store, location: Location) -> FileState | None:
    try:
        return retried(lambda: store.head(location), threading.Event())
    except StoreError as error:
        return MISSING if error.reason is Trouble.NOT_FOUND else None
