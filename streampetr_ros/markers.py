"""Tracks as RViz shows them: boxes, labels, velocity arrows, and trails that fade. State is a value."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from streampetr_core.drawing import CLASS_COLOURS
from streampetr_core.geometry import Array, invert_transform, transform_points
from streampetr_ros.messages import Objects, point, pose, vector

TRAIL_SECONDS = 4.0
_TRAIL_STEP = 0.25  # seconds between points of a trail
_LIFETIME = Duration(sec=1)  # when the node falls silent, what it saw vanishes
_VELOCITY_SECONDS = 1.0  # an arrow shows where the object will be in this time
_SLOWEST = 0.3  # m/s; slower objects get no arrow
_WHITE = (1.0, 1.0, 1.0)
_NAMESPACES = ("boxes", "labels", "velocities", "trails")


@dataclass(frozen=True)
class Trails:
    """Where tracks were: for each id, (time, x, y, z) in the fixed frame, oldest first, a step apart."""

    points: dict[int, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def extended(self, objects: Objects, stamp: float, world_T_base: Array) -> "Trails":
        """Return the trails with one instant more, without what is too old."""
        here = transform_points(world_T_base, objects.boxes_D7[:, :3])
        points = dict(self.points)
        for id_, centre in zip(objects.ids_D.tolist(), here.tolist(), strict=True):
            way = points.get(id_, ())
            if not way or stamp - way[-1][0] >= _TRAIL_STEP:
                points[id_] = (*way, (stamp, *centre))
        young = {id_: tuple(p for p in way if p[0] > stamp - TRAIL_SECONDS) for id_, way in points.items()}
        return Trails({id_: way for id_, way in young.items() if way})

    def in_base(self, id_: int, base_T_world: Array) -> tuple[Array, Array]:
        """Return times (P,) and points (P, 3) of one trail in the base frame of now."""
        way = np.array(self.points.get(id_, ())).reshape(-1, 4)
        return way[:, 0], transform_points(base_T_world, way[:, 1:])


@dataclass(frozen=True)
class Shown:
    """What RViz shows at the moment: the ids of tracks, and their trails; None: it is not known what it shows."""

    ids: frozenset[int] | None = None
    trails: Trails = Trails()


def track_markers(
    header: Header,
    tracks: Objects,
    shown: Shown,
    world_T_base: Array,
    class_names: Sequence[str],
) -> tuple[MarkerArray, Shown]:
    """Return the markers of an instant's tracks, and what is shown after them.

    Markers keep their ids as long as their tracks do; those of tracks that are gone are deleted.
    """
    stamp = header.stamp.sec + 1e-9 * header.stamp.nanosec
    trails = shown.trails.extended(tracks, stamp, world_T_base)
    ids = frozenset(tracks.ids_D.tolist())
    markers = [Marker(header=header, action=Marker.DELETEALL)] if shown.ids is None else []
    for id_ in sorted((shown.ids or frozenset()) - ids):
        markers += [Marker(header=header, ns=ns, id=id_, action=Marker.DELETE) for ns in _NAMESPACES]
    base_T_world = invert_transform(world_T_base)
    for index, id_ in enumerate(tracks.ids_D.tolist()):
        markers += _object_markers(header, tracks, index, class_names)
        times_P, points_P3 = trails.in_base(id_, base_T_world)
        way = np.append(times_P, stamp), np.vstack([points_P3, tracks.boxes_D7[index, :3]])
        markers.append(_trail(header, id_, tracks.labels_D[index], *way))
    return MarkerArray(markers=markers), Shown(ids, trails)


def _object_markers(header: Header, tracks: Objects, index: int, class_names: Sequence[str]) -> list[Marker]:
    box, velocity, label = tracks.boxes_D7[index], tracks.velocities_D3[index], int(tracks.labels_D[index])
    common = {"header": header, "id": int(tracks.ids_D[index]), "lifetime": _LIFETIME}
    body = Marker(ns="boxes", type=Marker.CUBE, pose=pose(box), **common)
    body.scale, body.color = vector(box[3:6]), _colour(_rgb(label), 0.5)
    text = Marker(ns="labels", type=Marker.TEXT_VIEW_FACING, pose=pose(box), **common)
    text.pose.position.z += box[5] / 2 + 0.5
    text.scale.z, text.color = 0.7, _colour(_WHITE, 1.0)
    text.text = f"{class_names[label]} {tracks.ids_D[index]}  {tracks.scores_D[index]:.2f}"
    arrow = Marker(ns="velocities", type=Marker.ARROW, **common)
    arrow.points = [point(box[:3]), point(box[:3] + _VELOCITY_SECONDS * velocity)]
    arrow.scale, arrow.color = vector((0.15, 0.3, 0.3)), _colour(_rgb(label), 1.0)
    if np.linalg.norm(velocity) < _SLOWEST:
        arrow = Marker(header=header, ns="velocities", id=common["id"], action=Marker.DELETE)
    return [body, text, arrow]


def _trail(header: Header, id_: int, label: int, times_P: Array, points_P3: Array) -> Marker:
    line = Marker(header=header, ns="trails", id=id_, type=Marker.LINE_STRIP, lifetime=_LIFETIME)
    line.scale.x, line.color = 0.12, _colour(_rgb(label), 1.0)
    line.points = [point(xyz) for xyz in points_P3]
    line.colors = [_colour(_rgb(label), 1.0 - (times_P[-1] - time) / TRAIL_SECONDS) for time in times_P]
    return line


def _rgb(label: int) -> tuple[float, ...]:
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _colour(rgb: Sequence[float], alpha: float) -> ColorRGBA:
    r, g, b = map(float, rgb)
    return ColorRGBA(r=r, g=g, b=b, a=float(alpha))
