"""One scene of a nuScenes-format root as plain values: exposures, poses, calibration and boxes.

nuScenes' global frame is called `odom` here, its ego frame `base_link` (REP-105), and each sensor's frame is its
channel in lower case. Times are nanoseconds since the epoch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion

from streampetr_core.errors import StreampetrError

REFERENCE = "LIDAR_TOP"


@dataclass(frozen=True)
class Pose:
    """Where a frame or box is in its parent: translation (x, y, z) in metres, unit quaternion (w, x, y, z)."""

    translation: tuple[float, ...]
    quaternion_wxyz: tuple[float, ...]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: its pose on the vehicle and its 3x3 matrix K, row by row, in pixels."""

    base_T_cam: Pose
    intrinsics: tuple[float, ...]


@dataclass(frozen=True)
class Exposure:
    """One image: the channel that took it, when, its file and its size in pixels."""

    stamp_ns: int
    channel: str
    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class Box:
    """One annotated object: gravity centre and rotation in base_link, size (length, width, height) in metres."""

    class_name: str
    instance_token: str
    base_T_box: Pose
    size_lwh: tuple[float, ...]


@dataclass(frozen=True)
class Keyframe:
    """An annotated instant: the time of its LIDAR_TOP sweep, its sample token and its boxes at that time."""

    stamp_ns: int
    sample_token: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Scene:
    """All that a bag of one scene says; exposures, poses (time, odom_T_base) and keyframes are in the order of time."""

    name: str
    cameras: Mapping[str, Camera]
    base_T_lidar: Pose
    exposures: tuple[Exposure, ...]
    sweeps: tuple[int, ...]  # the times of LIDAR_TOP
    poses: tuple[tuple[int, Pose], ...]
    keyframes: tuple[Keyframe, ...]
    annotated: bool


def open_root(root: Path, version: str | None = None) -> NuScenes:
    """Load the tables of a nuScenes-format root.

    Args:
        root: folder with one or more version folders of tables.
        version: name of the version folder; None takes the only one there is.

    Raises:
        StreampetrError: no such folder, no tables, several versions to choose from, or tables that do not fit together.
    """
    versions = sorted(path.parent.name for path in root.glob("*/scene.json"))
    if not versions:
        raise StreampetrError(f"{root}: no nuScenes tables here (there is no <version>/scene.json below this folder)")
    if version is None and len(versions) > 1:
        raise StreampetrError(f"{root}: holds several versions; choose one with --version: {', '.join(versions)}")
    version = version or versions[0]
    if version not in versions:
        raise StreampetrError(f"{root}: no version '{version}'; there are: {', '.join(versions)}")
    try:
        return NuScenes(version, str(root), verbose=False)
    except Exception as error:  # the devkit checks by assertions, look-ups and bare exceptions
        raise StreampetrError(
            f"{root / version}: nuscenes-devkit cannot load these tables ({type(error).__name__}: {error})"
        ) from error


def read_scene(tables: NuScenes, name: str, *, sweeps: bool = True) -> Scene:
    """Return the scene called `name`; without `sweeps`, its exposures are those of keyframes only.

    The poses are always those of all sensors and sweeps, as odometry runs on between keyframes.

    Raises:
        StreampetrError: no such scene, a keyframe without LIDAR_TOP, or a calibration that changes within the scene.
    """
    scenes = {scene["name"]: scene for scene in tables.scene}
    if name not in scenes:
        raise StreampetrError(f"{tables.dataroot}: no scene '{name}'; there are: {', '.join(sorted(scenes))}")
    samples = [sample for sample in tables.sample if sample["scene_token"] == scenes[name]["token"]]
    tokens = {sample["token"] for sample in samples}
    # Every exposure names the keyframe nearest to it, so this also finds the sweeps before the first keyframe.
    records = [record for record in tables.sample_data if record["sample_token"] in tokens]
    images = [record for record in records if record["sensor_modality"] == "camera"]
    reference = [record for record in records if record["channel"] == REFERENCE]
    keyframes = sorted((_keyframe(tables, sample) for sample in samples), key=lambda key: key.stamp_ns)
    if not keyframes:
        raise StreampetrError(f"{tables.dataroot}: scene '{name}' has no samples")
    return Scene(
        name=name,
        cameras={channel: _camera(row) for channel, row in _calibration(tables, name, images).items()},
        base_T_lidar=_pose(_calibration(tables, name, reference)[REFERENCE]),
        exposures=_exposures(Path(tables.dataroot), images, sweeps),
        sweeps=tuple(sorted(_nanoseconds(record["timestamp"]) for record in reference)),
        poses=_poses(tables, records),
        keyframes=tuple(keyframes),
        annotated=bool(tables.sample_annotation),
    )


