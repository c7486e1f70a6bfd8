"""A spinning LiDAR: every ray is met with the triangles it may hit, and the nearest hit is kept."""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from streampetr_core.geometry import Array, invert_transform
from training.synth.raster.picture import Instance

# The beams of the sensor on the nuScenes car, 32 at even steps.
_LOWEST, _HIGHEST = np.deg2rad(-30.67), np.deg2rad(10.67)
_NEAREST = 1.0  # metres; nearer returns are the ego vehicle's own


def scan(
    instances: Sequence[Instance],
    world_T_lidar: ArrayLike,
    beams: int = 32,
    columns: int = 1080,
    reach: float = 80.0,
    with_ground: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the hits (N, 3) in lidar of one turn, and whose they are (N,): 0 for scenery and the ground z = 0.

    All rays start at one moment from one point; what is farther than `reach` metres gives no return.
    """
    world_T_lidar = np.asarray(world_T_lidar, dtype=np.float64)
    lidar_T_world = invert_transform(world_T_lidar)
    azimuths = (np.arange(columns) + 0.5) * (2 * np.pi / columns) - np.pi
    elevations = np.linspace(_LOWEST, _HIGHEST, beams)
    circle, slopes = np.stack([np.cos(azimuths), np.sin(azimuths)], axis=1), np.tan(elevations)
    # Rays have length 1 in the xy plane of the sensor, so a distance is one along the ground.
    distances = np.full((beams, columns), np.inf)
    owners = np.zeros((beams, columns), np.int32)
    if with_ground:
        _add_ground(world_T_lidar, circle, slopes, distances)
    for item in instances:
        lidar_T_body = lidar_T_world @ item.world_T_body
        centre = lidar_T_body[:3, :3] @ item.mesh.centre + lidar_T_body[:3, 3]
        if np.linalg.norm(centre) - item.mesh.radius < reach:
            _cast(item.mesh.vertices, item.mesh.triangles, lidar_T_body, item.ident, circle, slopes, distances, owners)
    lengths = distances * np.sqrt(1 + slopes**2)[:, None]
    rows, cells = np.nonzero((lengths < reach) & (lengths > _NEAREST))
    chosen = distances[rows, cells]
    points = np.concatenate([circle[cells], slopes[rows, None]], axis=1) * chosen[:, None]
    return points.astype(np.float32), owners[rows, cells]


def _add_ground(world_T_lidar: Array, circle: Array, slopes: Array, distances: Array) -> None:
    up = world_T_lidar[2, :3]
    falls = (circle @ up[:2])[None, :] + (slopes * up[2])[:, None]
    distances[falls < 0] = -world_T_lidar[2, 3] / falls[falls < 0]


@njit(cache=True, nogil=True, error_model="numpy")
def _cast(
    vertices: NDArray,
    triangles: NDArray,
    lidar_T_body: NDArray,
    ident: int,
    circle: NDArray,
    slopes: NDArray,
    distances: NDArray,
    owners: NDArray,
) -> None:
    beams, columns = distances.shape
    count = len(vertices)
    points = np.empty((count, 3))
    azimuths, radii = np.empty(count), np.empty(count)
    for index in range(count):
        x, y, z = vertices[index]
        for axis in range(3):
            row = lidar_T_body[axis]
            points[index, axis] = row[0] * x + row[1] * y + row[2] * z + row[3]
        azimuths[index] = np.arctan2(points[index, 1], points[index, 0])
        radii[index] = np.sqrt(points[index, 0] ** 2 + points[index, 1] ** 2)
    for index in range(len(triangles)):
        one, two, three = triangles[index]
        a, b, c = points[one], points[two], points[three]
        normal = _cross(b - a, c - a)
        offset = normal[0] * a[0] + normal[1] * a[1] + normal[2] * a[2]
        if offset >= 0.0:  # seen from behind
            continue
        first, last = _columns(azimuths[one], azimuths[two], azimuths[three], columns)
        if first > last:
            continue
        bottom, top = _beams(a, b, c, max(radii[one], radii[two], radii[three]), slopes)
        for column in range(first, last + 1):
            cell = column % columns
            for beam in range(bottom, top):
                ray = (circle[cell, 0], circle[cell, 1], slopes[beam])
                along = normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2]
                if along >= 0.0:
                    continue
                distance = offset / along
                if distance < distances[beam, cell] and _inside(a, b, c, ray):
                    distances[beam, cell] = distance
                    owners[beam, cell] = ident


@njit(cache=True, nogil=True, error_model="numpy")
def _cross(a, b):  # noqa: ANN001, ANN202
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _columns(one, two, three, columns):  # noqa: ANN001, ANN202
    """Return the first and last column, not wrapped, between three azimuths; all of them where they surround us."""
    turn = 2.0 * np.pi
    two -= turn * np.round((two - one) / turn)
    three -= turn * np.round((three - one) / turn)
    low, high = min(one, two, three), max(one, two, three)
    if high - low >= np.pi:
        return 0, columns - 1
    scale = columns / turn
    return int(np.ceil((low + np.pi) * scale - 0.5)), int(np.floor((high + np.pi) * scale - 0.5))


@njit(cache=True, nogil=True, error_model="numpy")
def _beams(a, b, c, farthest, slopes):  # noqa: ANN001, ANN202
    """Return the range of beams whose slopes the triangle may reach, from its heights and ground distances."""
    nearest = max(min(_distance(a, b), _distance(b, c), _distance(c, a)), 1e-6)
    if _surrounds(a, b, c):
        nearest = 1e-6
    low, high = min(a[2], b[2], c[2]), max(a[2], b[2], c[2])
    steepest = low / (nearest if low < 0.0 else farthest)
    highest = high / (farthest if high < 0.0 else nearest)
    return np.searchsorted(slopes, steepest), np.searchsorted(slopes, highest, side="right")


@njit(cache=True, nogil=True, error_model="numpy")
def _distance(a, b):  # noqa: ANN001, ANN202
    """Return the distance in the xy plane of the segment a, b from the origin."""
    x, y = b[0] - a[0], b[1] - a[1]
    square = x * x + y * y
    share = 0.0 if square == 0.0 else min(max(-(a[0] * x + a[1] * y) / square, 0.0), 1.0)
    return np.sqrt((a[0] + share * x) ** 2 + (a[1] + share * y) ** 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _surrounds(a, b, c):  # noqa: ANN001, ANN202
    """Tell whether the origin is inside the triangle, in the xy plane."""
    one, two, three = a[0] * b[1] - a[1] * b[0], b[0] * c[1] - b[1] * c[0], c[0] * a[1] - c[1] * a[0]
    return (one >= 0.0 and two >= 0.0 and three >= 0.0) or (one <= 0.0 and two <= 0.0 and three <= 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _inside(a, b, c, ray):  # noqa: ANN001, ANN202
    """Tell whether a ray from the origin passes through a triangle that faces the origin."""
    return _volume(a, b, ray) <= 0.0 and _volume(b, c, ray) <= 0.0 and _volume(c, a, ray) <= 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _volume(a, b, ray):  # noqa: ANN001, ANN202
    return (
        ray[0] * (a[1] * b[2] - a[2] * b[1])
        + ray[1] * (a[2] * b[0] - a[0] * b[2])
        + ray[2] * (a[0] * b[1] - a[1] * b[0])
    )
