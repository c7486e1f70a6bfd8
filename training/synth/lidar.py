"""A rough LiDAR: points on the object surfaces that face it, kept where a camera sees the same surface.

It gives honest `num_lidar_pts` and visibility without a ray caster; it knows no ground and no buildings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, invert_transform, transform_points
from training.synth.render import Picture
from training.synth.scene import Camera, SceneDescription, SceneObject
from training.synth.shapes import solids_of

_RAY = np.deg2rad(0.33) * np.deg2rad(1.33)  # solid angle in sr of one ray of 32 beams at 20 Hz
_RANGE = 80.0
_FEWEST, _MOST = 12, 300  # candidate points on one object
_INTENSITY = 30.0


@dataclass(frozen=True)
class Scan:
    """`points` (N, 5) float32: x, y, z in lidar, intensity, ring (always 0).

    `counts` (D,): how many of them are on each object; `visibility` (D,): the share of its facing surface that some
    camera sees.
    """

    points: NDArray[np.float32]
    counts: NDArray[np.int64]
    visibility: Array


def scan(scene: SceneDescription, time: float, pictures: dict[str, Picture], rng: np.random.Generator) -> Scan:
    """Return the scan that ends at `time`; `pictures` are those of the same turn, by camera channel."""
    world_T_lidar = scene.ego.pose(time) @ scene.rig.base_T_lidar
    candidates = [_facing_points(item, time, world_T_lidar[:3, 3], rng) for item in scene.objects]
    owners = np.repeat(np.arange(len(candidates)), np.array([len(points) for points in candidates], int))
    points = np.concatenate([np.empty((0, 3)), *candidates])
    seen = np.zeros(len(points), bool)
    for camera in scene.rig.cameras:
        world_T_cam = scene.ego.pose(time + camera.exposure) @ camera.base_T_cam
        world = _in_world(scene, points, owners, time + camera.exposure)
        cam = transform_points(invert_transform(world_T_cam), world)
        seen |= _shown(camera, cam, owners, pictures[camera.channel].ids)
    lidar = transform_points(invert_transform(world_T_lidar), _in_world(scene, points[seen], owners[seen], time))
    points = np.concatenate([lidar, np.tile([_INTENSITY, 0.0], (len(lidar), 1))], axis=1).astype(np.float32)
    counts = np.bincount(owners[seen], minlength=len(candidates))
    return Scan(points, counts, counts / np.maximum(np.bincount(owners, minlength=len(candidates)), 1))


def _facing_points(item: SceneObject, time: float, eye: Array, rng: np.random.Generator) -> Array:
    """Return points (N, 3) in the object's own frame, as many as rays would hit it; none beyond the range."""
    body_T_world = invert_transform(item.trajectory.pose(time))
    eye = transform_points(body_T_world, eye)
    if np.linalg.norm(eye) > _RANGE:
        return np.empty((0, 3))
    solids = solids_of(item.kind, item.moving, np.array(item.size), np.eye(4), item.colour)
    quads = np.concatenate([solid.quads for solid in solids])
    areas = np.cross(quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0])
    rays = eye - quads.mean(axis=1)
    angles = np.clip(np.einsum("qx,qx->q", areas, rays), 0, None) / np.linalg.norm(rays, axis=1) ** 3
    count = int(np.clip(angles.sum() / _RAY, _FEWEST, _MOST))
    a, b, c, d = np.moveaxis(quads[rng.choice(len(quads), count, p=angles / angles.sum())], 1, 0)
    u, v = rng.random((2, count, 1))
    return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)


def _in_world(scene: SceneDescription, points: Array, owners: NDArray[np.int64], time: float) -> Array:
    present, which = np.unique(owners, return_inverse=True)
    if not len(present):
        return points
    poses = np.stack([scene.objects[index].trajectory.pose(time) for index in present])[which]
    return np.einsum("nxy,ny->nx", poses[:, :3, :3], points) + poses[:, :3, 3]


def _shown(camera: Camera, points_cam: Array, owners: NDArray[np.int64], ids: NDArray[np.int16]) -> NDArray[np.bool_]:
    image = points_cam @ camera.intrinsics.T
    in_front = np.flatnonzero(image[:, 2] > 0)
    u, v = np.rint(image[in_front, :2] / image[in_front, 2:]).T
    inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    shown = np.zeros(len(points_cam), bool)
    candidates = in_front[inside]
    shown[candidates] = ids[v[inside].astype(int), u[inside].astype(int)] == owners[candidates]
    return shown
