"""From nuScenes' tables to info files: one file for each split.

Border to nuScenes' conventions: sizes come as width, length, height. G objects.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from scipy.spatial.transform import Rotation
from shapely.geometry import MultiPoint
from shapely.geometry import box as rectangle
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform, transform_points
from training.data.infos import CAMERAS, CLASSES_2D, Camera, Infos, InfosHeader, Keyframe, Objects2D, Objects3D, Pose
from training.data.infos_file import save_infos
from training.data.tables import Row, get_row, open_tables, splits_of

REFERENCE = "LIDAR_TOP"
_MIN_SIZE = 1.0  # pixels; a 2D box that is narrower or lower is left out
# Half the extents of the eight corners of a box along its length, width and height.
_CORNERS = 0.5 * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T


def prepare(dataroot: Path, version: str, out: Path) -> list[Path]:
    """Write `infos_<version>_<split>.npz` for every split that has scenes in these tables; return the paths.

    Raises:
        StreampetrError: unreadable tables, a row that points nowhere, a sample without one of the six cameras, or
            tables without a scene of any split.
    """
    tables = open_tables(dataroot, version)
    written = []
    for split, names in splits_of(tables).items():
        infos = read_split(tables, split, names)
        if infos is not None:
            path = out / f"infos_{version}_{split}.npz"
            save_infos(infos, path)
            written.append(path)
    if not written:
        raise StreampetrError(f"{dataroot / version}: none of its scenes belongs to a split; name them in splits.json")
    return written


def read_split(tables: NuScenes, split: str, scene_names: Iterable[str]) -> Infos | None:
    """Return the keyframes of a split; None when the tables hold none of its scenes."""
    wanted = set(scene_names)
    scenes = {scene["token"] for scene in tables.scene if scene["name"] in wanted}
    samples = [sample for sample in tables.sample if sample["scene_token"] in scenes]
    if not samples:
        return None
    header = InfosHeader(tables.version, split, annotated=bool(tables.sample_annotation))
    progress = tqdm(samples, desc=f"{tables.version} {split}", unit="sample", disable=None)
    return Infos.from_keyframes(header, [read_keyframe(tables, sample) for sample in progress])


def read_keyframe(tables: NuScenes, sample: Row) -> Keyframe:
    """Return what the tables say of one sample."""
    origin = f"sample '{sample['token']}'"
    for neighbour in (sample["prev"], sample["next"]):
        if neighbour:
            get_row(tables, "sample", neighbour, origin)
    reference = _reference_row(tables, sample, REFERENCE)
    annotations = _read_annotations(tables, sample, origin)
    base_T_ref, world_T_base = _poses(tables, reference)
    world_T_ref = world_T_base.matrix @ base_T_ref.matrix
    return Keyframe(
        token=sample["token"],
        previous=sample["prev"],
        following=sample["next"],
        scene=sample["scene_token"],
        starts_sequence=not sample["prev"],
        timestamp=sample["timestamp"],
        base_T_ref=base_T_ref,
        world_T_base=world_T_base,
        cameras=tuple(_read_camera(tables, sample, channel, world_T_ref, annotations) for channel in CAMERAS),
        objects=_objects_in_ref(annotations, world_T_ref),
    )


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of one sample, in the world (or in any other frame that cameras are given in)."""

    centres_G3: Array
    rotations_G33: Array
    sizes_G3: Array  # length, width, height
    velocities_G3: Array
    names: tuple[str, ...]
    lidar_points_G: Array
    radar_points_G: Array

    def corners(self) -> Array:
        """Return the corners (G, 8, 3) in the world."""
        return (_CORNERS * self.sizes_G3[:, None]) @ self.rotations_G33.transpose(0, 2, 1) + self.centres_G3[:, None]


def _read_annotations(tables: NuScenes, sample: Row, origin: str) -> Annotations:
    rows = [get_row(tables, "sample_annotation", token, origin) for token in sample["anns"]]
    quaternions_G4 = np.array([row["rotation"] for row in rows]).reshape(-1, 4)
    return Annotations(
        centres_G3=np.array([row["translation"] for row in rows]).reshape(-1, 3),
        rotations_G33=Rotation.from_quat(quaternions_G4[:, [1, 2, 3, 0]]).as_matrix().reshape(-1, 3, 3),
        sizes_G3=np.array([row["size"] for row in rows]).reshape(-1, 3)[:, [1, 0, 2]],
        velocities_G3=np.array([_velocity(tables, row) for row in rows]).reshape(-1, 3),
        names=tuple(category_to_detection_name(row["category_name"]) or row["category_name"] for row in rows),
        lidar_points_G=np.array([row["num_lidar_pts"] for row in rows], dtype=np.int64),
        radar_points_G=np.array([row["num_radar_pts"] for row in rows], dtype=np.int64),
    )


def _velocity(tables: NuScenes, annotation: Row) -> Array:
    try:
        return tables.box_velocity(annotation["token"])
    except KeyError as error:
        raise StreampetrError(
            f"{tables.table_root}: sample_annotation '{annotation['token']}' or a neighbour of it points to {error}, "
            "which does not exist; unpack the tables of this version again"
        ) from error


