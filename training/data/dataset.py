"""The data set: a request for a frame in, a sample out. Everything random follows from the request.

G objects, N cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform, projection
from streampetr_core.image_path import ImagePath
from streampetr_core.preprocess import RESIZERS
from training.data.augment import (
    Augmentation,
    AugmentationConfig,
    ImageAugmentation,
    augment_boxes,
    augment_objects,
    draw_augmentation,
    no_augmentation,
)
from training.data.batch import Sample
from training.data.gridmask import PROBABILITY, draw_grid_mask
from training.data.images import augment_image, check_images_exist, read_decoded, read_image
from training.data.infos import Camera, Infos, Keyframe, Objects3D
from training.data.sampler import Request
from training.data.sequences import sequence_ids
from training.truth import CameraTruth, Truth


@dataclass(frozen=True)
class DataConfig:
    """How training sees the data; the values of the published streaming configurations are the defaults."""

    sequence_pieces: int | str = 2  # into how many sequences a scene is cut; 'all': every frame by itself
    window: int = 1  # frames in a sample; 1: streaming
    window_dropped: int = 0  # so many frames more are drawn from, and left out at random
    grid_mask_frames: int = 1  # so many last frames of a window get a grid mask
    grid_mask_probability: float = PROBABILITY
    pixels: str = "fast"  # or 'exact'
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        """Check what no later stage could report as clearly."""
        if self.pixels not in RESIZERS:
            raise StreampetrError(f"data: pixels must be {' or '.join(RESIZERS)}, not '{self.pixels}'")
        if self.sequence_pieces != "all" and not (isinstance(self.sequence_pieces, int) and self.sequence_pieces > 0):
            raise StreampetrError(f"data: sequence_pieces must be 'all' or at least 1, not {self.sequence_pieces!r}")
        if self.window < 1 or self.window_dropped < 0:
            raise StreampetrError("data: window must be at least 1 and window_dropped at least 0")


class TrainingData:
    """Augmented windows of samples with truth; asked for by `Request`, as samplers give them."""

    is_rendered = False

    def __init__(self, infos: Infos, dataroot: Path, model: ModelConfig, config: DataConfig) -> None:
        """Check infos and images.

        Raises:
            StreampetrError: no annotations, classes that the data does not know, or missing images.
        """
        if not infos.header.annotated:
            raise StreampetrError(
                f"split '{infos.header.split}' has no annotations to train on; give another info file"
            )
        _check(infos, dataroot, model)
        self._infos, self._dataroot, self._model, self._config = infos, dataroot, model, config
        self.sequence_F = sequence_ids(infos.columns["starts_sequence"], config.sequence_pieces)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._infos)

    def __getitem__(self, request: Request) -> tuple[Sample, ...]:
        """Return the window of frames that ends with the requested one."""
        rng = generator(request)
        config = self._config
        indices = window_indices(rng, request.index, config.window, config.window_dropped)
        is_first = self._starts(indices)
        num_unmasked = config.window - config.grid_mask_frames
        return tuple(
            self._sample(rng, index, first, with_grid_mask=position >= num_unmasked)
            for position, (index, first) in enumerate(zip(indices, is_first, strict=True))
        )

    def _starts(self, indices: list[int]) -> list[bool]:
        if len(indices) == 1:
            index = indices[0]
            return [index == 0 or self.sequence_F[index] != self.sequence_F[index - 1]]
        scenes = [self._infos.columns["scene"][index] for index in indices]
        return [True, *(scene != before for before, scene in zip(scenes, scenes[1:], strict=False))]

    def _sample(self, rng: np.random.RandomState, index: int, is_first: bool, with_grid_mask: bool) -> Sample:
        keyframe = self._infos[index]
        images = _read_images(keyframe, self._dataroot)
        return draw_sample(rng, keyframe, images, self._model, self._config, is_first, with_grid_mask)


class EvaluationData:
    """Samples as the published test pipeline makes them, without truth; asked for by index."""

    def __init__(self, infos: Infos, dataroot: Path, model: ModelConfig, pixels: str = "exact") -> None:
        """Check infos and images; `pixels` is one of `image_path.PATHS`. Raises StreampetrError as `TrainingData`."""
        _check(infos, dataroot, model)
        self._infos, self._dataroot, self._model, self._path = infos, dataroot, model, ImagePath(model, pixels)
        self.sequence_F = sequence_ids(infos.columns["starts_sequence"], 1)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._infos)

    def __getitem__(self, index: int) -> tuple[Sample]:
        """Return one frame as a window of one."""
        keyframe = self._infos[index]
        paths = [self._dataroot / camera.path for camera in keyframe.cameras]
        images, sizes = zip(*(read_decoded(path, self._path.decode) for path in paths), strict=True)
        _check_sizes(paths, sizes)
        augmentation = no_augmentation(*sizes[0], self._model)
        is_first = index == 0 or bool(self.sequence_F[index] != self.sequence_F[index - 1])
        pixels = torch.from_numpy(np.stack([self._path.shrink(image, augmentation.image.plan) for image in images]))
        return (make_sample(keyframe, pixels, augmentation, is_first=is_first),)


def generator(request: Request) -> np.random.RandomState:
    """Return the generator of everything random about a sample."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(request.seed)))


