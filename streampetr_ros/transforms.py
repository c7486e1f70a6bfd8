"""What the detector needs of tf: where each camera was when it exposed, and how the vehicle moved.

Lookups never wait: a timeout would sleep inside the executor. Who calls tries again while the images are still young.
"""

import numpy as np
from geometry_msgs.msg import Transform
from numpy.typing import NDArray
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import transform_from_quaternion


def matrix_from_transform(transform: Transform) -> NDArray[np.float64]:
    """Return the 4x4 matrix of a transform message."""
    rotation, translation = transform.rotation, transform.translation
    return transform_from_quaternion(
        (rotation.w, rotation.x, rotation.y, rotation.z), (translation.x, translation.y, translation.z)
    )


class Transforms:
    """Exposure-time geometry from a tf buffer; every method raises StreampetrError with tf's own words."""

    def __init__(self, buffer: Buffer, base_frame: str, reference_frame: str, fixed_frame: str) -> None:
        self._buffer = buffer
        self._base_frame = base_frame
        self._reference_frame = reference_frame
        self._fixed_frame = fixed_frame

    def cam_T_ref(self, camera_frame: str, exposure_ns: int, reference_ns: int) -> NDArray[np.float64]:
        """Map points of the reference frame at the reference time into a camera at its own exposure time."""
        return self._lookup_full(camera_frame, exposure_ns, self._reference_frame, reference_ns)

    def world_T_ref(self, reference_ns: int) -> NDArray[np.float64]:
        """Pose of the reference frame in the fixed frame."""
        return self._lookup_full(self._fixed_frame, reference_ns, self._reference_frame, reference_ns)

    def base_T_ref(self, reference_ns: int) -> NDArray[np.float64]:
        """Pose of the reference frame on the vehicle."""
        return self._lookup_full(self._base_frame, reference_ns, self._reference_frame, reference_ns)

    def clear(self) -> None:
        """Forget all moving transforms: after a jump back in time the old ones would shadow the new."""
        self._buffer.clear()

    def _lookup_full(self, target: str, target_ns: int, source: str, source_ns: int) -> NDArray[np.float64]:
        try:
            stamped = self._buffer.lookup_transform_full(
                target, Time(nanoseconds=target_ns), source, Time(nanoseconds=source_ns), self._fixed_frame
            )
            return matrix_from_transform(stamped.transform)
        except (TransformException, ValueError) as error:
            remedy = f"publish '{source}', '{target}' and '{self._fixed_frame}' in one tf tree up to the images' stamps"
            raise StreampetrError(f"no transform from '{source}' to '{target}': {error}; {remedy}") from error
