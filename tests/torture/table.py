"""The table in docs/reliability.md from docs/torture.json, between `<!-- torture -->` and `<!-- /torture -->`."""

import json
import re
from pathlib import Path

from bench.figures import measured_on
from bench.measure import ROOT

RESULT = ROOT / "docs" / "torture.json"
DOCUMENT = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"(?P<head><!-- torture -->\n).*?(?P<foot><!-- /torture -->)", re.DOTALL)


def filled(text: str, result: Path = RESULT) -> str:
    """`text` with its table replaced by that of the JSON file `result`."""
    return BLOCK.sub(lambda found: found["head"] + table(result) + found["foot"], text)


def table(path: Path) -> str:
    """Markdown table of a JSON file, one row per run, and a line that names machine, date and versions."""
    if not path.exists():
        return "Not run yet.\n"
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| | tried | lost | |", "|---|---|---|---|"]
    lines += [f"| {run['what']} | {run['tried']:,} | {run['lost']} | {run['note']} |" for run in result["runs"]]
    return "\n".join(lines) + f"\n\n{measured_on(result)}.\n"


def fill_document() -> None:
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
