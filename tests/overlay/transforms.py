"""Transforms and times for the tests of tf2_ros."""

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from scipy.spatial.transform import Rotation

AUTHORITY = "test"
IDENTITY_XYZW = (0.0, 0.0, 0.0, 1.0)


def seconds(value):
    return Time(nanoseconds=round(value * 1e9))


def make_transform(parent, child, at=0.0, translation=(0.0, 0.0, 0.0), rotation=IDENTITY_XYZW):
    """Return `parent_T_child` at a time in seconds; `rotation` is x, y, z, w."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = seconds(at).to_msg()
    vector, quaternion = message.transform.translation, message.transform.rotation
    vector.x, vector.y, vector.z = map(float, translation)
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = map(float, rotation)
    return message


def matrix_of(message):
    """Return the 4x4 matrix of a TransformStamped."""
    vector, quaternion = message.transform.translation, message.transform.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([quaternion.x, quaternion.y, quaternion.z, quaternion.w]).as_matrix()
    matrix[:3, 3] = vector.x, vector.y, vector.z
    return matrix


def x_of(message):
    return message.transform.translation.x


def stamp_of(message):
    """Return the stamp in seconds."""
    return Time.from_msg(message.header.stamp).nanoseconds / 1e9
