"""A training set of two megabytes, drawn here: coloured blobs where objects are, four scenes of five keyframes.

It leans on no other part that makes data, so numbers recorded with it change only when training changes.
"""

from pathlib import Path

import cv2
import numpy as np
import yaml

from streampetr_core.geometry import invert_transform, make_transform, transform_points
from training.data.infos import CAMERAS, CLASSES_2D, Camera, Infos, InfosHeader, Keyframe, Objects2D, Objects3D, Pose
from training.data.infos_file import save_infos
from training.recipe import Recipe, recipe_from_dict

SCENES, FRAMES = 4, 5
_WIDTH, _HEIGHT, _FOCAL = 160, 90, 100.0
_YAWS = np.deg2rad([0, -60, 60, 180, 120, -120])
_NAMES = ("car", "truck", "pedestrian", "barrier")

MODEL = {
    "name": "tiny",
    "backbone": "resnet18",
    "input_height": 32,
    "input_width": 64,
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "channel_order": "rgb",
    "num_learned": 12,
    "num_propagated": 4,
    "memory_length": 16,
    "num_admitted": 4,
    "channels": 32,
    "num_layers": 2,
    "num_heads": 4,
    "ffn_channels": 32,
    "position_hidden_channels": 32,
    "num_depth_bins": 35,
}


def write(root: Path) -> Path:
    """Write the set and return its folder."""
    for split, first in (("train", 0), ("val", SCENES)):
        scenes = range(first, first + (SCENES if split == "train" else 1))
        frames = [_keyframe(root, scene, frame) for scene in scenes for frame in range(FRAMES)]
        save_infos(Infos.from_keyframes(InfosHeader("v1.0-tiny", split, annotated=True), frames), root / f"{split}.npz")
    return root


def values(root: Path, **sections: dict) -> dict:
    """Return a recipe for the set as plain values; `sections` change single ones."""
    recipe = {
        "name": "tiny",
        "model": MODEL,
        "data": {"dataroot": str(root), "train_infos": "train.npz", "val_infos": "val.npz", "workers": 0},
        "samples": {"sequence_pieces": 1, "augmentation": {"scale_limits": [0.038, 0.055]}},
        "schedule": {"epochs": 4, "global_batch": 4, "max_per_rank_batch": 4, "warmup_steps": 4},
        "training": {"precision": "fp32", "batch_norm": "learned", "log_every_steps": 1},
    }
    for name, changes in sections.items():
        recipe[name] = {**recipe.get(name, {}), **changes}
    return recipe


def recipe(root: Path, **sections: dict) -> Recipe:
    """Return the recipe of `values`."""
    return recipe_from_dict(values(root, **sections), "tiny")


def write_recipe(root: Path, path: Path, **sections: dict) -> Path:
    """Write the recipe of `values` as a file."""
    content = values(root, **sections)
    del content["name"]
    path.write_text(yaml.safe_dump(content))
    return path


def _keyframe(root: Path, scene: int, frame: int) -> Keyframe:
    rng = np.random.default_rng([scene, 7])
    centres = rng.uniform([-25, -25, -1], [25, 25, 1], (6, 3))
    speeds = rng.uniform(-3, 3, (6, 2))
    centres[:, :2] += 0.5 * frame * (speeds - [4.0, 0.0])  # the vehicle drives at 4 m/s along x
    boxes = np.hstack([centres, rng.uniform(1, 4, (6, 3)), rng.uniform(-3, 3, (6, 1))])
    names = tuple(_NAMES[number] for number in rng.integers(0, len(_NAMES), 6))
    token = f"{scene:02d}-{frame}"
    cameras = tuple(
        _camera(root, f"samples/{channel}/{token}.png", yaw, boxes, names)
        for channel, yaw in zip(CAMERAS, _YAWS, strict=True)
    )
    points = np.full(6, 9)
    return Keyframe(
        token=token,
        previous=f"{scene:02d}-{frame - 1}" if frame else "",
        following=f"{scene:02d}-{frame + 1}" if frame + 1 < FRAMES else "",
        scene=f"scene-{scene}",
        starts_sequence=not frame,
        timestamp=1_600_000_000_000_000 + 100_000_000 * scene + 500_000 * frame,
        base_T_ref=Pose(np.zeros(3), np.array([1.0, 0, 0, 0])),
        world_T_base=Pose(np.array([600.0 + 2.0 * frame, 900.0, 0.0]), np.array([1.0, 0, 0, 0])),
        cameras=cameras,
        objects=Objects3D(boxes, speeds, names, points, 0 * points, points > 0),
    )


def _camera(root: Path, path: str, yaw: float, boxes: np.ndarray, names: tuple[str, ...]) -> Camera:
    """Draw the picture of one camera, and tell what it shows."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    ref_T_cam = make_transform([[sin, 0, cos], [-cos, 0, sin], [0, -1, 0]], [0.0, 0.0, 1.5])
    intrinsics = np.array([[_FOCAL, 0, _WIDTH / 2], [0, _FOCAL, _HEIGHT / 2], [0, 0, 1.0]])
    seen = transform_points(invert_transform(ref_T_cam), boxes[:, :3])
    image = np.full((_HEIGHT, _WIDTH, 3), (120, 110, 100), np.uint8)
    rows = []
    for name, (x, y, depth), size in zip(names, seen, boxes[:, 3:6].max(axis=1), strict=True):
        u, v, half = (
            _FOCAL * x / max(depth, 1) + _WIDTH / 2,
            _FOCAL * y / max(depth, 1) + _HEIGHT / 2,
            50 * size / max(depth, 1),
        )
        if depth < 2 or not (0 < u < _WIDTH and 0 < v < _HEIGHT):
            continue
        label = CLASSES_2D.index(name)
        left, right = np.clip([u - half, u + half], 0, _WIDTH)
        top, bottom = np.clip([v - half, v + half], 0, _HEIGHT)
        image[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = (40 * (label % 4), 60 * (label % 3), 25 * label)
        rows.append((left, top, right, bottom, label, u, v, depth))
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / path), image)
    table = np.array(rows, np.float64).reshape(-1, 8)
    objects = Objects2D(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.int64),
        table[:, 5:7].astype(np.float32),
        table[:, 7].astype(np.float32),
    )
    return Camera(path, 0, intrinsics, ref_T_cam, objects)
