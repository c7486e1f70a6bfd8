"""Pictures of what the cameras saw, with boxes drawn into them.

The detector does not use this; the node's and the training side's pictures do, and share its colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.geometry import BOX_EDGES, box_corners

Colour = tuple[int, int, int]  # blue, green, red

# One colour a class, by index; distinct hues, the same in RViz and in pictures. Red, green, blue in 0..1.
CLASS_COLOURS = (
    (1.00, 0.62, 0.11),
    (1.00, 0.39, 0.28),
    (0.91, 0.59, 0.48),
    (1.00, 0.27, 0.63),
    (1.00, 0.55, 0.75),
    (0.60, 0.60, 0.60),
    (0.95, 0.20, 0.24),
    (0.86, 0.08, 0.55),
    (0.20, 0.60, 1.00),
    (0.30, 0.80, 0.45),
)

_NEAR_METRES = 0.2  # edges are cut where they come closer to the image plane
_FRONT_DIAGONALS = ((0, 7), (3, 4))  # of the face that looks along the box's x axis
_TEXT_HEIGHT = 22
_BANNER_HEIGHT = 34
_DARK, _LIGHT = (32, 32, 32), (240, 240, 240)


def class_colour(class_name: str) -> Colour:
    """Return the colour of a class; the same everywhere for the classes of nuScenes."""
    known = class_name in NUSCENES_CLASSES
    index = NUSCENES_CLASSES.index(class_name) if known else sum(class_name.encode())
    red, green, blue = CLASS_COLOURS[index % len(CLASS_COLOURS)]
    return round(255 * blue), round(255 * green), round(255 * red)


@dataclass(frozen=True)
class Tile:
    """One camera's image with its name."""

    name: str
    image: NDArray[np.uint8]


def draw_boxes(
    image: NDArray[np.uint8],
    img_P_box: NDArray[np.float64],
    boxes: NDArray[np.float64],
    colours: Sequence[Colour],
    thickness: int = 2,
) -> None:
    """Draw boxes (D, 7) as wire frames into an image, the face in front with a cross.

    `img_P_box` (4x4) projects from the frame of the boxes.
    """
    for corners, colour in zip(box_corners(boxes), colours, strict=True):
        for edge in (*BOX_EDGES, *_FRONT_DIAGONALS):
            segment = _project_segment(img_P_box, corners[list(edge)])
            if segment is not None:
                width = thickness if edge in BOX_EDGES else 1
                _draw_segment(image, segment, colour, width)


def six_camera_picture(tiles: Sequence[Tile], columns: int, tile_width: int, banner: str) -> NDArray[np.uint8]:
    """Return the tiles in rows of `columns`, each with its name, below a banner."""
    labelled = [_labelled(tile, tile_width) for tile in tiles]
    height = max(image.shape[0] for image in labelled)
    rows = []
    for start in range(0, len(labelled), columns):
        row = labelled[start : start + columns]
        blank = np.full((height, tile_width, 3), _DARK, np.uint8)
        padded = [cv2.copyMakeBorder(x, 0, height - x.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=_DARK) for x in row]
        rows.append(np.hstack(padded + [blank] * (columns - len(row))))
    head = np.full((_BANNER_HEIGHT, columns * tile_width, 3), _DARK, np.uint8)
    cv2.putText(head, banner, (10, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _LIGHT, 1, cv2.LINE_AA)
    return np.vstack([head, *rows])


def _labelled(tile: Tile, width: int) -> NDArray[np.uint8]:
    height = round(tile.image.shape[0] * width / tile.image.shape[1])
    image = cv2.resize(tile.image, (width, height), interpolation=cv2.INTER_AREA)
    (text_width, _), _ = cv2.getTextSize(tile.name, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    cv2.rectangle(image, (0, 0), (text_width + 10, _TEXT_HEIGHT), _DARK, cv2.FILLED)
    cv2.putText(image, tile.name, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _LIGHT, 1, cv2.LINE_AA)
    return image


def _project_segment(img_P_box: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the pixels (2, 2) of the part of a segment (2, 3) in front of the camera, or None."""
    homogeneous = np.c_[ends, np.ones(2)] @ img_P_box.T
    depths = homogeneous[:, 2]
    if (depths < _NEAR_METRES).all():
        return None
    behind = int(depths.argmin())
    if depths[behind] < _NEAR_METRES:
        fraction = (_NEAR_METRES - depths[behind]) / (depths[1 - behind] - depths[behind])
        homogeneous[behind] += fraction * (homogeneous[1 - behind] - homogeneous[behind])
    return homogeneous[:, :2] / homogeneous[:, 2:3]


def _draw_segment(image: NDArray[np.uint8], segment: NDArray[np.float64], colour: Colour, thickness: int) -> None:
    # A segment that ends this far outside grazes the image plane; its pixels would overflow OpenCV's integers.
    limit = 1e5
    if np.abs(segment).max() > limit:
        return
    inside, start, end = cv2.clipLine((0, 0, image.shape[1], image.shape[0]), *segment.round().astype(int).tolist())
    if inside:
        cv2.line(image, start, end, colour, thickness, cv2.LINE_AA)
