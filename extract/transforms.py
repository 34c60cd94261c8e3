"""Pixels to model input, on the CPU, from the full source resolution."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, kw_only=True)
class FrameTransform:
    """Resize with Pillow's antialiased filter, then cut the centre: uint8 RGB in, uint8 RGB out.

    `shortest` brings the short side to `size` and crops the long one; `squash` ignores the aspect ratio. Both follow
    torchvision's Resize and CenterCrop to the pixel, because open_clip's own preprocessing is made of them.
    """

    size: int
    """Side of the square result, pixels."""
    interpolation: str
    """A key of `RESAMPLING`."""
    mode: str = "shortest"

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Transform one frame (H, W, 3) uint8 to (size, size, 3) uint8."""
        height, width = frame.shape[:2]
        if self.mode == "squash":
            new_width = new_height = self.size
        elif width <= height:
            new_width, new_height = self.size, int(self.size * height / width)
        else:
            new_width, new_height = int(self.size * width / height), self.size
        picture = Image.fromarray(frame)
        if (new_width, new_height) != (width, height):
            picture = picture.resize((new_width, new_height), RESAMPLING[self.interpolation])
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        return np.asarray(picture.crop((left, top, left + self.size, top + self.size)))
