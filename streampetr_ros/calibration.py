"""From CameraInfo messages to a camera model that is known to be usable."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from streampetr_core.distortion import Distortion
from streampetr_core.errors import StreampetrError

_POLYNOMIAL_MODELS = ("plumb_bob", "rational_polynomial", "")
FISHEYE_MODELS = ("equidistant", "fisheye")
_POLYNOMIAL_COUNTS, _FISHEYE_COUNTS = (4, 5, 8, 12, 14), (4,)  # of coefficients, as OpenCV takes them
_LONGEST_SIDE = 32_766  # pixels; OpenCV's remap goes no further
_MOST_PIXELS = 1e6  # of focal length and principal point: beyond it there is no pinhole camera


@dataclass(frozen=True)
class CameraModel:
    """Pinhole with lens distortion, in pixels of the published image."""

    width: int
    height: int
    K: NDArray[np.float64]  # 3x3
    distortion: Distortion | None  # None where there is none

    def undistort(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image as a pinhole camera with the same K would see it."""
        return image if self.distortion is None else self.distortion.undistort(image)


def camera_model(info: CameraInfo, topic: str) -> CameraModel:
    """Check a CameraInfo and return its model; raises StreampetrError naming topic, field and remedy."""
    K = np.array(info.k, dtype=np.float64).reshape(3, 3)
    remedy = "calibrate the camera (camera_calibration) and let its driver publish the result"
    if not (1 <= info.width <= _LONGEST_SIDE and 1 <= info.height <= _LONGEST_SIDE):
        raise StreampetrError(f"{topic}: image size is {info.width}x{info.height}; {remedy}")
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise StreampetrError(f"{topic}: intrinsics K are zero or not finite ({K.flatten().tolist()}); {remedy}")
    if not np.array_equal(K[2], (0, 0, 1)) or np.abs(K).max() > _MOST_PIXELS or min(K[0, 0], K[1, 1]) < 1:
        raise StreampetrError(f"{topic}: intrinsics K are no pinhole camera's ({K.flatten().tolist()}); {remedy}")
    if not np.isfinite(info.d).all():
        raise StreampetrError(f"{topic}: distortion D is not finite ({list(info.d)}); {remedy}")
    if any(info.d) and info.distortion_model not in _POLYNOMIAL_MODELS + FISHEYE_MODELS:
        raise StreampetrError(
            f"{topic}: distortion model '{info.distortion_model}' is unknown; publish rectified images"
        )
    counts = _FISHEYE_COUNTS if info.distortion_model in FISHEYE_MODELS else _POLYNOMIAL_COUNTS
    if any(info.d) and len(info.d) not in counts:
        found = f"{len(info.d)} coefficients, not {' or '.join(map(str, counts))} as '{info.distortion_model}' takes"
        raise StreampetrError(f"{topic}: distortion D has {found}; {remedy}")
    return CameraModel(info.width, info.height, K, _distortion(info, K))


def _distortion(info: CameraInfo, K: NDArray[np.float64]) -> Distortion | None:
    if not any(info.d):
        return None
    return Distortion(K, np.array(info.d), (info.width, info.height), info.distortion_model in FISHEYE_MODELS)
