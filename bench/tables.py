"""Writes the results of the benchmarks into tables of the documents: `python -m bench.tables`.

A table is between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`, where NAME is a benchmark.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import click

from bench.figures import figure, mark, measured_on, number
from bench.measure import RESULTS, ROOT

BLOCK = re.compile(r"(?P<head><!-- bench:(?P<name>\w+) -->\n).*?(?P<foot><!-- /bench:(?P=name) -->)", re.DOTALL)

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

NOT_MEASURED = "not measured"

# Benchmarks of caches, and the ends of their results' names.
BY_FEATURES = ("scenes",)
FEATURES = {"untrained image features": "", "trained image features": "_trained"}

# Benchmarks of statistics, which do not depend on the machine.
STATISTICS = ("evaluation",)

CACHE_FIGURES = {
    "loss": "loss of F1",
    "F1": "F1",
    "deviation of thresholds in a run": "standard deviation of thresholds, in a run",
}


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with every table filled from the JSON files in `results`."""
    return BLOCK.sub(lambda found: found["head"] + table(found["name"], results) + found["foot"], text)


def table(name: str, results: Path) -> str:
    """The table of one benchmark, with a column for the CPU and one for the GPU, and the machines below it.

    Those of `BY_FEATURES` have a column, or lines, for untrained and for trained image features.
    """
    if name in BY_FEATURES:
        return _by_features(name, results)
    on_cpu, on_gpu = (_read(results / f"{name}-{kind}.json") for kind in ("cpu", "cuda"))
    if name == "scale":
        body = "".join(_growth(result) for result in (on_cpu, on_gpu) if result)
    elif name == "contest":
        body = "".join("\n".join(contest_lines(result)) + "\n" for result in (on_cpu, on_gpu) if result)
    elif name == "plan":
        body = "".join(_scenarios(result) for result in (on_cpu, on_gpu) if result)
    elif name in STATISTICS:
        body = "".join(_statistics(result) for result in (on_cpu, on_gpu) if result)
    elif name == "thresholds":
        body = "".join(_rules(result) for result in (on_cpu, on_gpu) if result)
    else:
        body = _rows(on_cpu, on_gpu)
    notes = [f"{kind}: {measured_on(result)}" for kind, result in (("CPU", on_cpu), ("GPU", on_gpu)) if result]
    return f"{body}\n{'. '.join(notes) or 'Not measured yet'}.\n"


def _statistics(result: dict[str, Any]) -> str:
    """One line for each value."""
    lines = ["| what | share |", "|---|---|"]
    lines += [f"| {row['what']} | {figure(row)} |" for row in result["rows"]]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _rows(on_cpu: dict[str, Any] | None, on_gpu: dict[str, Any] | None) -> str:
    """One line for each figure: those of the CPU first, then those of the GPU only."""
    cpu, gpu = ({row["what"]: row for row in result["rows"]} if result else None for result in (on_cpu, on_gpu))
    lines = ["| | CPU | GPU | mark |", "|---|---|---|---|"]
    for what, row in ((cpu or {}) | (gpu or {})).items():
        lines.append(f"| {what} | {_cell(cpu, what)} | {_cell(gpu, what)} | {mark(row)} |")
    return "\n".join(lines) + "\n"


def _cell(rows: dict[str, Any] | None, what: str) -> str:
    """The figure of one machine; empty if only the other machine has it."""
    if rows is None:
        return NOT_MEASURED
    return f"{figure(rows[what])}{', missed' if rows[what]['holds'] is False else ''}" if what in rows else ""


def _by_features(name: str, results: Path) -> str:
    """The results for untrained and for trained image features, those of the CPU if there are any."""
    found = {
        title: result
        for title, suffix in FEATURES.items()
        for kind in ("cuda", "cpu")
        if (result := _read(results / f"{name}{suffix}-{kind}.json"))
    }
    cells = {title: {row["what"]: figure(row) for row in result["rows"]} for title, result in found.items()}
    lines = [f"| | {' | '.join(FEATURES)} |", "|---" * (1 + len(FEATURES)) + "|"]
    for what in dict.fromkeys(what for each in cells.values() for what in each):
        lines.append(f"| {what} | {' | '.join(cells.get(title, {}).get(what, NOT_MEASURED) for title in FEATURES)} |")
    body = "\n".join(lines) + "\n"
    notes = [f"{title[0].upper()}{title[1:]}: {measured_on(result)}" for title, result in found.items()]
    return f"{body}\n{'. '.join(notes) or 'Not measured yet'}.\n"


def contest_lines(result: dict[str, Any]) -> list[str]:
    """A table of ROC AUC: one line for each set and one column for each contestant; the last line is the largest
    regret."""
    cells = {row["what"]: f"{row['median']:.3f}" for row in result["rows"]}
    names = ["oracle", *result["contestants"]]
    lines = [f"| ROC AUC | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for chosen in result["sets"]:
        lines.append(f"| {chosen} | {' | '.join(cells.get(f'{chosen}: {name}: ROC AUC', '') for name in names)} |")
    worst = [cells.get(f"largest regret: {name}", "") for name in names]
    return [*lines, f"| largest regret | {' | '.join(worst)} |"]


def _rules(result: dict[str, Any]) -> str:
    """One line for each rule: over the simulated sets the mean loss of F1, and the largest one against the best rule of
    the same set; then for each cache loss, F1 and how much the thresholds of a run deviate."""
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for row in result["rows"]:
        chosen, rule, title = row["what"].rsplit(": ", 2)
        cells.setdefault(chosen, {}).setdefault(title, {})[rule] = row["median"]
    losses = [each["loss of F1"] for chosen, each in cells.items() if chosen.startswith("simulated")]
    caches = {chosen: each for chosen, each in cells.items() if not chosen.startswith("simulated")}
    heads = ["simulated: mean loss", "simulated: largest loss against the best rule"]
    heads += [f"{chosen}: {title}" for chosen in caches for title in CACHE_FIGURES]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for rule in result["rules"]:
        values = [
            statistics.mean(loss[rule] for loss in losses),
            max(loss[rule] - min(loss.values()) for loss in losses),
        ]
        values += [each[title][rule] for each in caches.values() for title in CACHE_FIGURES.values()]
        lines.append(f"| {rule} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def _growth(result: dict[str, Any]) -> str:
    """Time and peak memory, one line for each command and one column for each size; then the rows with a mark."""
    rows = {row["what"]: row for row in result["rows"]}
    sizes = [f"{size:,} videos" for size in result["sizes"]]
    lines = [f"| | {' | '.join(sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for command in result["commands"]:
        cells = [", ".join(figure(rows[f"{command}, {size}: {kind}"]) for kind in ("time", "memory")) for size in sizes]
        lines.append(f"| {command} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_marked(rows)}."]) + "\n"


def _scenarios(result: dict[str, Any]) -> str:
    """One line for each scenario with the median of each figure; then the rows with a mark."""
    rows = {row["what"]: row for row in result["rows"]}
    first = f"{result['scenarios'][0]}: "
    titles = [what.removeprefix(first) for what in rows if what.startswith(first)]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for scenario in result["scenarios"]:
        found = [rows[f"{scenario}: {title}"] for title in titles]
        cells = [f"{number(row['median'])} {row['unit']}" for row in found]
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_marked(rows)}."]) + "\n"


def _marked(rows: dict[str, dict[str, Any]]) -> str:
    """The rows with a mark, one after another."""
    return "; ".join(f"{row['what']}: {_cell(rows, row['what'])} ({mark(row)})" for row in rows.values() if mark(row))


@click.command()
def main() -> None:
    """Fill the tables in README and docs from the JSON files."""
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
