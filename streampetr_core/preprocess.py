"""From camera images to network input at inference: resize, crop, normalise.

Two paths: `exact` gives the very pixels of the published pipeline (Pillow's bicubic filter); `fast` (PyTorch's bicubic
filter for bytes, on the part of the image that is kept) takes a fraction of the time. Fewer than one byte in a hundred
differ, by one grey level; by two where an image is hardly shrunk or is enlarged.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError

# How far a crop must reach beyond its edge, so that the filter sees what it would see in the whole image: the bicubic
# kernel reaches two pixels of whichever image is coarser, the third covers rounding.
_FILTER_MARGIN = 3


@dataclass(frozen=True)
class ResizeCrop:
    """How a source image becomes the network's input image: scale, then cut; all in pixels."""

    source_width: int
    source_height: int
    scale: float
    resized_width: int
    resized_height: int
    left: int  # of the kept part in the resized image
    top: int
    width: int  # of the network's input
    height: int

    @property
    def input_T_source(self) -> NDArray[np.float64]:
        """3x3 matrix from pixels of the source image to pixels of the input image; times K it gives the input's K."""
        return np.array([[self.scale, 0, -self.left], [0, self.scale, -self.top], [0, 0, 1]], dtype=np.float64)


def plan_resize(source_width: int, source_height: int, config: ModelConfig) -> ResizeCrop:
    """Return the published test-time plan: fill the input's width and height, keep the bottom and the middle."""
    if source_width < 1 or source_height < 1:
        raise StreampetrError(f"an image of {source_width}x{source_height} pixels cannot be resized")
    scale = max(config.input_height / source_height, config.input_width / source_width)
    resized_width, resized_height = int(source_width * scale), int(source_height * scale)
    left = max(0, resized_width - config.input_width) // 2
    top = resized_height - config.input_height
    return ResizeCrop(
        source_width,
        source_height,
        scale,
        resized_width,
        resized_height,
        left,
        top,
        config.input_width,
        config.input_height,
    )


def resize_crop_exact(image_HW3: NDArray[np.uint8], plan: ResizeCrop) -> NDArray[np.uint8]:
    """Return the input image (height, width, 3), bit-equal to the published pipeline; channel order is kept."""
    _check_source(image_HW3, plan)
    # One axis after the other: asked for both at once, Pillow 13 begins with the vertical one for some sizes, earlier
    # versions never did, and the order shows where overshoots are clipped.
    narrowed = Image.fromarray(image_HW3).resize((plan.resized_width, plan.source_height), Image.Resampling.BICUBIC)
    resized = narrowed.resize((plan.resized_width, plan.resized_height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((plan.left, plan.top, plan.left + plan.width, plan.top + plan.height)))


def resize_crop_fast(image_HW3: NDArray[np.uint8], plan: ResizeCrop) -> NDArray[np.uint8]:
    """Return the input image (height, width, 3), as `resize_crop_exact` does to within rounding."""
    _check_source(image_HW3, plan)
    rows = _aligned_crop(plan.source_height, plan.resized_height, plan.top, plan.height)
    columns = _aligned_crop(plan.source_width, plan.resized_width, plan.left, plan.width)
    part_HW3 = np.ascontiguousarray(image_HW3[rows.source, columns.source])
    part_13HW = torch.from_numpy(part_HW3).permute(2, 0, 1)[None]
    size = (rows.resized.stop - rows.resized.start, columns.resized.stop - columns.resized.start)
    resized_13HW = F.interpolate(part_13HW, size=size, mode="bicubic", antialias=True, align_corners=False)
    top, left = plan.top - rows.resized.start, plan.left - columns.resized.start
    # Where rounding down made the resized image a pixel too small, the published crop pads with black.
    below, beyond = max(0, top + plan.height - size[0]), max(0, left + plan.width - size[1])
    above = max(0, -top)
    padded_13HW = F.pad(resized_13HW, (0, beyond, above, below)) if above or below or beyond else resized_13HW
    kept_3HW = padded_13HW[0, :, top + above : top + above + plan.height, left : left + plan.width]
    return kept_3HW.permute(1, 2, 0).numpy()


# By the names that users choose them with; what they cost and how they differ stands at the top.
RESIZERS = {"exact": resize_crop_exact, "fast": resize_crop_fast}


def normalise(images_NHW3: Tensor, config: ModelConfig) -> Tensor:
    """Return float32 (N, 3, H, W) from blue, green, red bytes (N, H, W, 3), bit-equal to the published pipeline."""
    images_N3HW = images_NHW3.permute(0, 3, 1, 2)
    if config.channel_order == "rgb":
        images_N3HW = images_N3HW.flip(1)
    # The published constants are float32, the arithmetic with them is double.
    mean = torch.tensor(config.pixel_mean, device=images_NHW3.device).view(3, 1, 1).double()
    std = torch.tensor(config.pixel_std, device=images_NHW3.device).view(3, 1, 1).double()
    return ((images_N3HW.double() - mean) * std.reciprocal()).float()


@dataclass(frozen=True)
class _AlignedCrop:
    source: slice
    resized: slice


def _aligned_crop(source_size: int, resized_size: int, start: int, length: int) -> _AlignedCrop:
    """Return matching parts of one axis before and after resizing that hold `length` kept pixels from `start`.

    Both parts begin and end where a pixel edge of the resized image lies on one of the source, so that resizing the
    part samples the same points as resizing the whole.
    """
    common = math.gcd(source_size, resized_size)
    source_step, resized_step = source_size // common, resized_size // common
    margin = math.ceil(_FILTER_MARGIN * max(1.0, resized_size / source_size))
    first = max(0, (start - margin) // resized_step)
    last = min(common, -(-(start + length + margin) // resized_step))
    return _AlignedCrop(
        slice(first * source_step, last * source_step), slice(first * resized_step, last * resized_step)
    )


def _check_source(image_HW3: NDArray[np.uint8], plan: ResizeCrop) -> None:
    expected = (plan.source_height, plan.source_width, 3)
    if image_HW3.shape != expected or image_HW3.dtype != np.uint8:
        raise StreampetrError(
            f"an image of shape {image_HW3.shape} and type {image_HW3.dtype} came where {expected} uint8 was planned"
        )
