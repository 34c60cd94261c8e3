"""A command that holds 200 megabytes and shares them with a child process: `python -m tests.bench.hungry`."""

import os
import sys
import time

MEGABYTES = 200

if __name__ == "__main__":
    held = bytearray(b"x") * (MEGABYTES * 1_000_000)
    child = os.fork()
    time.sleep(1)
    if child:
        os.wait()
        sys.stdout.write(f"held {len(held)}\n")
