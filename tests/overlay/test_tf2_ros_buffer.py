"""The buffer answers, refuses and forgets as the real tf2_ros does; recorded messages are compared word by word."""

import re
import sys
import threading

import numpy as np
import pytest
import tf2_ros
from hypothesis import given
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp

from tests.overlay.transforms import AUTHORITY, make_transform, matrix_of, seconds, stamp_of, x_of


def fill(buffer, *moving, static=()):
    for transform in moving:
        buffer.set_transform(transform, AUTHORITY)
    for transform in static:
        buffer.set_transform_static(transform, AUTHORITY)
    return buffer


@pytest.fixture
def drive():
    """A car that drives along x at 1 m/s from 10 s to 14 s, with a camera half a metre up."""
    moving = [make_transform("map", "base", at, (at - 10.0, 0.0, 0.0)) for at in (10.0, 11.0, 12.0, 13.0, 14.0)]
    return fill(tf2_ros.Buffer(), *moving, static=[make_transform("base", "cam", 0.0, (0.0, 0.0, 0.5))])


def test_time_zero_gives_the_latest_time_that_the_whole_chain_has(drive):
    fill(
        drive, make_transform("cam", "pan", 11.0, (1.0, 0.0, 0.0)), make_transform("cam", "pan", 12.5, (2.0, 0.0, 0.0))
    )
    answer = drive.lookup_transform("map", "pan", Time())
    assert (answer.header.frame_id, answer.child_frame_id) == ("map", "pan")
    assert stamp_of(answer) == 12.5
    assert x_of(answer) == pytest.approx(2.5 + 2.0)


def test_a_purely_static_chain_answers_with_stamp_zero(drive):
    assert stamp_of(drive.lookup_transform("cam", "base", Time())) == 0.0
    assert stamp_of(drive.lookup_transform("cam", "base", seconds(99.0))) == 99.0


def test_two_frames_on_one_moving_body_need_nothing_of_its_motion(drive):
    fill(drive, static=[make_transform("base", "rear_cam", 0.0, (-1.0, 0.0, 0.0))])
    assert x_of(drive.lookup_transform("cam", "rear_cam", seconds(1000.0))) == -1.0


def test_a_frame_seen_from_itself_is_where_it_is(drive):
    answer = drive.lookup_transform("base", "base", seconds(500.0))
    np.testing.assert_array_equal(matrix_of(answer), np.eye(4))
    assert stamp_of(answer) == 500.0


@pytest.mark.parametrize(
    ("at", "way"),
    [
        (20.0, "future.  Requested time 20.000000 but the latest data is at time 14.000000"),
        (3.0, "past.  Requested time 3.000000 but the earliest data is at time 10.000000"),
    ],
)
def test_beyond_the_ends_is_refused(drive, at, way):
    expected = (
        f"Lookup would require extrapolation into the {way}, when looking up transform from frame [cam] to frame [map]"
    )
    with pytest.raises(tf2_ros.ExtrapolationException, match=f"^{re.escape(expected)}$"):
        drive.lookup_transform("map", "cam", seconds(at))


def test_a_single_sample_answers_for_its_own_time_only():
    buffer = fill(tf2_ros.Buffer(), make_transform("map", "base", 9.0, (5.0, 0.0, 0.0)))
    assert x_of(buffer.lookup_transform("map", "base", seconds(9.0))) == 5.0
    with pytest.raises(
        tf2_ros.ExtrapolationException, match="at time 10.000000, but only time 9.000000 is in the buffer"
    ):
        buffer.lookup_transform("map", "base", seconds(10.0))


def test_an_unknown_frame_is_named(drive):
    with pytest.raises(
        tf2_ros.LookupException, match='"lidar" passed to lookupTransform argument source_frame does not'
    ):
        drive.lookup_transform("map", "lidar", Time())
    with pytest.raises(
        tf2_ros.LookupException, match='"earth" passed to lookupTransform argument target_frame does not'
    ):
        drive.lookup_transform("earth", "cam", Time())


@pytest.mark.parametrize("time", [Time(), seconds(12.0)])
def test_two_trees_are_not_connected(drive, time):
    fill(drive, static=[make_transform("world", "tower")])
    with pytest.raises(
        tf2_ros.ConnectivityException,
        match="Could not find a connection between 'tower' and 'cam' because they are not part of the same tree",
    ):
        drive.lookup_transform("tower", "cam", time)


@pytest.mark.parametrize(("name", "fault"), [("", "cannot be empty"), ("/cam", "cannot start with a '/'")])
def test_bad_names_are_refused(drive, name, fault):
    with pytest.raises(tf2_ros.InvalidArgumentException, match=fault):
        drive.lookup_transform("map", name, Time())
    with pytest.raises(tf2_ros.InvalidArgumentException, match=fault):
        drive.lookup_transform(name, "cam", Time())


