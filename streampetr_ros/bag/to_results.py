"""What the node published as nuScenes' results files, so that nuscenes-devkit can judge it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, transform_from_quaternion
from streampetr_core.nuscenes_results import (
    TRACKED_CLASSES,
    Entry,
    FoundObjects,
    Place,
    detection_entries,
    tracking_entries,
)
from streampetr_ros.bag.nuscenes_scene import REFERENCE
from streampetr_ros.bag.published import Published

_NOTHING = FoundObjects(np.empty((0, 7)), np.empty((0, 2)), np.empty(0), [])


@dataclass(frozen=True)
class Results:
    """Entries by sample token, for every sample of the scenes that were played; samples without a message have none."""

    detections: dict[str, list[Entry]]
    tracks: dict[str, list[Entry]]
    silent: int  # samples without a message of detections


@dataclass(frozen=True)
class _Sample:
    token: str
    scene: str
    stamp_ns: int
    world_T_base: Array


def to_results(published: Sequence[Published], tables: NuScenes, tolerance_ns: int) -> Results:
    """Return the results of the samples whose times are those of messages, within a tolerance.

    The boxes of a message are where the vehicle was at the sample's time, so that a tolerance costs what the vehicle
    moves in it. Detections must be in nuScenes' ego frame, which the node calls base_link.

    Raises:
        StreampetrError: not a single message is of a sample's time.
    """
    samples = _samples(tables)
    detections, tracks = ({}, {})
    for each in published:
        detections |= _by_token(each.detections, samples, tolerance_ns)
        tracks |= _by_token(each.tracks, samples, tolerance_ns)
    scenes = {sample.scene for sample in samples if sample.token in detections or sample.token in tracks}
    if not scenes:
        raise StreampetrError(
            f"{tables.table_root}: no sample has the time of a message; give the tables of the bag that was played, "
            f"and let the node take its times from it: reference_topic:=/{REFERENCE.lower()}/stamp"
        )
    wanted = [sample for sample in samples if sample.scene in scenes]
    results = Results({}, {}, silent=sum(sample.token not in detections for sample in wanted))
    for sample in wanted:
        place = Place(sample.token, np.eye(4), sample.world_T_base)
        found, tracked = detections.get(sample.token, _NOTHING), _tracked(tracks.get(sample.token, _NOTHING))
        results.detections[sample.token] = detection_entries(found, place)
        results.tracks[sample.token] = tracking_entries(tracked, place)
    return results


def _samples(tables: NuScenes) -> list[_Sample]:
    samples = []
    for sample in tables.sample:
        record = tables.get("sample_data", sample["data"][REFERENCE])
        ego = tables.get("ego_pose", record["ego_pose_token"])
        world_T_base = transform_from_quaternion(ego["rotation"], ego["translation"])
        samples.append(_Sample(sample["token"], sample["scene_token"], record["timestamp"] * 1000, world_T_base))
    return sorted(samples, key=lambda sample: sample.stamp_ns)


def _by_token(
    found: Mapping[int, FoundObjects], samples: Sequence[_Sample], tolerance_ns: int
) -> dict[str, FoundObjects]:
    stamps = np.array([sample.stamp_ns for sample in samples], dtype=np.int64)
    by_token = {}
    for stamp_ns, objects in found.items():
        index = bisect_left(stamps, stamp_ns)
        near = [number for number in (index - 1, index) if 0 <= number < len(stamps)]
        nearest = min(near, key=lambda number: abs(int(stamps[number]) - stamp_ns))
        if abs(int(stamps[nearest]) - stamp_ns) <= tolerance_ns:
            by_token[samples[nearest].token] = objects
    return by_token


def _tracked(found: FoundObjects) -> FoundObjects:
    """Return the tracks of the classes that nuScenes' tracking benchmark has."""
    return found.select([index for index, name in enumerate(found.names_D) if name in TRACKED_CLASSES])
