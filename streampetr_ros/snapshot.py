"""A listener that keeps what the cameras and the detector last said, and draws both into one picture."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from geometry_msgs.msg import Pose
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import Buffer, TransformListener
from vision_msgs.msg import Detection3DArray

from streampetr_core.drawing import Colour, Tile, class_colour, draw_boxes, six_camera_picture
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import projection, rotation_from_quaternion, yaw_of
from streampetr_ros.intake import Calibrations, camera_image
from streampetr_ros.transforms import Transforms

_KEPT_IMAGES = 50  # of each camera; detections come later than their images
_KEPT_TRUTHS = 50
_EVERY_DETECTION = 1000  # queue depth
_MAX_AGE_NS = 200_000_000  # between an image and the detections that are drawn into it
_TRUTH_COLOUR: Colour = (255, 255, 255)


@dataclass(frozen=True)
class SnapshotOptions:
    """What to listen to and how to lay the picture out."""

    cameras: Sequence[str]  # in the picture's order, row by row
    columns: int
    tile_width: int  # pixels
    transport: str  # compressed or raw
    detections_topic: str
    fixed_frame: str
    max_boxes: int


class SnapshotNode(Node):
    """Listens to cameras, tf, detections and, where a bag carries it, the ground truth."""

    def __init__(self, options: SnapshotOptions) -> None:
        super().__init__("streampetr_snapshot")
        self._options = options
        suffix, image_type = ("/compressed", CompressedImage) if options.transport == "compressed" else ("", Image)
        self._topics = {camera: f"/{camera}/image_raw{suffix}" for camera in options.cameras}
        info_topics = {camera: f"/{camera}/camera_info" for camera in options.cameras}
        self._calibrations = Calibrations(info_topics)
        self._images = {camera: deque(maxlen=_KEPT_IMAGES) for camera in options.cameras}
        self._truths: dict[int, Detection3DArray] = {}
        self._buffer = Buffer(node=self)
        self._listener = TransformListener(self._buffer, self)
        self.detections: list[Detection3DArray] = []
        self.image_counts: Counter[str] = Counter()
        qos = QoSProfile(depth=_KEPT_IMAGES)
        for camera in options.cameras:
            self.create_subscription(image_type, self._topics[camera], partial(self._on_image, camera), qos)
            self.create_subscription(CameraInfo, info_topics[camera], partial(self._calibrations.update, camera), qos)
        self.create_subscription(Detection3DArray, options.detections_topic, self.detections.append, _EVERY_DETECTION)
        self.create_subscription(Detection3DArray, "/ground_truth", self._on_truth, qos)

    def picture(self, note: str) -> NDArray[np.uint8]:
        """Draw the newest detections into the images they were made of; raises StreampetrError without them."""
        if not self.detections:
            raise StreampetrError(f"{self._options.detections_topic}: no detections came; is the node active?")
        detections = self.detections[-1]
        stamp_ns = _nanoseconds(detections)
        truth = self._nearest_truth(stamp_ns)
        tiles = [self._tile(camera, detections, truth) for camera in self._options.cameras]
        shown = min(len(detections.detections), self._options.max_boxes)
        banner = f"{shown} of {len(detections.detections)} detections at {stamp_ns / 1e9:.3f} s"
        banner += f", truth in white ({len(truth.detections)} boxes)" if truth else ""
        return six_camera_picture(tiles, self._options.columns, self._options.tile_width, f"{banner}. {note}".rstrip())

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self.image_counts[camera] += 1
        self._images[camera].append(message)

    def _on_truth(self, message: Detection3DArray) -> None:
        self._truths[_nanoseconds(message)] = message
        while len(self._truths) > _KEPT_TRUTHS:
            del self._truths[min(self._truths)]

    def _nearest_truth(self, stamp_ns: int) -> Detection3DArray | None:
        """Return the truth nearest in time, if there is one that still fits: the boxes move with the vehicle."""
        nearest = min(self._truths, key=lambda truth_ns: abs(truth_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest - stamp_ns) > _MAX_AGE_NS:
            return None
        return self._truths[nearest]

    def _tile(self, camera: str, detections: Detection3DArray, truth: Detection3DArray | None) -> Tile:
        stamp_ns = _nanoseconds(detections)
        message = min(self._images[camera], key=lambda image: abs(_nanoseconds(image) - stamp_ns), default=None)
        if message is None or abs(_nanoseconds(message) - stamp_ns) > _MAX_AGE_NS:
            raise StreampetrError(f"{self._topics[camera]}: no image near the detections of {stamp_ns / 1e9:.3f} s")
        model = self._calibrations.model(camera)
        image = model.undistort(camera_image(message, self._topics[camera], model)).copy()
        best = detections.detections[: self._options.max_boxes]
        if truth is not None:
            img_P_box = self._projection(model.K, message, truth)
            draw_boxes(image, img_P_box, _boxes(truth.detections), [_TRUTH_COLOUR] * len(truth.detections), 1)
        colours = [class_colour(detection.results[0].hypothesis.class_id) for detection in best]
        draw_boxes(image, self._projection(model.K, message, detections), _boxes(best), colours)
        return Tile(camera, image)

    def _projection(
        self, K: NDArray[np.float64], image: Image | CompressedImage, boxes: Detection3DArray
    ) -> NDArray[np.float64]:
        """Return the projection of a message's boxes into an image, each at its own time."""
        transforms = Transforms(self._buffer, "", boxes.header.frame_id, self._options.fixed_frame)
        times = _nanoseconds(image), _nanoseconds(boxes)
        return projection(K, transforms.cam_T_ref(image.header.frame_id, *times))


def _boxes(detections: Sequence) -> NDArray[np.float64]:
    """Return (D, 7) boxes of Detection3D messages in their own frame."""
    rows = []
    for detection in detections:
        centre, size = detection.bbox.center.position, detection.bbox.size
        rows.append([centre.x, centre.y, centre.z, size.x, size.y, size.z, _yaw(detection.bbox.center)])
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


def _yaw(pose: Pose) -> float:
    q = pose.orientation
    return yaw_of(rotation_from_quaternion((q.w, q.x, q.y, q.z)))


def _nanoseconds(message: Detection3DArray | Image | CompressedImage) -> int:
    return Time.from_msg(message.header.stamp).nanoseconds
