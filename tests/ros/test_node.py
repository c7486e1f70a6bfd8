"""The node, live: real messages over DDS in, detections out; and what it says when they are wrong."""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
import torch
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from vision_msgs.msg import Detection3DArray

from streampetr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, untrained_checkpoint
from streampetr_core.decode import Detections
from streampetr_core.geometry import invert_transform, transform_from_quaternion, transform_points
from streampetr_core.runtime import TorchRuntime
from streampetr_ros.node import StreampetrNode
from streampetr_ros.perception import CameraView, Perception, ResetPolicy, Snapshot
from tests.ros.rig import (
    BASE_P_CAMERA,
    BASE_P_REF,
    BASE_Q_CAMERA,
    CAMERAS,
    REF_Q,
    TINY,
    K,
    Rig,
    Spinner,
    jpeg,
    make_node,
    overrides,
    picture,
    spin_until,
    write_tiny_model,
)

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
EXPOSURE_LAG = 20_000_000  # left exposes before right


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def live(ros: None, model: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Rig, StreampetrNode]]:
    """An active node with a rig that has said where everything is; takes further parameters of the node."""
    rig = Rig()
    node = make_node(rig, model=str(model), **getattr(request, "param", {}))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    spinner = Spinner(rig.node, node)
    images = rig.compressed if node.get_parameter("transport").value == "compressed" else rig.raw
    assert spin_until(lambda: all(p.get_subscription_count() for p in (*images.values(), *rig.infos.values())))
    assert spin_until(lambda: rig.tf.get_subscription_count() and node.count_subscribers(f"/{rig.detector}/detections"))
    rig.send_static()
    _warm_up(rig)
    yield rig, node
    node.trigger_deactivate()
    spinner.stop()
    node.destroy_node()
    rig.node.destroy_node()