def draw_sample(
    rng: np.random.RandomState,
    keyframe: Keyframe,
    images: Sequence[np.ndarray],
    model: ModelConfig,
    config: DataConfig,
    is_first: bool,
    with_grid_mask: bool = True,
) -> Sample:
    """Return a keyframe as training sees it: its images (H, W, 3: blue, green, red), matrices and truth changed."""
    height, width = images[0].shape[:2]
    augmentation = draw_augmentation(rng, width, height, model, config.augmentation)
    mask = draw_grid_mask(rng, model.input_height, config.grid_mask_probability) if with_grid_mask else None
    sources = [augment_image(image, augmentation.image, config.pixels) for image in images]
    pixels = torch.from_numpy(np.stack(sources))
    truth = make_truth(keyframe, augmentation, model)
    return make_sample(keyframe, pixels, augmentation, is_first=is_first, truth=truth, grid_mask=mask)


def window_indices(rng: np.random.RandomState, index: int, window: int, dropped: int) -> list[int]:
    """Return the frames of a window, in order: `index` and frames shortly before it; before the first comes the first.

    Out of the `window` - 1 + `dropped` frames before `index`, `dropped` are left out at random.
    """
    candidates = np.arange(index - (window - 1) - dropped, index)
    if window > 1:
        candidates = np.sort(rng.permutation(candidates)[dropped:])
    else:
        candidates = candidates[:0]
    return [*np.maximum(candidates, 0).tolist(), index]


def make_sample(
    keyframe: Keyframe, images_NHW3: Tensor, augmentation: Augmentation, *, is_first: bool, **extras: object
) -> Sample:
    """Return the sample of a keyframe whose images are already changed; `extras` are truth and grid_mask."""
    ref_T_new = np.linalg.inv(augmentation.scene.new_T_ref)
    intrinsics = [augmentation.image.input_T_source @ camera.intrinsics for camera in keyframe.cameras]
    pairs = zip(intrinsics, keyframe.cameras, strict=True)
    img_P_ref = [projection(matrix, invert_transform(camera.ref_T_cam)) @ ref_T_new for matrix, camera in pairs]
    return Sample(
        token=keyframe.token,
        is_first=is_first,
        time=keyframe.timestamp / 1e6,
        images_NHW3=images_NHW3,
        intrinsics_N33=_float32(intrinsics),
        img_P_ref_N44=_float32(img_P_ref),
        world_T_ref_44=torch.from_numpy(keyframe.world_T_ref @ ref_T_new),
        **extras,
    )


def make_truth(keyframe: Keyframe, augmentation: Augmentation, model: ModelConfig) -> Truth:
    """Return what is true of a keyframe after its augmentation."""
    boxes_G9, labels_G = training_boxes(keyframe.objects, model)
    return Truth(
        boxes_G9=_float32(augment_boxes(boxes_G9, augmentation.scene)),
        labels_G=torch.from_numpy(labels_G),
        cameras=tuple(_camera_truth(camera, augmentation.image) for camera in keyframe.cameras),
    )


def training_boxes(objects: Objects3D, model: ModelConfig) -> tuple[Array, np.ndarray]:
    """Return the boxes (G, 9) and labels (G,) to learn: seen by LiDAR or radar, of the model's classes, in its range.

    Unknown velocities become zero, as in the published training; yaw is brought to -pi .. pi.
    """
    label_of = {name: label for label, name in enumerate(model.class_names)}
    labels_G = np.array([label_of.get(name, -1) for name in objects.names], dtype=np.int64)
    velocities_G2 = np.where(np.isnan(objects.velocities_G2[:, :1]), 0.0, objects.velocities_G2)
    boxes_G9 = np.hstack([objects.boxes_G7, velocities_G2])
    boxes_G9[:, 6] -= np.floor(boxes_G9[:, 6] / (2 * np.pi) + 0.5) * 2 * np.pi
    low, high = np.array(model.detection_range[:2]), np.array(model.detection_range[3:5])
    inside_G = ((boxes_G9[:, :2] > low) & (boxes_G9[:, :2] < high)).all(axis=1)
    kept_G = objects.valid_G & (labels_G >= 0) & inside_G
    return boxes_G9[kept_G], labels_G[kept_G]


def _camera_truth(camera: Camera, image: ImageAugmentation) -> CameraTruth:
    objects = augment_objects(camera.objects, image)
    return CameraTruth(
        boxes_G4=_float32(objects.boxes_G4),
        labels_G=torch.from_numpy(objects.labels_G),
        centres_G2=_float32(objects.centres_G2),
        depths_G=_float32(objects.depths_G),
    )


def _read_images(keyframe: Keyframe, dataroot: Path) -> list[np.ndarray]:
    paths = [dataroot / camera.path for camera in keyframe.cameras]
    images = [read_image(path) for path in paths]
    _check_sizes(paths, [(image.shape[1], image.shape[0]) for image in images])
    return images


def _check_sizes(paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> None:
    """Raise StreampetrError unless images have one width and height."""
    for path, (width, height) in zip(paths, sizes, strict=True):
        if (width, height) != sizes[0]:
            raise StreampetrError(
                f"{path}: {width}x{height} pixels, but the first camera's image has {sizes[0][0]}x{sizes[0][1]}; "
                "all cameras must have the same size"
            )


def _check(infos: Infos, dataroot: Path, model: ModelConfig) -> None:
    unknown = [name for name in model.class_names if name not in infos.header.classes_2d]
    if unknown:
        raise StreampetrError(
            f"model '{model.name}': classes {', '.join(unknown)} are none of the info file's "
            f"({', '.join(infos.header.classes_2d)}); correct class_names"
        )
    check_images_exist(dataroot, infos.image_paths())


def _float32(values: object) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
