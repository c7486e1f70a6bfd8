import math

import pytest

from streampetr_ros.transforms import transform_fault
from tests.ros.rig import transform

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
LEVEL = (1.0, 0.0, 0.0, 0.0)


def test_a_transform_that_is_right_has_no_fault():
    message = transform("odom", "base_link", NOW, LEVEL, (1e6, -1e6, 0))
    assert transform_fault(message) is None
    assert transform_fault(message, NOW - 2 * SECOND) is None
    assert transform_fault(message, NOW + 3600 * SECOND) is None


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


def test_stamps_before_1970_and_far_ahead_of_the_images_are_faults():
    message = transform("odom", "base_link", NOW, LEVEL, (0, 0, 0))
    assert "is 3600 s ahead of the images" in transform_fault(message, NOW - 3600 * SECOND)
    message.header.stamp.sec = -1
    assert "before 1970" in transform_fault(message)
