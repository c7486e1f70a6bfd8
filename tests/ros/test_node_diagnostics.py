"""What the live node says about itself: each state in which nothing is published, on /diagnostics and in the log."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from tests.ros.observer import LAG, Observer, observers
from tests.ros.rig import spin_until, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def make(model: Path) -> Iterator[Callable[..., Observer]]:
    with observers(model) as build:
        yield build


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
    observer.activate()
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
    observer.activate()
    assert spin_until(lambda: observer.send() or time.sleep(0.05) or bool(observer.rig.detections))
    observer.with_poses = False  # waiting for a transform is work, too
    assert observer.sees("over budget: ", "sets dropped", "use a smaller model")
    observer.with_poses = True
    sets = int(observer.values("sets")["published"])
    assert spin_until(lambda: observer.send() or int(observer.values("sets")["published"]) > sets)
    observer.node.trigger_deactivate()
    assert spin_until(lambda: observer.rig.logged("sets published; dropped sets:", "detection is slower"))
    assert observer.sees("not active: ", sending=False)
