"""Noticing that a camera has been mounted elsewhere, so that it can be said."""

import numpy as np
from numpy.typing import NDArray
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from streampetr_core.geometry import invert_transform
from streampetr_ros.transforms import matrix_from_transform

_LEAST_METRES, _LEAST_DEGREES = 1e-4, 1e-3


class Mounts:
    """The last known pose of each camera on the vehicle."""

    def __init__(self, buffer: Buffer, base_frame: str) -> None:
        self._buffer = buffer
        self._base_frame = base_frame
        self._known: dict[str, NDArray[np.float64]] = {}

    def change(self, camera_frame: str) -> str | None:
        """Say how far a camera moved on the vehicle since the last call, or return None."""
        try:
            stamped = self._buffer.lookup_transform(self._base_frame, camera_frame, Time())
            base_T_cam = matrix_from_transform(stamped.transform)
        except (TransformException, ValueError):
            return None  # what needs the transform complains
        known = self._known.setdefault(camera_frame, base_T_cam)
        self._known[camera_frame] = base_T_cam
        moved = invert_transform(known) @ base_T_cam
        metres = float(np.linalg.norm(moved[:3, 3]))
        degrees = float(np.degrees(np.arccos(np.clip((np.trace(moved[:3, :3]) - 1) / 2, -1, 1))))
        if metres < _LEAST_METRES and degrees < _LEAST_DEGREES:
            return None
        return f"{camera_frame}: moved on '{self._base_frame}' by {metres:.3f} m and {degrees:.2f} degrees"
