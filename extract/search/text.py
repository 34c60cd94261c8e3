"""Embeds texts with the text tower of the CLIP that made a cache, so that they compare with its image features."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from haechi.cache.errors import CacheError, SettingsConflictError
from haechi.cache.reader import Cache
from haechi.cache.schema import FRAME_STREAM, NO_MODEL, conflict_list, has_features
from haechi.extract.backbones.openclip import FLAG, OpenClip, resolve_model
from haechi.extract.backbones.weights import LOAD_ERRORS, LOCAL_MODEL, Weights, WeightsError, first_line, model_identity

# The key of a local folder's open_clip_config.json that says that the text tower was not trained.
IMAGE_TOWER_ONLY = "image_tower_only"


@dataclass(frozen=True, kw_only=True)
class EmbeddedTexts:
    """The embeddings of Q texts."""

    rows: np.ndarray
    """(Q, width) float32, each of length 1."""
    too_long: list[str]
    """The texts that are longer than the model reads: only their beginnings were used."""


def load_clip(cache: Cache, *, model: str | None = None, weights: str | None = None) -> OpenClip:
    """Load the CLIP that made a cache, on the CPU in float32.

    `model` and `weights` are those of `ExtractSettings`, for files that were moved; None: as the cache has them.

    Raises `CacheError` for a cache without CLIP, for untrained weights and for an image tower alone,
    `SettingsConflictError` for another model or other weights than the cache's, `WeightsError` for weights that cannot
    be found, fetched or loaded.
    """
    held = cache.settings[FRAME_STREAM]
    if not has_features(cache.settings, FRAME_STREAM):
        raise CacheError(
            f"{cache.name}: extracted without CLIP (--clip-model {NO_MODEL}), and texts are compared with CLIP's "
            "features; extract with CLIP into another cache to search it"
        )
    if FRAME_STREAM in cache.untrained:
        raise CacheError(
            f"{cache.name}: its CLIP is UNTRAINED: with random weights, texts and images cannot be compared; search a "
            f"cache with pretrained weights, such as `haechi extract {FLAG} openai` makes"
        )
    remembered = cache.shards[0].provenance.weights[FRAME_STREAM]
    if model is None and held["model"].startswith(LOCAL_MODEL):
        raise SettingsConflictError(
            f"{cache.name}: its CLIP is not a model of open_clip, but a folder whose open_clip_config.json has the "
            f"SHA-256 {held['model'].removeprefix(LOCAL_MODEL)[:12]}…; say where it is: --clip-model local-dir:PATH"
        )
    try:
        wanted = Weights.parse(remembered if weights is None else weights, flag=FLAG)
    except WeightsError as error:
        if weights is not None:
            raise
        raise WeightsError(
            f"{cache.name}: made with the CLIP weights {remembered}, which do not exist any more; say where they are "
            f"now: {FLAG} TAG=PATH"
        ) from error
    name = resolve_model(model or held["model"], wanted)
    _refuse_other(cache, {"model": model_identity(name), "trained": wanted.trained})
    clip = OpenClip(model=name, weights=wanted.request, device=torch.device("cpu"), dtype=torch.float32)
    # Texts do not depend on how images are preprocessed.
    _refuse_other(cache, {field: value for field, value in clip.identity.items() if field != "preprocess"})
    if name.startswith(LOCAL_MODEL):
        config = json.loads(Path(name.removeprefix(LOCAL_MODEL), "open_clip_config.json").read_text(encoding="utf-8"))
        if config.get(IMAGE_TOWER_ONLY):
            raise CacheError(
                f"{cache.name}: its CLIP is an image tower alone ({IMAGE_TOWER_ONLY} in open_clip_config.json): texts "
                "and images cannot be compared; search a cache that a CLIP with both towers made, such as "
                f"`haechi extract {FLAG} openai` makes"
            )
    return clip


def _refuse_other(cache: Cache, ours: dict[str, Any]) -> None:
    """Raise `SettingsConflictError` that names every field in which the CLIP of the cache differs from `ours`."""
    held = {field: value for field, value in cache.settings[FRAME_STREAM].items() if field in ours}
    known = {field: value for field, value in ours.items() if field in held}
    if conflicts := conflict_list(held, known, prefix=f"{FRAME_STREAM}."):
        raise SettingsConflictError(
            f"{cache.name}: made with another CLIP, whose features cannot be compared with texts of this one:\n"
            f"{conflicts}\n"
            f"  Use the CLIP that made the cache (--clip-model, {FLAG})."
        )


def embed_texts(clip: OpenClip, texts: list[str]) -> EmbeddedTexts:
    """Embed texts in the space of the CLIP's image features.

    Raises `WeightsError` if the model's tokenizer cannot be loaded or does not fit its text tower.
    """
    tokens, too_long = _tokenize(clip.name, texts)
    try:
        rows = clip.text_features(tokens).numpy()
    except IndexError as error:  # a token beyond the vocabulary
        raise WeightsError(f"{clip.name}: its tokenizer gives tokens that its text tower does not know") from error
    return EmbeddedTexts(rows=rows / np.linalg.norm(rows, axis=1, keepdims=True), too_long=too_long)


def _tokenize(name: str, texts: list[str]) -> tuple[torch.Tensor, list[str]]:
    """Tokens (Q, context length) int64, and the texts that are longer than that."""
    try:
        tokenizer = open_clip.get_tokenizer(name)
        tokens: torch.Tensor = tokenizer(texts)
        padded: torch.Tensor = tokenizer([*texts, ""], context_length=tokens.shape[1] + 1)
    except (*LOAD_ERRORS, ImportError) as error:
        raise WeightsError(
            f"{name}: its tokenizer cannot be loaded ({first_line(error)})\n"
            "  A tokenizer of Hugging Face needs `pip install transformers`, and a network the first time."
        ) from error
    longer, padding = padded[:-1], padded[-1, -1]
    fits = (longer[:, :-1] == tokens).all(dim=1) & (longer[:, -1] == padding)
    return tokens, [text for text, whole in zip(texts, fits.tolist(), strict=True) if not whole]
