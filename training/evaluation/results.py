"""Detections and tracks of keyframes as nuScenes' results files, and those files as entries by sample."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionConfig

from streampetr_core.decode import Detections
from streampetr_core.errors import StreampetrError
from streampetr_core.nuscenes_results import (
    META,
    Entry,
    FoundObjects,
    Place,
    attribute_of,
    detection_entries,
    tracking_entries,
    within_range,
    write_json,
    write_results,
)
from streampetr_core.tracking import Tracks
from training.data.infos import Keyframe

# The format itself stands in the core, where the node's side uses it too.
__all__ = [
    "META",
    "Entry",
    "attribute_of",
    "evaluation_config",
    "frame_queries",
    "frame_results",
    "frame_tracks",
    "read_results",
    "write_json",
    "write_results",
]


def frame_results(detections: Detections, keyframe: Keyframe, class_names: Sequence[str]) -> list[Entry]:
    """Return one keyframe's detections (in ref) as nuScenes has them, without those too far to be evaluated."""
    return detection_entries(_found(detections, class_names), _place(keyframe))


def frame_queries(detections: Detections, keyframe: Keyframe, class_names: Sequence[str]) -> list[int]:
    """Return which query made each entry of `frame_results`, in the same order."""
    near = within_range(_found(detections, class_names), _place(keyframe))
    return detections.queries_D.cpu().numpy()[near].tolist()


def frame_tracks(tracks: Tracks, keyframe: Keyframe, class_names: Sequence[str]) -> list[Entry]:
    """Return one keyframe's tracks (in ref) as nuScenes has them, without those too far to be evaluated."""
    names_T = [class_names[label] for label in tracks.labels_T]
    found = FoundObjects(tracks.boxes_T7, tracks.velocities_T2, tracks.scores_T, names_T, tracks.ids_T.tolist())
    return tracking_entries(found, _place(keyframe))


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


@functools.cache
def evaluation_config() -> DetectionConfig:
    """Return nuScenes' configuration of its detection benchmark."""
    return config_factory("detection_cvpr_2019")


def _found(detections: Detections, class_names: Sequence[str]) -> FoundObjects:
    boxes_D7, velocities_D2, scores_D, labels_D = (
        value.detach().cpu().numpy()
        for value in (detections.boxes_D7, detections.velocities_D2, detections.scores_D, detections.labels_D)
    )
    return FoundObjects(boxes_D7, velocities_D2, scores_D, [class_names[label] for label in labels_D])


def _place(keyframe: Keyframe) -> Place:
    return Place(keyframe.token, keyframe.base_T_ref.matrix, keyframe.world_T_base.matrix)
