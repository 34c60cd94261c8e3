"""Twenty generated videos of each kind; `make torture` compares 200 of each."""

from pathlib import Path

import pytest

from bench import ffmpeg

pytest.importorskip("psutil", reason="psutil is not installed: no stress test")

from tests.torture.variations import KINDS, faults, make

NUMBER = 20

pytestmark = pytest.mark.skipif(not ffmpeg.is_installed(), reason="ffmpeg is not installed: nothing to compare with")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds what is encoded once and used for many variations."""
    return tmp_path_factory.mktemp("variations")


@pytest.mark.parametrize("number", range(NUMBER))
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_that_of_ffmpeg(folder: Path, kind: str, number: int) -> None:
    variation = make(kind, folder, number)
    assert not faults(variation.path), variation.what
