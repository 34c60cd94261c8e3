"""Texts in the space of a cache's image rows: the text tower of the very CLIP that made it, and no other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch

from haechi.cache.errors import CacheError, SettingsConflictError
from haechi.cache.reader import Cache
from haechi.cache.schema import differing_fields
from haechi.cache.text import bullet_list
from haechi.extract.backbones.openclip import FLAG, OpenClip, resolve_model
from haechi.extract.backbones.weights import LOAD_ERRORS, LOCAL_MODEL, Weights, WeightsError, first_line, model_identity


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What a CLIP makes of Q texts."""

    rows: np.ndarray
    """(Q, width) float32, each of length 1."""
    cut: list[str]
    """Texts longer than the model reads: it saw their beginnings only."""


def clip_of(cache: Cache, *, model: str | None = None, weights: str | None = None) -> OpenClip:
    """Load the CLIP that made a cache, on the CPU in float32.

    `model` and `weights` are as `ExtractSettings` has them, for what lies elsewhere now; None: as the cache says.

    Raises `CacheError` for untrained weights, `SettingsConflictError` for another model or other weights than the
    cache's, `WeightsError` for weights that are not to be had.
    """
    held = cache.settings["clip"]
    if "clip" in cache.untrained:
        raise CacheError(
            f"{cache.path}: its CLIP is UNTRAINED, its weights are random and know no words; search a cache of "
            f"pretrained weights, such as `haechi extract {FLAG} openai` makes"
        )
    remembered = cache.shards[0].provenance.weights["clip"]
    if model is None and held["model"].startswith(LOCAL_MODEL):
        raise SettingsConflictError(
            f"{cache.path}: its CLIP is one's own, open_clip_config.json of SHA-256 "
            f"{held['model'].removeprefix(LOCAL_MODEL)[:12]}…; say where it lies: --clip-model local-dir:PATH"
        )
    try:
        wanted = Weights.parse(remembered if weights is None else weights, flag=FLAG)
    except WeightsError as error:
        if weights is not None:
            raise
        raise WeightsError(
            f"{cache.path}: made with the CLIP weights {remembered}, which are not there any more; say where they lie "
            f"now: {FLAG} TAG=PATH"
        ) from error
    name = resolve_model(model or held["model"], wanted)
    _refuse_other(cache, {"model": model_identity(name), "trained": wanted.trained})
    clip = OpenClip(model=name, weights=wanted.request, device=torch.device("cpu"), dtype=torch.float32)
    # How pictures were prepared is no concern of texts.
    _refuse_other(cache, {field: value for field, value in clip.identity.items() if field != "preprocess"})
    return clip


def _refuse_other(cache: Cache, ours: dict[str, Any]) -> None:
    """Raise `SettingsConflictError` that names every field of `ours` in which the cache's CLIP is another."""
    held = {field: value for field, value in cache.settings["clip"].items() if field in ours}
    known = {field: value for field, value in ours.items() if field in held}
    if differing := differing_fields(held, known, prefix="clip."):
        lines = [f"{name}: {old!r} in the cache, {new!r} here" for name, old, new in differing]
        raise SettingsConflictError(
            f"{cache.path}: made by another CLIP, and texts mean nothing among the rows of another:\n"
            f"{bullet_list(lines)}\n"
            f"  Bring the one that made the cache (--clip-model, {FLAG})."
        )


def embed(clip: OpenClip, texts: list[str]) -> Embedded:
    """Texts to rows of the space that the CLIP's image rows are in.

    Raises `WeightsError` where the model's tokenizer cannot be loaded or does not fit its text tower.
    """
    tokens, cut = _tokenize(clip.name, texts)
    try:
        rows = clip.text_features(tokens).numpy()
    except IndexError as error:  # of a token beyond the vocabulary
        raise WeightsError(f"{clip.name}: its text tower has no row for some words of its own tokenizer") from error
    return Embedded(rows=rows / np.linalg.norm(rows, axis=1, keepdims=True), cut=cut)


def _tokenize(name: str, texts: list[str]) -> tuple[torch.Tensor, list[str]]:
    """Tokens (Q, context length) int64, and the texts that are longer than that."""
    try:
        tokenizer = open_clip.get_tokenizer(name)
        tokens: torch.Tensor = tokenizer(texts)
        padded: torch.Tensor = tokenizer([*texts, ""], context_length=tokens.shape[1] + 1)
    except (*LOAD_ERRORS, ImportError) as error:
        raise WeightsError(
            f"{name}: its tokenizer cannot be loaded ({first_line(error)})\n"
            "  Tokenizers of Hugging Face need `pip install transformers`, and a network the first time."
        ) from error
    longer, padding = padded[:-1], padded[-1, -1]
    fits = (longer[:, :-1] == tokens).all(dim=1) & (longer[:, -1] == padding)
    return tokens, [text for text, whole in zip(texts, fits.tolist(), strict=True) if not whole]
