"""The results files of nuScenes' benchmarks: global frame, nuScenes' sizes and quaternions, attributes.

A border to nuScenes' conventions, and a format only: nothing here reads a data set. D objects.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, transform_points

META = {"use_lidar": False, "use_camera": True, "use_radar": False, "use_map": False, "use_external": True}
TRACKED_CLASSES = ("bicycle", "bus", "car", "motorcycle", "pedestrian", "trailer", "truck")
# Metres around the vehicle within which the benchmark looks.
CLASS_RANGE = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), 50),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40),
    **dict.fromkeys(("traffic_cone", "barrier"), 30),
}
_MOVING_SPEED = 0.2  # m/s
_MOVING = {
    **dict.fromkeys(("car", "construction_vehicle", "bus", "truck", "trailer"), "vehicle.moving"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
}
_STANDING = {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}
_DEFAULT = {
    **dict.fromkeys(("car", "trailer", "truck", "construction_vehicle"), "vehicle.parked"),
    **dict.fromkeys(("motorcycle", "bicycle"), "cycle.without_rider"),
    **dict.fromkeys(("barrier", "traffic_cone"), ""),
    "pedestrian": "pedestrian.moving",
    "bus": "vehicle.moving",
}

Entry = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A sample, and where the frame of its objects is: 4x4 from that frame into base, and from base into the world."""

    token: str
    base_T_frame: Array
    world_T_base: Array


@dataclass(frozen=True)
class FoundObjects:
    """Detections or tracks of one sample, in any frame that a `Place` tells."""

    boxes_D7: NDArray  # gravity centre x, y, z, length, width, height, yaw
    velocities_D2: NDArray
    scores_D: NDArray
    names_D: Sequence[str]
    ids_D: Sequence[object] = ()  # of tracks

    def select(self, indices: Sequence[int]) -> "FoundObjects":
        """Return these objects, in this order."""
        return FoundObjects(
            self.boxes_D7[indices],
            self.velocities_D2[indices],
            self.scores_D[indices],
            [self.names_D[index] for index in indices],
            [self.ids_D[index] for index in indices] if len(self.ids_D) else (),
        )


def detection_entries(found: FoundObjects, place: Place) -> list[Entry]:
    """Return detections as nuScenes has them, without those too far to be evaluated."""
    return [
        box
        | {
            "detection_name": found.names_D[index],
            "detection_score": float(found.scores_D[index]),
            "attribute_name": attribute_of(found.names_D[index], box["velocity"]),
        }
        for index, box in _boxes_within_range(found, place)
    ]


def tracking_entries(found: FoundObjects, place: Place) -> list[Entry]:
    """Return tracks as nuScenes has them, without those too far to be evaluated."""
    return [
        box
        | {
            "tracking_id": str(found.ids_D[index]),
            "tracking_name": found.names_D[index],
            "tracking_score": float(found.scores_D[index]),
        }
        for index, box in _boxes_within_range(found, place)
    ]


def attribute_of(name: str, velocity: Sequence[float]) -> str:
    """Return the attribute that the published code guesses from the class and the velocity in m/s."""
    moves = float(np.hypot(*velocity)) > _MOVING_SPEED
    return (_MOVING if moves else _STANDING).get(name, _DEFAULT[name])


def write_results(path: Path, results: Mapping[str, list[Entry]]) -> None:
    """Write a results file: for every sample token of a split its entries, maybe none."""
    write_json(path, {"meta": META, "results": results})


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; it appears under its name only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def within_range(found: FoundObjects, place: Place) -> NDArray[np.int64]:
    """Return which objects are near enough to be evaluated, in their order."""
    in_base = transform_points(place.base_T_frame, found.boxes_D7[:, :3])
    limits_D = np.array([CLASS_RANGE[name] for name in found.names_D])
    return np.flatnonzero(np.linalg.norm(in_base[:, :2], axis=1) <= limits_D)


def _boxes_within_range(found: FoundObjects, place: Place) -> Iterator[tuple[int, Entry]]:
    """Yield which boxes are near enough to be evaluated, and where they are in the world."""
    near = within_range(found, place)
    boxes_D7 = found.boxes_D7[near]
    centres_D3, rotations_D4, velocities_D3 = _to_world(boxes_D7, found.velocities_D2[near], place)
    columns = (near, centres_D3, boxes_D7[:, [4, 3, 5]], rotations_D4, velocities_D3[:, :2])
    for index, centre, size, rotation, velocity in zip(*(column.tolist() for column in columns), strict=True):
        yield (
            index,
            {
                "sample_token": place.token,
                "translation": centre,
                "size": size,
                "rotation": rotation,
                "velocity": velocity,
            },
        )


def _to_world(boxes_D7: ArrayLike, velocities_D2: ArrayLike, place: Place) -> tuple[Array, Array, Array]:
    """Return centres (D, 3), quaternions w, x, y, z (D, 4) and velocities (D, 3) in the world."""
    centres_D3, velocities_D3 = boxes_D7[:, :3], np.column_stack([velocities_D2, np.zeros(len(velocities_D2))])
    rotations = Rotation.from_rotvec(np.outer(boxes_D7[:, 6].astype(np.float64), [0, 0, 1]))
    for transform in (place.base_T_frame, place.world_T_base):
        centres_D3 = transform_points(transform, centres_D3)
        velocities_D3 = velocities_D3 @ transform[:3, :3].T
        rotations = Rotation.from_matrix(transform[:3, :3]) * rotations
    return centres_D3, rotations.as_quat().reshape(-1, 4)[:, [3, 0, 1, 2]], velocities_D3
