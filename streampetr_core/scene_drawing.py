"""What the pictures of the node and those of training have in common: a camera's tile, and labels seen from above.

Boxes come best first, as corners (D, 8, 3) in the order of `geometry.box_corners`, with a colour and a label each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_core.birds_eye import BirdsEye
from streampetr_core.drawing import Colour, Tile, box_outlines, class_colour, draw_corners, labelled_tile
from streampetr_core.geometry import Array
from streampetr_core.labels import draw_labels

TRUTH: Colour = (255, 255, 255)
NO_CORNERS = np.empty((0, 8, 3))


@dataclass(frozen=True)
class LabelledBoxes:
    """Boxes to be drawn, best first, in any frame."""

    corners_D83: Array
    colours: Sequence[Colour]
    labels: Sequence[str]

    @classmethod
    def of_classes(cls, corners_D83: Array, names: Sequence[str], labels: Sequence[str]) -> "LabelledBoxes":
        """Return boxes in the colours of their classes."""
        return cls(corners_D83, [class_colour(name) for name in names], labels)


def camera_tile(
    tile: Tile, img_P_ref: Array, found: LabelledBoxes, true_corners_D83: Array = NO_CORNERS
) -> NDArray[np.uint8]:
    """Return a camera's image with truth, boxes, labels and its name; it is drawn on.

    `img_P_ref` (4x4) projects from the frame of the boxes into the image, which has its final size already, so that
    lines and letters stay sharp.
    """
    image = tile.image
    size = image.shape[1], image.shape[0]
    draw_corners(image, img_P_ref, true_corners_D83, [TRUTH] * len(true_corners_D83), 1, cross=False)
    # Over the truth, so that white is left where it was missed; the best box comes last, so that it lies on top.
    draw_corners(image, img_P_ref, found.corners_D83[::-1], found.colours[::-1], 2)
    outlines = box_outlines(img_P_ref, found.corners_D83, size)
    anchors = np.c_[(outlines[:, 0] + outlines[:, 2]) / 2, outlines[:, 1]]
    image = labelled_tile(tile, size[0])
    draw_labels(image, anchors, found.labels, found.colours)
    return image


def label_footprints(
    image: NDArray[np.uint8], window: BirdsEye, found: LabelledBoxes, keep_clear_D83: Array = NO_CORNERS
) -> None:
    """Write labels beside boxes (in base) as seen from above, off these boxes and off those of `keep_clear_D83`."""
    anchors = _rectangles(window, found.corners_D83)
    anchors = np.c_[anchors[:, [0, 2]].mean(axis=1), anchors[:, 1]]
    anchors[((anchors < 0) | (anchors >= [window.width, window.height])).any(axis=1)] = np.nan
    taken = _rectangles(window, np.concatenate([found.corners_D83, keep_clear_D83]))
    draw_labels(image, anchors, found.labels, found.colours, plates=False, keep_clear=taken)


def _rectangles(window: BirdsEye, corners_D83: Array) -> NDArray[np.float64]:
    """Return left, top, right, bottom (D, 4) in pixels of boxes seen from above."""
    pixels = window.pixels(corners_D83[:, :4])
    return np.c_[pixels.min(axis=1), pixels.max(axis=1)].reshape(-1, 4)
