"""What a folder scan finds, and what it says about the files that it passes over."""

from pathlib import Path

import pytest

from haechi.extract.folder import IMAGE_SUFFIXES, UNREAD_SUFFIXES, UNSEARCHED_SUFFIXES, VIDEO_SUFFIXES, find_media
from haechi.predict.media import gather


def scan(root: Path, *names: str) -> tuple[list[str], list[str]]:
    """The ids that are found in a folder of these files, and the notices."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = find_media(root, follow_symlinks=False)
    return [id for id, _ in found.media], found.notices


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.heif", "b.hif", "c.avif", "d.Jpg", "e.MOV"])
def test_known_endings_in_any_case(tmp_path: Path, name: str) -> None:
    assert scan(tmp_path, name) == ([name], [])


def test_endings_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    names = ["a.txt", "b.TXT", "c.csv", "README", "v1. of the notes", ".hidden.jpg", "x/.b", "x/d.jpg", "t.tar.gz"]
    media, notices = scan(tmp_path, *names)
    assert media == ["x/d.jpg"]
    assert notices == ["files skipped: 2 without an ending, 2 .txt, 1 .csv, 1 .gz, 2 hidden"]


def test_images_that_a_user_would_take_for_usable_are_named(tmp_path: Path) -> None:
    _, notices = scan(tmp_path, "a.tif", "b.TIF", "c.jxl", "d.vob", "e.txt")
    assert notices == [
        "files skipped: 2 .tif, 1 .jxl, 1 .txt, 1 .vob",
        "3 images of formats that Haechi does not read: 2 .tif, 1 .jxl; convert them to JPEG or PNG to include them",
        "1 video with endings that are not searched for: 1 .vob; name them in a manifest to try them",
    ]


def test_many_endings_are_summed(tmp_path: Path) -> None:
    _, notices = scan(tmp_path, *(f"a.x{i:02d}" for i in range(23)), "b.x07")
    assert notices[0].startswith("files skipped: 2 .x07, 1 .x00, 1 .x01, ")
    assert notices[0].endswith(", 1 .x19, 3 with 3 other endings")


def test_an_ending_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    assert scan(tmp_path, "a.\x1b[2J")[1] == ["files skipped: 1 .\\x1b[2j"]


def test_predict_says_the_same(tmp_path: Path) -> None:
    scan(tmp_path, "a.heic", "b.tif")
    entries, notices = gather([str(tmp_path)])
    assert [entry.path.name for entry in entries] == ["a.heic"]
    assert notices == find_media(tmp_path, follow_symlinks=False).notices != []


def test_no_ending_is_in_two_lists() -> None:
    lists = (VIDEO_SUFFIXES, IMAGE_SUFFIXES, UNREAD_SUFFIXES, UNSEARCHED_SUFFIXES)
    assert len(frozenset().union(*lists)) == sum(map(len, lists))
