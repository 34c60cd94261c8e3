"""Whether the reader of a pipe has ended. Not in `console`, so that it can be used without importing rich."""

import io
import select
from typing import TextIO


def is_closed(stream: TextIO) -> bool:
    """Whether this stream is a pipe whose reader has ended."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # not a file of the system
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))  # with no events asked for, errors and hang-ups are reported
