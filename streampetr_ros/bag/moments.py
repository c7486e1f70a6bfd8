"""What a bag's cameras saw and where they were, moment by moment, for pictures of what was published."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage
from tf2_ros import Buffer

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, projection
from streampetr_ros.bag.play import message_class
from streampetr_ros.bag.published import boxes_of, stamp_of
from streampetr_ros.bag.reading import open_bag, read_messages
from streampetr_ros.calibration import CameraModel
from streampetr_ros.intake import Calibrations, camera_image
from streampetr_ros.transforms import Transforms

_WHOLE_BAG = Duration(seconds=10**6)
_KEPT_IMAGES = 12  # of each camera
_MAX_AGE_NS = 100_000_000  # between an image and the moment that it is drawn for


@dataclass(frozen=True)
class Shot:
    """One camera's image, and where it looked from at its own exposure time."""

    topic: str
    message: CompressedImage
    model: CameraModel
    cam_T_base: Array  # from base at the moment into the camera at its exposure

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """Pixels as a pinhole camera sees them: blue, green, red. Raises StreampetrError for a broken image."""
        return self.model.undistort(camera_image(self.message, self.topic, self.model))

    @property
    def img_P_base(self) -> Array:
        """The projection (4x4) from base at the moment into the image."""
        return projection(self.model.K, self.cam_T_base)

    def encoded(self) -> bytes:
        """Return a JPEG or PNG of `image`: the bytes of the bag where no lens bends them."""
        image = self.image
        if self.model.distortion is None:
            return bytes(self.message.data)
        return cv2.imencode(".jpg", image)[1].tobytes()


@dataclass(frozen=True)
class Moment:
    """What there is to see at a stamp; a camera without an image is missing."""

    stamp_ns: int
    shots: dict[str, Shot]
    odom_T_base: Array
    truth: NDArray[np.float64] | None  # boxes (D, 7) in base, where the bag tells them for this very stamp


class BagScenery:
    """Cameras, calibration, transforms and truth of a bag, of six cameras or any others."""

    def __init__(self, bag: Path, cameras: Sequence[str], base_frame: str = "base_link", odom: str = "odom") -> None:
        """Read everything but the images."""
        self._bag = bag
        self._cameras = cameras
        self._frames = base_frame, odom
        self._image_topics = {f"/{camera}/image_raw/compressed": camera for camera in cameras}
        info_topics = {camera: f"/{camera}/camera_info" for camera in cameras}
        self._calibrations = Calibrations(info_topics)
        self._truth: dict[int, NDArray] = {}
        self._buffer = Buffer(_WHOLE_BAG)
        cameras_of = {topic: camera for camera, topic in info_topics.items()}
        for topic, message in self._messages({"/tf", "/tf_static", "/ground_truth", *cameras_of}):
            if topic in cameras_of:
                self._calibrations.update(cameras_of[topic], message)
            elif topic == "/ground_truth":
                self._truth[stamp_of(message)] = boxes_of(message)
            else:
                for transform in message.transforms:
                    set_transform = self._buffer.set_transform
                    if topic == "/tf_static":
                        set_transform = self._buffer.set_transform_static
                    set_transform(transform, "bag")

    def last_true(self, stamps: Sequence[int]) -> int:
        """Return the last of the stamps for which the bag tells the truth, or else the last of all."""
        return max([stamp for stamp in stamps if stamp in self._truth] or stamps)

    def moments(self, stamps: Sequence[int]) -> Iterator[Moment]:
        """Yield what there is to see at each of these stamps, in their order."""
        waiting = deque(sorted(stamps))
        images: dict[str, deque] = {camera: deque(maxlen=_KEPT_IMAGES) for camera in self._cameras}
        for topic, message in self._messages(set(self._image_topics)):
            while waiting and stamp_of(message) > waiting[0] + _MAX_AGE_NS:
                yield self._moment(waiting.popleft(), images)
            images[self._image_topics[topic]].append(message)
        for stamp_ns in waiting:
            yield self._moment(stamp_ns, images)

    def _moment(self, stamp_ns: int, images: dict[str, deque]) -> Moment:
        base, odom = self._frames
        transforms = Transforms(self._buffer, "", base, odom)
        shots = {}
        for camera, kept in images.items():
            message = min(kept, key=lambda image: abs(stamp_of(image) - stamp_ns), default=None)
            if message is not None and abs(stamp_of(message) - stamp_ns) <= _MAX_AGE_NS:
                shots[camera] = self._shot(camera, message, stamp_ns, transforms)
        return Moment(stamp_ns, shots, transforms.world_T_ref(stamp_ns), self._truth.get(stamp_ns))

    def _shot(self, camera: str, message: CompressedImage, stamp_ns: int, transforms: Transforms) -> Shot:
        cam_T_base = transforms.cam_T_ref(message.header.frame_id, stamp_of(message), stamp_ns)
        return Shot(f"/{camera}/image_raw/compressed", message, self._calibrations.model(camera), cam_T_base)

    def _messages(self, topics: set[str]) -> Iterator[tuple[str, Any]]:
        with open_bag(self._bag) as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            if not wanted:
                raise StreampetrError(f"{self._bag}: has none of the topics {', '.join(sorted(topics))}")
            kinds = {connection.topic: message_class(connection.msgtype) for connection in wanted}
            for connection, _, data in read_messages(reader, self._bag, wanted):
                yield connection.topic, deserialize_message(bytes(data), kinds[connection.topic])
