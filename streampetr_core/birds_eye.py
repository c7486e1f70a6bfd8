"""Pictures of the boxes around the vehicle as seen from above.

`base` is the vehicle's frame: x forward, y left, metres. In the picture forward is up and the vehicle in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streampetr_core.drawing import Colour

_BACKGROUND: Colour = (32, 32, 32)
_RING: Colour = (78, 78, 78)
_RING_TEXT: Colour = (150, 150, 150)
_VEHICLE: Colour = (225, 225, 225)
_RING_STEP = 10  # metres
_SHIFT = 4  # fractional bits of OpenCV's coordinates: lines move smoothly from picture to picture
_OUT_OF_REACH = 1e5  # pixels; further out OpenCV's integers overflow


@dataclass(frozen=True)
class BirdsEye:
    """The window: `width` x `height` pixels that show at least `reach` metres to every side of base."""

    width: int
    height: int
    reach: float

    @property
    def scale(self) -> float:
        """Pixels a metre."""
        return min(self.width, self.height) / (2 * self.reach)

    def pixels(self, points_base: ArrayLike) -> NDArray[np.float64]:
        """Return columns and rows (..., 2) of points (..., 2 or 3) in base."""
        points_base = np.asarray(points_base, dtype=np.float64)
        column = self.width / 2 - self.scale * points_base[..., 1]
        row = self.height / 2 - self.scale * points_base[..., 0]
        return np.stack([column, row], axis=-1)


def birds_eye_ground(view: BirdsEye, footprint: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Return an empty scene: range rings every ten metres and the outline of the vehicle.

    `footprint` gives, in metres, how far the vehicle reaches ahead of base, behind base, and to each side.
    """
    image = np.full((view.height, view.width, 3), _BACKGROUND, np.uint8)
    corner = np.hypot(view.width, view.height) / 2 / view.scale
    centre = _fixed(view.pixels([0.0, 0.0]))
    for radius in range(_RING_STEP, int(corner) + 1, _RING_STEP):
        cv2.circle(image, centre, _fixed(radius * view.scale), _RING, 1, cv2.LINE_AA, _SHIFT)
        # To the right and behind, where the road and its traffic seldom are.
        column, row = view.pixels(radius * np.array([-1, -1]) / np.sqrt(2)).round().astype(int).tolist()
        cv2.putText(image, f"{radius} m", (column + 3, row), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _RING_TEXT, 1, cv2.LINE_AA)
    front, rear, side = footprint
    outline = [[front, side], [-rear, side], [-rear, -side], [front, -side]]
    nose = [[front - 2 * side, side], [front, 0.0], [front - 2 * side, -side]]
    cv2.polylines(image, [_polygon(view, outline)], True, _VEHICLE, 1, cv2.LINE_AA, _SHIFT)
    cv2.polylines(image, [_polygon(view, nose)], False, _VEHICLE, 1, cv2.LINE_AA, _SHIFT)
    return image


def draw_footprints(
    image: NDArray[np.uint8],
    view: BirdsEye,
    corners_D83: ArrayLike,
    colours: Sequence[Colour],
    fill: float = 0.0,
    thickness: int = 1,
) -> None:
    """Draw boxes, given by their corners in base, from above, with a line from the centre to the front.

    `fill` is the opacity of their faces, 0 for outlines alone.
    """
    faces = np.asarray(corners_D83, dtype=np.float64).reshape(-1, 8, 3)[:, :4, :2]
    shown = [index for index, face in enumerate(faces) if np.abs(view.pixels(face)).max() < _OUT_OF_REACH]
    if fill:
        filled = image.copy()
        for index in shown:
            cv2.fillConvexPoly(filled, _polygon(view, faces[index]), colours[index], cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(filled, fill, image, 1 - fill, 0, dst=image)
    for index in shown:
        face = faces[index]
        heading = [face.mean(axis=0), face[[0, 3]].mean(axis=0)]
        cv2.polylines(image, [_polygon(view, face)], True, colours[index], thickness, cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, [_polygon(view, heading)], False, colours[index], 1, cv2.LINE_AA, _SHIFT)


def draw_velocities(
    image: NDArray[np.uint8],
    view: BirdsEye,
    centres_base: ArrayLike,
    velocities_base: ArrayLike,
    colours: Sequence[Colour],
    slowest: float = 0.5,
) -> None:
    """Draw an arrow from each centre (D, 2 or 3) to where it is a second later.

    Velocities (D, 2 or 3) are in m/s; those that are NaN or below `slowest` get none.
    """
    centres = np.asarray(centres_base, dtype=np.float64)[:, :2]
    velocities = np.asarray(velocities_base, dtype=np.float64)[:, :2]
    for centre, velocity, colour in zip(centres, velocities, colours, strict=True):
        speed = np.hypot(*velocity)
        if speed >= slowest:  # false for NaN
            start, end = view.pixels([centre, centre + velocity])
            if np.abs([start, end]).max() < _OUT_OF_REACH:
                tip = min(0.3, 6 / (speed * view.scale))
                cv2.arrowedLine(image, _fixed(start), _fixed(end), colour, 1, cv2.LINE_AA, _SHIFT, tip)


def draw_trail(image: NDArray[np.uint8], view: BirdsEye, points_base: ArrayLike, colour: Colour) -> None:
    """Draw where something was (T, 2 or 3; oldest first) as a line with a dot at every point but the last."""
    pixels = view.pixels(points_base)
    pixels = pixels[np.abs(pixels).max(axis=-1) < _OUT_OF_REACH]
    if len(pixels):
        line = np.array([_fixed(pixel) for pixel in pixels], np.int32)
        cv2.polylines(image, [line], False, colour, 1, cv2.LINE_AA, _SHIFT)
        for pixel in pixels[:-1]:
            cv2.circle(image, _fixed(pixel), _fixed(1.6), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _polygon(view: BirdsEye, points_base: ArrayLike) -> NDArray[np.int32]:
    return np.array([_fixed(pixel) for pixel in view.pixels(points_base)], np.int32)


def _fixed(value: ArrayLike) -> int | tuple[int, ...]:
    """Return pixels as OpenCV's fixed-point integers."""
    fixed = np.round(np.asarray(value) * (1 << _SHIFT)).astype(int)
    return tuple(fixed.tolist()) if fixed.ndim else int(fixed)
