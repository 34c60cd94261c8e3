"""Backbones of a few thousand weights, for tests of everything around them."""

import json
from pathlib import Path

import torch
from torch import nn

CLIP_WIDTH, SLOWFAST_WIDTH, NUM_LOGITS = 32, 6, 10

CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": CLIP_WIDTH,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
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
    """Write open_clip's configuration of a tiny CLIP; the model name that selects it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP_CONFIG))
    return f"local-dir:{folder}"


class Pathways(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(6, SLOWFAST_WIDTH, 1)
        self.norm = nn.BatchNorm3d(SLOWFAST_WIDTH)

    def forward(self, pathways: list[torch.Tensor]) -> torch.Tensor:
        slow, fast = (nn.functional.adaptive_avg_pool3d(p, (1, 2, 2)) for p in pathways)  # (B, 3, 1, 2, 2)
        return self.norm(self.conv(torch.cat([slow, fast], dim=1)))  # (B, 6, 1, 2, 2)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(SLOWFAST_WIDTH, NUM_LOGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x.permute(0, 2, 3, 4, 1)).mean(dim=(1, 2, 3))  # (B, 10)


class TinySlowFast(nn.Module):
    """The shape of pytorchvideo's network: blocks, of which the last is the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Pathways(), Head()])

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](x))


def slowfast_r50(*, pretrained: bool) -> TinySlowFast:
    assert not pretrained
    return TinySlowFast()
