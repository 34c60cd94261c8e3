"""Which class reads which kind of store."""

from typing import TYPE_CHECKING

from haechi.cache.stores.location import BUCKETS, HUB, Location
from haechi.cache.stores.store import Store

if TYPE_CHECKING:
    from haechi.cache.stores.bucket import Bucket


def open_store(location: Location) -> Store:
    """The store that a location is in, with credentials from the environment."""
    # imported when needed: obstore and huggingface_hub may not be installed, and take time to load
    if location.scheme in BUCKETS:
        return open_bucket(location)
    if location.scheme == HUB:
        from haechi.cache.stores.hub import Repository

        return Repository(location.container)
    from haechi.cache.stores.web import WebServer

    return WebServer()


def open_bucket(location: Location) -> "Bucket":
    """The bucket that a location is in, which can be written to."""
    from haechi.cache.stores.bucket import Bucket

    return Bucket(location.scheme, location.container)
