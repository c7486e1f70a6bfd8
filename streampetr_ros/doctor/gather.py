"""From messages, as they come from a bag or live, to evidence."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from streampetr_core.errors import StreampetrError
from streampetr_core.jpeg import is_cut_off
from streampetr_ros.bag.published import stamp_of
from streampetr_ros.doctor.evidence import Camera, Evidence, Link, Shot
from streampetr_ros.images import decode_compressed, decode_raw
from streampetr_ros.intake import same_calibration
from streampetr_ros.parameters import Parameters

TF, TF_STATIC = "/tf", "/tf_static"
_EVERYTHING = Duration(seconds=10**6)
_SMALL_WIDTH = 640  # pixels of the pictures that are compared
_PAIR_NS, _LONGEST_PAIR_NS = 200_000_000, 1_000_000_000  # between the two pictures of a pair
_LENGTH_TOLERANCE = 1e-2  # of a squared quaternion, as in tf2


def wanted_topics(expected: Parameters) -> dict[str, type]:
    """Return the topics that the node will subscribe to, with their types."""
    image_type = CompressedImage if expected.transport == "compressed" else Image
    topics: dict[str, type] = dict.fromkeys(expected.image_topics.values(), image_type)
    topics |= dict.fromkeys(expected.camera_info_topics.values(), CameraInfo)
    topics |= {TF: TFMessage, TF_STATIC: TFMessage}
    if expected.reference_topic:
        topics[expected.reference_topic] = Header
    return topics


def type_name(kind: type) -> str:
    """Return the name of a message class, such as `sensor_msgs/msg/Image`."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


class Gatherer:
    """Fills the evidence, and a tf buffer, from messages in the order of their arrival."""

    def __init__(self, expected: Parameters, source: str, pair_every_ns: int) -> None:
        """Take what is expected, a name for where it comes from, and how often a pair of pictures is kept."""
        self.evidence = Evidence(source, cameras={camera: Camera() for camera in expected.cameras})
        self.buffer = Buffer(_EVERYTHING)
        self._pair_every_ns = pair_every_ns
        self._cameras_of_images = {topic: camera for camera, topic in expected.image_topics.items()}
        self._cameras_of_infos = {topic: camera for camera, topic in expected.camera_info_topics.items()}
        self._first_of_pair: dict[str, Shot] = {}

    def take(self, topic: str, message: Any, arrival_ns: int) -> None:
        """Take a message of one of the wanted topics."""
        if topic in (TF, TF_STATIC):
            self._take_transforms(message, topic == TF_STATIC, arrival_ns)
        elif topic in self._cameras_of_infos:
            self._take_info(self.evidence.cameras[self._cameras_of_infos[topic]], message)
        elif topic in self._cameras_of_images:
            self._take_image(self._cameras_of_images[topic], topic, message, arrival_ns)

    def _take_transforms(self, message: TFMessage, static: bool, arrival_ns: int) -> None:
        store = self.buffer.set_transform_static if static else self.buffer.set_transform
        for transform in message.transforms:
            edge = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
            link = self.evidence.links.setdefault(edge, Link(static))
            if not _is_rigid(transform.transform):
                link.invalid += 1
                continue
            link.stamps.append(stamp_of(transform))
            link.arrivals.append(arrival_ns)
            store(transform, "doctor")

    @staticmethod
    def _take_info(camera: Camera, info: CameraInfo) -> None:
        known = camera.infos[-1] if camera.infos else None
        same_frame = known is not None and known.header.frame_id == info.header.frame_id
        if not same_frame or not same_calibration(known, info):
            camera.infos.append(info)

    def _take_image(self, name: str, topic: str, message: Any, arrival_ns: int) -> None:
        camera, stamp = self.evidence.cameras[name], stamp_of(message)
        camera.stamps.append(stamp)
        camera.arrivals.append(arrival_ns)
        camera.frames[message.header.frame_id] += 1
        if isinstance(message, CompressedImage) and is_cut_off(np.frombuffer(message.data, np.uint8)):
            camera.faults["truncated JPEG"] += 1
        elif self._is_worth_a_look(name, stamp):
            self._look_into(name, topic, message, stamp)

    def _is_worth_a_look(self, name: str, stamp: int) -> bool:
        """Say whether an image begins or ends a pair; pairs are a good way apart."""
        camera, first = self.evidence.cameras[name], self._first_of_pair.get(name)
        if first is not None:
            return not 0 <= stamp - first.stamp < _PAIR_NS
        return not camera.pairs or not 0 <= stamp - camera.pairs[-1][0].stamp < self._pair_every_ns

    def _look_into(self, name: str, topic: str, message: Any, stamp: int) -> None:
        camera = self.evidence.cameras[name]
        try:
            image = decode_raw(message, topic) if isinstance(message, Image) else decode_compressed(message, topic)
        except StreampetrError as error:
            camera.faults[str(error).partition(": ")[2].partition(";")[0]] += 1
            return
        camera.sizes[image.shape[1], image.shape[0]] += 1
        camera.picture = image
        shot, first = _shot(stamp, message.header.frame_id, image), self._first_of_pair.pop(name, None)
        fits = first is not None and 0 < stamp - first.stamp <= _LONGEST_PAIR_NS
        if fits and first.grey.shape == shot.grey.shape:
            camera.pairs.append((first, shot))
        else:
            self._first_of_pair[name] = shot


def _shot(stamp: int, frame: str, image: NDArray[np.uint8]) -> Shot:
    scale = min(1.0, _SMALL_WIDTH / image.shape[1])
    size = round(scale * image.shape[1]), round(scale * image.shape[0])
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return Shot(stamp, frame, grey, scale)


def _is_rigid(transform: Any) -> bool:
    p, q = transform.translation, transform.rotation
    numbers = (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
    return all(map(math.isfinite, numbers)) and abs(sum(n * n for n in numbers[3:]) - 1) <= _LENGTH_TOLERANCE
