"""Rigid motions as plain tuples of floats: at this size they are an order of magnitude quicker than NumPy arrays."""

import math
from typing import NamedTuple

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
"""x, y, z, w, as in geometry_msgs."""


class Rigid(NamedTuple):
    """`a_T_b`: where frame b is in frame a, in metres, with a unit quaternion."""

    translation: Vector
    rotation: Quaternion


IDENTITY = Rigid((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def normalized(q: Quaternion) -> Quaternion:
    """Return the quaternion at length 1; it must not be zero."""
    x, y, z, w = q
    scale = 1.0 / math.sqrt(x * x + y * y + z * z + w * w)
    return x * scale, y * scale, z * scale, w * scale


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Return the vector turned by a unit quaternion."""
    x, y, z, w = q
    vx, vy, vz = v
    tx, ty, tz = 2.0 * (y * vz - z * vy), 2.0 * (z * vx - x * vz), 2.0 * (x * vy - y * vx)
    return (
        vx + w * tx + y * tz - z * ty,
        vy + w * ty + z * tx - x * tz,
        vz + w * tz + x * ty - y * tx,
    )


def compose(a_T_b: Rigid, b_T_c: Rigid) -> Rigid:
    """Return `a_T_c`."""
    (ax, ay, az), (x1, y1, z1, w1) = a_T_b
    turned, (x2, y2, z2, w2) = rotate(a_T_b.rotation, b_T_c.translation), b_T_c.rotation
    return Rigid(
        (ax + turned[0], ay + turned[1], az + turned[2]),
        (
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        ),
    )


def inverse(a_T_b: Rigid) -> Rigid:
    """Return `b_T_a`."""
    x, y, z, w = a_T_b.rotation
    back = (-x, -y, -z, w)
    tx, ty, tz = rotate(back, a_T_b.translation)
    return Rigid((-tx, -ty, -tz), back)


def interpolate(start: Rigid, end: Rigid, ratio: float) -> Rigid:
    """Return the motion at `ratio` (0 to 1) of the way: a straight line, and the shorter turn at constant speed."""
    (x0, y0, z0), (x1, y1, z1) = start.translation, end.translation
    translation = (x0 + ratio * (x1 - x0), y0 + ratio * (y1 - y0), z0 + ratio * (z1 - z0))
    return Rigid(translation, _slerp(start.rotation, end.rotation, ratio))


def _slerp(start: Quaternion, end: Quaternion, ratio: float) -> Quaternion:
    cosine = sum(a * b for a, b in zip(start, end, strict=True))
    if cosine < 0.0:
        cosine, end = -cosine, tuple(-b for b in end)
    angle = math.acos(min(cosine, 1.0))
    # Below this angle the sines divide rounding by rounding, and the chord is the arc.
    if angle < 1e-6:
        from_start, from_end = 1.0 - ratio, ratio
    else:
        from_start, from_end = math.sin((1.0 - ratio) * angle), math.sin(ratio * angle)
    return normalized(tuple(from_start * a + from_end * b for a, b in zip(start, end, strict=True)))
