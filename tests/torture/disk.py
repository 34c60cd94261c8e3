"""Disks that are full, folders that may not be written to or vanish: one clear line, and nothing half."""

import ctypes
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.torture.apart import Command, apart
from tests.torture.held import Held, differences, flaws, held
from tests.torture.media import extract_command, write_mixed
from tests.torture.record import Record

VIDEOS = 24
RUN_SECONDS = 120.0
CLONE_NEWNS = 0x20000  # of Linux's sched.h

# Of Linux's capability.h: what lets root write where its permissions do not; and the layout of capset's arguments.
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAPABILITY_VERSION_3 = 1, 2, 0x20080522

Result = tuple[list[str], str]
"""What went wrong; how a case was tried, or why it was not (beginning with "skipped")."""


def fill(number: int) -> Record:
    """Extract onto `number` disks of different sizes that are all too small, and into folders that refuse or vanish."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_mixed(folder / "videos", number=VIDEOS)
        arguments = extract_command(manifest, folder / "expected", folder)
        command = Command(arguments, folder)
        assert command.finish(RUN_SECONDS) == 0, command.told
        expected = held(folder / "expected")
        num_bytes = sum(file.stat().st_size for file in (folder / "expected").iterdir())
        cases: dict[str, Callable[[Path], Result]] = {}
        for i in range(number):
            size = num_bytes * i // number // 4096 * 4096 + 4096
            cases[f"disk of {size // 1024} KiB"] = lambda out, size=size: _full_disk(out, size, manifest, expected)  # type: ignore[misc]
        cases["quota"] = lambda out: _no_larger_files(out, manifest, expected)
        cases["closed folder"] = lambda out: _closed(out, manifest, expected)
        cases["read-only disk"] = lambda out: _read_only(out, manifest)
        cases["cache removed"] = lambda out: _removed(out, manifest, expected)
        results: dict[str, Result] = {}
        for i, (what, case) in enumerate(cases.items()):
            place = folder / f"case-{i}"
            place.mkdir()
            outcome = apart(lambda case=case, place=place: case(place / "cache"), seconds=3 * RUN_SECONDS)  # type: ignore[misc]
            results[what] = outcome.value or ([outcome.died], "")
    skipped = [what for what, (_, how) in results.items() if how.startswith("skipped")]
    told = {what: how for what, (_, how) in results.items()}
    return Record(
        what="disks full, folders closed or gone",
        tried=len(results) - len(skipped),
        survived=sum(not wrong for wrong, _ in results.values()) - len(skipped),
        losses=[f"{what}: {text}" for what, (wrong, _) in results.items() for text in wrong],
        note=f"{number} disks of 4 to {num_bytes // 1024} KiB, a quota, a closed folder, a read-only disk, "
        "a folder removed meanwhile" + (f"; skipped: {', '.join(skipped)}" if skipped else ""),
        facts={"told": told},
        seconds=time.monotonic() - started,
    )


def _attempt(out: Path, manifest: Path, prepare: Callable[[], None] = lambda: None) -> tuple[int | None, str]:
    folder = manifest.parent.parent
    command = Command(extract_command(manifest, out, folder), folder, prepare=prepare)
    return command.finish(RUN_SECONDS), command.told


def _refusal(status: int | None, told: str) -> tuple[list[str], str]:
    """What is wrong with how a command refused: it ends with 1 and one line; and that line."""
    lines = [line for line in told.splitlines() if line.startswith("Error: ")]
    wrong = [] if status == 1 else [f"exit status {status}: {told[-1000:]}"]
    if "Traceback" in told or len(lines) != 1:
        wrong.append(f"not one clear line: {told[-2000:]}")
    return wrong, lines[0] if lines else ""


def _then_completes(out: Path, manifest: Path, expected: Held) -> list[str]:
    """What goes wrong when the same command is run with room to work."""
    status, told = _attempt(out, manifest)
    if status != 0:
        return [f"the same command with room ends with {status}: {told[-1000:]}"]
    return flaws(out, finished=True) + differences(held(out), expected)


def _full_disk(out: Path, size: int, manifest: Path, expected: Held) -> Result:
    disk = out.parent / "disk"
    cache = disk / "cache"
    if not _mount(disk, f"size={size}"):
        return [], "skipped: mounting is not allowed"
    wrong, line = _refusal(*_attempt(cache, manifest))
    wrong += flaws(cache, finished=True)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    return wrong + _then_completes(cache, manifest, expected), line


def _mount(disk: Path, options: str) -> bool:
    """A disk in memory that this process and its children see, and that vanishes with them; whether that is allowed."""
    disk.mkdir()
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    mounts = (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "tmpfs", str(disk)])
    return all(subprocess.run(["mount", *rest], capture_output=True, check=False).returncode == 0 for rest in mounts)


def _no_larger_files(out: Path, manifest: Path, expected: Held) -> Result:
    """As a quota does: no file may grow beyond a few kilobytes."""
    status, told = _attempt(out, manifest, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)))
    wrong, line = _refusal(status, told)
    return wrong + flaws(out, finished=True) + _then_completes(out, manifest, expected), line


def _closed(out: Path, manifest: Path, expected: Held) -> Result:
    """The cache's folder may be read and not written to."""
    out.mkdir(mode=0o555)
    status, told = _attempt(out, manifest, _obey_permissions)
    wrong, line = _refusal(status, told)
    wrong += [f"{file.name} lies in it" for file in out.iterdir()]
    out.chmod(0o755)
    return wrong + _then_completes(out, manifest, expected), line


def _obey_permissions() -> None:
    """From now on, this process heeds permissions, though it may be root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of capabilities 0 to 31, then of the others
    assert libc.capget(header, sets) == 0
    for i in range(3):
        sets[i] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0


def _read_only(out: Path, manifest: Path) -> Result:
    if not _mount(out.parent / "disk", "ro"):
        return [], "skipped: mounting is not allowed"
    return _refusal(*_attempt(out.parent / "disk" / "cache", manifest))


def _removed(out: Path, manifest: Path, expected: Held) -> Result:
    """The cache's folder is deleted while a run writes to it."""
    folder = manifest.parent.parent
    command = Command(extract_command(manifest, out, folder), folder)
    while not command.rows and not command.wait(0.01):
        pass
    shutil.rmtree(out)
    wrong, line = _refusal(command.finish(RUN_SECONDS), command.told)
    return wrong + _then_completes(out, manifest, expected), line
