"""What arrives between two sets: images, calibrations, and whatever is wrong with them. Knows messages, but no node."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from streampetr_core.errors import StreampetrError
from streampetr_ros.calibration import CameraModel, camera_model
from streampetr_ros.images import compressed_size, decode_compressed, decode_raw
from streampetr_ros.perception import Lens

_SECOND_NS = 1_000_000_000


def stamp_ns(message: Image | CompressedImage | Header, topic: str) -> int:
    """Return the stamp of a message with a header, or of a header, in ns; raises StreampetrError for 0 and less.

    No sensor measured then, and to tf 0 means: the latest.
    """
    stamp = getattr(message, "header", message).stamp
    ns = stamp.sec * _SECOND_NS + stamp.nanosec
    if ns <= 0:
        raise StreampetrError(f"{topic}: the stamp is {ns / 1e9:.3f} s; let the driver write the time of exposure")
    return ns


class ThrottledLog:
    """Passes each distinct text (or key) on at most once in `period` seconds; may be called from any thread."""

    def __init__(self, log: Callable[[str], None], period: float = 5.0) -> None:
        self._log = log
        self._period = period
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, text: str, key: str = "") -> None:
        """Log `text` unless it, or another of the same key, was logged just now."""
        now = time.monotonic()
        with self._lock:
            self._last = {known: at for known, at in self._last.items() if now - at < self._period}
            if (key or text) in self._last:
                return
            self._last[key or text] = now
        self._log(text)


class Calibrations:
    """The latest camera model of each camera; a new one replaces the old with the next image."""

    def __init__(self, info_topics: dict[str, str]) -> None:
        self._topics = info_topics
        self._infos: dict[str, CameraInfo] = {}
        self._models: dict[str, CameraModel | StreampetrError] = {}

    def update(self, camera: str, info: CameraInfo) -> bool:
        """Take a CameraInfo; return True if it changes what was known."""
        known = self._infos.get(camera)
        if known is not None and same_calibration(known, info):
            return False
        self._infos[camera] = info
        try:
            self._models[camera] = camera_model(info, self._topics[camera])
        except StreampetrError as error:
            self._models[camera] = error
        return known is not None

    def model(self, camera: str) -> CameraModel:
        """Return the model of a camera; raises StreampetrError if there is none or if it is unusable."""
        model = self._models.get(camera)
        if model is None:
            raise StreampetrError(
                f"{self._topics[camera]}: no CameraInfo yet; start the camera's driver or fix the topic"
            )
        if isinstance(model, StreampetrError):
            raise model
        return model

    def lens(self, camera: str) -> Lens | None:
        """Return what is known of a camera whose image is missing or unusable."""
        model = self._models.get(camera)
        return Lens(model.width, model.height, model.K) if isinstance(model, CameraModel) else None

    def missing(self) -> dict[str, str]:
        """Cameras of which no CameraInfo came, with its topic."""
        return {camera: topic for camera, topic in self._topics.items() if camera not in self._models}


def camera_image(message: Image | CompressedImage, topic: str, model: CameraModel) -> NDArray[np.uint8]:
    """Decode an image; raises StreampetrError if it is broken or not of the calibrated size."""
    if isinstance(message, Image):
        image = decode_raw(message, topic)
    else:
        check_announced_size(message, topic, model)
        image = decode_compressed(message, topic)
    check_size((image.shape[1], image.shape[0]), model, topic)
    return image


def check_announced_size(message: CompressedImage, topic: str, model: CameraModel) -> None:
    """Raise StreampetrError for data that cannot become an image of the calibrated size; nothing is decoded."""
    announced = compressed_size(message, topic)
    # Decoding may turn an image over, as its EXIF data says.
    if sorted(announced) != sorted((model.width, model.height)):
        check_size(announced, model, topic)


def check_size(size: tuple[int, int], model: CameraModel, topic: str) -> None:
    """Raise StreampetrError for an image whose width and height are not the calibrated ones."""
    width, height = size
    if (width, height) != (model.width, model.height):
        raise StreampetrError(
            f"{topic}: image is {width}x{height}, but its CameraInfo says {model.width}x{model.height}; "
            "publish the calibration of this resolution"
        )


def same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    """Say whether two messages describe the same size, K and distortion."""
    fields = ("width", "height", "distortion_model")
    arrays = ("k", "d")
    return all(getattr(a, name) == getattr(b, name) for name in fields) and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in arrays
    )
