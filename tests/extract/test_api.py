"""`extract_features`, as a notebook calls it."""

from pathlib import Path
from typing import Any

import pytest

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.manifest_file import ManifestError
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache
from haechi.extract.api import extract_features
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import manifest_of


class Events(Progress):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def start(self, total: int, what: str) -> None:
        self.events.append(("start", total, what))

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        self.events.append(("advance", count, failed))

    def windows(self, count: int) -> None:
        self.events.append(("windows", count))

    def notice(self, text: str) -> None:
        self.events.append(("notice", text))


def changed(settings: ExtractSettings) -> dict[str, Any]:
    """The fields that differ from the defaults."""
    return {name: value for name, value in vars(settings).items() if value != getattr(ExtractSettings(), name)}


def test_a_path_and_settings_by_name(data: Path, tmp_path: Path, tiny_settings: ExtractSettings) -> None:
    manifest_of(data, ["sound.mp4", "gone.mp4"])
    progress = Events()
    out = str(tmp_path / "cache")
    done = extract_features(str(data / "labels.csv"), out, progress=progress, **changed(tiny_settings))
    assert (done.num_used, done.failures, done.cache) == (1, {"missing": 1}, tmp_path / "cache")
    notice, start, *rest = progress.events
    assert "missing files: 1" in notice[1]
    assert start == ("start", 2, "extract on cpu, fp32")
    assert sorted(rest) == [("advance", 1, False), ("advance", 1, True)]
    assert Cache.open(done.cache).shards[0].provenance.producer.startswith("haechi ")
    assert extract_features(data / "labels.csv", out, retry="timeout", settings=tiny_settings).num_new == 0


def test_windows_are_reported_where_videos_are_long(data: Path, tmp_path: Path, tiny_settings: ExtractSettings) -> None:
    fields = changed(tiny_settings) | {"sampling": "windows", "window_seconds": 1.0}
    del fields["frames"]
    progress = Events()
    done = extract_features(manifest_of(data, ["sound.mp4"]), tmp_path / "cache", progress=progress, **fields)
    num_windows = int(Cache.open(done.cache).offset("slowfast")[-1])
    assert num_windows == 2
    assert sum(event[1] for event in progress.events if event[0] == "windows") == num_windows


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"frame": 3, "batch": 1},
            SettingsError,
            "no such settings: 'frame', 'batch'; the settings are sampling, frames",
        ),
        ({"frames": 0}, SettingsError, "frames is 0, expected a whole number from 1 to 4096"),
        ({"device": "gpu"}, SettingsError, "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        (
            {"clip_model": None, "clip_weights": 7, "slowfast_weights": "", "device": 0},
            SettingsError,
            "clip_model is None.*\n.*clip_weights is 7.*\n.*slowfast_weights is '', expected a text .*\n.*device is 0",
        ),
        ({"retry": "boredom"}, SettingsError, "no such reason: 'boredom'"),
        ({"positive": "fights"}, ManifestError, "--positive is for a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    data: Path, tmp_path: Path, changes: dict[str, Any], error: type[HaechiError], message: str
) -> None:
    manifest_of(data, ["sound.mp4"])
    with pytest.raises(error, match=message):
        extract_features(data / "labels.csv", tmp_path / "cache", **changes)
    assert not (tmp_path / "cache").exists()


def test_groups_are_changed_without_extraction(data: Path, tmp_path: Path, tiny_settings: ExtractSettings) -> None:
    manifest_of(data, ["sound.mp4", "vfr.mp4"])
    source, out = data / "labels.csv", tmp_path / "cache"
    extract_features(source, out, settings=tiny_settings)
    done = extract_features(source, out, group_by="s(..)", settings=tiny_settings)
    assert (done.num_new, done.num_relabelled) == (0, 1)
    media = Cache.open(out).media
    assert dict(zip(media["id"], media["group"], strict=True)) == {"sound.mp4": "ou", "vfr.mp4": ""}


def test_a_manifest_that_was_read_has_its_root_already(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are for a path, and data is a Manifest"):
        extract_features(manifest_of(data, ["sound.mp4"]), tmp_path / "cache", root=data)
    for options in ({"positive": "x"}, {"positive_labels": ["x"]}, {"group_by": ""}):
        with pytest.raises(SettingsError, match="are for a path, and data is a Manifest"):
            extract_features(manifest_of(data, ["sound.mp4"]), tmp_path / "cache", **options)  # type: ignore[arg-type]
