"""The published tracker: detections of neighbouring frames are joined by their distance, class by class.

It is CenterPoint's (arXiv 2006.11275, section 4), as the authors of StreamPETR use it on nuScenes' results files, with
all that it does in corner cases. Entries are those of results files: world frame, metres, m/s.
D detections of a frame, T tracks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from streampetr_core.nuscenes_results import TRACKED_CLASSES, Entry
from training.data.infos import Infos

META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
_MAX_DISTANCE = 2.5  # metres between a track and a detection carried back to the frame before
_FAR = 1e18
_TOO_FAR = 1e16


@dataclass(frozen=True)
class TrackedFrame:
    """One instant: its sample, its time in seconds, and whether a scene begins with it."""

    token: str
    time: float
    is_first: bool


def frames_of(infos: Infos) -> list[TrackedFrame]:
    """Return the instants of a split; scenes begin where a keyframe has none before it."""
    columns = infos.columns
    rows = zip(infos.tokens, columns["timestamp"].tolist(), columns["previous"].tolist(), strict=True)
    return [TrackedFrame(token, timestamp / 1e6, not previous) for token, timestamp, previous in rows]


@dataclass(frozen=True)
class Track:
    """One object over time; a value that every frame replaces."""

    entry: Entry  # the detection it was last seen as
    id: int
    centre: NDArray  # x, y now; moves on by itself while the object is not seen
    step: NDArray  # x, y that it moves in a frame in which it is not seen
    frames_unseen: int = 0

    def unseen(self) -> "Track":
        """Return the track after a frame without it."""
        return replace(self, centre=self.centre + self.step, frames_unseen=self.frames_unseen + 1)


@dataclass(frozen=True)
class TrackerConfig:
    """How tracks are joined and kept; the published values are the defaults."""

    max_age: int = 3  # frames that a track outlives its last detection, counting that one
    min_score: float = 0.25
    hungarian: bool = False  # best overall assignment instead of first come, first served


@dataclass(frozen=True)
class TrackerState:
    """The tracker between two frames."""

    tracks: tuple[Track, ...] = ()
    last_id: int = 0
    time: float | None = None


def track(
    frames: Iterable[TrackedFrame], detections: Mapping[str, Sequence[Entry]], config: TrackerConfig
) -> dict[str, list[Entry]]:
    """Return tracking entries by sample token, from detection entries by sample token.

    Frames must come in the order of time, scene after scene. Ids begin at 1 in every scene.
    """
    state, results = TrackerState(), {}
    for frame in frames:
        state = TrackerState() if frame.is_first else state
        state, seen = step(state, frame, detections[frame.token], config)
        results[frame.token] = [_tracking_entry(frame, track) for track in seen]
    return results


def step(
    state: TrackerState, frame: TrackedFrame, detections: Sequence[Entry], config: TrackerConfig
) -> tuple[TrackerState, list[Track]]:
    """Return the tracker after a frame, and the tracks that were seen in it: known ones first, then new ones."""
    dt = 0.0 if state.time is None else frame.time - state.time
    kept = [entry for entry in detections if _is_tracked(entry, config)]
    if not kept:
        # Published behaviour: tracks that are too old stay where they are, instead of being dropped.
        aged = (item.unseen() if item.frames_unseen + 1 < config.max_age else item for item in state.tracks)
        return TrackerState(tuple(aged), state.last_id, frame.time), []
    centres_D2 = np.array([entry["translation"][:2] for entry in kept])
    steps_D2 = np.array([entry["velocity"][:2] for entry in kept]) * dt
    pairs, new, gone = _associate(kept, centres_D2 - steps_D2, state.tracks, config)
    seen = [Track(kept[d], state.tracks[t].id, centres_D2[d], steps_D2[d]) for d, t in pairs]
    seen += [Track(kept[d], state.last_id + n, centres_D2[d], steps_D2[d]) for n, d in enumerate(new, start=1)]
    gone |= {t for _, t in pairs}
    unmatched = (item for index, item in enumerate(state.tracks) if index not in gone)
    still_kept = [item.unseen() for item in unmatched if item.frames_unseen + 1 < config.max_age]
    return TrackerState((*seen, *still_kept), state.last_id + len(new), frame.time), seen


def _is_tracked(entry: Entry, config: TrackerConfig) -> bool:
    return entry["detection_name"] in TRACKED_CLASSES and entry["detection_score"] >= config.min_score


_Association = tuple[list[tuple[int, int]], list[int], set[int]]


def _associate(
    entries: Sequence[Entry], past_centres_D2: NDArray, tracks: Sequence[Track], config: TrackerConfig
) -> _Association:
    """Return (detection, track) pairs, the detections that belong to no track, and tracks to drop."""
    if not tracks:
        return [], list(range(len(entries))), set()
    # float32 as published: it may decide between two detections at nearly the same distance.
    centres_T2 = np.array([track.centre for track in tracks], dtype=np.float32)
    distance_DT = np.linalg.norm(past_centres_D2.astype(np.float32)[:, None] - centres_T2[None], axis=-1)
    names_D = np.array([entry["detection_name"] for entry in entries])
    names_T = np.array([track.entry["detection_name"] for track in tracks])
    impossible_DT = (distance_DT > _MAX_DISTANCE) | (names_D[:, None] != names_T[None])
    distance_DT = distance_DT + impossible_DT * _FAR
    return _hungarian(distance_DT) if config.hungarian else _greedy(distance_DT)


def _greedy(distance_DT: NDArray) -> _Association:
    """Let detections, in the order they come, take the nearest track that is free."""
    pairs, new = [], []
    free_DT = distance_DT.copy()
    for detection, distances_T in enumerate(free_DT):
        nearest = int(distances_T.argmin())
        if distances_T[nearest] < _TOO_FAR:
            free_DT[:, nearest] = _FAR
            pairs.append((detection, nearest))
        else:
            new.append(detection)
    return pairs, new, set()


def _hungarian(distance_DT: NDArray) -> _Association:
    """Assign as many as can be.

    Published behaviour: where an impossible pair was assigned, its detection comes last among the new ones, and its
    track is dropped at once.
    """
    rows, columns = linear_sum_assignment(np.minimum(distance_DT, _FAR))
    assigned = list(zip(rows.tolist(), columns.tolist(), strict=True))
    impossible = [pair for pair in assigned if distance_DT[pair] > _TOO_FAR]
    detections = {detection for detection, _ in assigned}
    new = [detection for detection in range(len(distance_DT)) if detection not in detections]
    new += [detection for detection, _ in impossible]
    return [pair for pair in assigned if pair not in impossible], new, {track for _, track in impossible}


def _tracking_entry(frame: TrackedFrame, track: Track) -> Entry:
    entry = track.entry
    return {
        "sample_token": frame.token,
        "translation": entry["translation"],
        "size": entry["size"],
        "rotation": entry["rotation"],
        "velocity": entry["velocity"],
        "tracking_id": str(track.id),
        "tracking_name": entry["detection_name"],
        "tracking_score": entry["detection_score"],
    }
