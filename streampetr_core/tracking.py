"""From detections to tracks: identity follows the queries that the detector itself carries on. Pure; state is a value.

A propagated query starts from a memory entry, and the entry from the query that was admitted a frame before. So what
the detector takes for the same object already shares a chain of queries, and only what the chain does not tell is
decided by distance: an object that a learned query finds anew, two queries on one object, a chain that jumps.

T tracks, D detections, Q queries (learned first, then P propagated), K admitted queries, S classes. Metres, seconds,
radians, float64.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streampetr_core.config import ModelConfig
from streampetr_core.decode import Detections
from streampetr_core.geometry import Array, transform_points, yaw_of

_NOBODY = -1  # the id of a query that stands for no track


@dataclass(frozen=True)
class TrackerConfig:
    """What the model is like, and when detections are taken for one object."""

    num_learned: int
    num_propagated: int
    num_classes: int
    birth_score: float = 0.2  # a detection that is nobody's begins a track from here on
    keep_score: float = 0.2  # a detection of a known track counts from here on
    max_unseen: float = 1.2  # seconds that a track outlives its last detection: one, and room for jitter
    vote_weight: float = 0.5  # of the newest detection in a track's class
    gate: float = 0.5  # metres between track and detection that are always allowed ...
    gate_per_length: float = 0.5  # ... and more for long objects ...
    gate_speed: float = 2.0  # ... and m/s for each second since the track was last seen
    duplicate_widths: float = 0.5  # of the narrower of two boxes: centres nearer than that are one object

    @staticmethod
    def for_model(model: ModelConfig, **thresholds: float) -> "TrackerConfig":
        """Return the configuration for a model's queries and classes."""
        return TrackerConfig(model.num_learned, model.num_propagated, len(model.class_names), **thresholds)

    @staticmethod
    def by_distance(model: ModelConfig, **thresholds: float) -> "TrackerConfig":
        """Return the configuration that forgets which query began where: distance alone decides."""
        return TrackerConfig(model.num_queries, 0, len(model.class_names), **thresholds)


@dataclass(frozen=True)
class Tracks:
    """Objects with identity, in ref, in the order of their ids."""

    ids_T: NDArray[np.int64]
    boxes_T7: Array  # gravity centre x, y, z, length, width, height, yaw
    velocities_T2: Array
    scores_T: Array  # of the last detection
    votes_TS: Array  # smoothed score of each class
    age_T: Array  # seconds since the track began
    unseen_T: Array  # seconds since its last detection
    queries_T: NDArray[np.int64]  # the query that made its last detection

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.ids_T)

    @property
    def labels_T(self) -> NDArray[np.int64]:
        """The class that each track was most surely seen as; index into the model's class names."""
        return self.votes_TS.argmax(axis=1)

    def select(self, index: NDArray) -> "Tracks":
        """Return the tracks that a bool mask or an index array names."""
        return Tracks(**{name: value[index] for name, value in vars(self).items()})

    @staticmethod
    def none(num_classes: int) -> "Tracks":
        """Return no tracks."""
        shapes = ((0, 7), (0, 2), 0, (0, num_classes), 0, 0)
        none = np.empty(0, np.int64)
        return Tracks(none, *(np.empty(shape) for shape in shapes), none)


@dataclass(frozen=True)
class TrackerState:
    """The tracker between two frames."""

    tracks: Tracks  # in ref of the last frame, those out of sight among them
    entry_ids_P: NDArray[np.int64]  # the track that each memory entry stands for, newest entry first
    next_id: int

    @staticmethod
    def fresh(config: TrackerConfig, next_id: int = 1) -> "TrackerState":
        """Return the tracker of a scene that just begins; give `next_id` of another state to reuse none of its ids."""
        return TrackerState(Tracks.none(config.num_classes), np.full(config.num_propagated, _NOBODY), next_id)