def _drive(rig: Rig, start_ns: int, seconds: float, speed: float = 10.0) -> None:
    """Send the poses of a straight drive along odom's x, 50 a second, in one message."""
    steps = range(-5, int(seconds * 50) + 6)
    rig.send_poses({start_ns + step * SECOND // 50: (1000.0 + speed * step / 50, 500.0, 0.0) for step in steps})


def _warm_up(rig: Rig) -> None:
    """Send sets, long before the test's own, until some come through: then every topic is connected both ways.

    The node has then also learnt when the cameras expose.
    """
    for attempt in range(100):
        start = START - 1000 * SECOND + attempt * SECOND
        for camera in CAMERAS:
            rig.send_info(camera)
        _drive(rig, start, 1.0)
        for stamp in range(start, start + SECOND, SECOND // 4):
            if rig.compressed["left"].get_subscription_count():
                rig.send_set(stamp)
            else:
                rig.send_raw("left", stamp - EXPOSURE_LAG, picture(0), "bgr8")
                rig.send_raw("right", stamp, picture(1), "bgr8")
        if spin_until(lambda: rig.detections, seconds=0.7):
            break
    count = -1
    while count < len(rig.detections):  # what is still on its way belongs to the warming up
        count = len(rig.detections)
        time.sleep(0.5)
    rig.detections.clear()


def _world_T_base(stamp_ns: int, speed: float = 10.0) -> np.ndarray:
    return transform_from_quaternion((1, 0, 0, 0), (1000.0 + speed * (stamp_ns - START) / SECOND, 500.0, 0.0))


def _sees(rig: Rig, stamp_ns: int) -> bool:
    return any(Time.from_msg(message.header.stamp).nanoseconds == stamp_ns for message in list(rig.detections))


def test_detections_are_those_of_exposure_time_geometry(live: tuple[Rig, StreampetrNode], model: Path):
    rig, _ = live
    stamps = [START + index * SECOND // 2 for index in range(3)]
    _drive(rig, START, 1.2)
    for stamp in stamps:
        rig.send_set(stamp)
        assert spin_until(lambda stamp=stamp: _sees(rig, stamp)), rig.logs
    perception = Perception(TorchRuntime(load_checkpoint(model), "cpu"), ResetPolicy(2.0, 80.0))
    base_T_ref = transform_from_quaternion(REF_Q, BASE_P_REF)
    # By stamp: on a slow machine a set of the warming up may still come in between.
    received = {Time.from_msg(message.header.stamp).nanoseconds: message for message in list(rig.detections)}
    for stamp in stamps:
        message = received[stamp]
        world_T_ref = _world_T_base(stamp) @ base_T_ref
        views = []
        for index, camera in enumerate(CAMERAS):
            exposure = stamp - (EXPOSURE_LAG if camera == "left" else 0)
            base_T_cam = transform_from_quaternion(BASE_Q_CAMERA[camera], BASE_P_CAMERA[camera])
            cam_T_ref = invert_transform(_world_T_base(exposure) @ base_T_cam) @ world_T_ref
            views.append(CameraView(_as_received(index), K, cam_T_ref))
        expected = perception.process(Snapshot(stamp / SECOND, views, world_T_ref)).detections
        expected = expected.select(torch.from_numpy(_order_of(message, expected, base_T_ref)))
        centres = transform_points(base_T_ref, expected.boxes_D7[:, :3].numpy())
        np.testing.assert_allclose(_centres(message), centres, atol=1e-3)
        sizes = [(d.bbox.size.x, d.bbox.size.y, d.bbox.size.z) for d in message.detections]
        np.testing.assert_allclose(sizes, expected.boxes_D7[:, 3:6].numpy(), atol=1e-4)
        scores = [d.results[0].hypothesis.score for d in message.detections]
        np.testing.assert_allclose(scores, expected.scores_D.numpy(), atol=1e-5)
        assert scores == sorted(scores, reverse=True)
        assert {d.id for d in message.detections} == {""}
        assert message.header.frame_id == "base_link"
        names = [TINY.class_names[label] for label in expected.labels_D]
        assert [d.results[0].hypothesis.class_id for d in message.detections] == names


def _centres(message: Detection3DArray) -> np.ndarray:
    positions = [d.bbox.center.position for d in message.detections]
    return np.array([(p.x, p.y, p.z) for p in positions])


def _order_of(message: Detection3DArray, expected: Detections, base_T_ref: np.ndarray) -> np.ndarray:
    """Return which expected detection each published one is: rounding may swap those of nearly the same score."""
    centres = transform_points(base_T_ref, expected.boxes_D7[:, :3].numpy())
    labels = np.array([TINY.class_names.index(d.results[0].hypothesis.class_id) for d in message.detections])
    apart = np.abs(_centres(message)[:, None] - centres).max(axis=2)
    order = np.where(labels[:, None] == expected.labels_D.numpy(), apart, np.inf).argmin(axis=1)
    assert sorted(order) == list(range(len(centres)))
    return order


def _as_received(index: int) -> np.ndarray:
    """Return the picture of a camera after the JPEG compression that the rig sends it with."""
    return cv2.imdecode(np.frombuffer(jpeg(picture(index)), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("live", [{"transport": "raw"}], indirect=True)
def test_raw_images_of_any_encoding_and_a_wrong_one(live: tuple[Rig, StreampetrNode]):
    rig, _ = live
    _drive(rig, START, 2.0)
    rig.send_raw("left", START - EXPOSURE_LAG, picture(0), "bgr8")
    rig.send_raw("right", START, picture(1)[..., ::-1], "rgb8")
    assert spin_until(lambda: _sees(rig, START)), rig.logs
    rig.send_raw("left", START + SECOND // 2 - EXPOSURE_LAG, picture(0), "8UC3")
    rig.send_raw("right", START + SECOND // 2, picture(1), "bgr8")
    assert spin_until(lambda: rig.logged("/left/image_raw: encoding '8UC3' is not supported")), rig.logs
    rig.send_raw("left", START + SECOND - EXPOSURE_LAG, picture(0)[..., :1], "mono8")
    rig.send_raw("right", START + SECOND, picture(1), "bgr8")
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs
    assert not _sees(rig, START + SECOND // 2)


BAD_INPUTS = {
    "truncated JPEG": (
        lambda rig, stamp: rig.send_jpeg("left", stamp - EXPOSURE_LAG, picture(0), keep=0.5),
        ("/left/image_raw/compressed: JPEG of", "truncated", "camera driver"),
    ),
    "size unlike CameraInfo": (
        lambda rig, stamp: rig.send_jpeg("left", stamp - EXPOSURE_LAG, picture(0)[:, :80]),
        ("/left/image_raw/compressed: image is 80x120", "CameraInfo says 160x120", "publish the calibration"),
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_image_is_said_and_the_node_lives_on(live: tuple[Rig, StreampetrNode], name: str):
    rig, _ = live
    send_bad, said = BAD_INPUTS[name]
    _drive(rig, START, 2.0)
    send_bad(rig, START)
    rig.send_jpeg("right", START, picture(1))
    assert spin_until(lambda: rig.logged(*said)), rig.logs
    assert spin_until(lambda: rig.logged("1 of 2 cameras usable, without left")), rig.logs
    rig.send_set(START + SECOND)
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs
    assert not _sees(rig, START)


@pytest.mark.parametrize(("value", "said"), [(0.0, "zero or not finite"), (np.nan, "zero or not finite")])
def test_unusable_intrinsics_are_said_and_a_new_calibration_is_taken(
    live: tuple[Rig, StreampetrNode], value: float, said: str
):
    rig, _ = live
    _drive(rig, START, 2.0)
    rig.send_info("left", k=np.full((3, 3), value))
    assert spin_until(lambda: rig.logged("left: new calibration")), rig.logs
    rig.send_set(START)
    assert spin_until(lambda: rig.logged("/left/camera_info", said, "calibrate the camera")), rig.logs
    rig.send_info("left")
    assert spin_until(lambda: sum("left: new calibration" in line for line in rig.logs) == 2), rig.logs
    rig.send_set(START + SECOND)
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs


def test_a_missing_transform_is_said_in_the_words_of_tf(live: tuple[Rig, StreampetrNode]):
    rig, _ = live
    rig.send_set(START)  # nobody has said where base_link is in odom
    assert spin_until(lambda: rig.logged("no transform from 'ref' to 'left'", "odom", "publish")), rig.logs
    _drive(rig, START + SECOND, 1.0)
    rig.send_set(START + SECOND)
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs


def test_transforms_that_come_after_the_images_are_waited_for(live: tuple[Rig, StreampetrNode]):
    rig, _ = live
    rig.send_set(START)
    _drive(rig, START, 0.5)
    assert spin_until(lambda: _sees(rig, START)), rig.logs


def test_a_clock_set_back_starts_a_new_scene(live: tuple[Rig, StreampetrNode]):
    rig, _ = live
    _drive(rig, START + 60 * SECOND, 1.0)
    rig.send_set(START + 60 * SECOND)
    assert spin_until(lambda: _sees(rig, START + 60 * SECOND)), rig.logs
    rig.send_set(START)
    assert spin_until(lambda: rig.logged("images jumped back in time")), rig.logs
    _drive(rig, START, 2.0)
    rig.send_set(START + SECOND)
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs
    assert rig.logged("memory starts anew: time went back by")


def test_only_the_threshold_may_change_while_configured(live: tuple[Rig, StreampetrNode]):
    rig, node = live
    assert node.set_parameters([Parameter("score_threshold", value=1.0)])[0].successful
    refused = node.set_parameters([Parameter("base_frame", value="rear_axle")])[0]
    assert not refused.successful and "base_frame" in refused.reason
    _drive(rig, START, 1.0)
    rig.send_set(START)
    assert spin_until(lambda: _sees(rig, START)), rig.logs
    assert not rig.detections[-1].detections
    assert not node.set_parameters([Parameter("score_threshold", value=1.5)])[0].successful


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": ""}, "parameter 'model' is empty"),
        ({"model": "/nowhere/model.safetensors"}, "no such model file; make one with `streampetr convert`"),
        ({"transport": "theora"}, "parameter 'transport' is 'theora'; it must be compressed or raw"),
        ({"cameras": ["a", "a"]}, "parameter 'cameras' must name each camera once"),
        ({"image_topic": "/camera"}, "parameter 'image_topic' is '/camera'; it must contain {camera}"),
        ({"device": "abacus"}, "device 'abacus' is none that PyTorch knows"),
        ({"min_cameras": 3}, "parameter 'min_cameras' is 3 of 2 cameras"),
    ],
)
def test_a_node_that_cannot_be_configured_says_why_and_can_be_mended(ros: None, model: Path, values: dict, said: str):
    rig = Rig()
    node = make_node(rig, **({"model": str(model)} | values))
    spinner = Spinner(rig.node, node)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert spin_until(lambda: rig.logged(said)), rig.logs
    node.set_parameters(overrides(model=str(model), **{k: v for k, v in _USUAL.items() if k in values}))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    spinner.stop()
    node.destroy_node()
    rig.node.destroy_node()


_USUAL = {
    "transport": "compressed",
    "image_topic": "/{camera}/image_raw",
    "device": "cpu",
    "min_cameras": 0,
}


def test_a_model_of_another_class_count_is_refused(ros: None, tmp_path: Path):
    checkpoint = untrained_checkpoint(TINY)
    state = checkpoint.state | {"heads.classes.6.weight": torch.zeros(7, 32), "heads.classes.6.bias": torch.zeros(7)}
    save_checkpoint(Checkpoint(TINY, state, "", ""), tmp_path / "seven.safetensors")
    rig = Rig()
    node = make_node(rig, model=str(tmp_path / "seven.safetensors"))
    spinner = Spinner(rig.node, node)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert spin_until(lambda: rig.logged("heads.classes.6.weight (7, 32) instead of (10, 32)")), rig.logs
    spinner.stop()
    node.destroy_node()
    rig.node.destroy_node()
