from pathlib import Path

import pytest

from haechi.cache.text import harmless, one_or_more


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1.mp4", "@x", "\t=1", "\r=1", "\n=1"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "폭력/-1.mp4", "'=1", " =1", "0.5"])
def test_all_else_stays(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize("items", ["a.mp4", Path("a.mp4"), ["a.mp4"], (Path("a.mp4"),), iter(["a.mp4"])])
def test_a_single_path_is_one_item(items: str | Path | list[str]) -> None:
    assert one_or_more(items) == ["a.mp4"]


def test_no_items_are_none() -> None:
    assert one_or_more([]) == []
    assert one_or_more("") == [""]
