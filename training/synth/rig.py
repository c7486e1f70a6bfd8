"""The sensors of the ego vehicle: six cameras and a LiDAR, mounted a little differently in every scene."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_core.geometry import Array, make_transform

# channel: yaw, pitch, roll (degrees), position in base (m), focal length, cx, cy (pixels at 1600x900), exposure (s).
# Rounded, nominal values of a nuScenes-like car. The cameras are exposed one after the other while the LiDAR turns;
# its stamp is the end of the turn.
_CAMERAS = {
    "CAM_FRONT": ((0.0, 0.3, 0.2), (1.70, 0.02, 1.51), 1266.4, 816.3, 491.5, -0.035),
    "CAM_FRONT_RIGHT": ((-56.0, 0.6, -0.4), (1.55, -0.49, 1.50), 1260.8, 808.0, 495.3, -0.028),
    "CAM_FRONT_LEFT": ((55.0, -0.2, 0.1), (1.52, 0.49, 1.51), 1272.6, 826.6, 479.8, -0.043),
    "CAM_BACK": ((180.0, 0.9, 0.5), (0.03, 0.00, 1.58), 809.2, 829.2, 481.8, -0.010),
    "CAM_BACK_LEFT": ((108.5, 0.4, -0.3), (1.04, 0.48, 1.59), 1256.7, 792.1, 492.8, -0.001),
    "CAM_BACK_RIGHT": ((-110.8, -0.5, 0.6), (1.01, -0.48, 1.56), 1259.5, 807.3, 501.2, -0.020),
}
CHANNELS = tuple(_CAMERAS)
_NOMINAL_WIDTH, _NOMINAL_HEIGHT = 1600, 900
_LIDAR_ANGLES, _LIDAR_POSITION = (-90.2, 0.3, -0.2), (0.94, 0.0, 1.84)
# Optical axes (x right, y down, z forward) in a frame with x forward, y left, z up.
_FORWARD_R_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])

# Spread of the mounts over scenes: degrees, metres, share of the focal length, pixels at 1600x900, seconds.
_TURN, _SHIFT, _ZOOM, _CENTRE, _DELAY = 0.3, 0.015, 0.003, 5.0, 0.001
_MOST = 2.0  # spreads; nothing is farther off


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; `exposure` is its time in seconds relative to the stamp of the LiDAR turn it belongs to.

    Pixel centres have integer coordinates.
    """

    channel: str
    width: int
    height: int
    intrinsics: Array
    base_T_cam: Array
    exposure: float


@dataclass(frozen=True)
class Rig:
    """The sensors of the ego vehicle."""

    base_T_lidar: Array
    cameras: tuple[Camera, ...]


def make_rig(image_size: tuple[int, int], rng: np.random.Generator | None = None) -> Rig:
    """Return six cameras and a LiDAR like those of the nuScenes car, with pictures of `image_size` (width, height).

    Pixels stay square: pictures are scaled to the width and cut off (or go on) at the top, as training images are.
    With `rng` mounts, lenses and exposure times differ a little from the nominal ones.
    """
    width, height = image_size
    scale = width / _NOMINAL_WIDTH
    cameras = []
    for channel, (angles, position, focal, cx, cy, exposure) in _CAMERAS.items():
        focal *= 1 + _ZOOM * _off(rng)
        cx, cy = cx + _CENTRE * _off(rng), cy + _CENTRE * _off(rng)
        top = scale * _NOMINAL_HEIGHT - height
        # Coordinates are those of pixel centres, hence the halves.
        centre = (scale * (cx + 0.5) - 0.5, scale * (cy + 0.5) - 0.5 - top)
        intrinsics = np.array([[scale * focal, 0, centre[0]], [0, scale * focal, centre[1]], [0, 0, 1]])
        base_T_cam = _mount(rng, angles, position)
        base_T_cam[:3, :3] = base_T_cam[:3, :3] @ _FORWARD_R_OPTICAL
        exposure = round(exposure + _DELAY * float(_off(rng)), 6)
        cameras.append(Camera(channel, width, height, intrinsics, base_T_cam, exposure))
    return Rig(_mount(rng, _LIDAR_ANGLES, _LIDAR_POSITION), tuple(cameras))


def _mount(rng: np.random.Generator | None, angles: tuple, position: tuple) -> Array:
    turned = np.array(angles) + _TURN * _off(rng, 3)
    rotation = Rotation.from_euler("ZYX", turned, degrees=True).as_matrix()
    return make_transform(rotation, np.array(position) + _SHIFT * _off(rng, 3))


def _off(rng: np.random.Generator | None, count: int | None = None) -> Array:
    """Return normal draws within `_MOST`; zeros without a generator."""
    draws = np.zeros(count or ()) if rng is None else rng.standard_normal(count)
    return np.clip(draws, -_MOST, _MOST)
