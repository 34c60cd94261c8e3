"""What processes that this one starts have in common: they leave Ctrl-C to it, and end with it."""

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker

PR_SET_PDEATHSIG = 1  # from Linux's sys/prctl.h


@contextlib.contextmanager
def without_interrupt() -> Iterator[None]:
    """Processes that are started in this context ignore Ctrl-C, which this process handles."""
    resource_tracker.ensure_running()  # if it started later, it would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent(parent: int) -> None:
    """In a process, as it starts: make Linux kill it when its parent dies, which has the process id `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before this
        os._exit(1)


def begin_decoder(parent: int, memory_bytes: int, module: str) -> None:
    """In a decoding process, as it starts: limit its memory, make it end with its parent, and import the decoders.

    Linux kills it when the parent dies. Elsewhere it ends when it next waits for a free place (`Ring.free_arrays`) or
    for another video. `module` imports the decoders, before the first video. That takes a second, so it comes last, and
    this module imports nothing of ours: a decoding process that is still starting ends with its parent too.
    """
    end_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)  # does not count shared memory and mapped files
    memory_bytes = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected, and core dumps would fill the disk
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python would handle it only after the decoder returns
    importlib.import_module(module)
