"""What can go wrong at a store: with one file, or with all of them."""

from haechi.extract.decoding.reasons import Reason


class FetchError(Exception):
    """One request failed. Its text is safe to show: it holds no credentials."""

    def __init__(self, reason: Reason, message: str, *, code: str = "", is_temporary: bool = False) -> None:
        """`code`: the store's name for the error, such as `NoSuchBucket`; `is_temporary`: another try may succeed."""
        super().__init__(reason, message)
        self.reason, self.message, self.code, self.is_temporary = reason, message, code, is_temporary


def of_status(status: int, *, code: str = "") -> FetchError:
    """The error that an HTTP status of 400 and more, or of a redirect that cannot be followed, means."""
    named = f"HTTP {status}" + (f", {code}" if code else "")
    if status in (404, 410):
        return FetchError(Reason.NOT_FOUND, f"no such object ({named})", code=code)
    if status in (401, 403):
        return FetchError(Reason.FORBIDDEN, f"access denied ({named})", code=code)
    if status in (429, 503):
        return FetchError(Reason.THROTTLED, f"too many requests ({named})", code=code, is_temporary=True)
    if status == 412:
        return FetchError(Reason.CHANGED_WHILE_READ, CHANGED, code=code)
    return FetchError(
        Reason.FETCH_FAILED,
        f"the store answered with an error ({named})",
        code=code,
        is_temporary=status >= 500 or status == 408,
    )


CHANGED = "changed while it was fetched"

# Codes of our own.
MISCONFIGURED, NO_CREDENTIALS = "Misconfigured", "NoCredentials"
