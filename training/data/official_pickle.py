"""Reads the info files of the official converter, `nuscenes2d_temporal_infos_{train,val,test}.pkl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import make_transform
from training.data.infos import CAMERAS, CLASSES_2D, Camera, Infos, InfosHeader, Keyframe, Objects2D, Objects3D, Pose
from training.data.safe_pickle import load_plain_pickle

_SENSOR_FOLDERS = ("samples", "sweeps")


def read_official_infos(path: Path) -> Infos:
    """Return the keyframes of an official info file; no code that the file may contain is executed.

    Raises:
        StreampetrError: no such content, a keyframe that lacks something, or 2D classes in another order.
    """
    content = load_plain_pickle(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("infos"), Sequence) or not content["infos"]:
        raise StreampetrError(f"{path}: holds no 'infos'; give a nuscenes2d_temporal_infos_*.pkl")
    version = str((content.get("metadata") or {}).get("version", "unknown"))
    split = next((name for name in ("train", "val", "test") if name in path.stem), path.stem)
    split = f"mini_{split}" if version.endswith("mini") else split
    infos = tqdm(content["infos"], desc=path.name, unit="sample", disable=None)
    keyframes = [_read_one(info, f"{path}: infos[{index}]") for index, info in enumerate(infos)]
    annotated = any(len(keyframe.objects) for keyframe in keyframes)
    return Infos.from_keyframes(InfosHeader(version, split, annotated), keyframes)


def _read_one(info: Any, where: str) -> Keyframe:
    try:
        return _keyframe(info, where)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        what = (
            f"lacks {error}" if isinstance(error, KeyError) else f"is not as the official converter writes it: {error}"
        )
        raise StreampetrError(f"{where} {what}; make the file again, or run `streampetr prepare`") from error


def _keyframe(info: Mapping[str, Any], where: str) -> Keyframe:
    objects = _objects_3d(info)
    cameras = tuple(_camera(info, index, name) for index, name in enumerate(CAMERAS))
    _check_class_order(cameras, objects, where)
    return Keyframe(
        token=str(info["token"]),
        previous=str(info["prev"]),
        following=str(info["next"]),
        scene=str(info["scene_token"]),
        # The official data set tells the first frame of a scene by its lack of earlier LiDAR sweeps.
        starts_sequence=len(info["sweeps"]) == 0,
        timestamp=int(info["timestamp"]),
        base_T_ref=_pose(info, "lidar2ego"),
        world_T_base=_pose(info, "ego2global"),
        cameras=cameras,
        objects=objects,
    )


def _camera(info: Mapping[str, Any], index: int, name: str) -> Camera:
    camera = info["cams"][name]
    return Camera(
        path=_relative(str(camera["data_path"])),
        timestamp=int(camera["timestamp"]),
        intrinsics=_floats(camera["cam_intrinsic"]).reshape(3, 3),
        ref_T_cam=make_transform(_floats(camera["sensor2lidar_rotation"]), _floats(camera["sensor2lidar_translation"])),
        objects=_objects_2d(info, index),
    )


def _objects_2d(info: Mapping[str, Any], index: int) -> Objects2D:
    if "bboxes2d" not in info:
        return Objects2D(*(np.empty(shape, np.float32) for shape in ((0, 4), 0, (0, 2), 0)))
    return Objects2D(
        boxes_G4=np.asarray(info["bboxes2d"][index], dtype=np.float32).reshape(-1, 4),
        labels_G=np.asarray(info["labels2d"][index], dtype=np.int64).reshape(-1),
        centres_G2=np.asarray(info["centers2d"][index], dtype=np.float32).reshape(-1, 2),
        depths_G=np.asarray(info["depths"][index], dtype=np.float32).reshape(-1),
    )


def _objects_3d(info: Mapping[str, Any]) -> Objects3D:
    if "gt_boxes" not in info:
        nothing = np.empty(0, np.int64)
        return Objects3D(np.empty((0, 7)), np.empty((0, 2)), (), nothing, nothing, nothing.astype(bool))
    return Objects3D(
        boxes_G7=_floats(info["gt_boxes"]).reshape(-1, 7),
        velocities_G2=_floats(info["gt_velocity"]).reshape(-1, 2),
        names=tuple(str(name) for name in np.asarray(info["gt_names"])),
        lidar_points_G=np.asarray(info["num_lidar_pts"], dtype=np.int64),
        radar_points_G=np.asarray(info["num_radar_pts"], dtype=np.int64),
        valid_G=np.asarray(info["valid_flag"], dtype=bool),
    )


def _check_class_order(cameras: tuple[Camera, ...], objects: Objects3D, where: str) -> None:
    """Every 2D box is the picture of a 3D box, so no class can be seen more often in an image than it is around."""
    for camera in cameras:
        labels, counts = np.unique(camera.objects.labels_G, return_counts=True)
        for label, count in zip(labels, counts, strict=True):
            name = CLASSES_2D[label] if 0 <= label < len(CLASSES_2D) else f"class {label}"
            if count > objects.names.count(name):
                raise StreampetrError(
                    f"{where}: its 2D boxes are numbered in another class order than {', '.join(CLASSES_2D)} "
                    f"({count} times '{name}' in one image, {objects.names.count(name)} in the 3D boxes); "
                    "run `streampetr prepare` instead"
                )


def _pose(info: Mapping[str, Any], name: str) -> Pose:
    return Pose(_floats(info[f"{name}_translation"]).reshape(3), _floats(info[f"{name}_rotation"]).reshape(4))


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _relative(path: str) -> str:
    """Return a path from samples/ or sweeps/ on; before that stands where the data lay when the file was made."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    starts = [index for index, part in enumerate(parts) if part in _SENSOR_FOLDERS]
    return str(PurePosixPath(*parts[starts[-1] :])) if starts else path
