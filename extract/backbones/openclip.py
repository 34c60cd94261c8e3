"""Any CLIP of open_clip as the image backbone, with the preprocessing that belongs to its weights."""

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
from haechi.cache.schema import FRAME_STREAM
from haechi.extract.backbones.roles import ImageBackbone
from haechi.extract.backbones.weights import (
    LOAD_ERRORS,
    LOCAL_MODEL,
    QUICKGELU,
    WEIGHTS_FLAGS,
    Weights,
    WeightsError,
    first_line,
    model_identity,
    sha256_of_state,
)
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.transforms import RESAMPLING, FrameTransform

FLAG = WEIGHTS_FLAGS[FRAME_STREAM]
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # names that open_clip gives to weights
HUB_TIMEOUT_SECONDS = 5


class OpenClip(ImageBackbone):
    """A frozen CLIP: `forward` runs its image tower, `text_features` its text tower.

    `name` is the name that open_clip has for it, `width` the number of columns of its features.
    """

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        """Build the model and load its weights.

        Raises `SettingsError` for a model that open_clip does not have or whose preprocessing is not supported,
        `WeightsError` for weights that cannot be found, fetched or loaded.
        """
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
        # (3, 1, 1), in the range of the pixels, 0 to 255
        self._mean = torch.tensor(preprocess["mean"], device=device).view(-1, 1, 1) * 255
        self._std = torch.tensor(preprocess["std"], device=device).view(-1, 1, 1) * 255
        side = self.transform.size
        black = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)
        self.width = self.forward(black)["features"].shape[1]
        self.identity = {
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
    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embed frames (B, H, W, 3) uint8. Returns `features` (B, width) float32, on the same device."""
        pixels = frames.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        pixels = (pixels - self._mean) / self._std
        embeddings: torch.Tensor = self._module.encode_image(pixels.to(self._dtype))  # (B, width)
        return {"features": embeddings.float()}

    @torch.inference_mode()
    def text_features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed tokens (B, context length) int64. Returns (B, width) float32, not normalised."""
        embeddings: torch.Tensor = self._module.encode_text(tokens)  # (B, width)
        return embeddings.float()


def resolve_model(model: str, weights: Weights) -> str:
    """The name that open_clip has for the architecture that the weights were trained in.

    `PATH` alone uses the model under its given name, with open_clip's default preprocessing; `TAG=PATH` uses the
    activation and the preprocessing of the tag. OpenAI's weights (and some others) need the QuickGELU activation, which
    open_clip has under `MODEL-quickgelu`; under the plain name it only warns, and the features are wrong.

    Raises `SettingsError` for a model that open_clip does not have, `WeightsError` for a tag that the model does not
    have.
    """
    if model.startswith(LOCAL_MODEL):
        if weights.seed is None and weights.file is None:
            raise WeightsError(f"{FLAG} {weights.request}: a local-dir model needs a file or random:SEED")
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
        raise WeightsError(f"{FLAG} {weights.request}: neither a file nor weights of {model}; it has: {tags}")
    quick = model + QUICKGELU
    return quick if config.get("quick_gelu") and quick in models else model


def _build(name: str, weights: Weights) -> torch.nn.Module:
    """The architecture with random weights, and with the preprocessing of the requested weights."""
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
    """The path of the weights' file, from the library's cache or the network."""
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, filename = os.path.split(config.get("hf_hub", ""))
    what = f"{filename or HUB_FILES[0]} of {repository}" if repository else config.get("url", "")
    try:
        if not repository:
            return Path(open_clip.download_pretrained(config))
        # open_clip itself tries the second name after any error: without a network it would wait for all retries twice.
        for candidate in [filename] if filename else HUB_FILES:
            try:
                with _quiet():  # it logs each retry
                    return Path(hf_hub_download(repository, candidate, etag_timeout=HUB_TIMEOUT_SECONDS))
            except LocalEntryNotFoundError:
                raise  # no network; it is a subclass of EntryNotFoundError, which means that the hub has no such file
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"{repository} has none of {', '.join(HUB_FILES)}")
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"CLIP: the weights {tag!r} of {name} cannot be fetched ({first_line(error)})\n"
            f"    Missing: {what}\n"
            f"    Download that file on a computer with a network, copy it here, and use\n"
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
                "supported, expected a square size, bicubic or bilinear, shortest or squash"
            ]
        )
    return FrameTransform(size=height, interpolation=interpolation, mode=mode)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what libraries log although it is expected here, such as that random weights were requested."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
