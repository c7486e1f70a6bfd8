"""Tracks from the live node: what every topic says, and that they say the same."""

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import Marker, MarkerArray

from streampetr_ros.clouds import read_cloud
from streampetr_ros.node import StreampetrNode
from tests.ros.rig import TINY, Rig, picture, spin_until
from tests.ros.test_node import SECOND, START, _drive, _sees, live, model, ros  # noqa: F401

LISTENED = {
    "tracks": Detection3DArray,
    "detections/points": PointCloud2,
    "objects": PointCloud2,
    "markers": MarkerArray,
}
EVERYTHING_IS_TRACKED = {"track_birth_score": 0.0, "track_keep_score": 0.0}
REFERENCE = {"reference_topic": "/trigger"}


def _listen(rig: Rig) -> dict[str, list]:
    heard = {}
    for name, kind in LISTENED.items():
        heard[name] = []
        rig.node.create_subscription(kind, f"/{rig.detector}/{name}", heard[name].append, 20)
    return heard


def _stamp(message) -> int:
    header = message.markers[0].header if hasattr(message, "markers") else message.header
    return Time.from_msg(header.stamp).nanoseconds


def _send_until_heard(rig: Rig, heard: dict[str, list], count: int) -> dict[str, list]:
    """Send sets 0.1 s apart; return the last messages of `count` instants that came on every topic."""
    _drive(rig, START, 12.0)
    for index in range(100):
        rig.send_set(START + index * SECOND // 10)
        assert spin_until(lambda index=index: _sees(rig, START + index * SECOND // 10)), rig.logs
        common = set.intersection(*({_stamp(message) for message in messages} for messages in heard.values()))
        if len(common) >= count:
            break
    stamps = sorted(common)[-count:]
    return {name: [next(m for m in got if _stamp(m) == s) for s in stamps] for name, got in heard.items()}


@pytest.mark.parametrize("live", [EVERYTHING_IS_TRACKED], indirect=True)
def test_tracks_points_and_markers_tell_the_same(live: tuple[Rig, StreampetrNode]):  # noqa: F811
    rig, _ = live
    heard = _send_until_heard(rig, _listen(rig), 3)
    for tracks, objects, markers in zip(heard["tracks"], heard["objects"], heard["markers"], strict=True):
        points = read_cloud(objects)
        assert len(points) == len(tracks.detections) > 3
        assert tracks.header.frame_id == objects.header.frame_id == "base_link"
        assert [d.id for d in tracks.detections] == [str(id_) for id_ in points["track_id"]]
        for detection, point in zip(tracks.detections, points, strict=True):
            centre, size = detection.bbox.center.position, detection.bbox.size
            sent = [centre.x, centre.y, centre.z, size.x, size.y, size.z]
            np.testing.assert_allclose(
                [point[name] for name in ("x", "y", "z", "length", "width", "height")], sent, rtol=1e-6, atol=1e-5
            )
            hypothesis = detection.results[0].hypothesis
            assert TINY.class_names[point["class"]] == hypothesis.class_id
            assert point["score"] == pytest.approx(hypothesis.score, abs=1e-6)
        bodies = {m.id for m in markers.markers if m.ns == "boxes" and m.action == Marker.ADD}
        assert bodies == set(points["track_id"].tolist())
    first, last = read_cloud(heard["objects"][0]), read_cloud(heard["objects"][-1])
    kept = set(first["track_id"].tolist()) & set(last["track_id"].tolist())
    assert kept  # pictures and pose hardly change, so some objects do not either
    for id_ in kept:
        aged = last["age"][last["track_id"] == id_] - first["age"][first["track_id"] == id_]
        assert aged == pytest.approx((_stamp(heard["objects"][-1]) - _stamp(heard["objects"][0])) / 1e9, abs=1e-3)


@pytest.mark.parametrize("live", [EVERYTHING_IS_TRACKED], indirect=True)
def test_markers_of_lost_tracks_are_deleted(live: tuple[Rig, StreampetrNode]):  # noqa: F811
    rig, _ = live
    heard = _listen(rig)
    _send_until_heard(rig, heard, 2)
    stamp = START + 100 * SECOND  # after a gap all tracks are new
    _drive(rig, stamp, 1.0)
    rig.send_set(stamp, {"left": picture(5), "right": picture(6)})
    for name in ("markers", "tracks"):
        assert spin_until(lambda name=name: any(_stamp(message) == stamp for message in heard[name])), rig.logs
    assert spin_until(lambda: rig.logged("memory starts anew: a gap of 9", "and so do all tracks")), rig.logs
    shown: set[tuple[str, int]] = set()
    ever: set[tuple[str, int]] = set()
    for message in heard["markers"]:
        for marker in message.markers:
            if marker.action == Marker.DELETEALL:
                shown.clear()
            elif marker.action == Marker.DELETE:
                shown.discard((marker.ns, marker.id))
            else:
                shown.add((marker.ns, marker.id))
        ever |= shown
    assert _stamp(heard["tracks"][-1]) == stamp
    last = {int(detection.id) for detection in heard["tracks"][-1].detections}
    assert {id_ for _, id_ in shown} == last and {id_ for _, id_ in ever} > last


def test_velocities_come_with_the_detections(live: tuple[Rig, StreampetrNode]):  # noqa: F811
    rig, _ = live
    heard = _send_until_heard(rig, _listen(rig), 1)
    points = read_cloud(heard["detections/points"][0])
    (array,) = [m for m in rig.detections if _stamp(m) == _stamp(heard["detections/points"][0])]
    assert len(points) == len(array.detections)
    centres = [[d.bbox.center.position.x, d.bbox.center.position.y] for d in array.detections]
    np.testing.assert_allclose(np.c_[points["x"], points["y"]], centres, atol=1e-4)
    assert np.isfinite(points["vx"]).all() and np.abs(points["vx"]).max() > 0
    assert "track_id" not in points.dtype.names


def test_what_the_classes_mean_is_told_to_whoever_comes_late(live: tuple[Rig, StreampetrNode]):  # noqa: F811
    rig, _ = live
    heard: list[LabelInfo] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.node.create_subscription(LabelInfo, f"/{rig.detector}/label_info", heard.append, latched)
    assert spin_until(lambda: heard)
    assert [item.class_name for item in heard[0].class_map] == list(TINY.class_names)
    assert [item.class_id for item in heard[0].class_map] == list(range(10))


@pytest.mark.parametrize("live", [REFERENCE], indirect=True)
def test_the_reference_time_is_the_sensors_that_tells_it(live: tuple[Rig, StreampetrNode]):  # noqa: F811
    rig, _ = live
    trigger = rig.node.create_publisher(Header, "/trigger", 10)
    assert spin_until(trigger.get_subscription_count)
    _drive(rig, START, 3.0)
    for told in (START - SECOND // 10, START + 3_000_000):
        trigger.publish(Header(stamp=Time(nanoseconds=told).to_msg()))
    rig.send_set(START)
    assert spin_until(lambda: _sees(rig, START + 3_000_000)), rig.logs
    rig.send_set(START + SECOND)  # nobody says when this one was
    assert spin_until(lambda: _sees(rig, START + SECOND)), rig.logs
    assert rig.logged("/trigger: no stamp near a set; its newest exposure stands in")
