import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from haechi.cache.text import from_harmless, harmless, one_or_more


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1.mp4", "@x", "\t=1", "\r=1", "\n=1", "'=1", "''-"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "폭력/-1.mp4", "'90s.mp4", "''", "'a=1", " =1", "0.5"])
def test_all_else_stays(text: str) -> None:
    assert harmless(text) == text
    assert from_harmless(text) == text


def test_the_escape_is_taken_back_from_every_text() -> None:
    """All texts of up to five of these characters: what is read is what was written, and no two cells are the same."""
    texts = ["".join(letters) for length in range(6) for letters in itertools.product("'=-a \t", repeat=length)]
    cells = [harmless(text) for text in texts]
    assert [from_harmless(cell) for cell in cells] == texts
    assert len(set(cells)) == len(texts)
    assert not any(cell.startswith(("=", "-", "\t")) for cell in cells)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("a.mp4", ["a.mp4"]),
        (Path("a/b.mp4"), ["a/b.mp4"]),
        ("", [""]),
        (["a", Path("b")], ["a", "b"]),
        (iter(("a", "b")), ["a", "b"]),
        ((), []),
    ],
)
def test_a_lone_text_or_path_is_one_item(items: str | Path | Iterable[str | Path], expected: list[str]) -> None:
    assert one_or_more(items) == expected
