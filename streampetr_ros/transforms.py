"""What the detector needs of tf: where each camera was when it exposed, and how the vehicle moved.

Lookups never wait: a timeout would sleep inside the executor. Who calls tries again while the images are still young.
"""

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
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


_FARTHEST = 1e9  # metres
_LENGTH_TOLERANCE = 1e-2  # of a quaternion's squared length; tf2's own


def transform_fault(message: TransformStamped) -> str | None:
    """Say why a transform is of no use to anyone, or return None."""
    parent, child = message.header.frame_id, message.child_frame_id
    if not parent or not child:
        return f"a transform from '{child}' to '{parent}' has a frame without a name"
    rotation, translation = message.transform.rotation, message.transform.translation
    xyz = translation.x, translation.y, translation.z
    length = sum(value * value for value in (rotation.w, rotation.x, rotation.y, rotation.z))
    if not all(abs(value) < _FARTHEST for value in xyz):
        return f"the transform from '{child}' to '{parent}' has a translation of {xyz} m"
    if not abs(length - 1) <= _LENGTH_TOLERANCE:
        return f"the quaternion of the transform from '{child}' to '{parent}' has the squared length {length:g}"
    if message.header.stamp.sec < 0:
        return f"the transform from '{child}' to '{parent}' has a stamp before 1970"
    return None


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
            return _checked(matrix_from_transform(stamped.transform), source, target)
        except (TransformException, ValueError) as error:
            remedy = f"publish '{source}', '{target}' and '{self._fixed_frame}' in one tf tree up to the images' stamps"
            raise StreampetrError(f"no transform from '{source}' to '{target}': {error}; {remedy}") from error


def _checked(matrix: NDArray[np.float64], source: str, target: str) -> NDArray[np.float64]:
    """Return the matrix; one number that is none would stay in the detector's memory."""
    if not np.isfinite(matrix).all():
        raise StreampetrError(f"no transform from '{source}' to '{target}': it is not finite; check who publishes it")
    return matrix
