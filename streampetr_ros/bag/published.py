"""What the node published, read back from a bag. D objects; metres, radians, m/s in the base frame."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import rotation_from_quaternion, yaw_of
from streampetr_core.nuscenes_results import FoundObjects
from streampetr_ros.bag.reading import open_bag, read_messages
from streampetr_ros.bag.types import type_store
from streampetr_ros.clouds import read_cloud

# Each array of boxes, and the cloud that has the velocities of the same objects in the same order.
ARRAYS = {"detections": "detections/points", "tracks": "objects"}


@dataclass(frozen=True)
class Published:
    """By stamp in ns: the detections and the tracks of every instant."""

    detections: dict[int, FoundObjects] = field(default_factory=dict)
    tracks: dict[int, FoundObjects] = field(default_factory=dict)


def read_published(bag: Path, node: str = "/streampetr") -> Published:
    """Return what the node called `node` published.

    Raises:
        StreampetrError: no bag, none of the node's topics in it, or boxes whose velocities were not recorded.
    """
    names = [*ARRAYS, *ARRAYS.values()]
    messages = read_topics(bag, {f"{node}/{name}": name for name in names})
    if not any(messages[name] for name in ARRAYS):
        wanted = " ".join(f"{node}/{name}" for name in names)
        raise StreampetrError(f"{bag}: nothing that {node} published is in this bag; record {wanted}")
    found = {}
    for name, points_name in ARRAYS.items():
        clouds = {stamp_of(cloud): cloud for cloud in messages[points_name]}
        arrays = {stamp_of(array): array for array in messages[name]}
        lonely = len(arrays.keys() - clouds.keys())
        if lonely:
            raise StreampetrError(
                f"{bag}: {lonely} of {len(arrays)} messages of {node}/{name} have no counterpart on "
                f"{node}/{points_name}, which has the velocities; record both"
            )
        found[name] = {stamp: _found(array, read_cloud(clouds[stamp])) for stamp, array in sorted(arrays.items())}
    return Published(**found)


def read_topics(bag: Path, topics: dict[str, str], build: Callable[[Any], Any] = lambda message: message) -> dict:
    """Return for each value of `topics` (topic to name) the messages of its topic, in order of the bag."""
    store, messages = type_store(), {name: [] for name in topics.values()}
    with open_bag(bag) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        if not wanted:
            return messages
        for connection, _, data in read_messages(reader, bag, wanted):
            messages[topics[connection.topic]].append(build(store.deserialize_cdr(data, connection.msgtype)))
    return messages


def stamp_of(message: Any) -> int:
    """Return the stamp of a message with a header, or of a header, in ns."""
    stamp = getattr(message, "header", message).stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def boxes_of(array: Any) -> NDArray[np.float64]:
    """Return the boxes (D, 7) of a Detection3DArray."""
    rows = []
    for detection in array.detections:
        centre, turn, size = detection.bbox.center.position, detection.bbox.center.orientation, detection.bbox.size
        yaw = yaw_of(rotation_from_quaternion((turn.w, turn.x, turn.y, turn.z)))
        rows.append([centre.x, centre.y, centre.z, size.x, size.y, size.z, yaw])
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


def _found(array: Any, points: NDArray) -> FoundObjects:
    hypotheses = [detection.results[0].hypothesis for detection in array.detections]
    return FoundObjects(
        boxes_of(array),
        np.c_[points["vx"], points["vy"]].astype(np.float64),
        np.array([hypothesis.score for hypothesis in hypotheses]),
        [hypothesis.class_id for hypothesis in hypotheses],
        [detection.id for detection in array.detections],
    )