def track(
    detections: Detections,
    admitted_K: ArrayLike | None,
    state: TrackerState,
    ref_T_prev: ArrayLike,
    dt: float,
    config: TrackerConfig,
) -> tuple[Tracks, TrackerState]:
    """Return the tracks seen in one frame, and the tracker after it.

    Args:
        detections: of this frame, in any order; classes that shall not be tracked left out.
        admitted_K: the queries of this frame that entered the memory (see `heads.admitted_queries`), in that order;
            None where the caller does not keep this frame's memory: entries go on to stand for what they stood for.
        state: of the frame before.
        ref_T_prev: 4x4, from ref of the frame before into ref of this one. Of the tracker's last frame, which need not
            be the one that wrote the memory.
        dt: seconds since the frame before.
        config: thresholds.
    """
    found = _Found.of(detections, config)
    known = _carried(state.tracks, ref_T_prev, dt)
    inherited_D = _inherited(found, known, state.entry_ids_P, config)
    leader_D = _leaders(found, config)
    ids_D = _claimed(found, known, inherited_D, leader_D, config)
    is_new_D = (leader_D == np.arange(len(found))) & (ids_D == _NOBODY) & (found.scores_D >= config.birth_score)
    ids_D[is_new_D] = state.next_id + np.arange(is_new_D.sum())
    tracks = _merged(known, found, ids_D, config)
    kept = tracks.select(tracks.unseen_T <= config.max_unseen)
    entry_ids_P = np.where(np.isin(state.entry_ids_P, kept.ids_T), state.entry_ids_P, _NOBODY)
    if admitted_K is not None:
        # Of two tracked objects that meet, the one that hides behind the other keeps its chain.
        chain_D = np.where(np.isin(inherited_D, kept.ids_T) & (ids_D == _NOBODY), inherited_D, ids_D[leader_D])
        ids_Q = np.concatenate([np.full(config.num_learned, _NOBODY), entry_ids_P])
        ids_Q[found.queries_D] = chain_D
        entry_ids_P = np.concatenate([ids_Q[np.asarray(admitted_K)], entry_ids_P])[: config.num_propagated]
    seen = kept.select(np.isin(kept.ids_T, ids_D))
    return seen, TrackerState(kept, entry_ids_P, state.next_id + int(is_new_D.sum()))


@dataclass(frozen=True)
class _Found:
    """The detections that count, at most one of a query, best first."""

    boxes_D7: Array
    velocities_D2: Array
    scores_D: Array
    labels_D: NDArray[np.int64]
    queries_D: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores_D)

    @staticmethod
    def of(detections: Detections, config: TrackerConfig) -> "_Found":
        arrays = {name: value.detach().cpu().numpy() for name, value in vars(detections).items()}
        order = np.lexsort([arrays["labels_D"], arrays["queries_D"], -arrays["scores_D"]])
        order = order[arrays["scores_D"][order] >= config.keep_score]
        _, first = np.unique(arrays["queries_D"][order], return_index=True)
        kept = order[np.sort(first)]
        return _Found(
            **{
                name: values[kept].astype(np.int64 if values.dtype.kind == "i" else float)
                for name, values in arrays.items()
            }
        )


def _carried(tracks: Tracks, ref_T_prev: ArrayLike, dt: float) -> Tracks:
    """Move tracks on by their velocity, and into the frame of now."""
    ref_T_prev = np.asarray(ref_T_prev, dtype=np.float64)
    boxes_T7 = tracks.boxes_T7.copy()
    boxes_T7[:, :2] += tracks.velocities_T2 * dt
    boxes_T7[:, :3] = transform_points(ref_T_prev, boxes_T7[:, :3])
    boxes_T7[:, 6] += yaw_of(ref_T_prev)
    velocities_T2 = tracks.velocities_T2 @ ref_T_prev[:2, :2].T
    return replace(
        tracks, boxes_T7=boxes_T7, velocities_T2=velocities_T2, age_T=tracks.age_T + dt, unseen_T=tracks.unseen_T + dt
    )


def _gates(tracks: Tracks, config: TrackerConfig) -> Array:
    """Return how far from where each track is expected its detection may be, (T,)."""
    longest_T = tracks.boxes_T7[:, 3:5].max(axis=1, initial=0.0)
    return config.gate + config.gate_per_length * longest_T + config.gate_speed * tracks.unseen_T