def test_every_refusal_is_a_transform_exception():
    for kind in ("Lookup", "Connectivity", "Extrapolation", "InvalidArgument"):
        assert issubclass(getattr(tf2_ros, f"{kind}Exception"), tf2_ros.TransformException)


def test_a_leading_slash_is_dropped_when_storing():
    buffer = fill(tf2_ros.Buffer(), make_transform("/map", "/base", 1.0, (2.0, 0.0, 0.0)))
    assert x_of(buffer.lookup_transform("map", "base", Time())) == 2.0


@pytest.mark.parametrize(
    ("transform", "word"),
    [
        (make_transform("map", "lidar", 1.0, (float("nan"), 0.0, 0.0)), "TF_NAN_INPUT"),
        (make_transform("map", "lidar", 1.0, rotation=(0.0, 0.0, float("nan"), 1.0)), "TF_NAN_INPUT"),
        (make_transform("map", "lidar", 1.0, rotation=(0.0, 0.0, 0.0, 0.0)), "TF_DENORMALIZED_QUATERNION"),
        (make_transform("lidar", "lidar", 1.0), "TF_SELF_TRANSFORM"),
        (make_transform("", "lidar", 1.0), "TF_NO_FRAME_ID"),
        (make_transform("lidar", "", 1.0), "TF_NO_CHILD_FRAME_ID"),
    ],
)
def test_nonsense_is_dropped_with_a_log_line(drive, capfd, transform, word):
    fill(drive, transform)
    assert word in capfd.readouterr().err
    with pytest.raises(tf2_ros.LookupException):
        drive.lookup_transform("map", "lidar", Time())


def test_samples_may_arrive_in_any_order_and_twice():
    buffer = fill(
        tf2_ros.Buffer(), *(make_transform("map", "base", at, (at, 0.0, 0.0)) for at in (3.0, 1.0, 4.0, 2.0, 2.0))
    )
    for at in (1.0, 1.5, 2.5, 3.25, 4.0):
        assert x_of(buffer.lookup_transform("map", "base", seconds(at))) == pytest.approx(at)


def test_history_reaches_back_cache_time_and_no_further(capfd):
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=2))
    fill(buffer, *(make_transform("map", "base", at) for at in (1.0, 2.0, 3.0, 4.0, 5.0)))
    assert buffer.can_transform("map", "base", seconds(3.0))
    assert not buffer.can_transform("map", "base", seconds(2.9))
    fill(buffer, make_transform("map", "base", 1.0))
    assert "TF_OLD_DATA" in capfd.readouterr().err
    assert not buffer.can_transform("map", "base", seconds(2.9))


def test_ten_seconds_are_kept_unless_told():
    buffer = fill(tf2_ros.Buffer(), *(make_transform("map", "base", float(at)) for at in range(1, 31)))
    assert buffer.can_transform("map", "base", seconds(20.0))
    assert not buffer.can_transform("map", "base", seconds(19.9))


def test_clear_forgets_motion_and_keeps_what_is_static(drive):
    drive.clear()
    assert not drive.can_transform("map", "cam", Time())
    assert drive.can_transform("base", "cam", Time())
    fill(drive, make_transform("map", "base", 2.0, (7.0, 0.0, 0.0)))
    assert x_of(drive.lookup_transform("map", "cam", seconds(2.0))) == 7.0


def test_a_frame_may_change_its_parent():
    buffer = fill(
        tf2_ros.Buffer(),
        make_transform("map", "crane", 1.0, (100.0, 0.0, 0.0)),
        make_transform("map", "crane", 3.0, (100.0, 0.0, 0.0)),
        make_transform("map", "box", 1.0, (1.0, 0.0, 0.0)),
        make_transform("crane", "box", 2.0, (2.0, 0.0, 0.0)),
        make_transform("crane", "box", 3.0, (2.0, 0.0, 0.0)),
    )
    assert x_of(buffer.lookup_transform("map", "box", seconds(1.5))) == 1.0
    assert x_of(buffer.lookup_transform("map", "box", seconds(2.5))) == 102.0


def test_a_loop_of_frames_is_refused():
    buffer = fill(
        tf2_ros.Buffer(), static=[make_transform("a", "b"), make_transform("b", "a"), make_transform("c", "d")]
    )
    with pytest.raises(tf2_ros.LookupException, match="loop"):
        buffer.lookup_transform("c", "a", seconds(1.0))


def test_can_transform_tells_why_not(drive):
    assert drive.can_transform("map", "cam", seconds(12.0), return_debug_tuple=True) == (True, "")
    able, why = drive.can_transform("map", "cam", seconds(20.0), return_debug_tuple=True)
    assert not able
    assert "extrapolation into the future" in why
    assert not drive.can_transform("map", "", Time())


