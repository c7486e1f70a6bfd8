"""Rigid transforms and boxes in NumPy, always float64.

`a_T_b` is the 4x4 matrix that maps points of frame b into frame a. Quaternions are (w, x, y, z), as in nuScenes.
Boxes are (x, y, z, length, width, height, yaw): gravity centre, extents along the box's own x, y, z, yaw about z.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# The corners of a unit box, in halves: first the four of the bottom face, counter-clockwise seen from above starting
# front left, then the same four of the top face.
_UNIT_CORNERS = 0.5 * np.array(
    [[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, -1, -1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, -1, 1]],
    dtype=np.float64,
)
BOX_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))


def rotation_from_quaternion(quaternion_wxyz: ArrayLike) -> Array:
    """Return the 3x3 rotation of a quaternion of any length; raises ValueError for a zero or non-finite one."""
    quaternion = np.asarray(quaternion_wxyz, dtype=np.float64)
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(norm) or norm < 1e-12:
        raise ValueError(f"quaternion {quaternion.tolist()} is no rotation")
    w, x, y, z = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_yaw(yaw: float) -> Array:
    """Return (w, x, y, z) of a rotation by `yaw` radians about z."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def make_transform(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """Return the 4x4 transform with a 3x3 rotation and a translation in metres."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = translation
    return transform


def transform_from_quaternion(quaternion_wxyz: ArrayLike, translation: ArrayLike) -> Array:
    """Return the 4x4 transform with the rotation of a quaternion and a translation in metres."""
    return make_transform(rotation_from_quaternion(quaternion_wxyz), translation)


def invert_transform(a_T_b: ArrayLike) -> Array:
    """Return `b_T_a` of a rigid transform."""
    a_T_b = np.asarray(a_T_b, dtype=np.float64)
    rotation = a_T_b[:3, :3].T
    return make_transform(rotation, -rotation @ a_T_b[:3, 3])


def transform_points(a_T_b: ArrayLike, points_b: ArrayLike) -> Array:
    """Map points (..., 3) of frame b into frame a."""
    a_T_b = np.asarray(a_T_b, dtype=np.float64)
    return np.asarray(points_b, dtype=np.float64) @ a_T_b[:3, :3].T + a_T_b[:3, 3]


def yaw_of(rotation: ArrayLike) -> float:
    """Return the heading in radians of the x axis of a rotation (or transform), seen along z."""
    rotation = np.asarray(rotation, dtype=np.float64)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def box_corners(boxes: ArrayLike) -> Array:
    """Return the eight corners (D, 8, 3) of boxes (D, 7); `BOX_EDGES` joins them."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    corners = _UNIT_CORNERS[None] * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1) + boxes[:, None, :3]


def projection(intrinsics: ArrayLike, cam_T_ref: ArrayLike) -> Array:
    """Return `img_P_ref` (4x4): maps (x, y, z, 1) of ref to (u d, v d, d, 1), pixels times depth in metres.

    `intrinsics` is the 3x3 camera matrix K of the image that the pixels belong to.
    """
    pinhole = np.eye(4)
    pinhole[:3, :3] = intrinsics
    return pinhole @ np.asarray(cam_T_ref, dtype=np.float64)
