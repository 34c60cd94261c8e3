"""Finds out before work starts whether the stores can be used at all: one error instead of a million failed files."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from haechi.cache.errors import HaechiError
from haechi.cache.stores.errors import MISCONFIGURED, StoreError, Trouble
from haechi.cache.stores.kinds import open_store
from haechi.cache.stores.location import BUCKETS, HUB, WEB, Location
from haechi.cache.stores.retry import retried
from haechi.cache.stores.store import Store
from haechi.cache.text import bullet_list, shown

# If access to a listing and to this many files is denied, it is denied to all.
NUM_TRIED = 100

CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential",
    HUB: "log in with `hf auth login`, or set HF_TOKEN",
}
REGIONS = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
NO_CONTAINER = ("NoSuchBucket", "ContainerNotFound", "RepositoryNotFoundError", "RevisionNotFoundError")


def refuse_unusable_stores(
    files: Iterable[str | Path | Location], *, readable: Mapping[str, Location] = MappingProxyType({})
) -> None:
    """Raise `HaechiError`, with one line for each store that cannot be used: not there, no access, another region.

    `readable`: store -> a file in it that could be read a while ago. Who may not list a bucket of S3 gets the same
    answer for a file that is not there as for one that may not be read: so it is asked for, and files from the whole
    length of `files`. Web servers are not checked: each of their files stands alone.
    """
    by_store: dict[str, list[Location]] = defaultdict(list)
    for file in files:
        if isinstance(file, Location) and file.scheme != WEB:
            by_store[file.store].append(file)
    problems = []
    for store, locations in by_store.items():
        chosen = [locations[i * len(locations) // NUM_TRIED] for i in range(NUM_TRIED)]
        known = [readable[store]] if store in readable else []
        if problem := _problem(list(dict.fromkeys([*known, *chosen]))):
            problems.append(problem)
    if problems:
        raise HaechiError(
            problems[0] if len(problems) == 1 else f"these stores cannot be used:\n{bullet_list(problems)}"
        )


def _problem(locations: list[Location]) -> str:
    """Why a store cannot be used; empty if it can."""
    first, stopped = locations[0], threading.Event()
    try:
        store = open_store(first)
        try:
            retried(lambda: list(itertools.islice(store.pages(first.key), 1)), stopped)  # a listing names its errors
            return ""
        except StoreError as error:
            if error.reason is not Trouble.FORBIDDEN or error.code not in ("", "AccessDenied", "AllAccessDisabled"):
                raise
        for location in locations:
            if (denied := _denied(store, location)) is None:
                return ""
        assert denied is not None
        raise denied
    except StoreError as error:
        if error.reason is Trouble.NOT_FOUND and first.scheme == HUB and error.code not in NO_CONTAINER:
            return ""  # a folder that is not there: each file says so
        return f"{shown(first.store)}: {in_words(first, error)}"


def _denied(store: Store, location: Location) -> StoreError | None:
    """The error if access to a file is denied."""
    try:
        retried(lambda: store.head(location), threading.Event())
    except StoreError as error:
        return error if error.reason is Trouble.FORBIDDEN else None
    return None


def in_words(location: Location, error: StoreError) -> str:
    """What is wrong with a store, or with a file in it, and what to do."""
    if error.code in NO_CONTAINER:
        return f"there is no such {'bucket' if location.scheme in BUCKETS else 'repository or revision'}"
    if error.code in REGIONS:
        return "the bucket is in another region; set AWS_REGION to it"
    if error.code.startswith("ExpiredToken"):
        return "the credentials have expired"
    if error.code == "RequestTimeTooSkewed":
        return "the clock of this machine differs from the store's by more than it allows (15 minutes in S3); set it"
    if error.reason is Trouble.FORBIDDEN or error.code == MISCONFIGURED:
        return f"{error.message}; {CREDENTIALS[location.scheme]}"
    return error.message
