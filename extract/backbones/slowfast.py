"""SlowFast of pytorchvideo, trained on Kinetics-400, as the motion backbone."""

import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from haechi.cache.schema import WINDOW_STREAM
from haechi.extract.backbones.roles import MotionBackbone
from haechi.extract.backbones.weights import (
    LOAD_ERRORS,
    WEIGHTS_FLAGS,
    Weights,
    WeightsError,
    first_line,
    sha256_of_state,
)
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.decoding.windows import WINDOW_FRAMES
from haechi.extract.sampling import uniform

with warnings.catch_warnings():
    # Its import uses torch.jit.script, which is deprecated; the class of the warning depends on the version of torch.
    warnings.simplefilter("ignore")
    from pytorchvideo.models.hub import slowfast as hub

FLAG = WEIGHTS_FLAGS[WINDOW_STREAM]
PRETRAINED = "kinetics400"
MODELS = {"slowfast_r50": hub.slowfast_r50, "slowfast_r101": hub.slowfast_r101}

# pytorchvideo's tutorial for slowfast_r50: side 256, 32 frames, alpha 4, mean 0.45, std 0.225 for all three colours.
TRANSFORM = FrameTransform(size=256, interpolation="bilinear", in_float=True)
ALPHA = 4
MEAN, STD = 0.45, 0.225

CONNECT_TIMEOUT_SECONDS = 10


class SlowFast(MotionBackbone):
    """A frozen SlowFast network."""

    transform = TRANSFORM
    num_frames = WINDOW_FRAMES

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        """Build the model and load its weights.

        Raises `WeightsError` for weights that cannot be found, fetched or loaded.
        """
        wanted = Weights.parse(weights, flag=FLAG)
        if wanted.tag not in {None, PRETRAINED}:
            raise WeightsError(f"{FLAG} {wanted.request}: neither a file nor weights of {model}; it has: {PRETRAINED}")
        path = None if wanted.seed is not None else wanted.file or _fetch(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wanted.seed or 0)
            module = MODELS[model](pretrained=False)
        if path is not None:
            _load(module, path, model)
        sha256 = sha256_of_state(module) if path is None else sha256_of(path)
        module = module.eval().requires_grad_(requires_grad=False)
        _fold_batch_norms(module)
        if dtype != torch.float32:
            _pool_in_float32(module)
        # Where the hardware has bfloat16, 3-D convolutions run about three times faster with channels last.
        self._module = module.to(device=device, dtype=dtype, memory_format=torch.channels_last_3d)
        self._dtype = dtype
        head = module.blocks[-1].proj
        self.identity = {
            "model": model,
            "weights_sha256": sha256,
            "trained": wanted.trained,
            "output": "mean of the features before the classifier; logits of the classifier",
            "preprocess": {
                "size": TRANSFORM.size,
                "interpolation": TRANSFORM.interpolation,
                "mode": TRANSFORM.mode,
                "frames": np.dtype(TRANSFORM.dtype).name,
                "mean": MEAN,
                "std": STD,
            },
            "fast_frames": WINDOW_FRAMES,
            "alpha": ALPHA,
            "widths": {"features": head.in_features, "logits": head.out_features},
        }

    @torch.inference_mode()
    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run windows (B, 32, H, W, 3), 0 to 255. Returns float32 tensors on the same device.

        For slowfast_r50: `features` (B, 2304), the mean before the classifier, and `logits` (B, 400).
        """
        fast = frames.permute(0, 4, 1, 2, 3).float()  # (B, 3, 32, H, W)
        fast = ((fast / 255 - MEAN) / STD).to(self._dtype, memory_format=torch.channels_last_3d)
        slow = fast[:, :, uniform(WINDOW_FRAMES, WINDOW_FRAMES // ALPHA)]  # (B, 3, 8, H, W)
        state: Any = [slow.contiguous(memory_format=torch.channels_last_3d), fast]
        for block in self._module.blocks[:-1]:
            state = block(state)  # after the last of these: (B, 2304, 1, h, w)
        logits: torch.Tensor = self._module.blocks[-1](state)  # (B, 400)
        features: torch.Tensor = state.float().mean(dim=(2, 3, 4))  # (B, 2304)
        return {"features": features, "logits": logits.float()}


def _fold_batch_norms(module: torch.nn.Module) -> None:
    """Merge each BatchNorm into the convolution before it, in float32: fewer passes over the largest tensors."""
    for part in module.modules():
        for name, child in list(part.named_children()):
            if isinstance(child, torch.nn.BatchNorm3d):
                conv = "conv_fast_to_slow" if hasattr(part, "conv_fast_to_slow") else name.replace("norm", "conv")
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), child))
                setattr(part, name, torch.nn.Identity())


class _AvgPool3d(torch.nn.AvgPool3d):
    """Pools in float32, for any type of input: on CPUs, PyTorch cannot pool bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (B, C, T, H, W). Returns the type of `x`."""
        return super().forward(x.float()).to(x.dtype)


def _pool_in_float32(module: torch.nn.Module) -> None:
    for part in module.modules():
        if type(part) is torch.nn.AvgPool3d:
            part.__class__ = _AvgPool3d


def _fetch(model: str) -> Path:
    """The path of the weights' file, from torch.hub's cache or the network."""
    url = hub.checkpoint_paths[model]
    name = url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if path.is_file():
        return path
    timeout = socket.getdefaulttimeout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(CONNECT_TIMEOUT_SECONDS)  # torch.hub has no argument for it
        torch.hub.download_url_to_file(url, str(path))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"SlowFast: the weights {PRETRAINED!r} of {model} cannot be fetched ({first_line(error)})\n"
            f"    Missing: {name} of pytorchvideo's model zoo\n"
            f"    Download that file on a computer with a network, and put it at {path},\n"
            f"    or anywhere and use {FLAG} PATH"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _load(module: torch.nn.Module, path: Path, model: str) -> None:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint.get("model_state", checkpoint)  # pytorchvideo's releases keep the weights under that key
        module.load_state_dict(state)
    except LOAD_ERRORS as error:
        raise WeightsError(f"{FLAG} {path}: cannot be loaded into {model} ({first_line(error)})") from error
