"""The motion backbone: pytorchvideo's SlowFast, trained on Kinetics-400."""

import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from haechi.extract.backbones.weights import LOAD_ERRORS, Weights, WeightsError, first_line, sha256_of_state
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.decoding.windows import WINDOW_FRAMES
from haechi.extract.sampling import uniform

with warnings.catch_warnings():
    # its import uses torch.jit.script, which torch calls deprecated, by one class of warning or another
    warnings.simplefilter("ignore")
    from pytorchvideo.models.hub import slowfast as hub

FLAG = "--slowfast-weights"
PRETRAINED = "kinetics400"
MODELS = {"slowfast_r50": hub.slowfast_r50, "slowfast_r101": hub.slowfast_r101}

# pytorchvideo's tutorial for slowfast_r50: side 256, 32 frames, alpha 4, mean 0.45, std 0.225 for all three colours.
TRANSFORM = FrameTransform(size=256, interpolation="bilinear", in_float=True)
ALPHA = 4
MEAN, STD = 0.45, 0.225

CONNECT_TIMEOUT_SECONDS = 10


class SlowFast:
    """A frozen SlowFast network.

    `transform` makes its input on the CPU, `forward` runs it, `identity` is its part of the cache's settings.
    """

    transform = TRANSFORM

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        """Build the model and load its weights. Raises `WeightsError`."""
        wanted = Weights.parse(weights, flag=FLAG)
        if wanted.tag not in {None, PRETRAINED}:
            raise WeightsError(f"{FLAG} {wanted.request}: no such file; {model} has the weights: {PRETRAINED}")
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
        # 3-D convolutions run about three times faster with channels last where bfloat16 is in hardware.
        self._module = module.to(device=device, dtype=dtype, memory_format=torch.channels_last_3d)
        self._dtype = dtype
        head = module.blocks[-1].proj
        self.identity: dict[str, Any] = {
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
    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run windows (B, 32, H, W, 3), 0..255; features (B, 2304) and logits (B, 400), float32; all on its device."""
        fast = windows.permute(0, 4, 1, 2, 3).float()  # (B, 3, 32, H, W)
        fast = ((fast / 255 - MEAN) / STD).to(self._dtype, memory_format=torch.channels_last_3d)
        slow = fast[:, :, uniform(WINDOW_FRAMES, WINDOW_FRAMES // ALPHA)]  # (B, 3, 8, H, W)
        state: Any = [slow.contiguous(memory_format=torch.channels_last_3d), fast]
        for block in self._module.blocks[:-1]:
            state = block(state)  # the last of them: (B, 2304, 1, h, w)
        logits: torch.Tensor = self._module.blocks[-1](state)  # (B, 400)
        features: torch.Tensor = state.float().mean(dim=(2, 3, 4))  # (B, 2304)
        return features, logits.float()


def _fold_batch_norms(module: torch.nn.Module) -> None:
    """Put each BatchNorm into the convolution before it: fewer passes over the largest tensors, in float32."""
    for part in module.modules():
        for name, child in list(part.named_children()):
            if isinstance(child, torch.nn.BatchNorm3d):
                conv = "conv_fast_to_slow" if hasattr(part, "conv_fast_to_slow") else name.replace("norm", "conv")
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), child))
                setattr(part, name, torch.nn.Identity())


class _AvgPool3d(torch.nn.AvgPool3d):
    """In float32 whatever comes: PyTorch has no such pooling of bfloat16 on CPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) to the pooled size, in the type of `x`."""
        return super().forward(x.float()).to(x.dtype)


def _pool_in_float32(module: torch.nn.Module) -> None:
    for part in module.modules():
        if type(part) is torch.nn.AvgPool3d:
            part.__class__ = _AvgPool3d


def _fetch(model: str) -> Path:
    """The weights' file, from torch.hub's cache or the network."""
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
            f"    Where there is a network, download that file; put it at {path},\n"
            f"    or anywhere and say {FLAG} PATH"
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
