"""What training needs to know of every keyframe, as values; nothing here touches images or nuScenes' tables.

`Infos` keeps all keyframes of a split in flat arrays, so that a quarter of a million boxes load in a second and worker
processes share them. Indexing gives a `Keyframe`. ref is LIDAR_TOP, base is nuScenes' ego frame, world its global one.

F frames, N cameras, G objects.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, transform_from_quaternion

# The order of the official models' images.
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
# The order in which official info files number the classes of 2D boxes; that of 3D classes is the model's own.
CLASSES_2D = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)


@dataclass(frozen=True)
class Pose:
    """Where a frame is in its parent: translation (3,) in metres, quaternion (4,) as w, x, y, z."""

    translation: Array
    quaternion_wxyz: Array

    @property
    def matrix(self) -> Array:
        """4x4 transform from the frame to its parent."""
        return transform_from_quaternion(self.quaternion_wxyz, self.translation)


@dataclass(frozen=True)
class Objects3D:
    """Annotated objects around the vehicle at the keyframe's time, in ref."""

    boxes_G7: Array  # gravity centre x, y, z, length, width, height, yaw about z
    velocities_G2: Array  # m/s; NaN where it cannot be told
    names: tuple[str, ...]  # detection class, or nuScenes' category where there is none
    lidar_points_G: NDArray[np.int64]
    radar_points_G: NDArray[np.int64]
    valid_G: NDArray[np.bool_]  # seen by the LiDAR or a radar

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.names)


