"""Do pictures move as odometry and mounting say? Knows nothing of ROS.

Points that stand still move along their epipolar line, away from where a point at infinity would be seen: how far
depends on how near they are, the direction does not. So a point that is tracked from one picture to the next is
compared with the whole stretch on which any distance from 1 m to infinity would put it. Most of a street stands still,
so the median over many points tells whether the motion is right, its direction included. It cannot tell whether the
motion is too long or too short: every distance is allowed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, invert_transform

_MOST_POINTS = 400
_TRACK_ERROR = 0.7  # pixels by which a point that is tracked there and back may be off
_NEAREST, _NEAREST_AFTER = 1.0, 0.3  # metres before the camera, in the first picture and in the second


@dataclass(frozen=True)
class Tracked:
    """Points seen in two pictures, as rays (P, 2) at depth 1, and where the vehicle was for each of them."""

    rays_a: Array
    rays_b: Array
    focal: float  # pixels of the compared pictures
    world_T_base_a: Array
    world_T_base_b: Array

    def camera_motion(self, base_T_cam: Array) -> Array:
        """Return `b_T_a`, from the camera at the first picture to the camera at the second."""
        return invert_transform(self.world_T_base_b @ base_T_cam) @ self.world_T_base_a @ base_T_cam

    @property
    def metres(self) -> float:
        """How far the vehicle went, as the odometry says."""
        return float(np.linalg.norm(self.world_T_base_b[:3, 3] - self.world_T_base_a[:3, 3]))

    @property
    def flow(self) -> Array:
        """How far each point moved, in pixels."""
        return self.focal * np.linalg.norm(self.rays_b - self.rays_a, axis=1)


def track_points(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Return the pixels (P, 2) of points in two grey pictures, found by tracking them there and back."""
    corners = cv2.goodFeaturesToTrack(a, _MOST_POINTS, qualityLevel=0.01, minDistance=6)
    if corners is None:
        return np.empty((0, 2)), np.empty((0, 2))
    there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, corners, None, winSize=(15, 15), maxLevel=4)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(b, a, there, None, winSize=(15, 15), maxLevel=4)
    sure = (np.linalg.norm((corners - back)[:, 0], axis=1) < _TRACK_ERROR) & (found & found_back)[:, 0].astype(bool)
    return corners[sure, 0].astype(np.float64), there[sure, 0].astype(np.float64)


def misfit(tracked: Tracked, b_T_a: Array) -> Array:
    """Return by how many pixels each point misses the stretch on which a motion of the camera would put it."""
    rays = np.c_[tracked.rays_a, np.ones(len(tracked.rays_a))] @ b_T_a[:3, :3].T
    shift = b_T_a[:3, 3]
    # The point at 1 m or, where the camera drives past that, as near as it stays in front of it.
    nearness = np.full(len(rays), 1 / _NEAREST)
    if shift[2] < 0:
        nearness = np.minimum(nearness, np.maximum(0.0, rays[:, 2] - _NEAREST_AFTER) / -shift[2])
    far = _seen(rays)
    along = _seen(rays + nearness[:, None] * shift) - far
    length = np.maximum((along**2).sum(axis=1), 1e-18)
    part = np.clip(((tracked.rays_b - far) * along).sum(axis=1) / length, 0, 1)
    return tracked.focal * np.linalg.norm(far + part[:, None] * along - tracked.rays_b, axis=1)


def reversed_motion(b_T_a: Array) -> Array:
    """Return the same turn with the way gone backwards."""
    back = b_T_a.copy()
    back[:3, 3] *= -1
    return back


def typical(values: Iterable[Array]) -> float:
    """Return the median of all values; NaN where there are none."""
    joined = np.concatenate([np.empty(0), *values])
    return float(np.median(joined)) if len(joined) else float("nan")


def _seen(points: Array) -> Array:
    return points[:, :2] / np.maximum(points[:, 2:], 1e-3)
