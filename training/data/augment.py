"""Random changes to a frame as values: what was drawn, and what follows from it for matrices and boxes.

Draws, their order and their effect are those of the published training. `new_T_ref` maps the annotated reference frame
into the turned, scaled and shifted one that the network sees. G objects.
"""

from dataclasses import dataclass

import numpy as np

from streampetr_core.config import ModelConfig
from streampetr_core.geometry import Array
from streampetr_core.preprocess import ResizeCrop, plan_resize
from training.data.infos import Objects2D

PUBLISHED_SIZE = (1600, 900)
_MIN_SIZE_2D = 2.0  # pixels


@dataclass(frozen=True)
class AugmentationConfig:
    """What may be drawn; the values of the published 256x704 models are the defaults."""

    scale_limits: tuple[float, float] = (0.38, 0.55)  # of images of 1600x900; other sizes follow in proportion
    bottom_crop_limits: tuple[float, float] = (0.0, 0.0)  # share of the resized height that is cut off below
    flip: bool = True
    rotation_limits: tuple[float, float] = (0.0, 0.0)  # degrees, of the image, counter-clockwise
    yaw_limits: tuple[float, float] = (-0.3925, 0.3925)  # radians, of the scene
    zoom_limits: tuple[float, float] = (0.95, 1.05)  # of the scene
    translation_std: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metres, of the scene


@dataclass(frozen=True)
class ImageAugmentation:
    """How all images of a frame change: resize and crop, then mirror, then turn."""

    plan: ResizeCrop
    flip: bool = False
    rotation: float = 0.0  # degrees, counter-clockwise about the middle

    @property
    def input_T_source(self) -> Array:
        """3x3 matrix from pixels of the source image to those of the input image; times K it gives the input's K.

        A mirrored camera gets a negative focal length. The mirror is x' = width - x, as in the published training.
        """
        return _turn(self.rotation, self.plan) @ _mirror(self.flip, self.plan.width) @ self.plan.input_T_source


@dataclass(frozen=True)
class SceneAugmentation:
    """How the reference frame changes: turned by -yaw about z, then scaled, then shifted."""

    yaw: float = 0.0
    zoom: float = 1.0
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def new_T_ref(self) -> Array:
        """4x4 matrix from the annotated reference frame to the changed one."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        matrix = np.eye(4)
        matrix[:2, :2] = [[cos, sin], [-sin, cos]]
        matrix[:3] *= self.zoom
        matrix[:3, 3] = self.translation
        return matrix


@dataclass(frozen=True)
class Augmentation:
    """All changes to one frame."""

    image: ImageAugmentation
    scene: SceneAugmentation


def no_augmentation(source_width: int, source_height: int, model: ModelConfig) -> Augmentation:
    """Return what is done at test time: the model's fixed resize and crop."""
    return Augmentation(ImageAugmentation(plan_resize(source_width, source_height, model)), SceneAugmentation())


def draw_augmentation(
    rng: np.random.RandomState, source_width: int, source_height: int, model: ModelConfig, config: AugmentationConfig
) -> Augmentation:
    """Draw the changes to one frame.

    The generator is NumPy's legacy one: its streams are the published ones, and NumPy promises never to change them.
    """
    image = _draw_image(rng, source_width, source_height, model, config)
    yaw = rng.uniform(*config.yaw_limits)
    zoom = rng.uniform(*config.zoom_limits)
    x, y, z = rng.normal(scale=config.translation_std, size=3).tolist()
    return Augmentation(image, SceneAugmentation(yaw, zoom, (x, y, z)))


def _draw_image(
    rng: np.random.RandomState, source_width: int, source_height: int, model: ModelConfig, config: AugmentationConfig
) -> ImageAugmentation:
    height, width = model.input_height, model.input_width
    scale = rng.uniform(*config.scale_limits) * _relative_scale(source_width, source_height, model)
    resized_width, resized_height = int(source_width * scale), int(source_height * scale)
    top = int((1 - rng.uniform(*config.bottom_crop_limits)) * resized_height) - height
    left = int(rng.uniform(0, max(0, resized_width - width)))
    plan = ResizeCrop(source_width, source_height, scale, resized_width, resized_height, left, top, width, height)
    flip = config.flip and bool(rng.choice([0, 1]))
    return ImageAugmentation(plan, flip, rng.uniform(*config.rotation_limits))


