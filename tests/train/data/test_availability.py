"""Settings of the head and a cache without CLIP or without SlowFast."""

from pathlib import Path
from typing import Any

import pytest

from haechi.cache.reader import Cache
from haechi.train.api import train_heads
from haechi.train.data.availability import fit_to_cache
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings
from tests import synthetic

NO_CLIP, NO_SLOWFAST = {"clip_width": 0}, {"slowfast_width": 0, "num_logits": 0}


def cache_of(folder: Path, widths: dict[str, int]) -> Cache:
    return Cache.open(synthetic.write_cache(folder, source=synthetic.provenance(trained=True, **widths)))


def fitted(cache: Cache, **given: Any) -> tuple[tuple[object, ...], list[str]]:
    settings, notices = fit_to_cache(TrainSettings.from_preset(None, **given), cache, given=given.keys())
    return (settings.clip, settings.slowfast, settings.scenes), notices


def test_a_cache_with_both_changes_nothing(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, {})
    for given in (
        {},
        {"clip": False},
        {"slowfast": "none"},
        {"preset": "model4", "media": "image", "slowfast": "none"},
    ):
        settings = TrainSettings.from_preset(**{"preset": None, **given})
        assert fit_to_cache(settings, cache, given=given.keys()) == (settings, [])


def test_the_default_streams_are_those_of_the_cache(tmp_path: Path) -> None:
    found, notices = fitted(cache_of(tmp_path / "a", NO_SLOWFAST))
    assert found == (True, "none", True)
    assert notices == ["no SlowFast features in this cache: the head sees CLIP alone (--slowfast none)"]
    found, notices = fitted(cache_of(tmp_path / "b", NO_CLIP))
    assert found == (False, "logits", False)
    assert [notice.rpartition(" ")[2] for notice in notices] == ["(--no-clip)", "(--no-scenes)"]


def test_what_is_asked_for_as_the_cache_has_it_needs_no_notice(tmp_path: Path) -> None:
    assert fitted(cache_of(tmp_path / "a", NO_SLOWFAST), slowfast="none") == ((True, "none", True), [])
    cache = cache_of(tmp_path / "b", NO_CLIP)
    assert fitted(cache, clip=False, scenes=False, slowfast="pooled") == ((False, "pooled", False), [])


@pytest.mark.parametrize(
    ("widths", "given", "expected"),
    [
        (
            NO_SLOWFAST,
            {"slowfast": "logits"},
            ["slowfast is 'logits', which needs SlowFast features: use --slowfast none"],
        ),
        (NO_SLOWFAST, {"clip": False}, ["clip is False, slowfast is 'logits': nothing is left to see"]),
        (
            NO_CLIP,
            {"clip": True, "scenes": True},
            [
                "clip is True, which needs CLIP features: use --no-clip",
                "scenes is True, which needs CLIP features: use --no-scenes",
            ],
        ),
        (NO_CLIP, {"media": "image"}, ["clip is True, slowfast is 'none': images have no SlowFast features"]),
        (NO_CLIP, {"slowfast": "none"}, ["clip is True, slowfast is 'none': nothing is left to see"]),
    ],
)
def test_one_error_names_what_is_missing_and_the_flag(
    tmp_path: Path, widths: dict[str, int], given: dict[str, Any], expected: list[str]
) -> None:
    without = "CLIP (--clip-model none)" if widths == NO_CLIP else "SlowFast (--slowfast-model none)"
    with pytest.raises(TrainError) as caught:
        fitted(cache_of(tmp_path, widths), **given)
    head, *lines, last = str(caught.value).splitlines()
    assert head == f"{tmp_path}: extracted without {without}, and these settings need more:"
    assert [line.removeprefix("  - ") for line in lines] == expected
    assert last == "or extract the videos with both models into another cache"


def test_experiments_fit_themselves_too_but_not_the_values_of_a_grid(tmp_path: Path) -> None:
    cache_of(tmp_path / "cache", NO_SLOWFAST)
    options: dict[str, Any] = {"device": "cpu", "folds": 0, "test_fraction": 0.0}
    outcomes = train_heads(tmp_path / "cache", tmp_path / "runs", grid="max_rows=2,4", **options)
    assert [outcome.error for outcome in outcomes] == ["", ""]
    with pytest.raises(TrainError, match="slowfast is 'pooled'"):
        train_heads(tmp_path / "cache", tmp_path / "others", grid="slowfast=pooled,none", **options)
