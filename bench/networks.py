"""Small networks with a few thousand weights, to test and time everything around the backbones."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from haechi.extract.backbones import slowfast
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.engines import processes

SIDE, CLIP_WIDTH, SLOWFAST_WIDTH, NUM_LOGITS = 32, 32, 6, 10

CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": CLIP_WIDTH,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.48, 0.45, 0.40],
        "std": [0.26, 0.26, 0.27],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def write_clip_config(folder: Path) -> str:
    """Write open_clip's configuration of a small CLIP. Returns the model name that selects it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP_CONFIG))
    return f"local-dir:{folder}"


class Pathways(nn.Module):
    """The first block: a convolution over the means of both pathways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(6, SLOWFAST_WIDTH, 1)
        self.norm = nn.BatchNorm3d(SLOWFAST_WIDTH)

    def forward(self, pathways: list[torch.Tensor]) -> torch.Tensor:
        """From the slow and the fast pathway, (B, 3, T, H, W) each, to (B, 6, 1, 2, 2)."""
        means = [nn.functional.adaptive_avg_pool3d(p.float(), (1, 2, 2)) for p in pathways]  # (B, 3, 1, 2, 2)
        both = torch.cat(means, dim=1).to(pathways[0].dtype)
        result: torch.Tensor = self.norm(self.conv(both))
        return result


class Projection(nn.Module):
    """The last block: a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(SLOWFAST_WIDTH, NUM_LOGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 6, 1, 2, 2) to logits (B, 10)."""
        logits: torch.Tensor = self.proj(x.permute(0, 2, 3, 4, 1)).mean(dim=(1, 2, 3))
        return logits


class SmallSlowFast(nn.Module):
    """Built like pytorchvideo's network: blocks, the last one being the classifier."""

    def __init__(self, *, pretrained: bool = False) -> None:
        assert not pretrained
        super().__init__()
        self.blocks = nn.ModuleList([Pathways(), Projection()])

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        """From the slow and the fast pathway to logits (B, 10)."""
        logits: torch.Tensor = self.blocks[1](self.blocks[0](x))
        return logits


SMALL_TRANSFORM = FrameTransform(size=SIDE, interpolation="bilinear", in_float=True)


def shrink_slowfast() -> None:
    """Replace slowfast_r50 by `SmallSlowFast`, on frames of side 32, in this process and those of `--devices`."""
    slowfast.MODELS["slowfast_r50"] = SmallSlowFast
    slowfast.SlowFast.transform = SMALL_TRANSFORM
    processes.Processes.work = staticmethod(serve_small)


def serve_small(*arguments: Any) -> None:
    """As `haechi.extract.engines.processes.serve`, with the small networks: for processes of `--devices`."""
    shrink_slowfast()
    processes.serve(*arguments)