def _calibration(tables: NuScenes, scene: str, records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    tokens: dict[str, str] = {}
    for record in records:
        token = record["calibrated_sensor_token"]
        if tokens.setdefault(record["channel"], token) != token:
            raise StreampetrError(f"{scene}: the calibration of {record['channel']} changes, which one bag cannot say")
    return {channel: tables.get("calibrated_sensor", token) for channel, token in sorted(tokens.items())}


def _camera(row: dict[str, Any]) -> Camera:
    return Camera(_pose(row), tuple(float(value) for line in row["camera_intrinsic"] for value in line))


def _exposures(root: Path, images: Iterable[dict[str, Any]], sweeps: bool) -> tuple[Exposure, ...]:
    chosen = (
        Exposure(
            stamp_ns=_nanoseconds(record["timestamp"]),
            channel=record["channel"],
            path=root / record["filename"],
            width=record["width"],
            height=record["height"],
        )
        for record in images
        if sweeps or record["is_key_frame"]
    )
    return tuple(sorted(chosen, key=lambda exposure: (exposure.stamp_ns, exposure.channel)))


def _poses(tables: NuScenes, records: Iterable[dict[str, Any]]) -> tuple[tuple[int, Pose], ...]:
    # Sensors may share a stamp but not, to the last digit, a pose. The detector looks up cameras and the LiDAR: they
    # come before radars.
    ranked = sorted(records, key=lambda record: (record["sensor_modality"] == "radar", record["channel"]))
    poses: dict[int, Pose] = {}
    for record in ranked:
        poses.setdefault(_nanoseconds(record["timestamp"]), _pose(tables.get("ego_pose", record["ego_pose_token"])))
    return tuple(sorted(poses.items(), key=lambda item: item[0]))


def _keyframe(tables: NuScenes, sample: dict[str, Any]) -> Keyframe:
    if REFERENCE not in sample["data"]:
        raise StreampetrError(f"sample {sample['token']}: no {REFERENCE} record, which gives a keyframe its time")
    reference = tables.get("sample_data", sample["data"][REFERENCE])
    ego = tables.get("ego_pose", reference["ego_pose_token"])
    boxes = (_box(tables, token, ego) for token in sample["anns"])
    return Keyframe(
        stamp_ns=_nanoseconds(reference["timestamp"]),
        sample_token=sample["token"],
        boxes=tuple(box for box in boxes if box is not None),
    )


def _box(tables: NuScenes, annotation_token: str, ego: dict[str, Any]) -> Box | None:
    """Return the box in base_link; None for a category that is none of the ten detection classes."""
    box = tables.get_box(annotation_token)
    class_name = category_to_detection_name(box.name)
    if class_name is None:
        return None
    box.translate([-value for value in ego["translation"]])
    box.rotate(Quaternion(ego["rotation"]).inverse)
    width, length, height = (float(value) for value in box.wlh)
    return Box(
        class_name=class_name,
        instance_token=tables.get("sample_annotation", annotation_token)["instance_token"],
        base_T_box=Pose(_floats(box.center), _floats(box.orientation.normalised)),
        size_lwh=(length, width, height),
    )


def _pose(row: Mapping[str, Any]) -> Pose:
    return Pose(_floats(row["translation"]), _floats(Quaternion(row["rotation"]).normalised))


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _nanoseconds(microseconds: int) -> int:
    return int(microseconds) * 1000