def test_a_timeout_waits_for_the_transform(drive):
    arrival = threading.Timer(0.1, fill, (drive, make_transform("map", "base", 15.0, (5.0, 0.0, 0.0))))
    arrival.start()
    assert x_of(drive.lookup_transform("map", "cam", seconds(15.0), timeout=Duration(seconds=30))) == 5.0
    arrival.join()


def test_lookup_full_joins_two_times_through_a_frame_that_stands_still(drive):
    answer = drive.lookup_transform_full("base", seconds(13.0), "cam", seconds(11.5), "map")
    assert (answer.header.frame_id, answer.child_frame_id, stamp_of(answer)) == ("base", "cam", 13.0)
    np.testing.assert_allclose(matrix_of(answer)[:3, 3], (-1.5, 0.0, 0.5), atol=1e-12)
    assert drive.can_transform_full("base", seconds(13.0), "cam", seconds(11.5), "map")
    assert not drive.can_transform_full("base", seconds(13.0), "cam", seconds(9.0), "map")
    with pytest.raises(tf2_ros.LookupException, match='"odom" passed to lookupTransform argument fixed_frame'):
        drive.lookup_transform_full("base", seconds(13.0), "cam", seconds(11.5), "odom")


@pytest.fixture
def eager_threads():
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_may_write_and_read_at_once(eager_threads):
    step = 1 / 512
    # A history of two steps: what a reader has just found is soon forgotten.
    buffer = fill(
        tf2_ros.Buffer(cache_time=Duration(seconds=2 * step)), make_transform("map", "base", 1.0, (1.0, 0.0, 0.0))
    )

    def drive_on():
        for count in range(1, 4001):
            at = 1.0 + count * step
            fill(buffer, make_transform("map", "base", at, (at, 0.0, 0.0)))

    writer = threading.Thread(target=drive_on)
    writer.start()
    latest = 0.0
    while writer.is_alive():
        answer = buffer.lookup_transform("map", "base", Time())
        assert x_of(answer) == stamp_of(answer) >= latest
        latest = stamp_of(answer)
    writer.join()
    assert stamp_of(buffer.lookup_transform("map", "base", Time())) == 1.0 + 4000 * step


coordinates = st.floats(-1e6, 1e6)
poses = st.tuples(
    st.tuples(coordinates, coordinates, coordinates),
    st.tuples(*[st.floats(-1.0, 1.0)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q)),
)


@given(first=poses, second=poses, ratio=st.floats(0.0, 1.0))
def test_between_two_samples_lies_a_straight_line_and_the_shorter_turn(first, second, ratio):
    buffer = fill(
        tf2_ros.Buffer(), make_transform("map", "base", 1.0, *first), make_transform("map", "base", 2.0, *second)
    )
    at = seconds(1.0 + ratio)
    found = matrix_of(buffer.lookup_transform("map", "base", at))
    ratio = at.nanoseconds / 1e9 - 1.0
    np.testing.assert_allclose(
        found[:3, 3], np.array(first[0]) + ratio * (np.array(second[0]) - np.array(first[0])), rtol=1e-9, atol=1e-6
    )
    turn = Rotation.from_quat([first[1], second[1]])
    # At half a turn there is no shorter way: both are right.
    if (turn[0].inv() * turn[1]).magnitude() < np.pi - 1e-6:
        np.testing.assert_allclose(found[:3, :3], Slerp([0.0, 1.0], turn)(ratio).as_matrix(), atol=1e-7)


@given(st.lists(poses, min_size=3, max_size=3), st.booleans())
def test_lookups_are_products_of_the_links_and_their_inverses(links, beside):
    buffer = tf2_ros.Buffer()
    parents = ("map", "base", "base" if beside else "mast")
    transforms = [
        make_transform(parent, child, 1.0, *pose)
        for parent, child, pose in zip(parents, ("base", "mast", "cam"), links, strict=True)
    ]
    fill(buffer, *transforms)
    map_T_base, base_T_mast, link = map(matrix_of, transforms)
    base_T_cam = link if beside else base_T_mast @ link
    expected = np.linalg.inv(base_T_mast) @ base_T_cam
    np.testing.assert_allclose(
        matrix_of(buffer.lookup_transform("mast", "cam", Time())), expected, rtol=1e-9, atol=1e-6
    )
    map_T_cam = matrix_of(buffer.lookup_transform("map", "cam", Time()))
    np.testing.assert_allclose(map_T_cam, map_T_base @ base_T_cam, rtol=1e-9, atol=1e-6)
    cam_T_map = matrix_of(buffer.lookup_transform("cam", "map", Time()))
    np.testing.assert_allclose(cam_T_map @ map_T_cam, np.eye(4), atol=1e-5)
