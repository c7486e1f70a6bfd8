import math

import pytest
from geometry_msgs.msg import TransformStamped

from streampetr_ros.transform_gate import TransformGate
from streampetr_ros.transforms import transform_fault
from tests.ros.rig import transform

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
LEVEL = (1.0, 0.0, 0.0, 0.0)


def test_a_transform_that_is_right_has_no_fault():
    message = transform("odom", "base_link", NOW, LEVEL, (1e6, -1e6, 0))
    assert transform_fault(message) is None


@pytest.mark.parametrize(
    ("parent", "child", "quaternion", "position", "said"),
    [
        ("", "base_link", LEVEL, (0, 0, 0), "without a name"),
        ("odom", "", LEVEL, (0, 0, 0), "without a name"),
        ("odom", "base_link", LEVEL, (math.nan, 0, 0), "translation"),
        ("odom", "base_link", LEVEL, (0, math.inf, 0), "translation"),
        ("odom", "base_link", (0, 0, 0, 0), (0, 0, 0), "squared length 0"),
        ("odom", "base_link", (math.nan, 0, 0, 1), (0, 0, 0), "squared length nan"),
    ],
)
def test_what_is_wrong_with_a_transform_is_said(parent: str, child: str, quaternion: tuple, position: tuple, said: str):
    assert said in transform_fault(transform(parent, child, NOW, quaternion, position))


def test_a_stamp_before_1970_is_a_fault():
    message = transform("odom", "base_link", NOW, LEVEL, (0, 0, 0))
    message.header.stamp.sec = -1
    assert "before 1970" in transform_fault(message)


def _at(seconds: int) -> TransformStamped:
    return transform("odom", "base_link", NOW + seconds * SECOND, LEVEL, (0, 0, 0))


def test_before_any_image_and_near_the_images_transforms_pass():
    gate = TransformGate()
    assert gate.admit([_at(0), _at(9999)], 0.0) == [_at(0), _at(9999)]
    assert gate.images_came(NOW, 1.0) == ([], None)
    assert gate.admit([_at(-9999), _at(50)], 2.0) == [_at(-9999), _at(50)]
    assert gate.admit([_at(150)], 101.0) == [_at(150)]  # time has gone on, although no image came


def test_transforms_that_jump_before_the_images_wait_for_them():
    gate = TransformGate()
    gate.images_came(NOW, 0.0)
    assert gate.admit([_at(3600), _at(3601)], 0.1) == []
    assert gate.images_came(NOW + SECOND // 10, 0.1) == ([], None)  # the last images of the time before
    gate.jumped()
    assert gate.images_came(NOW + 3600 * SECOND, 0.3) == ([_at(3600), _at(3601)], None)


def test_a_transform_of_a_time_of_which_no_image_comes_is_dropped_and_said():
    gate = TransformGate()
    gate.images_came(NOW, 0.0)
    assert gate.admit([_at(3600)], 0.1) == []
    assert gate.images_came(NOW + SECOND, 1.0) == ([], None)
    admitted, fault = gate.images_came(NOW + 2 * SECOND, 2.0)
    assert admitted == [] and fault == "the transform from 'base_link' to 'odom' is 3598 s ahead of the images"
    assert gate.images_came(NOW + 3600 * SECOND, 3.0) == ([], None)