def _inherited(found: _Found, known: Tracks, entry_ids_P: NDArray, config: TrackerConfig) -> NDArray:
    """Return the id (D,) of the memory entry that each detection's query started from, unless it jumped."""
    entry_D = found.queries_D - config.num_learned
    is_propagated_D = (entry_D >= 0) & (entry_D < len(entry_ids_P))
    ids_D = np.full(len(found), _NOBODY)
    ids_D[is_propagated_D] = entry_ids_P[entry_D[is_propagated_D]]
    is_known_D = np.isin(ids_D, known.ids_T)
    index_D = np.searchsorted(known.ids_T, ids_D[is_known_D])
    moved_D = np.linalg.norm(found.boxes_D7[is_known_D, :2] - known.boxes_T7[index_D, :2], axis=1)
    is_known_D[is_known_D] = moved_D <= _gates(known, config)[index_D]
    return np.where(is_known_D, ids_D, _NOBODY)


def _leaders(found: _Found, config: TrackerConfig) -> NDArray:
    """Return for each detection the best one of the same object (D,); for most, themselves."""
    widths_D = found.boxes_D7[:, 3:5].min(axis=1, initial=np.inf)
    is_near_DD = _distances(found.boxes_D7, found.boxes_D7) <= config.duplicate_widths * np.minimum.outer(
        widths_D, widths_D
    )
    leader_D, is_free_D = np.arange(len(found)), np.ones(len(found), dtype=bool)
    for index in range(len(found)):
        if is_free_D[index]:
            group_D = is_free_D & is_near_DD[index]
            leader_D[group_D] = index
            is_free_D &= ~group_D
    return leader_D


def _claimed(
    found: _Found, known: Tracks, inherited_D: NDArray, leader_D: NDArray, config: TrackerConfig
) -> NDArray[np.int64]:
    """Return the known track that each leader is (D,): what a query of its group inherited, else what lies near."""
    ids_D = np.full(len(found), _NOBODY)
    for leader, inherited in zip(leader_D, inherited_D, strict=True):
        if inherited != _NOBODY and ids_D[leader] == _NOBODY and inherited not in ids_D:
            ids_D[leader] = inherited
    distance_DT = _distances(found.boxes_D7, known.boxes_T7)
    is_possible_DT = (distance_DT <= _gates(known, config)) & (found.labels_D[:, None] == known.labels_T)
    is_possible_DT &= (leader_D == np.arange(len(found)))[:, None] & (ids_D == _NOBODY)[:, None]
    is_possible_DT &= ~np.isin(known.ids_T, ids_D)
    pairs = np.argwhere(is_possible_DT)
    for detection, index in pairs[np.argsort(distance_DT[is_possible_DT], kind="stable")]:
        if ids_D[detection] == _NOBODY and known.ids_T[index] not in ids_D:
            ids_D[detection] = known.ids_T[index]
    return ids_D


def _merged(known: Tracks, found: _Found, ids_D: NDArray, config: TrackerConfig) -> Tracks:
    """Return known tracks as they were found, or as they were carried, then the new ones."""
    by_id = np.argsort(ids_D)
    by_id = by_id[ids_D[by_id] != _NOBODY]
    ids = ids_D[by_id]
    is_old = np.isin(ids, known.ids_T)
    before = _extended(known, ids[~is_old])
    index = np.searchsorted(before.ids_T, ids)
    weight = np.where(is_old, config.vote_weight, 1.0)
    votes = np.zeros((len(ids), config.num_classes))
    votes[np.arange(len(ids)), found.labels_D[by_id]] = found.scores_D[by_id]
    after = {name: value.copy() for name, value in vars(before).items()}
    after["boxes_T7"][index] = found.boxes_D7[by_id]
    after["velocities_T2"][index] = found.velocities_D2[by_id]
    after["scores_T"][index] = found.scores_D[by_id]
    after["votes_TS"][index] += weight[:, None] * (votes - before.votes_TS[index])
    after["unseen_T"][index] = 0.0
    after["queries_T"][index] = found.queries_D[by_id]
    return Tracks(**after)


def _extended(tracks: Tracks, new_ids: NDArray) -> Tracks:
    """Append tracks of which nothing is known yet but their ids, which are higher than all others."""
    parts = {name: np.zeros((len(new_ids), *value.shape[1:]), value.dtype) for name, value in vars(tracks).items()}
    parts["ids_T"] = new_ids
    return Tracks(**{name: np.concatenate([value, parts[name]]) for name, value in vars(tracks).items()})


def _distances(a: Array, b: Array) -> Array:
    """Return the distances over ground of boxes' centres, (A, B)."""
    return np.linalg.norm(a[:, None, :2] - b[None, :, :2], axis=-1)
