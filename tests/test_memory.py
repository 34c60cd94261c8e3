"""Freed memory is used again by a command."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes
import resource
import sys

import click
import numpy as np

import haechi.cli

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages have few faults


def num_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@click.command()
def fill():
    before = num_faults()
    for _ in range(10):
        np.ones(1 << 23)  # 64 MB
    print(num_faults() - before)


if sys.argv[1] == "command":
    haechi.cli.COMMANDS["fill"] = ("__main__", "")
    haechi.cli.main(["fill"])
else:
    fill.callback()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can use freed memory again")
def test_a_command_uses_freed_memory_again() -> None:
    counts = [
        int(subprocess.run([sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True).stdout)
        for how in ("command", "function")
    ]
    assert counts[0] * 5 < counts[1], counts
