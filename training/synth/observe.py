"""What the sensors of a synthetic scene deliver: pictures at their own exposure times, LiDAR hits, and who is seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, transform_points
from training.synth.raster import Instance, Mesh, Picture, Workspace, object_mesh, render, scan, structure_mesh
from training.synth.rig import Camera
from training.synth.scene import SceneDescription, poses_of
from training.synth.stage import SceneObject

_FAR, _FAR_STRUCTURES = 95.0, 180.0  # metres; farther things are left out
_BEHIND = 30.0  # metres; objects farther behind a camera cast no shadow into its picture either
_FAR_GAITS, _STRIDING = 25.0, 0.25  # beyond so many metres all walkers are drawn in mid-stride, which saves meshes
_LIDAR_REACH = 80.0
_LEAST_PIXELS = 1.0
_CALM_WIDTH = 500  # pixels; narrower pictures are drawn at twice their size


@dataclass(frozen=True)
class Sweep:
    """One turn of the sensors: `pictures` by channel, `points` (N, 3) float32 in lidar, and the truth about objects.

    `lidar_points` (O,) counts the hits on each object, none on what no camera sees; `visibility` (O,) is the visible
    share of each object in the camera that sees it best, `pixels` (O,) how many pixels show it in all cameras.
    """

    pictures: dict[str, Picture]
    points: NDArray[np.float32]
    lidar_points: NDArray[np.int64]
    visibility: Array
    pixels: Array

    @property
    def levels(self) -> NDArray[np.int64]:
        """The visibility (O,) as nuScenes has it: 1 to 4 for up to 40, 60, 80 and 100 %."""
        return 1 + np.searchsorted([0.4, 0.6, 0.8], self.visibility, side="right")


def take_picture(scene: SceneDescription, camera: Camera, time: float, workspace: Workspace | None = None) -> Picture:
    """Return what `camera` sees at `time` seconds after the start of the scene; object i has the identity i + 1."""
    site_T_cam = scene.ego.pose(time) @ camera.base_T_cam
    instances = instances_at(scene, time, site_T_cam[:3, 3], site_T_cam[:2, 2])
    return render(
        instances,
        scene.ground,
        scene.backdrop.light,
        camera.width,
        camera.height,
        camera.intrinsics,
        site_T_cam,
        _supersample(camera.width),
        workspace,
    )


def _supersample(width: int) -> int:
    """Return how much larger a picture is drawn than it gets: small ones would be restless otherwise."""
    return 1 if width >= _CALM_WIDTH else 2


def observe(scene: SceneDescription, time: float, with_lidar: bool = True, workspace: Workspace | None = None) -> Sweep:
    """Return the turn of the sensors that ends at `time`; each camera looks at its own exposure time.

    Without LiDAR, there are no points and counts; with a `workspace`, pictures have no depth and ids.
    """
    pictures = {
        camera.channel: take_picture(scene, camera, time + camera.exposure, workspace) for camera in scene.rig.cameras
    }
    count = len(scene.objects)
    share, pixels = np.zeros(count), np.zeros(count)
    for picture in pictures.values():
        seen = picture.visibility
        rows = seen.idents - 1
        share[rows] = np.maximum(share[rows], seen.fractions)
        pixels[rows] += seen.visible
    points, counts = np.empty((0, 3), np.float32), np.zeros(count, np.int64)
    if with_lidar:
        points, counts = _lidar(scene, time, pixels >= _LEAST_PIXELS)
    return Sweep(pictures, points, counts, np.where(pixels >= _LEAST_PIXELS, share, 0.0), pixels)


def instances_at(scene: SceneDescription, time: float, eye: Array, forward: Array | None = None) -> list[Instance]:
    """Return all that is near `eye` (3,) in site, as it stands at `time`.

    With `forward` (2,), a direction in site, objects that cannot matter to one who looks there are left out.
    """
    places, gaits = scene.places(time), scene.gaits(time)
    distances = np.hypot(*(places[:, :2] - eye[:2]).T)
    gaits = np.where((gaits > 0) & (distances > _FAR_GAITS), _STRIDING, gaits)
    near = np.flatnonzero((distances < _FAR) & _matters(places[:, :2], eye, forward))
    found = [
        Instance(_mesh(scene.objects[index], gaits[index], scene.family), pose, int(index) + 1)
        for index, pose in zip(near, poses_of(places[near]), strict=True)
    ]
    feet, poses, meshes = _scenery(scene)
    reached = np.flatnonzero(np.hypot(*(feet - eye[:2]).T) < _FAR_STRUCTURES)
    return found + [Instance(meshes[index], poses[index]) for index in reached]


def _matters(points: Array, eye: Array, forward: Array | None) -> NDArray[np.bool_]:
    return np.ones(len(points), bool) if forward is None else (points - eye[:2]) @ forward > -_BEHIND


def _lidar(
    scene: SceneDescription, time: float, seen: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the hits of the turn and how many are on each object; hits on what no camera sees are taken out."""
    site_T_lidar = scene.ego.pose(time) @ scene.rig.base_T_lidar
    instances = instances_at(scene, time, site_T_lidar[:3, 3])
    points, owners = scan(instances, site_T_lidar, reach=_LIDAR_REACH)
    kept = np.append(True, seen)[owners]
    points, owners = points[kept], owners[kept]
    return points, np.bincount(owners, minlength=len(seen) + 1)[1:]


def points_in_world(scene: SceneDescription, time: float, points: Array) -> Array:
    """Return LiDAR points (N, 3) of the turn that ends at `time` in world."""
    return transform_points(scene.world_T_site @ scene.ego.pose(time) @ scene.rig.base_T_lidar, points)


def _mesh(item: SceneObject, gait: float, family: str) -> Mesh:
    return object_mesh(
        item.kind, item.variant, item.size, item.colour, item.seed, gait, family=family, with_rider=item.with_rider
    )


def _scenery(scene: SceneDescription) -> tuple[Array, Array, Sequence[Mesh]]:
    """Return feet (S, 2), poses (S, 4, 4) and meshes of the structures; they stay where they are."""
    return _scenery_of(scene.backdrop.structures, scene.family)


@lru_cache(maxsize=4)
def _scenery_of(structures: tuple, family: str) -> tuple[Array, Array, Sequence[Mesh]]:
    places = np.array([item.place for item in structures]).reshape(-1, 3)
    meshes = [structure_mesh(item.kind, item.seed, item.size, family=family) for item in structures]
    return places[:, :2], poses_of(places), meshes
