"""Which settings fit a cache, checked without loading a model."""

from pathlib import Path

import pytest

from haechi.cache.errors import SettingsConflictError
from haechi.cache.reader import Cache
from haechi.cache.schema import Provenance
from haechi.extract import pixel_aspect, resume
from haechi.extract.resume import refuse_other_request
from haechi.extract.settings import ExtractSettings
from tests import synthetic


def cache_of(folder: Path, *, clip_weights: str, trained: bool, **more: str) -> Cache:
    source = synthetic.provenance(trained=trained)
    settings = dict(source.settings, sampling={"name": "uniform", "frames": 32, "short": "repeat"}, **more)
    settings["clip"] = dict(settings["clip"], model="ViT-B-32-quickgelu")
    settings["slowfast"] = dict(settings["slowfast"], model="slowfast_r50")
    made = vars(source) | {"settings": settings, "weights": {"clip": clip_weights, "slowfast": "kinetics400"}}
    synthetic.write_cache(folder, source=Provenance(**made))
    return Cache.open(folder)


@pytest.mark.parametrize(
    ("remembered", "request_", "accepted"),
    [
        ("openai", "openai", True),
        ("openai", "laion400m_e32", False),
        ("openai", "no_such_tag", False),
        ("openai", "random:0", False),
        ("weights/clip.pt", "openai", True),  # compared after they are loaded
        ("weights/clip.pt", "random:0", False),
    ],
)
def test_names_of_weights(tmp_path: Path, remembered: str, request_: str, accepted: bool) -> None:
    cache = cache_of(tmp_path / "cache", clip_weights=remembered, trained=True)
    settings = ExtractSettings(clip_weights=request_)
    if accepted:
        refuse_other_request(settings, cache)
    else:
        with pytest.raises(SettingsConflictError, match=rf"clip\.weights_sha256: .* 'that of {request_}' here"):
            refuse_other_request(settings, cache)


def test_a_cache_of_an_older_version_keeps_the_stored_shape_of_pixels(tmp_path: Path) -> None:
    """It does not say what is done about pixels that are not square: they were taken for square."""
    old = cache_of(tmp_path / "old", clip_weights="openai", trained=True)
    assert pixel_aspect.KEY not in old.settings
    continued = resume.continued(ExtractSettings(), old)
    assert continued == ExtractSettings(pixel_aspect="stored")
    assert pixel_aspect.entry(continued.pixel_aspect) == {}
    new = {**old.settings, **pixel_aspect.entry(ExtractSettings().pixel_aspect)}
    assert new[pixel_aspect.KEY] == pixel_aspect.of_settings(new) == "display"


def test_a_cache_with_stretched_pixels_is_not_continued_with_stored_ones(tmp_path: Path) -> None:
    stretched = cache_of(tmp_path / "new", clip_weights="openai", trained=True, pixel_aspect="display")
    default = resume.continued(ExtractSettings(), stretched)
    assert default == ExtractSettings()
    refuse_other_request(default, stretched)
    wanted = resume.continued(ExtractSettings(pixel_aspect="stored"), stretched)
    with pytest.raises(SettingsConflictError, match="pixel_aspect: 'display' in the cache"):
        refuse_other_request(wanted, stretched)
