"""Rigid transforms, quaternions, boxes and projections."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streampetr_core import geometry

numbers = st.floats(-100, 100)
points = st.tuples(numbers, numbers, numbers)
quaternions = st.tuples(*[st.floats(-1, 1)] * 4)
yaws = st.floats(-3.14, 3.14)


def transform(quaternion, translation):
    assume(np.linalg.norm(quaternion) > 1e-3)
    return geometry.transform_from_quaternion(quaternion, translation)


@given(quaternions, points)
def test_a_quaternion_gives_a_rotation(quaternion, translation):
    a_T_b = transform(quaternion, translation)
    np.testing.assert_allclose(a_T_b[:3, :3] @ a_T_b[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(a_T_b[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_array_equal(a_T_b[3], [0, 0, 0, 1])


@given(quaternions, st.floats(0.01, 100))
def test_the_length_and_the_sign_of_a_quaternion_do_not_matter(quaternion, length):
    assume(np.linalg.norm(quaternion) > 1e-3)
    expected = geometry.rotation_from_quaternion(quaternion)
    np.testing.assert_allclose(geometry.rotation_from_quaternion(np.multiply(quaternion, length)), expected, atol=1e-12)
    np.testing.assert_allclose(geometry.rotation_from_quaternion(np.negative(quaternion)), expected, atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 0)])
def test_what_is_no_rotation_is_refused(quaternion):
    with pytest.raises(ValueError, match="is no rotation"):
        geometry.rotation_from_quaternion(quaternion)


@given(quaternions, points, points)
def test_the_inverse_undoes_a_transform(quaternion, translation, point):
    a_T_b = transform(quaternion, translation)
    b_T_a = geometry.invert_transform(a_T_b)
    np.testing.assert_allclose(b_T_a @ a_T_b, np.eye(4), atol=1e-9)
    back = geometry.transform_points(b_T_a, geometry.transform_points(a_T_b, point))
    np.testing.assert_allclose(back, point, atol=1e-9)


@given(quaternions, points, quaternions, points, points)
def test_transforms_compose_from_right_to_left(q1, t1, q2, t2, point):
    a_T_b, b_T_c = transform(q1, t1), transform(q2, t2)
    one_by_one = geometry.transform_points(a_T_b, geometry.transform_points(b_T_c, point))
    np.testing.assert_allclose(geometry.transform_points(a_T_b @ b_T_c, point), one_by_one, atol=1e-9)


def test_points_of_any_shape_are_transformed():
    a_T_b = geometry.make_transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [10, 0, 0])
    moved = geometry.transform_points(a_T_b, [[[1, 0, 0], [0, 1, 0]]])
    np.testing.assert_allclose(moved, [[[10, 1, 0], [9, 0, 0]]])


@given(yaws)
def test_yaw_there_and_back(yaw):
    rotation = geometry.rotation_from_quaternion(geometry.quaternion_from_yaw(yaw))
    assert geometry.yaw_of(rotation) == pytest.approx(yaw, abs=1e-9)
    np.testing.assert_allclose(rotation @ [1, 0, 0], [math.cos(yaw), math.sin(yaw), 0], atol=1e-12)


sizes = st.tuples(*[st.floats(0.1, 20)] * 3)


@given(points, sizes, yaws)
def test_box_corners_hold_centre_size_and_heading(centre, size, yaw):
    corners = geometry.box_corners([*centre, *size, yaw])[0]
    np.testing.assert_allclose(corners.mean(axis=0), centre, atol=1e-9)
    heading, side, up = corners[0] - corners[1], corners[0] - corners[3], corners[4] - corners[0]
    for edge, length in zip((heading, side, up), size, strict=True):
        assert np.linalg.norm(edge) == pytest.approx(length)
    np.testing.assert_allclose(heading / size[0], [math.cos(yaw), math.sin(yaw), 0], atol=1e-9)
    assert up[2] > 0
    assert np.cross(heading, side)[2] > 0  # side points to the left of heading


def test_box_edges_join_neighbours_only():
    corners = geometry.box_corners([0, 0, 0, 2, 3, 5, 0.7])[0]
    lengths = sorted(np.linalg.norm(corners[a] - corners[b]) for a, b in geometry.BOX_EDGES)
    np.testing.assert_allclose(lengths, [2] * 4 + [3] * 4 + [5] * 4)


def test_no_boxes_have_no_corners():
    assert geometry.box_corners(np.empty((0, 7))).shape == (0, 8, 3)


@given(st.tuples(numbers, numbers, st.floats(0.5, 100)))
def test_projection_gives_pixels_times_depth(point_cam):
    K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    cam_T_ref = geometry.make_transform(geometry.rotation_from_quaternion((0.5, -0.5, 0.5, -0.5)), [0.1, 0.2, 0.3])
    point_ref = geometry.transform_points(geometry.invert_transform(cam_T_ref), point_cam)
    ud, vd, d, one = geometry.projection(K, cam_T_ref) @ [*point_ref, 1]
    x, y, z = point_cam
    np.testing.assert_allclose(
        [ud / d, vd / d, d, one], [500 * x / z + 320, 510 * y / z + 240, z, 1], rtol=1e-6, atol=1e-6
    )
