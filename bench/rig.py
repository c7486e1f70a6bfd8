"""A rig of six cameras of 1600x900 for the node's benchmark: a process that publishes images, calibration and tf.

Cameras expose one after the other, as nuScenes' do. The vehicle's speed changes, so that no two sets see the same
exposure-time geometry. Poses are published a little ahead, so that no set waits for them.
"""

import array
import math
import time
from multiprocessing.synchronize import Event

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from streampetr_core.benchmarks.image_path import street_like_jpegs

CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
WIDTH, HEIGHT = 1600, 900
_FOCAL_LENGTH = 1266.0
_OFFSETS_MS = {
    "cam_back_left": 0,
    "cam_front_left": 8,
    "cam_front": 15,
    "cam_front_right": 23,
    "cam_back_right": 33,
    "cam_back": 42,
}
_YAWS_DEGREES = {
    "cam_front": 0,
    "cam_front_left": 60,
    "cam_back_left": 120,
    "cam_back": 180,
    "cam_back_right": 240,
    "cam_front_right": 300,
}
_SECOND = 1_000_000_000
_POSE_INTERVAL, _POSE_AHEAD = _SECOND // 100, _SECOND // 10
_SPEED, _SPEED_CHANGE = 8.0, 3.0  # m/s


def publish(rate: float, transport: str, stop: Event) -> None:
    """Publish sets at a rate (Hz) until `stop` is set; runs in a process of its own."""
    rclpy.init()
    node = rclpy.create_node("bench_rig")
    rig = _Rig(node, transport)
    start = time.time_ns() + _SECOND // 2
    number, pose_ns = 0, start - _SECOND
    offsets = sorted(_OFFSETS_MS.items(), key=lambda item: item[1])
    while not stop.is_set():
        for camera, offset in offsets:
            due = start + int(number * _SECOND / rate) + offset * 1_000_000
            while time.time_ns() < due:
                while pose_ns < time.time_ns() + _POSE_AHEAD:
                    rig.send_pose(pose_ns, pose_ns - start)
                    pose_ns += _POSE_INTERVAL
                time.sleep(max(0.0, min(0.005, (due - time.time_ns()) / _SECOND)))
            rig.send_image(camera, time.time_ns())
        number += 1
    node.destroy_node()
    rclpy.shutdown()


class _Rig:
    """The publishers, and messages that are used again."""

    def __init__(self, node: Node, transport: str) -> None:
        kind, suffix = (CompressedImage, "/compressed") if transport == "compressed" else (Image, "")
        images = dict(zip(CAMERAS, street_like_jpegs(), strict=True))
        self._messages = {camera: _message(camera, images[camera], transport) for camera in CAMERAS}
        self._infos = {camera: _info(camera) for camera in CAMERAS}
        create = node.create_publisher
        self._images = {camera: create(kind, f"/{camera}/image_raw{suffix}", 10) for camera in CAMERAS}
        self._info_publishers = {camera: create(CameraInfo, f"/{camera}/camera_info", 10) for camera in CAMERAS}
        self._tf = create(TFMessage, "/tf", 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf_static = create(TFMessage, "/tf_static", latched)
        self._tf_static.publish(TFMessage(transforms=[*map(_mount, CAMERAS), _transform("base_link", "lidar_top", 0)]))

    def send_image(self, camera: str, stamp_ns: int) -> None:
        """Publish an image and its calibration."""
        for message in (self._infos[camera], self._messages[camera]):
            message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        self._info_publishers[camera].publish(self._infos[camera])
        self._images[camera].publish(self._messages[camera])

    def send_pose(self, stamp_ns: int, since_start_ns: int) -> None:
        """Publish where the vehicle is."""
        t = since_start_ns / _SECOND
        pose = _transform("odom", "base_link", stamp_ns)
        pose.transform.translation.x = _SPEED * t - _SPEED_CHANGE * math.cos(t)
        self._tf.publish(TFMessage(transforms=[pose]))


def _message(camera: str, jpeg: bytes, transport: str) -> Image | CompressedImage:
    if transport == "compressed":
        message = CompressedImage(format="jpeg")
        message.data = array.array("B", jpeg)
    else:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
        message.data = array.array("B", pixels.tobytes())
    message.header.frame_id = camera
    return message


def _info(camera: str) -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    info.k = [_FOCAL_LENGTH, 0.0, WIDTH / 2, 0.0, _FOCAL_LENGTH, HEIGHT / 2, 0.0, 0.0, 1.0]
    info.header.frame_id = camera
    return info


def _mount(camera: str) -> TransformStamped:
    """Return where a camera sits: its optical frame (x right, y down, z forward) looks along its yaw, a metre out."""
    mount, half = _transform("base_link", camera, 0), math.radians(_YAWS_DEGREES[camera]) / 2
    c, s = math.cos(half) / 2, math.sin(half) / 2
    rotation = mount.transform.rotation  # by the yaw, of a camera that looks along x
    rotation.w, rotation.x, rotation.y, rotation.z = c + s, -c - s, c - s, s - c
    mount.transform.translation.x, mount.transform.translation.y = math.cos(2 * half), math.sin(2 * half)
    mount.transform.translation.z = 1.6
    return mount


def _transform(parent: str, child: str, stamp_ns: int) -> TransformStamped:
    transform = TransformStamped(child_frame_id=child)
    transform.header.frame_id, transform.header.stamp = parent, Time(nanoseconds=stamp_ns).to_msg()
    transform.transform.rotation.w = 1.0
    return transform
