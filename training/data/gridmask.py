"""Grid mask: blacks out square holes of a random grid in all images of a batch (arXiv 2001.04086).

The draws and their order are those of the published training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PROBABILITY = 0.7
_RATIO = 0.5  # of a period, the width of a stripe
_CANVAS = 1.5  # the grid is drawn on a larger canvas, of which the middle is taken


@dataclass(frozen=True)
class GridMask:
    """A grid of stripes in pixels; what lies in a stripe, vertical or horizontal, is kept, the rest is blacked out."""

    period: int
    first_row: int
    first_column: int


def draw_grid_mask(rng: np.random.RandomState, height: int, probability: float = PROBABILITY) -> GridMask | None:
    """Draw the mask for one batch of images of this height; None: leave the images as they are."""
    if rng.rand() > probability:
        return None
    period = rng.randint(2, height)
    first_row, first_column = rng.randint(period), rng.randint(period)
    rng.randint(1)  # the angle of a rotation that is switched off; the draw belongs to the stream
    return GridMask(period, first_row, first_column)


def grid_mask_array(mask: GridMask, height: int, width: int) -> NDArray[np.bool_]:
    """Return which pixels (height, width) are kept."""
    canvas_height, canvas_width = int(_CANVAS * height), int(_CANVAS * width)
    rows = _stripes(canvas_height, mask.period, mask.first_row)
    columns = _stripes(canvas_width, mask.period, mask.first_column)
    top, left = (canvas_height - height) // 2, (canvas_width - width) // 2
    return rows[top : top + height, None] | columns[None, left : left + width]


def apply_grid_mask(images_BN3HW: Tensor, mask: GridMask | None) -> Tensor:
    """Return normalised images with the pixels outside of the stripes set to 0, which is the mean colour."""
    if mask is None:
        return images_BN3HW
    kept_HW = torch.from_numpy(grid_mask_array(mask, *images_BN3HW.shape[-2:])).to(images_BN3HW.device)
    return images_BN3HW * kept_HW


def _stripes(size: int, period: int, first: int) -> NDArray[np.bool_]:
    """Return which of `size` pixels lie in a stripe; a stripe that the canvas cuts off at its start is not drawn."""
    width = min(max(int(period * _RATIO + 0.5), 1), period - 1)
    position = np.arange(size) - first
    return (position >= 0) & (position % period < width) & (position // period < size // period)
