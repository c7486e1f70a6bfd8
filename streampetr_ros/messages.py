"""From detections to messages: boxes in the base frame for programs, markers for RViz."""

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from streampetr_core.decode import Detections
from streampetr_core.drawing import CLASS_COLOURS
from streampetr_core.geometry import quaternion_from_yaw, transform_points, yaw_of

_MARKER_LIFETIME = Duration(sec=1)
_MARKERS_PER_OBJECT = 3
_VELOCITY_SECONDS = 1.0  # an arrow shows where the object will be in this time


def boxes_in_base(detections: Detections, base_T_ref: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return boxes (D, 7) and velocities (D, 3) in the base frame; the boxes stay upright there."""
    boxes = detections.boxes_D7.double().cpu().numpy().copy()
    velocities = np.zeros((len(boxes), 3))
    velocities[:, :2] = detections.velocities_D2.double().cpu().numpy()
    boxes[:, :3] = transform_points(base_T_ref, boxes[:, :3])
    boxes[:, 6] += yaw_of(base_T_ref)
    return boxes, velocities @ base_T_ref[:3, :3].T


def detection_array(
    header: Header, boxes: NDArray[np.float64], detections: Detections, class_names: Sequence[str]
) -> Detection3DArray:
    """Return a Detection3DArray, best first; size x is the length, y the width, z the height; ids are empty."""
    message = Detection3DArray(header=header)
    for box, score, label in zip(boxes, detections.scores_D.tolist(), detections.labels_D.tolist(), strict=True):
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = class_names[label]
        hypothesis.hypothesis.score = score
        detection = Detection3D(header=header, results=[hypothesis])
        detection.bbox.center = _pose(box)
        detection.bbox.size = _vector(box[3:6])
        hypothesis.pose.pose = detection.bbox.center
        message.detections.append(detection)
    return message


def marker_array(
    header: Header,
    boxes: NDArray[np.float64],
    velocities: NDArray[np.float64],
    detections: Detections,
    class_names: Sequence[str],
) -> MarkerArray:
    """Return a box, a label and a velocity arrow for every detection; the array replaces all markers before it."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    rows = zip(boxes, velocities, detections.scores_D.tolist(), detections.labels_D.tolist(), strict=True)
    for index, (box, velocity, score, label) in enumerate(rows):
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        common = {"header": header, "lifetime": _MARKER_LIFETIME}
        first_id = _MARKERS_PER_OBJECT * index
        body = Marker(ns="boxes", id=first_id, type=Marker.CUBE, pose=_pose(box), **common)
        body.scale, body.color = _vector(box[3:6]), _colour(colour, 0.5)
        text = Marker(ns="labels", id=first_id + 1, type=Marker.TEXT_VIEW_FACING, pose=_pose(box), **common)
        text.pose.position.z += box[5] / 2 + 0.5
        text.scale.z, text.color, text.text = 0.7, _colour((1, 1, 1), 1.0), f"{class_names[label]} {score:.2f}"
        arrow = Marker(ns="velocities", id=first_id + 2, type=Marker.ARROW, **common)
        arrow.points = [_point(box[:3]), _point(box[:3] + _VELOCITY_SECONDS * velocity)]
        arrow.scale, arrow.color = _vector((0.15, 0.3, 0.3)), _colour(colour, 1.0)
        markers += [body, text, arrow]
    return MarkerArray(markers=markers)


def _pose(box: NDArray[np.float64]) -> Pose:
    w, x, y, z = quaternion_from_yaw(box[6])
    return Pose(position=_point(box[:3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _point(xyz: Sequence[float]) -> Point:
    x, y, z = map(float, xyz)
    return Point(x=x, y=y, z=z)


def _vector(xyz: Sequence[float]) -> Vector3:
    x, y, z = map(float, xyz)
    return Vector3(x=x, y=y, z=z)


def _colour(rgb: Sequence[float], alpha: float) -> ColorRGBA:
    r, g, b = map(float, rgb)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)
