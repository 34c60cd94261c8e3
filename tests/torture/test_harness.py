"""The helpers of the stress tests: they must notice what is lost."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from haechi.cache.text import visible
from haechi.extract.decoding import exif
from tests import synthetic
from tests.torture import hdf5_checksums
from tests.torture.containers import find_parts, find_pictures
from tests.torture.contents import differences, flaws, read_contents
from tests.torture.damage import DAMAGES
from tests.torture.flip import _wrong, find_regions
from tests.torture.media import KINDS, write_kinds
from tests.torture.odd_exif import EMBED, read_odd
from tests.torture.processes import descendants, run_forked
from tests.torture.table import DOCUMENT, filled


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_kinds(tmp_path_factory.mktemp("kinds"), num_frames=16, height=72, width=96)


def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda: os._exit(3), "exit status 3"),
        (lambda: time.sleep(60), "hung for 1 s"),
        (fail, "ZeroDivisionError"),
    ],
)
def test_work_that_fails_is_reported(work: Callable[[], None], error: str) -> None:
    before = descendants()  # such as a server that other tests share
    assert error in run_forked(work, seconds=1).error
    assert [process for process in descendants() if process not in before] == []


def test_work_that_ends_gives_its_value() -> None:
    assert run_forked(lambda: {"a": 1}, seconds=10).value == {"a": 1}


def test_flaws_of_a_cache_are_seen(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", num_failures=1)
    assert flaws(cache, finished=True) == []
    (cache / ".partial-shard-00009.h5").touch()
    assert flaws(cache, finished=False) == []
    assert flaws(cache, finished=True) == ["unexpected file .partial-shard-00009.h5"]
    (cache / ".partial-shard-00009.h5").unlink()
    shard = cache / "shard-00000.h5"
    (cache / "shard-00009.h5").write_bytes(shard.read_bytes())
    assert len(flaws(cache, finished=True)) == 9
    (cache / "shard-00009.h5").unlink()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert flaws(cache, finished=True)


def test_caches_that_differ_are_seen(tmp_path: Path) -> None:
    caches = [
        read_contents(synthetic.write_cache(tmp_path / str(i), num_harmful=4 + i, num_safe=2, shift=1.0))
        for i in range(2)
    ]
    assert differences(caches[0], caches[0]) == []
    assert any("is missing" in text for text in differences(caches[0], caches[1]))
    assert any("differs" in text for text in differences(caches[0], caches[1]))


def test_a_flip_that_is_not_named_is_seen(tmp_path: Path) -> None:
    shard = synthetic.write_cache(tmp_path, num_harmful=2, num_safe=1) / "shard-00000.h5"
    regions, owners = find_regions(shard)
    name, first, videos = "/clip/features", *owners["/clip/features"][0][::2]
    assert len(videos) == 3
    problems = [(shard.name, name, video) for video in videos]
    assert _wrong((problems, "refused"), name, first, owners) == []
    assert _wrong((problems[1:], "refused"), name, first, owners)
    assert _wrong((problems, "altered"), name, first, owners)
    assert _wrong(([], "equal"), "superblock", 520, owners)
    covered = sum(last - first for _, first, last in regions)
    assert covered == shard.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_alters_every_kind(kinds: list[Path], kind: str) -> None:
    content = next(path for path in kinds if path.name == kind).read_bytes()
    parts = find_parts(content)
    assert max(part.end for part in parts) == len(content)
    pictures = sum(last - first for first, last in find_pictures(content))
    assert 0.4 * len(content) < pictures < len(content)
    for name, damage in DAMAGES.items():
        altered = [damage(content, np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
        assert altered[0] == altered[1], name
        assert any(other != content for other in altered), name


def test_hdf5_accepts_the_checksums(tmp_path: Path) -> None:
    assert hdf5_checksums.lookup3(b"Four score and seven years ago") == 0x17770551  # the example in lookup3.c
    body = (synthetic.write_cache(tmp_path) / "shard-00000.h5").read_bytes()[512:]
    assert hdf5_checksums.fix_checksums(body) == body
    header = body.index(b"OHDR")
    altered = bytearray(body)
    altered[header + 6] ^= 1
    assert hdf5_checksums.fix_checksums(bytes(altered)) not in (body, bytes(altered))


@pytest.mark.parametrize("error", [None, AttributeError("no tag")])
def test_pictures_that_lie_wrong_or_are_not_read_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def orientation(stated: bytes, _: bytes) -> int:
        if stated and error is not None:
            raise error
        return exif.UPRIGHT

    monkeypatch.setattr(exif, "orientation", orientation)
    record = read_odd(2, keep=tmp_path / "kept")
    assert record.tried == 2 * len(EMBED)
    assert record.tried - record.survived == len(record.losses) == len(list((tmp_path / "kept").iterdir())) > 0
    assert all(("AttributeError: no tag" in loss) == (error is not None) for loss in record.losses)


def test_the_table_is_that_of_the_json(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert filled(text) == text
    run = {"what": "runs killed", "tried": 1200, "lost": 0, "note": "a note"}
    machine = {"cpu": "A CPU", "cores": 2, "memory_gb": 8, "gpu": None}
    result = {"date": "2026-01-02", "machine": machine, "versions": {"torch": "2.0"}, "untrained": True, "runs": [run]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    shown = filled("a\n<!-- torture -->\nold\n<!-- /torture -->\nb", tmp_path / "result.json")
    assert "| runs killed | 1,200 | 0 | a note |\n" in shown
    assert "old" not in shown
    assert visible(shown.replace("\n", "")) == shown.replace("\n", "")
