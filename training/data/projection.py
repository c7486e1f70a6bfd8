"""What the images of a sample show of its annotated objects. G objects."""

from dataclasses import dataclass

import numpy as np
from shapely.geometry import MultiPoint
from shapely.geometry import box as rectangle

from streampetr_core.geometry import Array, invert_transform, transform_points
from training.data.infos import CLASSES_2D, Objects2D

_MIN_SIZE = 1.0  # pixels; a 2D box that is narrower or lower is left out
# Half the extents of the eight corners of a box along its length, width and height.
_CORNERS = 0.5 * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of one sample, in the world (or in any other frame that cameras are given in)."""

    centres_G3: Array
    rotations_G33: Array
    sizes_G3: Array  # length, width, height
    velocities_G3: Array
    names: tuple[str, ...]
    lidar_points_G: Array
    radar_points_G: Array

    def corners(self) -> Array:
        """Return the corners (G, 8, 3) in the world."""
        return (_CORNERS * self.sizes_G3[:, None]) @ self.rotations_G33.transpose(0, 2, 1) + self.centres_G3[:, None]


def objects_in_image(
    annotations: Annotations, world_T_cam: Array, intrinsics: Array, width: int, height: int
) -> Objects2D:
    """Project objects of the ten classes; those without a visible part of at least a pixel are left out."""
    cam_T_world = invert_transform(world_T_cam)
    corners_G83 = transform_points(cam_T_world, annotations.corners())
    centres_G3 = transform_points(cam_T_world, annotations.centres_G3)
    rows = []
    for name, corners_83, centre_3 in zip(annotations.names, corners_G83, centres_G3, strict=True):
        if name not in CLASSES_2D or centre_3[2] <= 0:
            continue
        bounds = _visible_bounds(corners_83, intrinsics, width, height)
        if bounds is not None:
            u, v, depth = intrinsics @ centre_3
            rows.append((*bounds, CLASSES_2D.index(name), u / depth, v / depth, centre_3[2]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    return Objects2D(
        boxes_G4=table[:, :4].astype(np.float32),
        labels_G=table[:, 4].astype(np.int64),
        centres_G2=table[:, 5:7].astype(np.float32),
        depths_G=table[:, 7].astype(np.float32),
    )


def _visible_bounds(corners_83: Array, intrinsics: Array, width: int, height: int) -> tuple[float, ...] | None:
    """Return left, top, right, bottom of what the image shows of a box; None if that is less than a pixel."""
    points = corners_83[corners_83[:, 2] > 0] @ intrinsics.T
    if not len(points):
        return None
    points = points[:, :2] / points[:, 2:]
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    if left < 0 or top < 0 or right > width or bottom > height:
        # Clipping the hull, not its bounds: a slanted box that sticks out of the image is lower where it is seen.
        seen = MultiPoint(points).convex_hull.intersection(rectangle(0, 0, width, height))
        if seen.is_empty:
            return None
        left, top, right, bottom = seen.bounds
    return (left, top, right, bottom) if min(right - left, bottom - top) >= _MIN_SIZE else None
