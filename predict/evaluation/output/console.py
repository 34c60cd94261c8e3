"""What `haechi evaluate` prints."""

from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haechi.cache.text import counted, shown, visible
from haechi.predict.evaluation.causes import Causes, PolicyCheck
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.fall import Change
from haechi.predict.evaluation.output.headline import headline
from haechi.predict.evaluation.overlap import Overlap
from haechi.predict.evaluation.prevalence import PER_VIDEOS, AtPrevalence, Budget
from haechi.predict.evaluation.quantify import PrevalenceEstimate
from haechi.predict.evaluation.slices import Slice
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.output import numbers
from haechi.train.output.console import show_verdicts
from haechi.train.output.untrained import untrained_warning
from haechi.train.run_folder import EVALUATION_ARTEFACTS

MAX_SLICES = 10
MAX_NAMED = 5

UNDEFINED = "–"  # the word would not fit into the tables


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the headline, the tables, and whether the requirements are met."""
    run = evaluation.run
    if run.untrained:
        console.print(untrained_warning(run.untrained))
    console.print(f"[bold]{escape(visible(headline(evaluation).text))}[/]", soft_wrap=True)
    for notice in [*overlap_notices(evaluation.overlap), *evaluation.notices]:
        console.print(f"[yellow]note[/]: {escape(notice)}", soft_wrap=True)
    if evaluation.changes:
        console.print(_changes_table(evaluation))
    if evaluation.causes is not None:
        console.print(_causes_table(evaluation.causes))
    if evaluation.policy_check is not None:
        console.print(_policy_line(evaluation.policy_check), soft_wrap=True)
    if evaluation.prevalences:
        console.print(_prevalences_table(evaluation.prevalences))
    if evaluation.budgets:
        console.print(_budgets_table(evaluation.budgets))
    if evaluation.estimate is not None:
        console.print(_estimate_line(evaluation.estimate), soft_wrap=True)
    if worse := [each for each in evaluation.slices if each.is_worse]:
        console.print(_slices_table(worse))
    errors = sum(each.is_likely_label_error for each in evaluation.disagreements)
    if evaluation.disagreements:
        console.print(
            f"{counted(len(evaluation.disagreements), 'disagreement')} of label and score, listed in "
            f"disagreements.csv; by the head's probabilities {counted(errors, 'label is', 'labels are')} likely wrong",
            soft_wrap=True,
        )
    show_verdicts(console, evaluation.verdicts)


def overlap_notices(overlap: Overlap) -> list[str]:
    """What was found of the head's own videos in the set, and what could not be compared; one sentence each."""
    notices = []
    if overlap.pairs:
        count = counted(len(overlap.pairs), "video")
        named = ", ".join(shown(pair.id) for pair in overlap.pairs[:MAX_NAMED])
        more = ", …" if len(overlap.pairs) > MAX_NAMED else ""
        what = (
            "kept, so the figures may be too good" if overlap.kept else "left out (--keep-overlap evaluates them too)"
        )
        notices.append(f"the head was trained or chosen on {count} of this set, {what}: {named}{more}")
    if overlap.num_test:
        notices.append(
            f"{counted(overlap.num_test, 'labelled video of this set is', 'labelled videos of this set are')} also in "
            "the run's own test part: the two samples are not independent, so the intervals of the differences are "
            "too wide"
        )
    if overlap.unchecked:
        notices.append(overlap.unchecked)
    return notices


