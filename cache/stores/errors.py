"""What can go wrong at a store: with one file, or with all of them."""

from enum import StrEnum


class Trouble(StrEnum):
    """One code for each kind of error. A file that cannot be fetched has it in `/failure/reason`."""

    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_FAILED = "fetch_failed"
    CHANGED_WHILE_READ = "changed_while_read"


class StoreError(Exception):
    """One request failed. Its text is safe to show: it holds no credentials."""

    def __init__(self, reason: Trouble, message: str, *, code: str = "", is_temporary: bool = False) -> None:
        """`code`: the store's name for the error, such as `NoSuchBucket`; `is_temporary`: another try may succeed."""
        super().__init__(reason, message)
        self.reason, self.message, self.code, self.is_temporary = reason, message, code, is_temporary


def of_status(status: int, *, code: str = "") -> StoreError:
    """The error that an HTTP status of 400 and more, or of a redirect that cannot be followed, means."""
    named = f"HTTP {status}" + (f", {code}" if code else "")
    if status in (404, 410):
        return StoreError(Trouble.NOT_FOUND, f"no such object ({named})", code=code)
    if status in (401, 403):
        return StoreError(Trouble.FORBIDDEN, f"access denied ({named})", code=code)
    if status in (429, 503):
        return StoreError(Trouble.THROTTLED, f"too many requests ({named})", code=code, is_temporary=True)
    if status == 412:
        return StoreError(Trouble.CHANGED_WHILE_READ, CHANGED, code=code)
    return StoreError(
        Trouble.FETCH_FAILED,
        f"the store answered with an error ({named})",
        code=code,
        is_temporary=(status >= 500 and status != 501) or status == 408,
    )


CHANGED = "changed while it was fetched"

# Codes of our own.
MISCONFIGURED, NO_CREDENTIALS = "Misconfigured", "NoCredentials"
