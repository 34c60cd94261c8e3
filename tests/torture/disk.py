"""Full disks, folders that cannot be written to or are deleted: one line of error, and no partly written shard."""

import ctypes
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.torture.contents import Contents, differences, flaws, read_contents
from tests.torture.media import extract_command, write_mixed
from tests.torture.processes import Command, run_forked
from tests.torture.record import Record

VIDEOS = 24
RUN_SECONDS = 120.0
CLONE_NEWNS = 0x20000  # from Linux's sched.h

# From Linux's capability.h: the capabilities that let root ignore file permissions; the layout of capset's arguments.
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAPABILITY_VERSION_3 = 1, 2, 0x20080522

Result = tuple[list[str], str]
"""What went wrong, one line each; the error message, or why the case was not tried (beginning with "skipped")."""


def fill(number: int) -> Record:
    """Extract to `number` disks of different sizes, all too small, and to folders that are read-only or deleted."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_mixed(folder / "videos", number=VIDEOS)
        arguments = extract_command(manifest, folder / "expected", folder)
        command = Command(arguments, folder)
        assert command.finish(RUN_SECONDS) == 0, command.output
        expected = read_contents(folder / "expected")
        num_bytes = sum(file.stat().st_size for file in (folder / "expected").iterdir())
        cases: dict[str, Callable[[Path], Result]] = {}
        for i in range(number):
            size = num_bytes * i // number // 4096 * 4096 + 4096
            cases[f"disk of {size // 1024} KiB"] = lambda out, size=size: _full_disk(out, size, manifest, expected)  # type: ignore[misc]
        cases["quota"] = lambda out: _limited_file_size(out, manifest, expected)
        cases["closed folder"] = lambda out: _read_only_folder(out, manifest, expected)
        cases["read-only disk"] = lambda out: _read_only_disk(out, manifest)
        cases["cache removed"] = lambda out: _deleted_folder(out, manifest, expected)
        results: dict[str, Result] = {}
        for i, (what, case) in enumerate(cases.items()):
            place = folder / f"case-{i}"
            place.mkdir()
            outcome = run_forked(partial(case, place / "cache"), seconds=3 * RUN_SECONDS)
            results[what] = outcome.value or ([outcome.error], "")
    skipped = [what for what, (_, message) in results.items() if message.startswith("skipped")]
    messages = {what: message for what, (_, message) in results.items()}
    return Record(
        what="full disks, folders that are read-only or deleted",
        tried=len(results) - len(skipped),
        survived=sum(not wrong for wrong, _ in results.values()) - len(skipped),
        losses=[f"{what}: {text}" for what, (wrong, _) in results.items() for text in wrong],
        note=f"{number} disks of 4 to {num_bytes // 1024} KiB, a file size limit, a read-only folder, "
        "a read-only disk, a folder deleted during the run" + (f"; skipped: {', '.join(skipped)}" if skipped else ""),
        facts={"told": messages},
        seconds=time.monotonic() - started,
    )


def _attempt(out: Path, manifest: Path, prepare: Callable[[], None] = lambda: None) -> tuple[int | None, str]:
    """Exit status (None if it hung) and output of extracting to `out`."""
    folder = manifest.parent.parent
    command = Command(extract_command(manifest, out, folder), folder, prepare=prepare)
    return command.finish(RUN_SECONDS), command.output


def _check_refusal(status: int | None, output: str) -> tuple[list[str], str]:
    """What went wrong (the command must end with exit status 1 and one line of error), and that line."""
    lines = [line for line in output.splitlines() if line.startswith("Error: ")]
    wrong = [] if status == 1 else [f"exit status {status}: {output[-1000:]}"]
    if "Traceback" in output or len(lines) != 1:
        wrong.append(f"not exactly one line of error: {output[-2000:]}")
    return wrong, lines[0] if lines else ""


def _then_completes(out: Path, manifest: Path, expected: Contents) -> list[str]:
    """What goes wrong when the same command runs again without the obstacle."""
    status, output = _attempt(out, manifest)
    if status != 0:
        return [f"the same command without the obstacle ends with {status}: {output[-1000:]}"]
    return flaws(out, finished=True) + differences(read_contents(out), expected)


def _full_disk(out: Path, size: int, manifest: Path, expected: Contents) -> Result:
    """The disk has room for `size` bytes; afterwards it gets more."""
    disk = out.parent / "disk"
    cache = disk / "cache"
    if not _mount(disk, f"size={size}"):
        return [], "skipped: mounting is not allowed"
    wrong, line = _check_refusal(*_attempt(cache, manifest))
    wrong += flaws(cache, finished=True)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    return wrong + _then_completes(cache, manifest, expected), line


def _mount(disk: Path, options: str) -> bool:
    """Mount a disk in memory that only this process and its children see; False if mounting is not allowed.

    It is unmounted when they end.
    """
    disk.mkdir()
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    mounts = (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "tmpfs", str(disk)])
    return all(subprocess.run(["mount", *rest], capture_output=True, check=False).returncode == 0 for rest in mounts)


def _limited_file_size(out: Path, manifest: Path, expected: Contents) -> Result:
    """No file may grow beyond 8 KiB, as with a quota."""
    status, output = _attempt(out, manifest, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)))
    wrong, line = _check_refusal(status, output)
    return wrong + flaws(out, finished=True) + _then_completes(out, manifest, expected), line


def _read_only_folder(out: Path, manifest: Path, expected: Contents) -> Result:
    """The cache's folder may be read but not written to."""
    out.mkdir(mode=0o555)
    status, output = _attempt(out, manifest, _obey_permissions)
    wrong, line = _check_refusal(status, output)
    wrong += [f"unexpected file {file.name}" for file in out.iterdir()]
    out.chmod(0o755)
    return wrong + _then_completes(out, manifest, expected), line


def _obey_permissions() -> None:
    """Make this process obey file permissions even if it runs as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of capabilities 0 to 31, then of the others
    assert libc.capget(header, sets) == 0
    for i in range(3):
        sets[i] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0


def _read_only_disk(out: Path, manifest: Path) -> Result:
    """The disk is mounted read-only."""
    if not _mount(out.parent / "disk", "ro"):
        return [], "skipped: mounting is not allowed"
    return _check_refusal(*_attempt(out.parent / "disk" / "cache", manifest))


def _deleted_folder(out: Path, manifest: Path, expected: Contents) -> Result:
    """The cache's folder is deleted while a run writes to it."""
    folder = manifest.parent.parent
    command = Command(extract_command(manifest, out, folder), folder)
    while not command.finished_ids and not command.wait(0.01):
        pass
    shutil.rmtree(out)
    wrong, line = _check_refusal(command.finish(RUN_SECONDS), command.output)
    return wrong + _then_completes(out, manifest, expected), line
