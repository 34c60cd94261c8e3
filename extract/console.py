"""What stage 1 prints when it is done."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haechi.cache.text import counted
from haechi.extract.decoding.container import TRAITS, Trait
from haechi.extract.pipeline import Extraction
from haechi.extract.timing import IN_DECODERS, STEPS, WAIT
from haechi.extract.validation import Validation

# If the backbones wait for frames for a larger share of the time than this, decoding limits the speed of the run.
MUCH_WAITING = 0.1


def show_extraction(console: Console, done: Extraction) -> None:
    """The summary of a run."""
    table = _table("extract")
    _accounting(
        table,
        num_rows=done.num_rows,
        num_used=done.num_used,
        failures=done.failures,
        num_defects=done.num_defects,
        traits=done.traits,
    )
    if done.slice is not None:
        state = "committed" if done.has_committed else "committed before, or by another run meanwhile"
        table.add_row("slice", f"{done.slice}, {state}; the rows are those of this slice")
    table.add_row(
        "done in this run", f"{done.num_new}" if done.num_new else "0, everything is in the cache; no model loaded"
    )
    for count, what in (
        (done.num_changed, "files that changed, extracted again"),
        (done.num_relabelled, "videos with new label, split or group"),
        (done.num_not_listed, "in the cache, not in the manifest (kept)"),
    ):
        if count:
            table.add_row(what, str(count))
    if any(done.num_saved.values()):
        counts = zip(done.num_saved.values(), ("frame", "window"), strict=True)
        saved = " and ".join(counted(count, what) for count, what in counts if count)
        table.add_row("not computed", f"{saved} identical to the one before")
    if done.device:
        table.add_row("device", escape(f"{done.device}, {done.precision}"))
        missing = "" if "decord" in done.decoders else " (decord is not installed)"
        table.add_row("decoders", ", ".join(done.decoders) + missing)
    for each in done.devices:
        speed = f", {each.num_rows / each.seconds:.2f} videos/s" if each.num_rows else ""
        slices = counted(each.num_slices, "slice")
        table.add_row(f"  {escape(each.name)}", f"{each.num_rows} in {slices}, {each.seconds:.1f} s{speed}")
    rate = f", {done.num_new / done.seconds:.2f} videos/s with start-up" if done.num_new else ""
    table.add_row("time", f"{done.seconds:.1f} s{rate}")
    table.add_row("fingerprint", done.fingerprint[:12])
    table.add_row("cache", escape(done.name))
    console.print(table)
    if done.num_new:
        console.print(_steps_table(done), "")
    if done.untrained:
        names = " and ".join(done.untrained)
        console.print(f"[bold red]UNTRAINED[/]: the weights of {names} are random; their features have no meaning.")


def _steps_table(done: Extraction) -> Table:
    """The seconds of each step, and what limits the speed of the run."""
    waited = done.steps[WAIT] / done.work_seconds
    limit = "decoding" if waited > MUCH_WAITING else "the backbones"
    num_devices = max(1, len(done.devices))
    between = f", the sum of {num_devices} devices" if done.devices else ""
    processes = counted(done.workers, "decoding process", "decoding processes")
    table = Table(
        title=f"{done.work_seconds:.1f} s of work after start-up{between}, limited by {limit}",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
    )
    for name in ("step", "seconds", "busy", ""):
        table.add_column(name, justify="right" if name in {"seconds", "busy"} else "left")
    for step, seconds in done.steps.items():
        in_decoders = step in IN_DECODERS
        busy = seconds / (done.work_seconds * (done.workers / num_devices if in_decoders else 1))
        meaning = STEPS[step] + (f" ({processes})" if in_decoders else "")
        table.add_row(step, f"{seconds:.1f}", f"{busy:.0%}", f"[dim]{meaning}")
    return table


def show_check(console: Console, out: object, validated: Validation) -> None:
    """The summary of `haechi validate`."""
    table = _table("validate")
    _accounting(
        table,
        num_rows=validated.num_rows,
        num_used=len(validated.checks) - validated.num_failed,
        failures=validated.failures,
        num_defects=validated.num_defects,
        traits=validated.traits,
    )
    table.add_row("written", escape(str(out)))
    console.print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _accounting(
    table: Table,
    *,
    num_rows: int,
    num_used: int,
    failures: Mapping[str, int],
    num_defects: int,
    traits: Mapping[str, int],
) -> None:
    """The rows of the manifest by result, and what a user may want to know about those that are used."""
    num_failed = sum(failures.values())
    num_unchecked = num_rows - num_used - num_failed
    unchecked = f" + {num_unchecked} not checked" if num_unchecked else ""
    table.add_row("rows", f"{num_rows} in the manifest = {num_used} used + {num_failed} failed{unchecked}")
    for reason, count in failures.items():
        table.add_row(f"  [red]{reason}[/]", str(count))
    if num_defects:
        table.add_row("[bold red]defects of Haechi[/]", f"{num_defects} of the failures; please report their messages")
    for trait, count in traits.items():
        table.add_row(f"  {trait}", f"{count}  [dim]{TRAITS[Trait(trait)]}")
