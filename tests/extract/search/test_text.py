"""The text tower is that of the CLIP that made the cache, or an error says which one is needed."""

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError
from haechi.cache.reader import Cache
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.backbones.weights import WeightsError
from haechi.extract.search.text import embed_texts, load_clip
from tests.extract import clips


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return clips.write_clip(tmp_path_factory.mktemp("clip"))


def cache_of(tmp_path: Path, name: str, weights: Path | str) -> Cache:
    source = clips.provenance(clips.identity(name, weights), weights=str(weights))
    rows = np.random.default_rng(0).normal(size=(4, clips.WIDTH))
    return Cache.open(clips.write_shards(tmp_path / "cache", {"a.mp4": rows}, source))


def test_texts_are_encode_text_of_the_caches_own_weights(made: tuple[str, Path], tmp_path: Path) -> None:
    name, weights = made
    module = open_clip.create_model(name, load_weights=False).eval()
    module.load_state_dict(torch.load(weights, weights_only=True))
    texts = ["people fighting in a street", "한국어 and 😀", "a\udc80b", "cat"]
    with torch.inference_mode():
        expected = module.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True).numpy()
    cache = cache_of(tmp_path, name, weights)
    for request in (None, str(weights), f"openai={weights}"):
        found = embed_texts(load_clip(cache, model=name, weights=request), texts)
        np.testing.assert_allclose(found.rows, expected, atol=1e-6)
        assert found.too_long == []


def test_weights_that_were_moved_are_asked_for(made: tuple[str, Path], tmp_path: Path) -> None:
    name, weights = made
    source = clips.provenance(clips.identity(name, weights), weights="gone/clip.pt")
    cache = Cache.open(clips.write_shards(tmp_path / "c", {"a.mp4": np.ones((1, clips.WIDTH))}, source))
    with pytest.raises(WeightsError, match=r"(?s)gone/clip.pt, which do not exist any more.*--clip-weights TAG=PATH"):
        load_clip(cache, model=name)
    with pytest.raises(WeightsError, match=r"--clip-weights other/x.pt: no such file"):
        load_clip(cache, model=name, weights="other/x.pt")
    assert load_clip(cache, model=name, weights=str(weights)).identity == cache.settings["clip"]


def test_a_model_in_a_local_folder_is_asked_for(made: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        SettingsConflictError, match=r"not a model of open_clip.*say where it is: --clip-model local-dir:PATH"
    ):
        load_clip(cache_of(tmp_path, *made))


def test_untrained_weights_are_refused(made: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        CacheError, match="its CLIP is UNTRAINED: with random weights, texts and images cannot be compared"
    ):
        load_clip(cache_of(tmp_path, made[0], "random:0"), model=made[0])


def test_an_image_tower_alone_is_refused(tmp_path: Path) -> None:
    name, weights = clips.write_clip(tmp_path)
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps({"image_tower_only": True, **json.loads(config.read_text())}))
    with pytest.raises(
        CacheError, match=r"cache: its CLIP is an image tower alone.*search a cache that a CLIP with both"
    ):
        load_clip(cache_of(tmp_path, name, weights), model=name)


def test_other_weights_are_refused_with_the_fields(made: tuple[str, Path], tmp_path: Path) -> None:
    name, weights = made
    cache = cache_of(tmp_path, name, weights)
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "logit_scale": state["logit_scale"] + 1}, tmp_path / "other.pt")
    with pytest.raises(SettingsConflictError, match=r"clip\.weights_sha256: '[0-9a-f]{64}' in the cache"):
        load_clip(cache, model=name, weights=str(tmp_path / "other.pt"))
    with pytest.raises(SettingsConflictError, match=r"clip\.trained: True in the cache, False here"):
        load_clip(cache, model=name, weights="random:0")


def test_another_model_is_refused_before_its_weights_are_fetched(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: OpenClip, **_: object) -> None:
        raise AssertionError("loaded")

    cache = cache_of(tmp_path, *made)
    monkeypatch.setattr(OpenClip, "__init__", load)
    with pytest.raises(SettingsConflictError, match=r"clip\.model: 'local-dir:.*'ViT-B-32-quickgelu' here"):
        load_clip(cache, model="ViT-B-32", weights="openai")


def test_texts_do_not_depend_on_the_preprocessing_of_images(made: tuple[str, Path], tmp_path: Path) -> None:
    name, weights = made
    clip = clips.identity(name, weights)
    source = clips.provenance({**clip, "preprocess": {"size": 7}}, weights=str(weights))
    cache = Cache.open(clips.write_shards(tmp_path / "c", {"a.mp4": np.ones((1, clips.WIDTH))}, source))
    assert load_clip(cache, model=name).identity == clip


def test_long_texts_are_cut_and_listed(made: tuple[str, Path], tmp_path: Path) -> None:
    clip = load_clip(cache_of(tmp_path, *made), model=made[0])
    whole, long = "cat " * 14, "cat " * 15  # 16 tokens: a start, an end, and 14 words
    found = embed_texts(clip, [whole, long, "cat"])
    assert found.too_long == [long]
    np.testing.assert_array_equal(found.rows[0], found.rows[1])


def test_texts_cut_by_a_tokenizer_without_end_token_are_listed_too(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenizer(texts: list[str], context_length: int = 16) -> torch.Tensor:
        rows = [[1] * len(text.split()) + [0] * context_length for text in texts]
        return torch.tensor([row[:context_length] for row in rows])

    clip = load_clip(cache_of(tmp_path, *made), model=made[0])
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: tokenizer)
    whole, long = "cat " * 16, "cat " * 17
    assert embed_texts(clip, [whole, long]).too_long == [long]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hf_tokenizer_name": "nobody/nothing"}, "pip install transformers"),
        ({"vocab_size": 512}, "gives tokens that its text tower does not know"),
    ],
)
def test_tokenizers_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], expected: str
) -> None:
    """A tokenizer of Hugging Face without its package, and a text tower with fewer tokens than its tokenizer."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    name, weights = clips.write_clip(tmp_path / "clip")
    clip = OpenClip(model=name, weights=str(weights), device=torch.device("cpu"), dtype=torch.float32)
    if "vocab_size" in changes:
        clip._module.token_embedding = torch.nn.Embedding(512, 32)
    else:
        path = tmp_path / "clip" / "open_clip_config.json"
        config = json.loads(path.read_text())
        config["model_cfg"]["text_cfg"] |= changes
        path.write_text(json.dumps(config))
    with pytest.raises(HaechiError, match=expected):
        embed_texts(clip, ["people fighting in a street"])
