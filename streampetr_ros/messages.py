"""From detections and tracks to messages in the base frame, for programs; `markers` makes those for RViz.

D objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from streampetr_core.decode import Detections
from streampetr_core.geometry import Array, quaternion_from_yaw, transform_points, yaw_of
from streampetr_core.tracking import Tracks

_FLOATS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy", "score")
_DETECTION_POINT = np.dtype([*((name, "<f4") for name in _FLOATS), ("class", "<u4")])
_TRACK_POINT = np.dtype([*_DETECTION_POINT.descr, ("track_id", "<u4"), ("age", "<f4")])
_POINT_FIELD_TYPES = {"<f4": PointField.FLOAT32, "<u4": PointField.UINT32}


@dataclass(frozen=True)
class Objects:
    """What is published of one instant, best first, in the base frame: metres, radians, m/s over ground."""

    boxes_D7: Array  # gravity centre x, y, z, length, width, height, yaw; upright in the base frame
    velocities_D3: Array
    scores_D: Array
    labels_D: NDArray[np.int64]
    ids_D: NDArray[np.int64] | None = None  # of tracks
    ages_D: Array | None = None  # seconds since the track began

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.scores_D)

    @staticmethod
    def of_detections(detections: Detections, base_T_ref: ArrayLike) -> "Objects":
        """Return detections, which are in ref, in their own order."""
        boxes_D7, velocities_D2 = detections.boxes_D7.numpy(), detections.velocities_D2.numpy()
        moved = _in_base(boxes_D7, velocities_D2, base_T_ref)
        return Objects(*moved, detections.scores_D.numpy(), detections.labels_D.numpy())

    @staticmethod
    def of_tracks(tracks: Tracks, base_T_ref: ArrayLike) -> "Objects":
        """Return tracks, which are in ref, best first."""
        tracks = tracks.select(np.argsort(-tracks.scores_T, kind="stable"))
        moved = _in_base(tracks.boxes_T7, tracks.velocities_T2, base_T_ref)
        return Objects(*moved, tracks.scores_T, tracks.labels_T, tracks.ids_T, tracks.age_T)


class DetectionArrays:
    """Makes Detection3DArrays out of the same message objects again and again; each replaces the one before.

    Hundreds of new message objects for every frame cost as much as a small network.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        """Take the names of the labels."""
        self._class_names = class_names
        self._header = Header()
        self._detections: list[Detection3D] = []

    def make(self, header: Header, objects: Objects) -> Detection3DArray:
        """Return a message that holds until the next one is made.

        Size x is the length, y the width, z the height; id is that of the track, or empty.
        """
        self._header.stamp, self._header.frame_id = header.stamp, header.frame_id
        self._detections += [self._new() for _ in range(len(objects) - len(self._detections))]
        detections = self._detections[: len(objects)]
        half_yaw_D = objects.boxes_D7[:, 6] / 2
        rows_Dx = np.c_[objects.boxes_D7[:, :6], np.cos(half_yaw_D), np.sin(half_yaw_D), objects.scores_D]
        ids = [""] * len(objects) if objects.ids_D is None else map(str, objects.ids_D.tolist())
        names = (self._class_names[label] for label in objects.labels_D.tolist())
        for detection, row, name, id_ in zip(detections, rows_Dx.tolist(), names, ids, strict=True):
            detection.id = id_
            hypothesis, centre, size = detection.results[0].hypothesis, detection.bbox.center, detection.bbox.size
            centre.position.x, centre.position.y, centre.position.z, size.x, size.y, size.z = row[:6]
            centre.orientation.w, centre.orientation.z, hypothesis.score = row[6:]
            hypothesis.class_id = name
        return Detection3DArray(header=self._header, detections=detections)

    def _new(self) -> Detection3D:
        detection = Detection3D(header=self._header, results=[ObjectHypothesisWithPose()])
        detection.results[0].pose.pose = detection.bbox.center
        return detection


def point_cloud(header: Header, objects: Objects) -> PointCloud2:
    """Return one point for each object; tracks have two fields more than detections: `track_id` and `age`."""
    points_D = np.zeros(len(objects), _DETECTION_POINT if objects.ids_D is None else _TRACK_POINT)
    columns = np.c_[objects.boxes_D7, objects.velocities_D3[:, :2], objects.scores_D]
    for name, column in zip(_FLOATS, columns.T, strict=True):
        points_D[name] = column
    points_D["class"] = objects.labels_D
    if objects.ids_D is not None:
        points_D["track_id"], points_D["age"] = objects.ids_D, objects.ages_D
    fields = [
        PointField(name=name, offset=offset, datatype=_POINT_FIELD_TYPES[kind.str], count=1)
        for name, (kind, offset) in points_D.dtype.fields.items()
    ]
    message = PointCloud2(header=header, height=1, width=len(points_D), fields=fields, is_dense=True)
    message.point_step, message.row_step = points_D.itemsize, points_D.nbytes
    message.data.frombytes(points_D.tobytes())
    return message


def pose(box: ArrayLike) -> Pose:
    """Return where an upright box (7,) is."""
    w, x, y, z = quaternion_from_yaw(box[6])
    return Pose(position=point(box[:3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def point(xyz: ArrayLike) -> Point:
    """Return three numbers as a Point."""
    x, y, z = map(float, xyz)
    return Point(x=x, y=y, z=z)


def vector(xyz: ArrayLike) -> Vector3:
    """Return three numbers as a Vector3."""
    x, y, z = map(float, xyz)
    return Vector3(x=x, y=y, z=z)


def _in_base(boxes_D7: NDArray, velocities_D2: NDArray, base_T_ref: ArrayLike) -> tuple[Array, Array]:
    """Return boxes (D, 7) and velocities (D, 3) in the base frame; the boxes stay upright there."""
    base_T_ref = np.asarray(base_T_ref, dtype=np.float64)
    boxes = boxes_D7.astype(np.float64)
    velocities = np.c_[velocities_D2.astype(np.float64), np.zeros(len(boxes))]
    boxes[:, :3] = transform_points(base_T_ref, boxes[:, :3])
    boxes[:, 6] += yaw_of(base_T_ref)
    return boxes, velocities @ base_T_ref[:3, :3].T
