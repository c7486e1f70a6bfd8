"""Samples of the synthetic world that are rendered when they are asked for, as input for training.

A scene here is the one that `streampetr synth` writes for the same seed, family and index, before JPEG; only no quota
is looked after. Boxes have the true velocities; the devkit derives those of a stored world from neighbouring samples,
which differs a little where vehicles brake or turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, invert_transform, transform_points
from training.synth.observe import observe
from training.synth.options import KEYFRAME_PERIOD
from training.synth.raster import Workspace
from training.synth.records import ANNOTATED
from training.synth.scene import FAMILIES, LONGEST, SceneDescription, make_scene


@dataclass(frozen=True)
class SampleObjects:
    """The truth of a sample: G objects near the ego vehicle.

    `boxes` (G, 9) float64 in ref: gravity centre x, y, z, length, width, height, yaw, velocity x, y. `instances`
    identify objects over the scene; `visibility` (G,) from 1 to 4 and `lidar_points` (G,) are those of nuScenes.
    """

    boxes: Array
    class_names: tuple[str, ...]
    instances: tuple[str, ...]
    visibility: NDArray[np.int64]
    lidar_points: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Sample:
    """One set of N pictures with its truth, of any data set; ref is LIDAR_TOP at `timestamp`, in microseconds.

    `images` (N, H, W, 3) uint8 RGB; `intrinsics` (N, 3, 3) float64 of these images; `cam_T_ref` (N, 4, 4) float64 maps
    points of ref at `timestamp` into each camera at its own of `camera_timestamps` (N,), through the world;
    `world_T_ref` (4, 4) float64. `scene` and `index` say which sample of which scene it is.
    """

    scene: str
    index: int
    timestamp: int
    world_T_ref: Array
    images: NDArray[np.uint8]
    intrinsics: Array
    cam_T_ref: Array
    camera_timestamps: NDArray[np.int64]
    objects: SampleObjects


@dataclass(frozen=True)
class OnlineScene(Sequence[Sample]):
    """The samples of one scene, two a second; each is rendered when it is asked for."""

    description: SceneDescription
    samples: int
    _workspace: Workspace = field(default_factory=Workspace, repr=False, compare=False)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        index = range(self.samples)[index]
        return render_sample(self.description, index, self._workspace)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.samples))


@dataclass(frozen=True)
class OnlineScenes:
    """All scenes that `seed` stands for: as many as one likes, no two alike. `split` is "train" or "val".

    `size` is the width and height of the pictures, `samples` the number of samples in a scene. It can be sent to other
    processes; equal arguments give equal samples there.
    """

    seed: int
    split: str = "train"
    size: tuple[int, int] = (704, 256)
    samples: int = 40

    def __post_init__(self):
        if self.split not in FAMILIES:
            raise ValueError(f"split {self.split!r}; there are {', '.join(FAMILIES)}")
        if not 2 <= self.samples <= LONGEST / KEYFRAME_PERIOD:
            raise ValueError(f"{self.samples} samples in a scene; give 2 to {int(LONGEST / KEYFRAME_PERIOD)}")

    def scene(self, index: int) -> OnlineScene:
        """Return scene `index` (from 0 on)."""
        if index < 0:
            raise IndexError(f"scene {index}; scenes count from 0")
        return OnlineScene(_description(self.seed, self.split, index, self.samples, self.size), self.samples)


# Samples of a scene are mostly asked for one after the other; a painted ground takes some 20 MB.
@lru_cache(maxsize=2)
def _description(seed: int, split: str, index: int, samples: int, size: tuple[int, int]) -> SceneDescription:
    return make_scene(seed, split, index, (samples - 1) * KEYFRAME_PERIOD, size)


def render_sample(scene: SceneDescription, index: int, workspace: Workspace | None = None) -> Sample:
    """Return sample `index` of a scene."""
    time = index * KEYFRAME_PERIOD
    sweep = observe(scene, time, workspace=workspace)
    site_T_ref = scene.ego.pose(time) @ scene.rig.base_T_lidar
    cameras = scene.rig.cameras
    site_T_cams = [scene.ego.pose(time + camera.exposure) @ camera.base_T_cam for camera in cameras]
    stamps = [scene.start + round((time + camera.exposure) * 1e6) for camera in cameras]
    near = np.flatnonzero(np.hypot(*(scene.places(time)[:, :2] - scene.ego.pose(time)[:2, 3]).T) < ANNOTATED)
    objects = SampleObjects(
        boxes=boxes_in_ref(scene, time, invert_transform(site_T_ref))[near],
        class_names=tuple(scene.objects[number].kind for number in near),
        instances=tuple(f"{scene.name}/{number}" for number in near),
        visibility=sweep.levels[near],
        lidar_points=sweep.lidar_points[near],
    )
    return Sample(
        scene=scene.name,
        index=index,
        timestamp=scene.start + round(time * 1e6),
        world_T_ref=scene.world_T_site @ site_T_ref,
        images=np.stack([sweep.pictures[camera.channel].image for camera in cameras]),
        intrinsics=np.stack([camera.intrinsics for camera in cameras]),
        cam_T_ref=np.stack([invert_transform(site_T_cam) @ site_T_ref for site_T_cam in site_T_cams]),
        camera_timestamps=np.array(stamps, dtype=np.int64),
        objects=objects,
    )


def boxes_in_ref(scene: SceneDescription, time: float, ref_T_site: Array) -> Array:
    """Return all boxes (O, 9) in ref: centre, length, width, height, yaw, velocity x and y."""
    boxes = scene.boxes(time)
    velocity = np.concatenate([scene.velocities(time), np.zeros((len(boxes), 1))], axis=1) @ ref_T_site[:3, :3].T
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(len(boxes))], axis=1) @ ref_T_site[:3, :3].T
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    centres = transform_points(ref_T_site, boxes[:, :3])
    return np.concatenate([centres, boxes[:, 3:6], yaw[:, None], velocity[:, :2]], axis=1)
