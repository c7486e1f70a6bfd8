"""From nuScenes' tables to info files: one file for each split.

Border to nuScenes' conventions: sizes come as width, length, height. G objects.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform, transform_points
from training.data.infos import CAMERAS, Camera, Infos, InfosHeader, Keyframe, Objects3D, Pose
from training.data.infos_file import save_infos
from training.data.projection import Annotations, objects_in_image
from training.data.tables import Row, get_row, open_tables, splits_of

REFERENCE = "LIDAR_TOP"


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
    base_T_ref, world_T_base = sensor_poses(tables, reference)
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
    base_T_cam, world_T_base = sensor_poses(tables, row)
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


def _reference_row(tables: NuScenes, sample: Row, channel: str) -> Row:
    if channel not in sample["data"]:
        raise StreampetrError(
            f"{tables.table_root}: sample '{sample['token']}' has no keyframe of {channel} in sample_data; "
            f"a sample needs {REFERENCE} and {', '.join(CAMERAS)}"
        )
    return get_row(tables, "sample_data", sample["data"][channel], f"sample '{sample['token']}'")


def sensor_poses(tables: NuScenes, sample_data: Row) -> tuple[Pose, Pose]:
    """Return base_T_sensor and, at the time of the measurement, world_T_base."""
    origin = f"sample_data '{sample_data['token']}'"
    rows = (
        get_row(tables, "calibrated_sensor", sample_data["calibrated_sensor_token"], origin),
        get_row(tables, "ego_pose", sample_data["ego_pose_token"], origin),
    )
    base_T_sensor, world_T_base = (Pose(np.array(row["translation"]), np.array(row["rotation"])) for row in rows)
    return base_T_sensor, world_T_base
