"""A small rig for live tests: cameras, calibration and tf published by a real node, and what the detector answers."""

import array
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import Log
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from streampetr_core.checkpoint import save_checkpoint, untrained_checkpoint
from streampetr_core.config import ModelConfig
from streampetr_ros.node import StreampetrNode

CAMERAS = ("left", "right")
WIDTH, HEIGHT = 160, 120
K = np.array([[120.0, 0, 80], [0, 120.0, 60], [0, 0, 1]])
TINY = ModelConfig(
    name="tiny",
    backbone="resnet18",
    input_height=64,
    input_width=128,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    channel_order="rgb",
    num_learned=12,
    num_propagated=4,
    memory_length=16,
    num_admitted=4,
    channels=32,
    num_layers=2,
    num_heads=4,
    ffn_channels=64,
    position_hidden_channels=64,
)
# Optical frames on the vehicle: z looks forward (left) or backward (right), x to the right of the image, y down.
BASE_Q_CAMERA = {"left": (0.5, -0.5, 0.5, -0.5), "right": (0.5, -0.5, -0.5, 0.5)}
BASE_P_CAMERA = {"left": (1.5, 0.4, 1.5), "right": (0.0, -0.4, 1.6)}
BASE_P_REF = (0.9, 0.0, 1.8)
REF_Q = (0.7071067811865476, 0.0, 0.0, -0.7071067811865476)  # (w, x, y, z): the reference frame's x looks to the right


def write_tiny_model(path: Path) -> Path:
    """Write an untrained tiny model whose scores differ from each other, so that an order can be checked."""
    checkpoint = untrained_checkpoint(TINY, seed=3)
    checkpoint.state["heads.classes.6.weight"] *= 10
    save_checkpoint(checkpoint, path)
    return path


def picture(seed: int) -> np.ndarray:
    """Return a smooth random image, so that JPEG changes it little."""
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 20, WIDTH // 20, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray) -> bytes:
    """Return an image as JPEG bytes."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def spin_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for a condition that another thread makes true; the limit is for broken code, not for speed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


_numbers = itertools.count()


class Rig:
    """Publishes two cameras, their calibration and tf; collects detections and log lines."""

    def __init__(self) -> None:
        # A name of its own for every node under test: rcl sends the log of two nodes of one name to the first of them,
        # and a node of an earlier test may still be waiting for the garbage collector.
        self.detector = f"streampetr_{next(_numbers)}"
        self.node = rclpy.create_node(f"{self.detector}_rig")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        create = self.node.create_publisher
        self.compressed = {c: create(CompressedImage, f"/{c}/image_raw/compressed", 10) for c in CAMERAS}
        self.raw = {c: create(Image, f"/{c}/image_raw", 10) for c in CAMERAS}
        self.infos = {c: create(CameraInfo, f"/{c}/camera_info", 10) for c in CAMERAS}
        self.tf = create(TFMessage, "/tf", 100)
        self.tf_static = create(TFMessage, "/tf_static", latched)
        self.detections: list[Detection3DArray] = []
        self.logs: list[str] = []
        self.node.create_subscription(Detection3DArray, f"/{self.detector}/detections", self.detections.append, 10)
        # Log lines are latched, so that those from before discovery arrive too.
        every_line = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Log, "/rosout", self._on_log, every_line)

    def _on_log(self, log: Log) -> None:
        if log.name == self.detector:
            self.logs.append(log.msg)

    def send_static(self, frames: Sequence[str] = ("left", "right", "ref")) -> None:
        """Publish where cameras and reference frame sit on the vehicle."""
        poses = {c: (BASE_Q_CAMERA[c], BASE_P_CAMERA[c]) for c in CAMERAS} | {"ref": (REF_Q, BASE_P_REF)}
        self.tf_static.publish(TFMessage(transforms=[transform("base_link", f, 0, *poses[f]) for f in frames]))

    def send_poses(self, positions: dict[int, Sequence[float]]) -> None:
        """Publish the vehicle's positions in odom by stamp, in one message: a burst would overrun tf's queue."""
        level = (1, 0, 0, 0)
        transforms = [transform("odom", "base_link", stamp, level, xyz) for stamp, xyz in positions.items()]
        self.tf.publish(TFMessage(transforms=transforms))

    def send_info(self, camera: str, k: np.ndarray = K, width: int = WIDTH, height: int = HEIGHT) -> None:
        """Publish a camera's calibration."""
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", k=k.flatten().tolist())
        info.header.frame_id = camera
        self.infos[camera].publish(info)

    def send_jpeg(self, camera: str, stamp_ns: int, image: np.ndarray, keep: float = 1.0) -> None:
        """Publish an image as JPEG, or only the first part of its bytes."""
        message = CompressedImage(format="jpeg")
        message.header.frame_id, message.header.stamp = camera, Time(nanoseconds=stamp_ns).to_msg()
        data = jpeg(image)
        message.data = array.array("B", data[: int(len(data) * keep)])
        self.compressed[camera].publish(message)

    def send_raw(self, camera: str, stamp_ns: int, pixels: np.ndarray, encoding: str) -> None:
        """Publish an uncompressed image."""
        height, width, channels = pixels.shape
        message = Image(height=height, width=width, encoding=encoding, step=width * channels)
        message.header.frame_id, message.header.stamp = camera, Time(nanoseconds=stamp_ns).to_msg()
        message.data = array.array("B", pixels.tobytes())
        self.raw[camera].publish(message)

    def send_set(self, stamp_ns: int, images: dict[str, np.ndarray] | None = None) -> None:
        """Publish one image of each camera, 20 ms apart, the newest at `stamp_ns`."""
        images = images or {camera: picture(index) for index, camera in enumerate(CAMERAS)}
        self.send_jpeg("left", stamp_ns - 20_000_000, images["left"])
        self.send_jpeg("right", stamp_ns, images["right"])

    def logged(self, *parts: str) -> bool:
        """Say whether one log line holds all parts."""
        return any(all(part in line for part in parts) for line in list(self.logs))


def transform(parent: str, child: str, stamp_ns: int, wxyz: Sequence[float], xyz: Sequence[float]) -> TransformStamped:
    """Return a transform message."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, Time(nanoseconds=stamp_ns).to_msg()
    rotation, translation = message.transform.rotation, message.transform.translation
    rotation.w, rotation.x, rotation.y, rotation.z = map(float, wxyz)
    translation.x, translation.y, translation.z = map(float, xyz)
    return message


class Spinner:
    """Spins nodes in a thread while tests talk to them."""

    def __init__(self, *nodes: Node) -> None:
        self._executor = SingleThreadedExecutor()
        for node in nodes:
            self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def stop(self) -> None:
        """Stop spinning and wait for the thread."""
        self._executor.shutdown()
        self._thread.join()


def make_node(rig: Rig, open_model: Callable | None = None, **values: object) -> StreampetrNode:
    """Return a node for the rig, with parameters that differ from those of `overrides`."""
    name = ["--ros-args", "-r", f"__node:={rig.detector}"]
    given = {} if open_model is None else {"open_model": open_model}
    return StreampetrNode(parameter_overrides=overrides(**values), cli_args=name, **given)


def overrides(**values: object) -> list[Parameter]:
    """Return parameters for the node under test."""
    base = {
        "cameras": list(CAMERAS),
        "reference_frame": "ref",
        "reliability": "reliable",
        "realtime": False,
        "score_threshold": 0.0,
        "runtime": "torch",  # opens at once
    }
    return [Parameter(name, value=value) for name, value in (base | values).items()]
