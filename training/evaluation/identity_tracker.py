"""The identity-propagation tracker of the core, on keyframes and on results files."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.decode import Detections
from streampetr_core.geometry import invert_transform
from streampetr_core.tracking import TrackerConfig, TrackerState, Tracks, track
from training.data.infos import Keyframe
from training.evaluation.greedy_tracker import TRACKED_CLASSES, Entry, TrackedFrame


class KeyframeTracker:
    """Follows identities along with the detector, keyframe after keyframe."""

    def __init__(self, model: ModelConfig) -> None:
        self._config = TrackerConfig.for_model(model)
        self._labels = torch.tensor([n for n, name in enumerate(model.class_names) if name in TRACKED_CLASSES])
        self._state, self._previous = TrackerState.fresh(self._config), None

    def step(self, detections: Detections, admitted_K: Tensor | None, keyframe: Keyframe, *, is_first: bool) -> Tracks:
        """Return the tracks that are seen in a keyframe, in its ref; `admitted_K` as `tracking.track` takes it."""
        if is_first or self._previous is None:
            self._state, self._previous = TrackerState.fresh(self._config), keyframe
        ref_T_prev = invert_transform(keyframe.world_T_ref) @ self._previous.world_T_ref
        dt = (keyframe.timestamp - self._previous.timestamp) / 1e6
        tracked_D = torch.isin(detections.labels_D, self._labels)
        tracks, self._state = track(detections.select(tracked_D), admitted_K, self._state, ref_T_prev, dt, self._config)
        self._previous = keyframe
        return tracks


def track_results(
    frames: Iterable[TrackedFrame], detections: Mapping[str, Sequence[Entry]], min_score: float
) -> dict[str, list[Entry]]:
    """Return tracking entries by sample token, from detection entries by sample token.

    A results file does not say which queries made its entries, so distance alone decides here.
    Frames must come in the order of time, scene after scene. Ids begin at 1 in every scene.
    """
    config = TrackerConfig(0, 0, len(TRACKED_CLASSES), birth_score=min_score, keep_score=min_score)
    state, time, results = TrackerState.fresh(config), 0.0, {}
    for frame in frames:
        if frame.is_first:
            state, time = TrackerState.fresh(config), frame.time
        entries = [entry for entry in detections[frame.token] if entry["detection_name"] in TRACKED_CLASSES]
        tracks, state = track(_in_world(entries), None, state, np.eye(4), frame.time - time, config)
        columns = (tracks.queries_T, tracks.ids_T, tracks.labels_T, tracks.scores_T)
        results[frame.token] = [
            {key: entries[index][key] for key in ("sample_token", "translation", "size", "rotation", "velocity")}
            | {"tracking_id": str(id_), "tracking_name": TRACKED_CLASSES[label], "tracking_score": score}
            for index, id_, label, score in zip(*(column.tolist() for column in columns), strict=True)
        ]
        time = frame.time
    return results


def _in_world(entries: Sequence[Entry]) -> Detections:
    """Return entries as detections in the world, float64; their places in the list stand for their queries."""
    boxes_D7 = torch.zeros(len(entries), 7, dtype=torch.float64)
    for box_7, entry in zip(boxes_D7, entries, strict=True):
        width, length, height = entry["size"]
        box_7[:6] = torch.tensor([*entry["translation"], length, width, height], dtype=torch.float64)
    return Detections(
        boxes_D7,
        torch.tensor([entry["velocity"] for entry in entries], dtype=torch.float64).reshape(-1, 2),
        torch.tensor([entry["detection_score"] for entry in entries], dtype=torch.float64),
        torch.tensor([TRACKED_CLASSES.index(entry["detection_name"]) for entry in entries], dtype=torch.int64),
        torch.arange(len(entries)),
    )
