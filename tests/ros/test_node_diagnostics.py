"""What the live node says about itself: each state in which nothing is published, on /diagnostics and in the log."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from streampetr_ros.node import StreampetrNode
from tests.ros.rig import Rig, Spinner, make_node, picture, spin_until, write_tiny_model

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
INTERVAL, LAG = SECOND // 10, SECOND // 50


class Observer:
    """Sends images of both cameras until the node has said something."""

    def __init__(self, rig: Rig, node: StreampetrNode) -> None:
        self.rig, self.node = rig, node
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.silent: set[str] = set()
        self.lag_ns = {"left": LAG, "right": 0}
        self.keep = {"left": 1.0, "right": 1.0}
        self.with_info, self.with_poses = {"left", "right"}, True
        self._stamps = itertools.count(START, INTERVAL)
        rig.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id == f"/{self.rig.detector}":
                self.statuses[status.name.split(": ")[1]] = status

    def send(self) -> None:
        """Send one set, its calibrations and the vehicle's pose around it."""
        stamp = next(self._stamps)
        for camera in self.with_info:
            self.rig.send_info(camera)
        if self.with_poses:
            self.rig.send_poses({stamp + step * INTERVAL: (10.0, 0.0, 0.0) for step in range(-1, 2)})
        for camera in {"left", "right"} - self.silent:
            self.rig.send_jpeg(camera, stamp - self.lag_ns[camera], picture(0), self.keep[camera])

    def sees(self, *parts: str, sending: bool = True, part: str = "state", level: int | None = None) -> bool:
        """Say whether a status with these words, and the same words in the log, come while images are sent."""

        def said() -> bool:
            if sending:
                self.send()
                time.sleep(0.05)
            status = self.statuses.get(part)
            texts = [] if status is None else [status.message, *(value.value for value in status.values)]
            is_level = level is None or (status is not None and status.level == bytes([level]))
            return is_level and any(all(p in text for p in parts) for text in texts) and self.rig.logged(*parts)

        return spin_until(said)

    def is_well(self) -> bool:
        """Say whether nothing is wrong any more while images are sent, but that a busy machine may be slow."""

        def well() -> bool:
            self.send()
            time.sleep(0.05)
            return self.statuses["state"].level < bytes([2])

        return spin_until(well)

    def values(self, part: str) -> dict[str, str]:
        """Return the values of a status."""
        return {value.key: value.value for value in self.statuses[part].values}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def make(model: Path) -> Iterator[Callable[..., Observer]]:
    rclpy.init()
    opened = []

    def build(**values: object) -> Observer:
        rig = Rig()
        node = make_node(rig, **({"model": str(model)} | values))
        opened.append((rig, node, Spinner(rig.node, node)))
        rig.send_static()
        return Observer(rig, node)

    yield build
    for rig, node, spinner in opened:
        spinner.stop()
        node.destroy_node()
        rig.node.destroy_node()
    rclpy.try_shutdown()


def _activate(observer: Observer) -> None:
    assert observer.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert observer.node.trigger_activate() == TransitionCallbackReturn.SUCCESS


def test_the_states_of_a_node_that_is_not_active(make: Callable[..., Observer]):
    observer = make(model="/nowhere.safetensors")
    assert observer.sees("not configured: the model is not loaded; configure the node", sending=False)
    assert observer.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert observer.sees("not configured: ", "/nowhere.safetensors", sending=False, level=1)


def test_what_is_wrong_with_the_images_is_said_and_unsaid(make: Callable[..., Observer]):
    observer = make(realtime=True, transform_wait=0.2)
    assert observer.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert observer.sees("not active: ", "activate the node", sending=False)
    assert observer.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert observer.sees("no images: none on /left/image_raw/compressed yet; check the camera", sending=False, level=2)
    observer.with_info = {"right"}
    assert observer.sees("no CameraInfo: none on /left/camera_info yet; start the camera's driver", level=2)
    observer.with_info = {"left", "right"}
    assert observer.is_well()
    observer.silent = {"right"}
    assert observer.sees("no images: none on /right/image_raw/compressed for", "check the camera", level=2)
    assert observer.sees("no images", part="camera right", level=2)
    observer.silent = set()
    observer.lag_ns = {"left": 500_000_000, "right": 0}
    assert observer.sees(
        "stamps apart: those of /left/image_raw/compressed lie", "ms behind", "fix the cameras' clocks"
    )
    observer.lag_ns = {"left": LAG, "right": 0}
    observer.keep = {"left": 0.5, "right": 1.0}
    assert observer.sees("unusable images: /left/image_raw/compressed: JPEG of", "truncated", level=2)


def test_what_is_wrong_around_the_images_is_said(make: Callable[..., Observer]):
    observer = make(realtime=True, transform_wait=0.2)
    _activate(observer)
    observer.with_poses = False
    assert observer.sees("no transform from 'ref' to '", "odom", "publish", level=2)
    observer.with_poses = True
    assert spin_until(lambda: observer.send() or time.sleep(0.05) or bool(observer.rig.detections))
    observer.node.set_parameters([Parameter("score_threshold", value=1.0)])
    assert observer.sees("all scores below threshold: the best is", "lower the threshold")
    for camera in ("left", "right"):
        observer.rig.send_info(camera, k=np.zeros((3, 3)))
    observer.with_info = set()
    assert observer.sees("unusable CameraInfo: /left/camera_info: intrinsics K are zero", "calibrate", level=2)


def test_a_node_that_is_too_slow_says_so_and_all_counts_add_up(make: Callable[..., Observer]):
    observer = make(realtime=True, transform_wait=1.0)
    _activate(observer)
    assert spin_until(lambda: observer.send() or time.sleep(0.05) or bool(observer.rig.detections))
    observer.with_poses = False  # waiting for a transform is work, too
    assert observer.sees("over budget: ", "sets dropped", "use a smaller model")
    observer.with_poses = True
    sets = int(observer.values("sets")["published"])
    assert spin_until(lambda: observer.send() or int(observer.values("sets")["published"]) > sets)
    observer.node.trigger_deactivate()
    assert spin_until(lambda: observer.rig.logged("sets published; dropped sets:", "detection is slower"))
    assert observer.sees("not active: ", sending=False)
