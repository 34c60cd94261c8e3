"""What a backbone must offer. There are two roles: images and motion.

The image backbone sees single frames and writes the stream `haechi.cache.schema.FRAME_STREAM`; the motion backbone sees
windows and writes `WINDOW_STREAM`. The streams keep their names, "clip" and "slowfast", whichever models write them.
"""

from typing import Any, Protocol

import torch

from haechi.extract.decoding.transforms import FrameTransform


class Backbone(Protocol):
    """A frozen network."""

    transform: FrameTransform
    """Turns a decoded frame into the network's input, in the decoding processes."""
    identity: dict[str, Any]
    """The stream's part of the cache's settings, which the fingerprint hashes: all that decides a feature's value.

    It must have `model`, `weights_sha256`, `trained` (False for random weights) and `widths`: the name of each array
    that `forward` returns -> its number of columns.
    """

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        """Build the network and load its weights; `weights` is a request that `Weights.parse` understands.

        Raises `WeightsError` for weights that cannot be found, fetched or loaded.
        """

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Array name -> (B, width) float32, on the device of `frames`, for a batch of B frames or windows.

        `frames` are the results of `transform`: RGB, 0 to 255, in its type.
        """


class ImageBackbone(Backbone, Protocol):
    """A network for single frames: `forward` takes (B, H, W, 3) and returns `features`, not normalised."""


class MotionBackbone(Backbone, Protocol):
    """A network for windows: `forward` takes (B, num_frames, H, W, 3) and returns `features` and `logits`.

    `features` are pooled, before the classifier; `logits` are the outputs of the classifier.
    """

    num_frames: int
    """Frames that it sees of each window, evenly spaced."""
