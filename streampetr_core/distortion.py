"""Lens distortion: from an image as the camera sees it to the network's input, as a pinhole camera would see it.

Undistortion, resize and crop are one remap with cached tables. It samples the image about as densely as its pixels lie,
on a grid that is a whole number of times finer than the network's input, and the filter that shrinks images without
distortion shrinks that. Undistortion at full size followed by the resize takes twice the time; pixels differ from it by
0.3 grey levels in the mean and 2 in the 99th percentile on fine texture (tests/core/test_distortion.py). An image that
the decoder has reduced loses more: hardly finer than the input, it is sampled bilinearly once more.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from streampetr_core.preprocess import ResizeCrop

_MARGIN = 4  # pixels of the input that the filter may look at beyond it
_SPARSEST = 0.7  # grid points for each pixel of the source, in one direction, before a finer grid is taken

_Tables = tuple[NDArray, NDArray]


class Distortion:
    """The lens of a camera: OpenCV's polynomial model (plumb bob, rational) or its fisheye (equidistant)."""

    def __init__(self, K: NDArray[np.float64], coefficients: NDArray[np.float64], size: tuple[int, int], fisheye: bool):
        """Take 3x3 K and the coefficients in OpenCV's order, for images of `size` (width, height)."""
        self._K = K
        self._coefficients = coefficients
        self._size = size
        self._make_tables = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
        self._whole: _Tables | None = None
        self._tables: dict[tuple[ResizeCrop, int], tuple[_Tables, int]] = {}

    def undistort(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image as a pinhole camera with the same K would see it; black where the lens saw nothing."""
        if self._whole is None:
            self._whole = self._tables_for(self._K, self._size)
        return cv2.remap(image_HW3, *self._whole, cv2.INTER_LINEAR)

    def resize_crop(self, image_HW3: NDArray[np.uint8], plan: ResizeCrop) -> NDArray[np.uint8]:
        """Return the undistorted input image (height, width, 3), nearly as undistortion and then the plan would.

        The image may be a whole number of times smaller than the plan's source, as decoders leave it.
        """
        reduction = plan.source_width // image_HW3.shape[1]
        if (plan, reduction) not in self._tables:
            self._tables[plan, reduction] = self._plan(plan, reduction)
        tables, finer = self._tables[plan, reduction]
        fine_HW3 = cv2.remap(image_HW3, *tables, cv2.INTER_LINEAR)
        if finer == 1:
            return fine_HW3
        fine_13HW = torch.from_numpy(fine_HW3).permute(2, 0, 1)[None]
        size = plan.height + 2 * _MARGIN, plan.width + 2 * _MARGIN
        shrunk_3HW = F.interpolate(fine_13HW, size=size, mode="bicubic", antialias=True, align_corners=False)[0]
        return shrunk_3HW[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].permute(1, 2, 0).numpy()

    def _plan(self, plan: ResizeCrop, reduction: int) -> tuple[_Tables, int]:
        """Return the tables of a grid for this plan, and how many times finer than the input it is."""
        across, down = plan.resized_width / plan.source_width, plan.resized_height / plan.source_height
        finer = max(1, math.ceil(_SPARSEST / (reduction * min(across, down))))
        margin = _MARGIN if finer > 1 else 0
        left, top = finer * (plan.left - margin), finer * (plan.top - margin)
        size = finer * (plan.width + 2 * margin), finer * (plan.height + 2 * margin)
        grid_T_source = _resize_matrix(finer * across, finer * down)
        grid_T_source[:2, 2] -= left, top
        return self._tables_for(grid_T_source @ self._K, size, _resize_matrix(1 / reduction, 1 / reduction)), finer

    def _tables_for(
        self, pinhole_K: NDArray[np.float64], size: tuple[int, int], image_T_source: NDArray[np.float64] | None = None
    ) -> _Tables:
        """Return where in the image each pixel of a pinhole camera's picture lies."""
        lens_K = self._K if image_T_source is None else image_T_source @ self._K
        return self._make_tables(lens_K, self._coefficients, np.eye(3), pinhole_K, size, cv2.CV_16SC2)


def _resize_matrix(across: float, down: float) -> NDArray[np.float64]:
    """Return the 3x3 matrix from pixels of an image to those of the resized one.

    Resizing maps the edges of the outermost pixels onto each other, hence the halves between their centres.
    """
    return np.array([[across, 0, 0.5 * across - 0.5], [0, down, 0.5 * down - 0.5], [0, 0, 1]])