@dataclass(frozen=True)
class Objects2D:
    """The same objects as one camera shows them, in pixels of its image; float32 as in official files."""

    boxes_G4: NDArray[np.float32]  # left, top, right, bottom
    labels_G: NDArray[np.int64]  # index into CLASSES_2D
    centres_G2: NDArray[np.float32]  # the projected gravity centre, which may lie outside of the image
    depths_G: NDArray[np.float32]  # of the gravity centre, metres

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.labels_G)

    def select(self, index: NDArray) -> "Objects2D":
        """Return the objects that a bool mask or an index array names, in its order."""
        return Objects2D(**{name: value[index] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Camera:
    """One image and its camera at the time of exposure."""

    path: str  # relative to the data root
    timestamp: int  # microseconds
    intrinsics: Array  # 3x3, pixels
    ref_T_cam: Array  # 4x4: camera at its own exposure time, ref at the keyframe's time; the vehicle moved in between
    objects: Objects2D


@dataclass(frozen=True)
class Keyframe:
    """One sample of nuScenes."""

    token: str
    previous: str  # token of the keyframe before; empty for the first of a scene
    following: str  # token of the keyframe after; empty for the last of a scene
    scene: str  # token of the scene
    starts_sequence: bool
    timestamp: int  # microseconds
    base_T_ref: Pose
    world_T_base: Pose
    cameras: tuple[Camera, ...]
    objects: Objects3D

    @property
    def world_T_ref(self) -> Array:
        """4x4 transform from ref at the keyframe's time to the world."""
        return self.world_T_base.matrix @ self.base_T_ref.matrix


@dataclass(frozen=True)
class InfosHeader:
    """What holds for all keyframes of a file."""

    version: str  # of the nuScenes tables, such as v1.0-trainval
    split: str  # such as train
    annotated: bool
    cameras: tuple[str, ...] = CAMERAS
    classes_2d: tuple[str, ...] = CLASSES_2D


class Infos(Sequence[Keyframe]):
    """All keyframes of one split, in the order of training: scene after scene, each in the order of time.

    Official code sorts by time alone, which is the same as long as scenes do not overlap in time.
    """

    def __init__(self, header: InfosHeader, columns: dict[str, NDArray]) -> None:
        """Take over arrays as `columns_from_keyframes` or an info file gives them."""
        self.header = header
        self.columns = columns

    @staticmethod
    def from_keyframes(header: InfosHeader, keyframes: Sequence[Keyframe]) -> "Infos":
        """Put keyframes into order and into arrays."""
        starts: dict[str, int] = {}
        for keyframe in keyframes:
            starts[keyframe.scene] = min(keyframe.timestamp, starts.get(keyframe.scene, keyframe.timestamp))
        ordered = sorted(keyframes, key=lambda frame: (starts[frame.scene], frame.scene, frame.timestamp))
        return Infos(header, columns_from_keyframes(ordered))

    def __len__(self) -> int:
        """Return the number of keyframes."""
        return len(self.columns["token"])

    def __getitem__(self, index: int) -> Keyframe:
        """Return one keyframe; negative numbers count from the end."""
        index = range(len(self))[index]
        column = {name: values[index] for name, values in self.columns.items() if name in _FRAME_COLUMNS}
        return Keyframe(
            token=_text(column["token"]),
            previous=_text(column["previous"]),
            following=_text(column["following"]),
            scene=_text(column["scene"]),
            starts_sequence=bool(column["starts_sequence"]),
            timestamp=int(column["timestamp"]),
            base_T_ref=Pose(column["base_T_ref"][:3], column["base_T_ref"][3:]),
            world_T_base=Pose(column["world_T_base"][:3], column["world_T_base"][3:]),
            cameras=tuple(self._camera(index, number) for number in range(len(self.header.cameras))),
            objects=self._objects(index),
        )

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The sample tokens, in order."""
        return tuple(_text(token) for token in self.columns["token"])

    def image_paths(self) -> list[str]:
        """Return the path of every image, relative to the data root."""
        return [_text(path) for path in self.columns["image_path"].flat]

    def _camera(self, index: int, number: int) -> Camera:
        columns = self.columns
        position = index * len(self.header.cameras) + number
        part = slice(columns["objects2d_end"][position - 1] if position else 0, columns["objects2d_end"][position])
        return Camera(
            path=_text(columns["image_path"][index, number]),
            timestamp=int(columns["image_timestamp"][index, number]),
            intrinsics=columns["intrinsics"][index, number],
            ref_T_cam=columns["ref_T_cam"][index, number],
            objects=Objects2D(
                boxes_G4=columns["box2d"][part],
                labels_G=columns["label2d"][part].astype(np.int64),
                centres_G2=columns["centre2d"][part],
                depths_G=columns["depth2d"][part],
            ),
        )

    def _objects(self, index: int) -> Objects3D:
        columns = self.columns
        part = slice(columns["objects_end"][index - 1] if index else 0, columns["objects_end"][index])
        return Objects3D(
            boxes_G7=columns["box"][part],
            velocities_G2=columns["velocity"][part],
            names=tuple(_text(columns["names"][code]) for code in columns["name_code"][part]),
            lidar_points_G=columns["lidar_points"][part].astype(np.int64),
            radar_points_G=columns["radar_points"][part].astype(np.int64),
            valid_G=columns["valid"][part],
        )


# fmt: off
_FRAME_COLUMNS = (
    "token", "previous", "following", "scene", "starts_sequence", "timestamp", "base_T_ref", "world_T_base",
)
COLUMNS = (
    *_FRAME_COLUMNS, "image_path", "image_timestamp", "intrinsics", "ref_T_cam",
    "objects_end", "names", "name_code", "box", "velocity", "lidar_points", "radar_points", "valid",
    "objects2d_end", "box2d", "label2d", "centre2d", "depth2d",
)
# fmt: on


def columns_from_keyframes(keyframes: Sequence[Keyframe]) -> dict[str, NDArray]:
    """Return the flat arrays that `Infos` keeps; texts are UTF-8 bytes, which need a quarter of NumPy's characters."""
    cameras = [camera for frame in keyframes for camera in frame.cameras]
    shape = (len(keyframes), -1)
    columns = {
        "token": _texts(frame.token for frame in keyframes),
        "previous": _texts(frame.previous for frame in keyframes),
        "following": _texts(frame.following for frame in keyframes),
        "scene": _texts(frame.scene for frame in keyframes),
        "starts_sequence": np.array([frame.starts_sequence for frame in keyframes], dtype=bool),
        "timestamp": np.array([frame.timestamp for frame in keyframes], dtype=np.int64),
        "base_T_ref": _poses([frame.base_T_ref for frame in keyframes]),
        "world_T_base": _poses([frame.world_T_base for frame in keyframes]),
        "image_path": _texts(camera.path for camera in cameras).reshape(shape),
        "image_timestamp": np.array([camera.timestamp for camera in cameras], dtype=np.int64).reshape(shape),
        "intrinsics": np.array([camera.intrinsics for camera in cameras]).reshape(*shape, 3, 3),
        "ref_T_cam": np.array([camera.ref_T_cam for camera in cameras]).reshape(*shape, 4, 4),
    }
    return columns | _columns_3d([frame.objects for frame in keyframes]) | _columns_2d([c.objects for c in cameras])


def _columns_3d(objects: list[Objects3D]) -> dict[str, NDArray]:
    names = sorted({name for item in objects for name in item.names})
    codes = {name: code for code, name in enumerate(names)}
    return {
        "objects_end": np.cumsum([len(item) for item in objects], dtype=np.int64),
        "names": _texts(names),
        "name_code": np.array([codes[name] for item in objects for name in item.names], dtype=np.uint8),
        "box": np.concatenate([np.empty((0, 7)), *(item.boxes_G7 for item in objects)]),
        "velocity": np.concatenate([np.empty((0, 2)), *(item.velocities_G2 for item in objects)]),
        "lidar_points": _concatenated([item.lidar_points_G for item in objects], np.int32),
        "radar_points": _concatenated([item.radar_points_G for item in objects], np.int32),
        "valid": _concatenated([item.valid_G for item in objects], np.bool_),
    }


def _columns_2d(objects: list[Objects2D]) -> dict[str, NDArray]:
    empty = np.empty((0, 4), np.float32)
    return {
        "objects2d_end": np.cumsum([len(item) for item in objects], dtype=np.int64),
        "box2d": np.concatenate([empty, *(item.boxes_G4 for item in objects)]),
        "label2d": _concatenated([item.labels_G for item in objects], np.uint8),
        "centre2d": np.concatenate([empty[:, :2], *(item.centres_G2 for item in objects)]),
        "depth2d": _concatenated([item.depths_G for item in objects], np.float32),
    }


def _concatenated(arrays: list[NDArray], dtype: type) -> NDArray:
    return np.concatenate([np.empty(0, dtype), *(array.astype(dtype) for array in arrays)])


def _poses(poses: Sequence[Pose]) -> Array:
    return np.array([np.concatenate([pose.translation, pose.quaternion_wxyz]) for pose in poses]).reshape(-1, 7)


def _texts(texts: Iterable[str]) -> NDArray:
    return np.array([text.encode() for text in texts], dtype=np.bytes_)


def _text(value: bytes) -> str:
    return value.decode()
