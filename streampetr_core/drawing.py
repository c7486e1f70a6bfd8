"""Pictures of what the cameras saw, with boxes drawn into them.

The detector does not use this; the node's and the training side's pictures do, and share its colours.
D boxes, S segments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.geometry import BOX_EDGES, box_corners

Colour = tuple[int, int, int]  # blue, green, red
_Pixel = tuple[int, int]

# One colour a class, by index; the same in RViz and in pictures. Chosen so that any two can be told apart on a road.
# Red, green, blue in 0..1; white is left to the truth.
CLASS_COLOURS = (
    (1.00, 0.60, 0.10),
    (0.93, 0.22, 0.17),
    (0.97, 0.90, 0.25),
    (1.00, 0.42, 0.70),
    (0.66, 0.45, 1.00),
    (0.74, 0.56, 0.40),
    (0.05, 0.87, 0.87),
    (0.71, 0.95, 0.24),
    (0.27, 0.63, 1.00),
    (0.16, 0.76, 0.42),
)

_NEAR_METRES = 0.2  # edges are cut where they come closer to the image plane
_FARTHEST_PIXEL = 1e5
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
    draw_corners(image, img_P_box, box_corners(boxes), colours, thickness)


def draw_corners(
    image: NDArray[np.uint8],
    img_P_ref: NDArray[np.float64],
    corners_D83: NDArray[np.float64],
    colours: Sequence[Colour],
    thickness: int = 2,
    cross: bool = True,
) -> None:
    """Draw boxes of any rotation, given by their corners in ref in the order of `box_corners`, as `draw_boxes` does.

    `cross` says whether the face in front gets one.
    """
    edges = (*BOX_EDGES, *(_FRONT_DIAGONALS if cross else ()))
    for box, edge, start, end in _visible_edges(img_P_ref, corners_D83, edges, _size_of(image)):
        cv2.line(image, start, end, colours[box], thickness if edge < len(BOX_EDGES) else 1, cv2.LINE_AA)


def draw_lines(
    image: NDArray[np.uint8],
    img_P_ref: NDArray[np.float64],
    lines_S23: NDArray[np.float64],
    colour: Colour,
    thickness: int = 1,
) -> None:
    """Draw straight lines from point to point of ref, as far as they lie in front of the camera."""
    for _, start, end in _visible_segments(img_P_ref, lines_S23, _size_of(image)):
        cv2.line(image, start, end, colour, thickness, cv2.LINE_AA)


def box_outlines(
    img_P_ref: NDArray[np.float64], corners_D83: NDArray[np.float64], image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return left, top, right, bottom (D, 4) of what an image of (width, height) shows of boxes; NaN for nothing."""
    outlines = np.full((len(corners_D83), 4), np.nan)
    for box, _, start, end in _visible_edges(img_P_ref, corners_D83, BOX_EDGES, image_size):
        outlines[box, :2] = np.fmin(outlines[box, :2], np.minimum(start, end))
        outlines[box, 2:] = np.fmax(outlines[box, 2:], np.maximum(start, end))
    return outlines


def six_camera_picture(tiles: Sequence[Tile], columns: int, tile_width: int, banner: str) -> NDArray[np.uint8]:
    """Return the tiles in rows of `columns`, each with its name, below a banner."""
    labelled = [labelled_tile(tile, tile_width) for tile in tiles]
    height = max(image.shape[0] for image in labelled)
    rows = []
    for start in range(0, len(labelled), columns):
        row = labelled[start : start + columns]
        blank = np.full((height, tile_width, 3), _DARK, np.uint8)
        padded = [pad_below(image, height) for image in row]
        rows.append(np.hstack(padded + [blank] * (columns - len(row))))
    return np.vstack([banner_strip(banner, columns * tile_width), *rows])


def pad_below(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Return the image `height` pixels high, dark below."""
    return cv2.copyMakeBorder(image, 0, height - len(image), 0, 0, cv2.BORDER_CONSTANT, value=_DARK)


def banner_strip(text: str, width: int) -> NDArray[np.uint8]:
    """Return a dark strip, `width` pixels wide, with one line of text."""
    strip = np.full((_BANNER_HEIGHT, width, 3), _DARK, np.uint8)
    cv2.putText(strip, text, (10, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _LIGHT, 1, cv2.LINE_AA)
    return strip


def labelled_tile(tile: Tile, width: int) -> NDArray[np.uint8]:
    """Return the image `width` pixels wide, with its name in the corner."""
    height = round(tile.image.shape[0] * width / tile.image.shape[1])
    image = cv2.resize(tile.image, (width, height), interpolation=cv2.INTER_AREA)
    (text_width, _), _ = cv2.getTextSize(tile.name, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    cv2.rectangle(image, (0, 0), (text_width + 10, _TEXT_HEIGHT), _DARK, cv2.FILLED)
    cv2.putText(image, tile.name, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _LIGHT, 1, cv2.LINE_AA)
    return image


def _size_of(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _visible_edges(
    img_P_ref: NDArray[np.float64],
    corners_D83: NDArray[np.float64],
    edges: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> Iterator[tuple[int, int, _Pixel, _Pixel]]:
    """Yield box, edge and both ends of whatever is seen of the edges of boxes, box after box."""
    ends_S23 = corners_D83[:, np.array(edges)].reshape(-1, 2, 3)
    for index, start, end in _visible_segments(img_P_ref, ends_S23, image_size):
        yield *divmod(index, len(edges)), start, end


def _visible_segments(
    img_P_ref: NDArray[np.float64], ends_S23: NDArray[np.float64], image_size: tuple[int, int]
) -> Iterator[tuple[int, _Pixel, _Pixel]]:
    """Yield the index and both ends of whatever an image of (width, height) shows of segments."""
    pixels_S22 = _project_segments(img_P_ref, ends_S23)
    # Most segments lie beyond one side of the image, which is quicker seen for all at once; NaN compares as False.
    is_near_S2 = (pixels_S22.max(axis=1) > -1) & (pixels_S22.min(axis=1) < np.array(image_size) + 1)
    for index in np.flatnonzero(is_near_S2.all(axis=1)).tolist():
        is_seen, start, end = cv2.clipLine((0, 0, *image_size), *pixels_S22[index].round().astype(int).tolist())
        if is_seen:
            yield index, start, end


def _project_segments(img_P_ref: NDArray[np.float64], ends_S23: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pixels (S, 2, 2) of the parts of segments that lie in front of the camera; NaN where there is none."""
    points_S23 = ends_S23 @ img_P_ref[:3, :3].T + img_P_ref[:3, 3]
    others_S23 = points_S23[:, ::-1]
    depths_S2, other_depths_S2 = points_S23[..., 2], others_S23[..., 2]
    is_behind_S2 = depths_S2 < _NEAR_METRES
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction_S2 = np.where(is_behind_S2, (_NEAR_METRES - depths_S2) / (other_depths_S2 - depths_S2), 0.0)
        points_S23 = points_S23 + fraction_S2[..., None] * (others_S23 - points_S23)
        pixels_S22 = points_S23[..., :2] / points_S23[..., 2:]
        # One that ends this far outside grazes the image plane; its pixels would overflow OpenCV's integers.
        is_usable_S = ~is_behind_S2.all(axis=1) & (np.abs(pixels_S22) <= _FARTHEST_PIXEL).all(axis=(1, 2))
    return np.where(is_usable_S[:, None, None], pixels_S22, np.nan)
