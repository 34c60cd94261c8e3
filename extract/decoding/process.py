"""How a decoding process starts."""

import importlib
import resource
import signal

from haechi.cache.child_process import end_with_parent


def begin_decoder(parent: int, memory_bytes: int, module: str) -> None:
    """In a decoding process, as it starts: limit its memory, make it end with its parent, and import the decoders.

    Linux kills it when the parent dies. Elsewhere it ends when it next waits for a free place (`Ring.free_arrays`) or
    for another video. `module` imports the decoders, before the first video. That takes a second, so it comes last, and
    this module imports nothing that takes long: a decoding process that is still starting ends with its parent too.
    """
    end_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)  # does not count shared memory and mapped files
    memory_bytes = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected, and core dumps would fill the disk
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python would handle it only after the decoder returns
    importlib.import_module(module)
