"""CSV files are opened in spreadsheets, which run cells that look like formulas."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def harmless(text: str) -> str:
    """A text from outside as a cell of a CSV: what a spreadsheet would run as a formula gets a `'` in front."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text
