"""Messages whose objects are used again: what one frame had must not show in the next."""

import numpy as np
import pytest
from rclpy.time import Time
from std_msgs.msg import Header

from streampetr_ros.messages import DetectionArrays, Objects

CLASS_NAMES = ("car", "pedestrian")


def objects_of(number: int, seed: int, with_ids: bool = False) -> Objects:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 99, number) if with_ids else None
    boxes_D7, velocities_D3 = rng.uniform(-3, 3, (number, 7)), np.zeros((number, 3))
    return Objects(boxes_D7, velocities_D3, rng.random(number), rng.integers(0, 2, number), ids, np.zeros(number))


def test_every_array_says_what_its_own_objects_are():
    arrays = DetectionArrays(CLASS_NAMES)
    for seed, (number, with_ids) in enumerate([(3, False), (5, True), (2, False), (0, False), (4, True)]):
        objects = objects_of(number, seed, with_ids)
        header = Header(frame_id=f"base_{seed}", stamp=Time(nanoseconds=10**9 * seed + 7).to_msg())
        message = arrays.make(header, objects)
        assert message.header == header
        assert len(message.detections) == number
        for index, detection in enumerate(message.detections):
            x, y, z, length, width, height, yaw = objects.boxes_D7[index]
            centre, size, (hypothesis,) = detection.bbox.center, detection.bbox.size, detection.results
            assert detection.header == header
            assert detection.id == (str(objects.ids_D[index]) if with_ids else "")
            assert (centre.position.x, centre.position.y, centre.position.z) == (x, y, z)
            assert (size.x, size.y, size.z) == (length, width, height)
            assert 2 * np.arctan2(centre.orientation.z, centre.orientation.w) == pytest.approx(yaw)
            assert hypothesis.pose.pose == centre
            assert hypothesis.hypothesis.class_id == CLASS_NAMES[objects.labels_D[index]]
            assert hypothesis.hypothesis.score == objects.scores_D[index]