def _objects_in_ref(annotations: Annotations, world_T_ref: Array) -> Objects3D:
    ref_T_world = invert_transform(world_T_ref)
    rotations = ref_T_world[:3, :3] @ annotations.rotations_G33
    # pyquaternion's yaw, which the published data is made of; of a tilted box it differs a little from its heading.
    yaw = np.arctan2(-rotations[:, 0, 1], rotations[:, 0, 0])
    velocities = annotations.velocities_G3.copy()
    velocities[:, 2] = 0.0  # the published data turns the horizontal part only
    points = annotations.lidar_points_G + annotations.radar_points_G
    return Objects3D(
        boxes_G7=np.column_stack([transform_points(ref_T_world, annotations.centres_G3), annotations.sizes_G3, yaw]),
        velocities_G2=(velocities @ ref_T_world[:3, :3].T)[:, :2],
        names=annotations.names,
        lidar_points_G=annotations.lidar_points_G,
        radar_points_G=annotations.radar_points_G,
        valid_G=points > 0,
    )


def _read_camera(tables: NuScenes, sample: Row, channel: str, world_T_ref: Array, annotations: Annotations) -> Camera:
    row = _reference_row(tables, sample, channel)
    base_T_cam, world_T_base = _poses(tables, row)
    calibration = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
    intrinsics = np.array(calibration["camera_intrinsic"], dtype=np.float64)
    if intrinsics.shape != (3, 3):
        raise StreampetrError(
            f"{tables.table_root}: calibrated_sensor '{calibration['token']}' of {channel} has no 3x3 camera_intrinsic"
        )
    world_T_cam = world_T_base.matrix @ base_T_cam.matrix
    return Camera(
        path=row["filename"],
        timestamp=row["timestamp"],
        intrinsics=intrinsics,
        ref_T_cam=invert_transform(world_T_ref) @ world_T_cam,
        objects=objects_in_image(annotations, world_T_cam, intrinsics, row["width"], row["height"]),
    )


def objects_in_image(
    annotations: Annotations, world_T_cam: Array, intrinsics: Array, width: int, height: int
) -> Objects2D:
    """Project objects of the ten classes; those without a visible part of at least a pixel are left out."""
    cam_T_world = invert_transform(world_T_cam)
    corners_G83 = transform_points(cam_T_world, annotations.corners())
    centres_G3 = transform_points(cam_T_world, annotations.centres_G3)
    rows = []
    for name, corners_83, centre_3 in zip(annotations.names, corners_G83, centres_G3, strict=True):
        if name not in CLASSES_2D or centre_3[2] <= 0:
            continue
        bounds = _visible_bounds(corners_83, intrinsics, width, height)
        if bounds is not None:
            u, v, depth = intrinsics @ centre_3
            rows.append((*bounds, CLASSES_2D.index(name), u / depth, v / depth, centre_3[2]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    return Objects2D(
        boxes_G4=table[:, :4].astype(np.float32),
        labels_G=table[:, 4].astype(np.int64),
        centres_G2=table[:, 5:7].astype(np.float32),
        depths_G=table[:, 7].astype(np.float32),
    )


def _visible_bounds(corners_83: Array, intrinsics: Array, width: int, height: int) -> tuple[float, ...] | None:
    """Return left, top, right, bottom of what the image shows of a box; None if that is less than a pixel."""
    points = corners_83[corners_83[:, 2] > 0] @ intrinsics.T
    if not len(points):
        return None
    points = points[:, :2] / points[:, 2:]
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    if left < 0 or top < 0 or right > width or bottom > height:
        # Clipping the hull, not its bounds: a slanted box that sticks out of the image is lower where it is seen.
        seen = MultiPoint(points).convex_hull.intersection(rectangle(0, 0, width, height))
        if seen.is_empty:
            return None
        left, top, right, bottom = seen.bounds
    return (left, top, right, bottom) if min(right - left, bottom - top) >= _MIN_SIZE else None


def _reference_row(tables: NuScenes, sample: Row, channel: str) -> Row:
    if channel not in sample["data"]:
        raise StreampetrError(
            f"{tables.table_root}: sample '{sample['token']}' has no keyframe of {channel} in sample_data; "
            f"a sample needs {REFERENCE} and {', '.join(CAMERAS)}"
        )
    return get_row(tables, "sample_data", sample["data"][channel], f"sample '{sample['token']}'")


def _poses(tables: NuScenes, sample_data: Row) -> tuple[Pose, Pose]:
    """Return base_T_sensor and, at the time of the measurement, world_T_base."""
    origin = f"sample_data '{sample_data['token']}'"
    rows = (
        get_row(tables, "calibrated_sensor", sample_data["calibrated_sensor_token"], origin),
        get_row(tables, "ego_pose", sample_data["ego_pose_token"], origin),
    )
    base_T_sensor, world_T_base = (Pose(np.array(row["translation"]), np.array(row["rotation"])) for row in rows)
    return base_T_sensor, world_T_base
