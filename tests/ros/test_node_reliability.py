"""The live node when something goes wrong that no camera did: it says what, and goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
import torch
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.runtime import Runtime, RuntimeOptions, open_runtime
from tests.ros.observer import START, Observer, observers
from tests.ros.rig import picture, transform, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def make(model: Path) -> Iterator[Callable[..., Observer]]:
    with observers(model) as build:
        yield build


class Failing:
    """A runtime that does `fault` first, if there is one, and may spoil what it found."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.config, self.description = runtime.config, runtime.description
        self.encodes_singly = runtime.encodes_singly
        self.fault: Callable[[], None] | None = None
        self.spoils = False

    def fresh_memory(self) -> Memory:
        return self._runtime.fresh_memory()

    def encode(self, images_N3HW: torch.Tensor) -> torch.Tensor:
        return self._runtime.encode(images_N3HW)

    def detect(self, features_NChw: torch.Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        if self.fault is not None:
            self.fault()
        predictions, memory = self._runtime.detect(features_NChw, frame, memory)
        if self.spoils:
            predictions = replace(predictions, boxes=torch.full_like(predictions.boxes, torch.nan))
            memory = replace(memory, centre_BM3=torch.full_like(memory.centre_BM3, torch.nan))
        return predictions, memory


def _divide_by_zero() -> None:
    1 / 0  # noqa: B018


def _allocate_a_petabyte() -> None:
    torch.empty(2**50)


def test_a_set_that_fails_is_said_and_the_next_one_is_tried(make: Callable[..., Observer]):
    opened: list[Failing] = []

    def open_model(checkpoint: Checkpoint, options: RuntimeOptions) -> Failing:
        opened.append(Failing(open_runtime(checkpoint, options)))
        return opened[-1]

    observer = make(open_model, realtime=True)
    observer.activate()
    assert observer.detects_again()
    (runtime,) = opened
    runtime.fault = _divide_by_zero
    assert observer.sees("internal error: set dropped: ZeroDivisionError: division by zero; please report it", level=2)
    runtime.fault = _allocate_a_petabyte
    assert observer.sees("internal error: set dropped: out of memory: ", "use a smaller model or another device")
    runtime.fault = None
    assert observer.detects_again()
    runtime.spoils = True
    assert observer.sends_until(lambda: observer.rig.logged("the model's output is not finite; check its weights"))
    runtime.spoils = False
    assert observer.detects_again()
    assert observer.rig.detections[-1].detections  # the memory is not spoilt for good
    assert observer.is_well()
    assert int(observer.values("sets")["sets dropped: internal error"]) >= 2
    assert int(observer.values("sets")["sets dropped: unusable"]) >= 1


def test_publishers_that_cannot_be_heard_are_named_as_long_as_they_are_there(make: Callable[..., Observer]):
    observer = make()  # it asks for reliable images
    observer.activate()
    assert observer.detects_again()
    # One participant cannot have two types on one topic.
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    stranger = rclpy.create_node("stranger", context=context)
    topic = "/left/image_raw/compressed"
    publisher = stranger.create_publisher(String, topic, 10)
    said = f"wrong message type: /stranger publishes std_msgs/msg/String on {topic}, where sensor_msgs/msg/Compressed"
    assert observer.sees(said, "set 'transport'", level=2)
    assert observer.sees("wrong message type", part="camera left", level=2)
    publisher.publish(String(data="no image"))
    assert observer.detects_again()
    stranger.destroy_publisher(publisher)
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = stranger.create_publisher(CompressedImage, topic, unreliable)
    said = f"incompatible QoS: /stranger on {topic}: best effort publisher and reliable subscription; set 'reliability'"
    assert observer.sees(said, level=2)
    stranger.destroy_node()
    rclpy.shutdown(context=context)
    assert observer.is_well()


def test_stamps_and_transforms_that_make_no_sense_are_said(make: Callable[..., Observer]):
    observer = make(realtime=True)
    observer.activate()
    assert observer.detects_again()
    observer.besides = lambda: observer.rig.send_jpeg("left", 0, picture(0))
    said = "unusable stamps: /left/image_raw/compressed: the stamp is 0.000 s; let the driver write the time"
    assert observer.sees(said, level=2)
    broken = TFMessage(transforms=[transform("odom", "base_link", START, (0, 0, 0, 0), (0, 0, 0))])
    observer.besides = lambda: observer.rig.tf.publish(broken)
    assert observer.sees("unusable transforms: /tf: the quaternion of the transform from 'base_link' to 'odom'")
    observer.besides = lambda: None
    assert observer.is_well()
    assert observer.detects_again()
    assert int(observer.values("camera left")["dropped: unusable stamps"]) >= 1


def test_rotations_that_miss_a_camera_for_good_are_said(make: Callable[..., Observer]):
    observer = make(realtime=True, min_cameras=2)
    observer.activate()
    assert observer.detects_again()
    observer.silent = {"left"}
    assert observer.sees("incomplete sets: no rotation has images of 2 cameras (right", "lower 'min_cameras'", level=2)
    observer.silent = set()
    assert observer.detects_again()
