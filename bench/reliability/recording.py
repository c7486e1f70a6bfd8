"""A scene to play: synthetic, as a bag, and as messages that can be given any stamp."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from streampetr_core.checkpoint import save_checkpoint, untrained_checkpoint
from streampetr_core.geometry import Array, invert_transform
from streampetr_ros.bag.play import message_class
from streampetr_ros.bag.reading import open_bag, read_messages
from streampetr_ros.transforms import matrix_from_transform
from tests.ros.rig import TINY

IMAGE, INFO, TF, TF_STATIC = "image", "info", "tf", "tf_static"
_SAMPLES, _SIZE = 10, "320x180"
_VERSION = "v1.0-synth"
# Whether a node survives does not depend on its network, so that it is as small as can be.
_MODEL = replace(TINY, backbone="resnet18_half", input_height=32, input_width=64)


@dataclass(frozen=True)
class Item:
    """A message that is about to be sent."""

    kind: str
    topic: str
    camera: str  # empty for tf
    stamp_ns: int  # that it will carry
    message: Any  # with another stamp; shared, never to be changed
    delay: float = 0.0  # seconds by which it comes late


@dataclass(frozen=True)
class Recording:
    """The messages of a scene in order, with stamps from 0 on, and how long it takes until it may begin again."""

    items: list[Item]
    span_ns: int
    world_T_world: Array  # from the second round on, the vehicle goes on where the first one ended

    @property
    def cameras(self) -> list[str]:
        """Return the names of the cameras."""
        return sorted({item.camera for item in self.items if item.camera})


def prepare(folder: Path) -> tuple[Path, Path]:
    """Write a synthetic scene as a bag, and untrained weights; return both paths."""
    world, bag, model = folder / "world", folder / "bag", folder / "untrained.safetensors"
    _streampetr("synth", world, "--scenes", 1, "--val-scenes", 1, "--samples", _SAMPLES, "--size", _SIZE)
    scene = json.loads((world / _VERSION / "scene.json").read_text())[0]["name"]
    _streampetr("bag", "from-nuscenes", world, bag, "--version", _VERSION, "--scene", scene, "--no-sweeps")
    save_checkpoint(untrained_checkpoint(_MODEL), model)
    return bag, model


def load(bag: Path, hz: float, raw: bool) -> Recording:
    """Read the cameras and tf of a bag, faster or slower so that each camera sends `hz` images a second."""
    items: list[Item] = []
    with open_bag(bag) as reader:
        for connection, stamp_ns, data in read_messages(reader, bag):
            kind = _kind(connection.topic)
            if kind is not None:
                message = deserialize_message(bytes(data), message_class(connection.msgtype))
                camera = connection.topic.split("/")[1] if kind in (IMAGE, INFO) else ""
                items.append(Item(kind, connection.topic, camera, stamp_ns, message))
    start = min(item.stamp_ns for item in items)
    first = next(item.camera for item in items if item.kind == IMAGE)
    stamps = [item.stamp_ns for item in items if item.kind == IMAGE and item.camera == first]
    pace = (len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1e9 / hz
    items = [replace(item, stamp_ns=int((item.stamp_ns - start) * pace)) for item in items]
    poses = [matrix_from_transform(item.message.transforms[0].transform) for item in items if item.kind == TF]
    span = max(item.stamp_ns for item in items if item.kind == IMAGE) + int(0.8e9 / hz)
    if raw:
        items = [_decoded(item) if item.kind == IMAGE else item for item in items]
    return Recording(items, span, poses[-1] @ invert_transform(poses[0]))


def stamped(item: Item) -> Any:
    """Return a message of its own with the item's stamp; large data is shared."""
    stamp = _stamp(item.stamp_ns)
    if item.kind in (TF, TF_STATIC):
        message = TFMessage(transforms=item.message.transforms)
        for transform in message.transforms:
            transform.header.stamp = stamp
        return message
    message = item.message
    message.header.stamp = stamp
    return message


def halved(message: CompressedImage) -> CompressedImage:
    """Return a JPEG image at half its resolution."""
    image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2))
    smaller = CompressedImage(header=message.header, format="jpeg")
    smaller.data.frombytes(cv2.imencode(".jpg", image)[1].tobytes())
    return smaller


def changed_info(message: CameraInfo, **fields: Any) -> CameraInfo:
    """Return a CameraInfo with other values."""
    kept = {name: getattr(message, name) for name in ("header", "width", "height", "k", "d", "distortion_model")}
    return CameraInfo(**(kept | fields))


def _kind(topic: str) -> str | None:
    if topic in ("/tf", "/tf_static"):
        return topic.strip("/")
    if topic.endswith("/image_raw/compressed"):
        return IMAGE
    return INFO if topic.endswith("/camera_info") else None


def _decoded(item: Item) -> Item:
    pixels = cv2.imdecode(np.frombuffer(item.message.data, np.uint8), cv2.IMREAD_COLOR)
    height, width, _ = pixels.shape
    message = Image(header=item.message.header, encoding="bgr8", width=width, height=height, step=3 * width)
    message.data.frombytes(pixels.tobytes())
    return replace(item, topic=item.topic.removesuffix("/compressed"), message=message)


def _stamp(ns: int) -> Any:
    stamp = Time().to_msg()
    stamp.sec, stamp.nanosec = divmod(ns, 1_000_000_000)  # also before 1970
    return stamp


def _streampetr(*words: object) -> None:
    command = [sys.executable, "-m", "streampetr_core.cli", *map(str, words)]
    print("$ streampetr", *words, flush=True)
    subprocess.run(command, check=True)