def show_files(console: Console, out: Path, kinds: list[str]) -> None:
    """Print which files were written: in `out`, or if there are several heads in a folder in it for each kind."""
    folders = [out] if len(kinds) == 1 else [out / kind for kind in kinds]
    console.print(f"in {' and '.join(escape(visible(str(folder))) for folder in folders)}:", soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, meaning in EVALUATION_ARTEFACTS.items():
        table.add_row(name, meaning)
    console.print(table)


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _interval(range_: Interval | None) -> str:
    return UNDEFINED if range_ is None else numbers.interval(range_)


def _table(title: str, *columns: str, min_width: int | None = None) -> Table:
    """A table whose first column is text and the others numbers. The title wraps at its width."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
        min_width=min_width,
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    return table


def _changes_table(evaluation: Evaluation) -> Table:
    run, own, here = evaluation.run, evaluation.own, evaluation.here
    name = "out of fold" if run.is_folds else f"own {run.part}"
    heading = name.replace("of fold", "of\nfold").replace("own ", "own\n")
    title = (
        f"{run.head}, threshold {run.threshold:.4f} ({escape(run.policy.text)}): {counted(len(here), run.kind)} here"
    )
    if own is not None:
        title += f", {len(own):,} {name}"
    table = _table(title, "", heading, "95 %\ninterval", "here", "95 %\ninterval", "change", "95 %\ninterval")
    table.columns[0].no_wrap = True
    for change in evaluation.changes:
        metric = change.metric
        table.add_row(
            metric.column,
            _number(change.own),
            _interval(change.own_interval),
            _number(change.here),
            _interval(change.here_interval),
            _difference(change),
            _signed(change.difference_interval),
        )
        if None in (change.own, change.own_interval, change.here, change.here_interval, change.difference_interval):
            table.caption = f"{UNDEFINED}: undefined"
    return table


def _difference(change: Change) -> str:
    if change.difference is None:
        return UNDEFINED
    range_ = change.difference_interval
    colour = "" if range_ is None else "red" if range_[1] < 0 else "green" if range_[0] > 0 else ""
    text = f"{change.difference:+.3f}"
    return f"[{colour}]{text}[/]" if colour else text


def _signed(range_: Interval | None) -> str:
    return UNDEFINED if range_ is None else f"{range_[0]:+.3f} to {range_[1]:+.3f}"


def _causes_table(causes: Causes) -> Table:
    rows = {
        "class mix": causes.class_mix,
        "separation": causes.separation,
        "threshold": causes.threshold,
        "together": causes.fall,
    }
    own, here = f"{causes.own:.3f}", f"{causes.here:.3f}"
    change = "fell" if causes.fall.value > 0 else "rose"
    title = f"{causes.metric} is the same: {own} and {here} here" if own == here else ""
    table = _table(
        title or f"why {causes.metric} {change} from {own} to {here}", "", "loss", "95 %\ninterval", min_width=60
    )
    table.caption = (
        f"{causes.metric} with the best threshold for this set: {causes.best:.3f}, corrected for being chosen on these "
        "videos"
    )
    for name, loss in rows.items():
        table.add_row(name, f"{loss.value:+.3f}", _signed(loss.interval))
    return table


def _policy_line(check: PolicyCheck) -> str:
    figure = check.figure.replace("_", " ")
    if check.here is None:
        return f"policy {escape(check.policy.text)}: undefined here, as is the {figure}"
    value = f"{check.here:.3f} ({numbers.interval(check.here_interval)})"
    verdict = "[green]kept[/]" if check.kept else "[red]not kept[/]"
    return f"policy {escape(check.policy.text)}: {verdict}, {figure} is {value} here"


def _prevalences_table(prevalences: list[AtPrevalence]) -> Table:
    table = _table(
        f"at real prevalence, of {PER_VIDEOS:,} videos",
        "harmful",
        "precision",
        "95 %\ninterval",
        "alerts",
        "95 %\ninterval",
        "misses",
        "95 %\ninterval",
    )
    for each in prevalences:
        table.add_row(
            f"{each.prevalence:.4g}",
            _number(each.precision),
            _interval(each.precision_interval),
            f"{each.alerts:,.0f}",
            _whole(each.alerts_interval),
            f"{each.misses:,.1f}",
            _whole(each.misses_interval, lambda value: f"{value:,.1f}"),
        )
    return table


def _whole(range_: Interval | None, text: Callable[[float], str] = lambda value: f"{value:,.0f}") -> str:
    return UNDEFINED if range_ is None else f"{text(range_[0])}–{text(range_[1])}"


def _budgets_table(budgets: list[Budget]) -> Table:
    title = f"reviews of the videos with the highest scores, of {budgets[0].of_videos:,}"
    table = _table(
        title, "reviewed", "harmful\nfound", "of all\nharmful", "95 %\ninterval", "precision", "95 %\ninterval"
    )
    for each in budgets:
        table.add_row(
            f"{each.reviewed:,}",
            f"{each.found:,.1f}".removesuffix(".0"),
            _number(each.share_found),
            _interval(each.share_found_interval),
            _number(each.precision),
            _interval(each.precision_interval),
        )
    return table


def _estimate_line(estimate: PrevalenceEstimate) -> str:
    videos = counted(estimate.num_videos, "unlabelled video")
    flagged = f"{estimate.flagged:.1%} reach the threshold"
    if estimate.value is None:
        return f"{videos}: {flagged}; the share of harmful ones cannot be estimated: {escape(estimate.reason)}"
    ends = (
        ""
        if estimate.interval is None
        else f" (95 % interval {estimate.interval[0]:.1%} to {estimate.interval[1]:.1%})"
    )
    return f"{videos}: an estimated {estimate.value:.1%} are harmful{ends}; {flagged}"


def _slices_table(slices: list[Slice]) -> Table:
    table = _table("where it fails more often than elsewhere", "", "videos", "harmful", "mistakes", "elsewhere", "F1")
    for each in slices[:MAX_SLICES]:
        subset = each.subset
        table.add_row(
            escape(visible(f"{subset.by}: {subset.name}")),
            f"{subset.count:,}",
            f"{subset.harmful:,}",
            f"{each.mistakes:.1%}",
            "" if each.other_mistakes is None else f"{each.other_mistakes:.1%}",
            _number(subset.figures["f1"]),
        )
    if len(slices) > MAX_SLICES:
        table.caption = f"and {len(slices) - MAX_SLICES} more, see the page"
    return table
