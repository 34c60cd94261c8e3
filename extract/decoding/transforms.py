"""Pixels to model input, on the CPU, from the full source resolution."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from haechi.extract.pixel_aspect import DISPLAY

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# Source pixels to each side that the wider filter (bicubic) uses when it does not shrink the image.
REACH = 2


@dataclass(frozen=True, kw_only=True)
class FrameTransform:
    """Resize with Pillow's antialiased filter, then crop the centre: uint8 RGB in, uint8 or float16 RGB out.

    `shortest` resizes the short side to `size` and crops the long one; `squash` ignores the aspect ratio. Both give the
    same pixels as torchvision's Resize and CenterCrop, which open_clip's own preprocessing uses.
    """

    size: int
    """Side of the square result, pixels."""
    interpolation: str
    """A key of `RESAMPLING`."""
    mode: str = "shortest"
    in_float: bool = False
    """Filter in float32 and return 0..255 as float16 (steps of at most 1/8), for networks that were trained on frames
    resized in float. Otherwise Pillow rounds to whole levels after each of its two passes, as for CLIP's training."""
    pixel_aspect: str = DISPLAY
    """One of `haechi.extract.pixel_aspect.PIXEL_ASPECTS`; pixels are stretched in the same step."""

    @property
    def dtype(self) -> type[np.generic]:
        """Type of the result."""
        return np.float16 if self.in_float else np.uint8

    def __call__(self, frame: np.ndarray, pixel_aspect: float = 1.0) -> np.ndarray:
        """Transform one frame (H, W, 3) uint8 to (size, size, 3) of `dtype`.

        `pixel_aspect`: width of a pixel / its height.
        """
        height, width = frame.shape[:2]
        shown_width = width * (pixel_aspect if self.pixel_aspect == DISPLAY else 1)
        if self.mode == "squash":
            new_width = new_height = self.size
        elif shown_width <= height:
            new_width, new_height = self.size, int(self.size * height / shown_width)
        else:
            new_width, new_height = int(self.size * shown_width / height), self.size
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        if self.in_float:
            return self._filter_in_float(frame, new_width, new_height, left, top)
        picture = Image.fromarray(frame)
        if (new_width, new_height) != (width, height):
            picture = picture.resize((new_width, new_height), RESAMPLING[self.interpolation])
        return np.asarray(picture.crop((left, top, left + self.size, top + self.size)))

    def _filter_in_float(self, frame: np.ndarray, new_width: int, new_height: int, left: int, top: int) -> np.ndarray:
        """The same crop in float32; little more than it is computed. Pillow filters floats one colour at a time."""
        height, width = frame.shape[:2]
        # Columns and rows around the crop: the edge of the computed area would change them, so they are cut off.
        margin = math.ceil(REACH * max(1, new_width / width, new_height / height)) + 1
        x0, y0 = max(0, left - margin), max(0, top - margin)
        x1, y1 = min(new_width, left + self.size + margin), min(new_height, top + self.size + margin)
        # Source pixels that the filter uses; the others are not converted to float.
        reach = math.ceil(REACH * max(1, width / new_width, height / new_height)) + 1
        left_edge, right_edge = x0 * width / new_width, x1 * width / new_width
        top_edge, bottom_edge = y0 * height / new_height, y1 * height / new_height
        from_x, from_y = max(0, math.floor(left_edge) - reach), max(0, math.floor(top_edge) - reach)
        source = frame[from_y : math.ceil(bottom_edge) + reach, from_x : math.ceil(right_edge) + reach]
        box = (left_edge - from_x, top_edge - from_y, right_edge - from_x, bottom_edge - from_y)
        result = np.empty((self.size, self.size, 3), self.dtype)
        for colour in range(3):
            plane = Image.fromarray(source[:, :, colour].astype(np.float32))
            resized = np.asarray(plane.resize((x1 - x0, y1 - y0), RESAMPLING[self.interpolation], box))
            result[:, :, colour] = resized[top - y0 :, left - x0 :][: self.size, : self.size]
        return result
