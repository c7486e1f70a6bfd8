"""The identity-propagation tracker of the core, on keyframes and on results files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.decode import Detections
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import invert_transform
from streampetr_core.tracking import TrackerConfig, TrackerState, Tracks, track
from training.data.infos import Keyframe
from training.evaluation.greedy_tracker import TRACKED_CLASSES, Entry, TrackedFrame

IDENTITIES = "identities.json"  # the name of the file beside the results


class KeyframeTracker:
    """Follows identities along with the detector, keyframe after keyframe."""

    def __init__(self, model: ModelConfig) -> None:
        self._config = TrackerConfig.for_model(model)
        self._labels = torch.tensor([n for n, name in enumerate(model.class_names) if name in TRACKED_CLASSES])
        self._state, self._previous = TrackerState.fresh(self._config), None

    def step(self, detections: Detections, admitted_K: Tensor | None, keyframe: Keyframe) -> Tracks:
        """Return the tracks that are seen in a keyframe, in its ref; `admitted_K` as `tracking.track` takes it."""
        if keyframe.starts_sequence or self._previous is None:
            self._state, self._previous = TrackerState.fresh(self._config), keyframe
        ref_T_prev = invert_transform(keyframe.world_T_ref) @ self._previous.world_T_ref
        dt = (keyframe.timestamp - self._previous.timestamp) / 1e6
        tracked_D = torch.isin(detections.labels_D, self._labels)
        tracks, self._state = track(detections.select(tracked_D), admitted_K, self._state, ref_T_prev, dt, self._config)
        self._previous = keyframe
        return tracks


@dataclass(frozen=True)
class Identities:
    """What a results file does not say: which queries made its entries, and which of them entered the memory."""

    num_learned: int
    num_propagated: int
    queries: Mapping[str, Sequence[int]]  # of every entry, by sample token
    admitted: Mapping[str, Sequence[int]]  # by sample token; none of a sample whose memory was not kept


def read_identities(path: Path, detections: Mapping[str, Sequence[Entry]]) -> Identities:
    """Read the identities of a results file; raises StreampetrError where they are those of another one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        identities = Identities(**content)
        counts = {token: len(queries) for token, queries in identities.queries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StreampetrError(
            f"{path}: not what `streampetr test` writes ({error}); remove it or test again"
        ) from error
    if counts != {token: len(entries) for token, entries in detections.items()}:
        raise StreampetrError(
            f"{path}: tells the queries of other results than those beside it; test again, or remove it to track by "
            "distance alone"
        )
    return identities


def track_results(
    frames: Iterable[TrackedFrame],
    detections: Mapping[str, Sequence[Entry]],
    min_score: float | None,
    identities: Identities | None = None,
) -> dict[str, list[Entry]]:
    """Return tracking entries by sample token, from detection entries by sample token.

    Detections below `min_score` are left out; None: below the tracker's own thresholds. Without `identities` distance
    alone decides. Frames must come in the order of time, scene after scene. Ids begin at 1 in every scene.
    """
    counts = (0, 0) if identities is None else (identities.num_learned, identities.num_propagated)
    thresholds = {} if min_score is None else {"birth_score": min_score, "keep_score": min_score}
    config = TrackerConfig(*counts, len(TRACKED_CLASSES), **thresholds)
    state, time, results = TrackerState.fresh(config), 0.0, {}
    for frame in frames:
        if frame.is_first:
            state, time = TrackerState.fresh(config), frame.time
        # Where queries are not known, the places in the list stand for them.
        entries = detections[frame.token]
        queries = range(len(entries)) if identities is None else identities.queries[frame.token]
        pairs = zip(queries, entries, strict=True)
        tracked = [(query, entry) for query, entry in pairs if entry["detection_name"] in TRACKED_CLASSES]
        admitted = None if identities is None else identities.admitted.get(frame.token)
        tracks, state = track(_in_world(tracked), admitted, state, np.eye(4), frame.time - time, config)
        box_of = dict(tracked)  # a query's entries of several classes share its box
        columns = (tracks.queries_T, tracks.ids_T, tracks.labels_T, tracks.scores_T)
        results[frame.token] = [
            {key: box_of[query][key] for key in ("sample_token", "translation", "size", "rotation", "velocity")}
            | {"tracking_id": str(id_), "tracking_name": TRACKED_CLASSES[label], "tracking_score": score}
            for query, id_, label, score in zip(*(column.tolist() for column in columns), strict=True)
        ]
        time = frame.time
    return results


def _in_world(tracked: Sequence[tuple[int, Entry]]) -> Detections:
    """Return queries and their entries as detections in the world, float64."""
    boxes_D7 = torch.zeros(len(tracked), 7, dtype=torch.float64)
    for box_7, (_, entry) in zip(boxes_D7, tracked, strict=True):
        width, length, height = entry["size"]
        box_7[:6] = torch.tensor([*entry["translation"], length, width, height], dtype=torch.float64)
    return Detections(
        boxes_D7,
        torch.tensor([entry["velocity"] for _, entry in tracked], dtype=torch.float64).reshape(-1, 2),
        torch.tensor([entry["detection_score"] for _, entry in tracked], dtype=torch.float64),
        torch.tensor([TRACKED_CLASSES.index(entry["detection_name"]) for _, entry in tracked], dtype=torch.int64),
        torch.tensor([query for query, _ in tracked], dtype=torch.int64),
    )
