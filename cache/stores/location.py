"""Where a file in an object store or on a web server is, and which locations are accepted."""

from dataclasses import dataclass, field

from haechi.cache.file_state import FileState
from haechi.cache.location import scheme_of, without_secrets
from haechi.cache.text import shown

BUCKETS = {"s3": "Amazon S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
HUB = "hf"
WEB = "https"
SCHEMES = (*BUCKETS, HUB)


class LocationError(ValueError):
    """A location that cannot be used; its text says why, without the location's secrets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """One file, or everything below a prefix, in a store. Its text has no user, password or signature."""

    scheme: str
    """`s3`, `gs`, `az`, `hf` or `https`."""
    container: str
    """The bucket, the container of Azure, the repository (`datasets/NAME/NAME@REVISION`), or the host with its port."""
    key: str
    """Name in the container, without a slash at its start."""
    query: str = field(default="", repr=False)
    """`https` alone: what follows `?`. It may be a signature."""
    state: FileState | None = field(default=None, compare=False, repr=False)
    """What a listing said of it a moment ago; None: the store must be asked."""

    @classmethod
    def parse(cls, text: str, *, allow_https: bool = False) -> "Location":
        """The location that a text with a scheme means. Raises `LocationError`."""
        scheme, name = scheme_of(text), shown(without_secrets(text))
        if scheme == WEB and not allow_https:
            raise LocationError(f"{name}: files of web servers are read only with --allow-https")
        if scheme not in (*SCHEMES, WEB):
            raise LocationError(f"{name}: the scheme {scheme}:// is not read")
        rest = text[len(scheme) + len("://") :]
        query = ""
        if scheme == WEB:
            rest, _, query = rest.partition("#")[0].partition("?")
        elif "?" in rest:
            raise LocationError(f"{name} has a query after '?'; a presigned URL starts with https://")
        parts = rest.split("/")
        num_parts = 1 if scheme != HUB else 3 if parts[0] in ("datasets", "spaces") else 2
        container, key = "/".join(parts[:num_parts]), "/".join(parts[num_parts:])
        if "@" in parts[0]:
            raise LocationError(f"{name} has a user or password before '@'; {CREDENTIALS}")
        if len(parts) < num_parts or not all(parts[:num_parts]):
            raise LocationError(f"{name} names no {'repository' if scheme == HUB else 'bucket or host'}")
        if scheme != WEB and not {"", ".", ".."}.isdisjoint(key.removesuffix("/").split("/") if key else []):
            raise LocationError(f"{name} has an empty part, '.' or '..' in its key")
        return cls(scheme=scheme, container=container, key=key, query=query)

    @property
    def store(self) -> str:
        """The bucket, repository or host that it is in, such as `s3://bucket`."""
        return f"{self.scheme}://{self.container}"

    def below(self, name: str, state: FileState | None = None) -> "Location":
        """The file with this name below a prefix."""
        folder = self.key.rstrip("/")
        key = f"{folder}/{name}" if folder else name
        return Location(scheme=self.scheme, container=self.container, key=key, state=state)

    def __str__(self) -> str:
        return f"{self.store}/{self.key}"


CREDENTIALS = "credentials belong into the environment"


def refused_hint() -> str:
    """What can be read instead of a refused scheme."""
    return f"read are local paths and {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
