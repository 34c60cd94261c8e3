"""The image backbone: any model of open_clip, its own preprocessing, its own weights."""

import contextlib
import difflib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from haechi.cache.errors import SettingsError
from haechi.extract.backbones.weights import (
    LOAD_ERRORS,
    LOCAL_MODEL,
    QUICKGELU,
    Weights,
    WeightsError,
    first_line,
    model_identity,
    sha256_of_state,
)
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.transforms import RESAMPLING, FrameTransform

FLAG = "--clip-weights"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's names for them
HUB_TIMEOUT_SECONDS = 5


class OpenClip:
    """A frozen CLIP.

    `transform` makes its images' input on the CPU, `features` runs the image tower, `text_features` the text tower.
    `name` is open_clip's name of it, `identity` its part of the cache's settings.
    """

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        """Build the model and load its weights. Raises `SettingsError` or `WeightsError`."""
        wanted = Weights.parse(weights, flag=FLAG)
        name = resolve_model(model, wanted)
        path = None if wanted.seed is not None else wanted.file or _fetch(name, wanted.request)
        module = _build(name, wanted)
        if path is not None:
            _load(module, path, name)
        sha256 = sha256_of_state(module) if path is None else sha256_of(path)
        preprocess = open_clip.get_model_preprocess_cfg(module)
        self.name = name
        self.transform = _transform(preprocess, name)
        self._module: Any = module.eval().requires_grad_(requires_grad=False).to(device=device, dtype=dtype)
        self._dtype = dtype
        # (C, 1, 1), in 0..255 as the pixels are
        self._mean = torch.tensor(preprocess["mean"], device=device).view(-1, 1, 1) * 255
        self._std = torch.tensor(preprocess["std"], device=device).view(-1, 1, 1) * 255
        side = self.transform.size
        self.width = self.features(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)).shape[1]
        self.identity: dict[str, Any] = {
            "model": model_identity(name),
            "weights_sha256": sha256,
            "trained": wanted.trained,
            "output": "encode_image, not normalised",
            "preprocess": {
                "size": self.transform.size,
                "interpolation": self.transform.interpolation,
                "mode": self.transform.mode,
                "mean": list(preprocess["mean"]),
                "std": list(preprocess["std"]),
            },
            "widths": {"features": self.width},
        }

    @torch.inference_mode()
    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Embed frames (B, H, W, 3) uint8 to (B, width) float32, both on its device."""
        pixels = frames.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        pixels = (pixels - self._mean) / self._std
        embeddings: torch.Tensor = self._module.encode_image(pixels.to(self._dtype))  # (B, width)
        return embeddings.float()

    @torch.inference_mode()
    def text_features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed token rows (B, context length) to (B, width) float32, not normalised; see `extract.search.text`."""
        embeddings: torch.Tensor = self._module.encode_text(tokens)  # (B, width)
        return embeddings.float()


def resolve_model(model: str, weights: Weights) -> str:
    """open_clip's name of the architecture that the weights were trained in.

    A bare file takes the model as named, with open_clip's default preprocessing; `TAG=PATH` takes activation and
    preprocessing of the tag. OpenAI's weights (and some others) need the QuickGELU activation, which open_clip has
    under `MODEL-quickgelu`; under the plain name it only warns, and the features are off.

    Raises `SettingsError` or `WeightsError`.
    """
    if model.startswith(LOCAL_MODEL):
        if weights.seed is None and weights.file is None:
            raise WeightsError(f"{FLAG} {weights.request}: a local-dir model takes a file or random:SEED")
        return model
    if model not in (models := open_clip.list_models()):
        near = difflib.get_close_matches(model, models, 3)
        raise SettingsError(
            [f"--clip-model {model}: open_clip has no such model; close names: {', '.join(near) or 'none'}"]
        )
    if weights.tag is None:
        return model
    config = open_clip.get_pretrained_cfg(model, weights.tag)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise WeightsError(f"{FLAG} {weights.request}: no file, and {model} has no such weights; it has: {tags}")
    quick = model + QUICKGELU
    return quick if config.get("quick_gelu") and quick in models else model


def _build(name: str, weights: Weights) -> torch.nn.Module:
    """The architecture with random weights, and the preprocessing that belongs to the weights asked for."""
    config = open_clip.get_pretrained_cfg(name, weights.tag) if weights.tag and not name.startswith(LOCAL_MODEL) else {}
    preprocess = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if config.get(key)}
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(weights.seed or 0)
        try:
            module: torch.nn.Module = open_clip.create_model(
                name, load_weights=False, pretrained_text=False, force_preprocess_cfg=preprocess
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise SettingsError([f"--clip-model {name}: open_clip cannot build it ({error})"]) from error
    return module


def _fetch(name: str, tag: str) -> Path:
    """The weights' file, from the library's cache or the network."""
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, filename = os.path.split(config.get("hf_hub", ""))
    what = f"{filename or HUB_FILES[0]} of {repository}" if repository else config.get("url", "")
    try:
        if not repository:
            return Path(open_clip.download_pretrained(config))
        # open_clip itself would try the second name after any error, and wait out every retry twice without a network.
        for candidate in [filename] if filename else HUB_FILES:
            try:
                with _quiet():  # it logs each retry
                    return Path(hf_hub_download(repository, candidate, etag_timeout=HUB_TIMEOUT_SECONDS))
            except LocalEntryNotFoundError:
                raise  # no network, although it derives from the error of a file that the hub does not have
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"{repository} holds none of {', '.join(HUB_FILES)}")
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"CLIP: the weights {tag!r} of {name} cannot be fetched ({first_line(error)})\n"
            f"    Missing: {what}\n"
            f"    Where there is a network, download that file; copy it here; then say\n"
            f"    {FLAG} {tag}=PATH"
        ) from error


def _load(module: torch.nn.Module, path: Path, name: str) -> None:
    try:
        open_clip.load_checkpoint(module, str(path), strict=True, weights_only=True)
    except LOAD_ERRORS as error:
        raise WeightsError(f"{FLAG} {path}: cannot be loaded into {name} ({first_line(error)})") from error


def _transform(preprocess: dict[str, Any], name: str) -> FrameTransform:
    size = preprocess["size"]
    height, width = (size, size) if isinstance(size, int) else size
    interpolation, mode = preprocess["interpolation"], preprocess["resize_mode"]
    if height != width or interpolation not in RESAMPLING or mode not in {"shortest", "squash"}:
        raise SettingsError(
            [
                f"--clip-model {name}: its preprocessing ({height} x {width}, {interpolation}, {mode}) is not "
                "supported; square sizes, bicubic or bilinear, shortest or squash are"
            ]
        )
    return FrameTransform(size=height, interpolation=interpolation, mode=mode)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries log what is no news here, such as that weights are random where that was asked for."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
