"""The live node when cameras are calibrated anew or mounted elsewhere while it runs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from streampetr_ros.node import StreampetrNode
from tests.ros.rig import (
    BASE_P_CAMERA,
    BASE_Q_CAMERA,
    CAMERAS,
    K,
    Rig,
    Spinner,
    make_node,
    spin_until,
    transform,
    write_tiny_model,
)

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Rig, StreampetrNode]]:
    rclpy.init()
    rig = Rig()
    node = make_node(rig, model=str(write_tiny_model(tmp_path / "tiny.safetensors")))
    spinner = Spinner(rig.node, node)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publishers = *rig.compressed.values(), *rig.infos.values(), rig.tf
    assert spin_until(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    assert spin_until(lambda: node.count_subscribers(f"/{rig.detector}/detections"))
    yield rig, node
    spinner.stop()
    node.destroy_node()
    rig.node.destroy_node()
    rclpy.try_shutdown()


def _stamps(rig: Rig) -> list[int]:
    return [Time.from_msg(message.header.stamp).nanoseconds for message in list(rig.detections)]


def _send(rig: Rig, number: int) -> None:
    stamp = START + number * SECOND // 2
    rig.send_poses({stamp + step * SECOND // 10: (10.0, 0.0, 0.0) for step in range(-1, 2)})
    rig.send_set(stamp)


def _answer(rig: Rig, number: int) -> list[float]:
    """Return the centres of what is found in a set."""
    stamp = START + number * SECOND // 2
    assert spin_until(lambda: stamp in _stamps(rig)), rig.logs
    message = rig.detections[_stamps(rig).index(stamp)]
    return [value for d in message.detections for p in [d.bbox.center.position] for value in (p.x, p.y, p.z)]


def test_a_new_calibration_and_a_new_mount_take_effect_with_the_next_set(live: tuple[Rig, StreampetrNode]):
    rig, _ = live
    rig.send_static()
    for camera in CAMERAS:
        rig.send_info(camera)
    for number in range(4):
        _send(rig, number)
    before = _answer(rig, 3)
    rig.send_info("left", k=np.diag([1.2, 1.2, 1.0]) @ K)
    assert spin_until(lambda: rig.logged("left: new calibration, in use from the next set on")), rig.logs
    _send(rig, 4)
    calibrated = _answer(rig, 4)
    assert calibrated != before
    x, y, z = BASE_P_CAMERA["left"]
    moved = transform("base_link", "left", 0, BASE_Q_CAMERA["left"], (x + 0.5, y, z))
    rig.tf_static.publish(TFMessage(transforms=[moved]))
    numbers = iter(range(5, 100))

    def notices() -> bool:
        _send(rig, next(numbers))
        return rig.logged("left: moved on 'base_link' by 0.500 m and 0.00 degrees; in use from this set on")

    assert spin_until(notices), rig.logs
    assert not rig.logged("memory starts anew")
    assert sum("moved on 'base_link'" in line for line in rig.logs) == 1
