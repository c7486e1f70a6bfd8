"""Detections and tracks as nuScenes' results files: global frame, nuScenes' sizes and quaternions, attributes.

Border to nuScenes' conventions. D detections, T tracks.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionConfig
from scipy.spatial.transform import Rotation

from streampetr_core.decode import Detections
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, transform_points
from streampetr_core.tracking import Tracks
from training.data.infos import Keyframe, Pose

META = {"use_lidar": False, "use_camera": True, "use_radar": False, "use_map": False, "use_external": True}
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


def frame_results(detections: Detections, keyframe: Keyframe, class_names: Sequence[str]) -> list[Entry]:
    """Return one keyframe's detections (in ref) as nuScenes has them, without those too far to be evaluated."""
    boxes_D7, velocities_D2, scores_D, labels_D = (
        value.detach().cpu().numpy()
        for value in (detections.boxes_D7, detections.velocities_D2, detections.scores_D, detections.labels_D)
    )
    names_D = [class_names[label] for label in labels_D]
    return [
        box
        | {
            "detection_name": names_D[index],
            "detection_score": float(scores_D[index]),
            "attribute_name": attribute_of(names_D[index], box["velocity"]),
        }
        for index, box in _boxes_within_range(boxes_D7, velocities_D2, names_D, keyframe)
    ]


def frame_queries(detections: Detections, keyframe: Keyframe, class_names: Sequence[str]) -> list[int]:
    """Return which query made each entry of `frame_results`, in the same order."""
    names_D = [class_names[label] for label in detections.labels_D.tolist()]
    near_D = _within_range(detections.boxes_D7[:, :3].numpy(), names_D, keyframe.base_T_ref)
    return detections.queries_D[near_D].tolist()


def frame_tracks(tracks: Tracks, keyframe: Keyframe, class_names: Sequence[str]) -> list[Entry]:
    """Return one keyframe's tracks (in ref) as nuScenes has them, without those too far to be evaluated."""
    names_T = [class_names[label] for label in tracks.labels_T]
    return [
        box
        | {
            "tracking_id": str(tracks.ids_T[index]),
            "tracking_name": names_T[index],
            "tracking_score": float(tracks.scores_T[index]),
        }
        for index, box in _boxes_within_range(tracks.boxes_T7, tracks.velocities_T2, names_T, keyframe)
    ]


def _boxes_within_range(
    boxes_D7: Array, velocities_D2: Array, names_D: Sequence[str], keyframe: Keyframe
) -> Iterator[tuple[int, Entry]]:
    """Yield which boxes are near enough to be evaluated, and where they are in the world."""
    near = np.flatnonzero(_within_range(boxes_D7[:, :3], names_D, keyframe.base_T_ref))
    centres_D3, rotations_D4, velocities_D3 = _to_world(boxes_D7[near], velocities_D2[near], keyframe)
    columns = (near, centres_D3, boxes_D7[near][:, [4, 3, 5]], rotations_D4, velocities_D3[:, :2])
    for index, centre, size, rotation, velocity in zip(*(column.tolist() for column in columns), strict=True):
        yield (
            index,
            {
                "sample_token": keyframe.token,
                "translation": centre,
                "size": size,
                "rotation": rotation,
                "velocity": velocity,
            },
        )


def attribute_of(name: str, velocity: Sequence[float]) -> str:
    """Return the attribute that the published code guesses from the class and the velocity in m/s."""
    moves = float(np.hypot(*velocity)) > _MOVING_SPEED
    return (_MOVING if moves else _STANDING).get(name, _DEFAULT[name])


def write_results(path: Path, results: Mapping[str, list[Entry]]) -> None:
    """Write `results_nusc.json`: for every sample token of the split its entries, maybe none."""
    write_json(path, {"meta": META, "results": results})


def read_results(path: Path) -> dict[str, list[Entry]]:
    """Return the entries by sample token of a results file, of detections or of tracks.

    Raises:
        StreampetrError: no such file, or no results in it.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        results.items()
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be read ({error.strerror}); make it with `streampetr test`") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreampetrError(f"{path}: no nuScenes results file, which is a JSON object with 'results'") from error
    return results


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; it appears under its name only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


@functools.cache
def evaluation_config() -> DetectionConfig:
    """Return nuScenes' configuration of its detection benchmark."""
    return config_factory("detection_cvpr_2019")


def _within_range(centres_D3: Array, names: Sequence[str], base_T_ref: Pose) -> NDArray[np.bool_]:
    in_base = transform_points(base_T_ref.matrix, centres_D3)
    limit = evaluation_config().class_range
    return np.linalg.norm(in_base[:, :2], axis=1) <= np.array([limit[name] for name in names])


def _to_world(boxes_D7: Array, velocities_D2: Array, keyframe: Keyframe) -> tuple[Array, Array, Array]:
    """Return centres (D, 3), quaternions w, x, y, z (D, 4) and velocities (D, 3) in the world."""
    centres_D3, velocities_D3 = boxes_D7[:, :3], np.column_stack([velocities_D2, np.zeros(len(velocities_D2))])
    rotations = Rotation.from_rotvec(np.outer(boxes_D7[:, 6].astype(np.float64), [0, 0, 1]))
    for pose in (keyframe.base_T_ref, keyframe.world_T_base):
        centres_D3 = transform_points(pose.matrix, centres_D3)
        velocities_D3 = velocities_D3 @ pose.matrix[:3, :3].T
        rotations = Rotation.from_quat(pose.quaternion_wxyz[[1, 2, 3, 0]]) * rotations
    return centres_D3, rotations.as_quat().reshape(-1, 4)[:, [3, 0, 1, 2]], velocities_D3