def _relative_scale(width: int, height: int, model: ModelConfig) -> float:
    """Return by how much more images of this size must be scaled than those of the published size; 1 for those."""
    return plan_resize(width, height, model).scale / plan_resize(*PUBLISHED_SIZE, model).scale


def augment_boxes(boxes_G9: Array, scene: SceneAugmentation) -> Array:
    """Return boxes (gravity centre, size, yaw, velocity) in the changed reference frame."""
    matrix = scene.new_T_ref
    boxes_G9 = boxes_G9.copy()
    boxes_G9[:, :3] = boxes_G9[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    boxes_G9[:, 3:6] *= scene.zoom
    boxes_G9[:, 6] -= scene.yaw
    boxes_G9[:, 7:9] = boxes_G9[:, 7:9] @ matrix[:2, :2].T
    return boxes_G9


def augment_objects(objects: Objects2D, image: ImageAugmentation) -> Objects2D:
    """Return what the input image shows of the objects, far ones first; hidden and tiny ones are left out."""
    if not len(objects):
        return objects
    plan = image.plan
    size = np.array([plan.width, plan.height], dtype=np.float32)
    left_top = np.array([plan.left, plan.top], dtype=np.float32)
    # float32 all along, as published: whether a box covers a pixel may hang on the last digit.
    corners_G22 = np.clip(objects.boxes_G4.reshape(-1, 2, 2) * plan.scale - left_top, 0, size)
    centres_G2 = np.clip(objects.centres_G2 * plan.scale - left_top, 0, size)
    if image.flip:
        corners_G22 = np.stack([corners_G22[:, ::-1, 0], corners_G22[..., 1]], axis=-1)
        corners_G22[..., 0], centres_G2[:, 0] = plan.width - corners_G22[..., 0], plan.width - centres_G2[:, 0]
    if image.rotation:
        corners_G22, centres_G2 = _turn_objects(corners_G22, centres_G2, image)
    kept = ((corners_G22[:, 1] - corners_G22[:, 0]) >= _MIN_SIZE_2D).all(axis=1)
    moved = Objects2D(corners_G22.reshape(-1, 4), objects.labels_G, centres_G2, objects.depths_G).select(kept)
    return _visible_objects(moved, plan.width, plan.height)


def _turn_objects(corners_G22: Array, centres_G2: Array, image: ImageAugmentation) -> tuple[Array, Array]:
    """Turn boxes with their image, and take upright boxes around them."""
    turn = _turn(image.rotation, image.plan).astype(np.float32)
    size = np.array([image.plan.width, image.plan.height], dtype=np.float32)
    all_four = np.stack([corners_G22[:, [0, 0, 1, 1], 0], corners_G22[:, [0, 1, 0, 1], 1]], axis=-1)
    turned, centres = (np.clip(points @ turn[:2, :2].T + turn[:2, 2], 0, size) for points in (all_four, centres_G2))
    return np.stack([turned.min(axis=1), turned.max(axis=1)], axis=1), centres


def _visible_objects(objects: Objects2D, width: int, height: int) -> Objects2D:
    """Return the objects, far ones first, that nearer boxes do not cover altogether.

    The farthest object also stays when some pixel belongs to no object. That is not meant, but published.
    """
    if not len(objects):
        return objects
    objects = objects.select(np.argsort(-objects.depths_G, kind="stable"))
    left_top, right_bottom = np.ceil(objects.boxes_G4[:, :2]), np.floor(objects.boxes_G4[:, 2:])
    owner_HW = np.zeros((height, width), dtype=np.intp)
    rectangles = np.hstack([left_top, right_bottom]).astype(int).tolist()
    for index, (left, top, right, bottom) in enumerate(rectangles):
        owner_HW[top:bottom, left:right] = index
    return objects.select(np.flatnonzero(np.bincount(owner_HW.ravel())))


def _turn(degrees: float, plan: ResizeCrop) -> Array:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn, middle = np.eye(3), np.array([plan.width, plan.height]) / 2
    turn[:2, :2] = [[cos, sin], [-sin, cos]]
    turn[:2, 2] = middle - turn[:2, :2] @ middle
    return turn


def _mirror(flip: bool, width: int) -> Array:
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if flip else np.eye(3)
