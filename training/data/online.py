"""Training samples of the synthetic world, rendered when they are asked for: the same changes, truth and batches.

G objects, N cameras.
"""

from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_core.config import ModelConfig
from streampetr_core.geometry import Array, invert_transform
from training.data.batch import Sample
from training.data.dataset import DataConfig, draw_sample, generator
from training.data.infos import Camera, Keyframe, Objects3D, Pose
from training.data.projection import Annotations, objects_in_image
from training.data.sampler import Request
from training.data.sequences import sequence_ids
from training.synth.online import OnlineScene, OnlineScenes
from training.synth.online import Sample as Rendered

_SCENES_KEPT = 32  # by a worker; a painted ground takes some 20 MB


class OnlineData:
    """Streams of rendered scenes: frame f of scene s has the index s * samples + f."""

    is_rendered = True

    def __init__(self, scenes: OnlineScenes, num_scenes: int, model: ModelConfig, config: DataConfig) -> None:
        """Take the first `num_scenes` of `scenes`; nothing is rendered yet."""
        self._scenes, self._model, self._config = scenes, model, config
        starts = np.arange(num_scenes * scenes.samples) % scenes.samples == 0
        self.sequence_F = sequence_ids(starts, config.sequence_pieces)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.sequence_F)

    def __getitem__(self, request: Request) -> tuple[Sample]:
        """Return one frame as a window of one."""
        index = request.index
        scene, frame = divmod(index, self._scenes.samples)
        rendered = _scene(self._scenes, scene)[frame]
        is_first = index == 0 or bool(self.sequence_F[index] != self.sequence_F[index - 1])
        images = rendered.images[..., ::-1]
        return (draw_sample(generator(request), keyframe(rendered), images, self._model, self._config, is_first),)


@lru_cache(maxsize=_SCENES_KEPT)
def _scene(scenes: OnlineScenes, index: int) -> OnlineScene:
    return scenes.scene(index)


def keyframe(rendered: Rendered) -> Keyframe:
    """Return what an info file would say of a rendered sample."""
    annotations = _annotations(rendered)
    height, width = rendered.images.shape[1:3]
    cameras = []
    for number, (intrinsics, cam_T_ref) in enumerate(zip(rendered.intrinsics, rendered.cam_T_ref, strict=True)):
        ref_T_cam = invert_transform(cam_T_ref)
        objects = objects_in_image(annotations, ref_T_cam, intrinsics, width, height)
        cameras.append(Camera("", int(rendered.camera_timestamps[number]), intrinsics, ref_T_cam, objects))
    return Keyframe(
        token=f"{rendered.scene}/{rendered.index}",
        previous="",
        following="",
        scene=rendered.scene,
        starts_sequence=rendered.index == 0,
        timestamp=rendered.timestamp,
        base_T_ref=_pose(np.eye(4)),
        world_T_base=_pose(rendered.world_T_ref),
        cameras=tuple(cameras),
        objects=Objects3D(
            boxes_G7=rendered.objects.boxes[:, :7],
            velocities_G2=rendered.objects.boxes[:, 7:],
            names=rendered.objects.class_names,
            lidar_points_G=rendered.objects.lidar_points,
            radar_points_G=np.zeros_like(rendered.objects.lidar_points),
            valid_G=rendered.objects.lidar_points > 0,
        ),
    )


def _annotations(rendered: Rendered) -> Annotations:
    """Return the objects in ref, in the form that projection into images takes."""
    boxes_G9 = rendered.objects.boxes
    return Annotations(
        centres_G3=boxes_G9[:, :3],
        rotations_G33=Rotation.from_rotvec(boxes_G9[:, 6:7] * [0.0, 0.0, 1.0]).as_matrix(),
        sizes_G3=boxes_G9[:, 3:6],
        velocities_G3=np.pad(boxes_G9[:, 7:], ((0, 0), (0, 1))),
        names=rendered.objects.class_names,
        lidar_points_G=rendered.objects.lidar_points,
        radar_points_G=np.zeros_like(rendered.objects.lidar_points),
    )


def _pose(matrix: Array) -> Pose:
    quaternion_xyzw = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return Pose(matrix[:3, 3], quaternion_xyzw[[3, 0, 1, 2]])
