"""Names in another spelling than the one on disk or in the cache."""

import os
from pathlib import Path

import pytest

from haechi.cache.spelling import Files, Names, hint

NFC, NFD = "caf\u00e9.mp4", "cafe\u0301.mp4"


@pytest.mark.parametrize(
    ("written", "there", "reason"),
    [
        (r"clips\a.mp4", "clips/a.mp4", "use / in paths"),
        (NFC, NFD, "another Unicode form of the same letters (NFC, NFD)"),
        (NFD, NFC, "another Unicode form of the same letters (NFC, NFD)"),
        ("Clips/A.MP4", "clips/a.mp4", "other capital letters"),
        ("clips/a.mp4", "clips/a.mp4 ", "a space at the start or end of a name"),
        (r"CLIPS\a.mp4", "clips/a.mp4", "use / in paths, other capital letters"),
        (r"C:\Users\x\clips\a.mp4", "clips/a.mp4", "use relative paths"),
    ],
)
def test_another_spelling_is_found_and_explained(tmp_path: Path, written: str, there: str, reason: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    if (tmp_path / written).exists():
        pytest.skip("this file system has one name for both spellings")
    assert Files(tmp_path).find(written) == there
    assert hint(written, there) == f"there as '{there}': {reason}"
    if ":" not in written:
        assert Names(["other", there]).find(written) == there


@pytest.mark.parametrize("written", ["b.mp4", "a.mp4/b", "clips", "C:\\", "", "x" * 5000, "x/" * 2000, "../../a.mp4"])
def test_what_is_not_there_is_not_found(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.mp4").touch()
    assert Files(tmp_path / "gone").find(written) is None
    assert Files(tmp_path).find(written) is None


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    for i in range(3):
        (tmp_path / "clips" / f"{i}.mp4").touch()
    listed = []
    monkeypatch.setattr("haechi.cache.spelling.os.listdir", lambda path: listed.append(path) or list_folder(path))
    files = Files(tmp_path)
    assert [files.find(rf"CLIPS\{i}.MP4") for i in range(5)] == [*(f"clips/{i}.mp4" for i in range(3)), None, None]
    assert len(listed) == 2
    assert files.find(str(tmp_path / "CLIPS" / "1.mp4")) == str(tmp_path / "clips" / "1.mp4")


list_folder = os.listdir
