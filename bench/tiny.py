"""Networks of a few thousand weights, for costs that are not the backbones'.

`python -m bench.tiny COMMAND …` runs `haechi COMMAND …` with a SlowFast in miniature. A CLIP in miniature is
open_clip's own, chosen by the name that `write_clip_config` returns.
"""

import json
import sys
from pathlib import Path

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
    """Write open_clip's configuration of a CLIP in miniature; the model name that selects it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP_CONFIG))
    return f"local-dir:{folder}"


def shrink_slowfast() -> None:
    """From now on slowfast_r50 is a network of one convolution and a classifier, on frames of side 32."""
    import torch
    from torch import nn

    from extract import slowfast
    from extract.transforms import FrameTransform

    class Pathways(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(6, SLOWFAST_WIDTH, 1)
            self.norm = nn.BatchNorm3d(SLOWFAST_WIDTH)

        def forward(self, pathways: list[torch.Tensor]) -> torch.Tensor:
            means = [nn.functional.adaptive_avg_pool3d(p.float(), (1, 2, 2)) for p in pathways]  # (B, 3, 1, 2, 2)
            both = torch.cat(means, dim=1).to(pathways[0].dtype)
            result: torch.Tensor = self.norm(self.conv(both))  # (B, 6, 1, 2, 2)
            return result

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(SLOWFAST_WIDTH, NUM_LOGITS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.proj(x.permute(0, 2, 3, 4, 1)).mean(dim=(1, 2, 3))  # (B, 10)
            return logits

    class Small(nn.Module):
        """The shape of pytorchvideo's network: blocks, of which the last is the classifier."""

        def __init__(self, *, pretrained: bool) -> None:
            assert not pretrained
            super().__init__()
            self.blocks = nn.ModuleList([Pathways(), Classifier()])

        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = self.blocks[1](self.blocks[0](x))
            return logits

    slowfast.MODELS["slowfast_r50"] = Small
    slowfast.SlowFast.transform = FrameTransform(size=SIDE, interpolation="bilinear", in_float=True)


if __name__ == "__main__":  # decoding processes load this file too, and need none of it
    import haechi

    shrink_slowfast()
    haechi.main(sys.argv[1:])
