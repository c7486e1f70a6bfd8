"""A synthetic scene as a bag, and the same bag with one thing spoilt."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Qos
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from streampetr_core.geometry import make_transform, transform_from_quaternion
from streampetr_ros.bag.from_nuscenes import BAG_VERSION, write_bag
from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
from streampetr_ros.bag.types import type_store
from training.synth import WorldOptions, write_world

Change = Callable[["Spoiler", str, Any, int], Iterator[tuple[str, Any, int]]]


def write_scene_bag(folder: Path) -> Path:
    """Write a second of a drive with six cameras at 12 Hz."""
    write_world(
        folder / "world",
        WorldOptions(scenes=1, val_scenes=1, samples=3, seed=3, width=320, height=180, sweeps=True),
    )
    write_bag(read_scene(open_root(folder / "world"), "scene-0001"), folder / "bag")
    return folder / "bag"


class Spoiler:
    """Writes bags anew, message by message."""

    def __init__(self, bag: Path) -> None:
        self.store = type_store()
        with Reader(bag) as reader:
            self._messages = [(c.topic, self.store.deserialize_cdr(d, c.msgtype), t) for c, t, d in reader.messages()]
            self._offers = {c.topic: list(c.ext.offered_qos_profiles) for c in reader.connections}
        self.start_ns = self._messages[0][2]

    def copy(self, message: Any) -> Any:
        return self.store.deserialize_cdr(self.store.serialize_cdr(message, message.__msgtype__), message.__msgtype__)

    def write(self, out: Path, change: Change, offers: dict[str, Qos] | None = None) -> Path:
        """Write what `change` makes of each (topic, message, log time)."""
        changed = [
            item for topic, message, at in self._messages for item in change(self, topic, self.copy(message), at)
        ]
        with Writer(out, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            connections = {}
            for topic, message, at in sorted(changed, key=lambda item: item[2]):
                key = topic, message.__msgtype__
                if key not in connections:
                    qos = [offers[topic]] if offers and topic in offers else self._offers.get(topic, [])
                    connections[key] = writer.add_connection(*key, typestore=self.store, offered_qos_profiles=qos)
                writer.write(connections[key], at, self.store.serialize_cdr(message, message.__msgtype__))
        return out


def whole(_spoiler: Spoiler, topic: str, message: Any, at: int) -> Iterator[tuple[str, Any, int]]:
    yield topic, message, at


def renamed(old: str, new: str) -> Change:
    def change(_spoiler, topic, message, at):
        yield topic.replace(old, new), message, at

    return change


def without(condition: Callable[[str, float], bool]) -> Change:
    """Leave messages out by topic and seconds since the start."""

    def change(spoiler, topic, message, at):
        if not condition(topic, (at - spoiler.start_ns) / 1e9):
            yield topic, message, at

    return change


def edited(topic_part: str, edit: Callable[[Any], None]) -> Change:
    """Edit each message of the topics whose name holds a part."""

    def change(_spoiler, topic, message, at):
        if topic_part in topic:
            edit(message)
        yield topic, message, at

    return change


def arriving(topic_part: str, seconds: float) -> Change:
    """Let messages arrive later than they did."""

    def change(_spoiler, topic, message, at):
        yield topic, message, at + (round(seconds * 1e9) if topic_part in topic else 0)

    return change


def put(value: Any, name: str, content: Any) -> None:
    """Set a field of a message, which rosbags has made immutable."""
    object.__setattr__(value, name, content)


def stamped(topic_part: str, seconds: float | None) -> Change:
    """Move stamps by some seconds; None: to zero."""

    def edit(message):
        stamp = message.header.stamp
        now = stamp.sec * 1_000_000_000 + stamp.nanosec
        moved = 0 if seconds is None else now + round(seconds * 1e9)
        put(stamp, "sec", moved // 1_000_000_000)
        put(stamp, "nanosec", moved % 1_000_000_000)

    return edited(topic_part, edit)


def posed(edit: Callable[[str, np.ndarray, float], np.ndarray | None]) -> Change:
    """Change transforms: `edit` gets the child frame, the 4x4 matrix and seconds, and returns another; None: none."""

    def change(spoiler, topic, message, at):
        if topic in ("/tf", "/tf_static"):
            kept = []
            for each in message.transforms:
                matrix = edit(each.child_frame_id, matrix_of(each.transform), (at - spoiler.start_ns) / 1e9)
                if matrix is not None:
                    set_matrix(each.transform, matrix)
                    kept.append(each)
            put(message, "transforms", kept)
        yield topic, message, at

    return change


def matrix_of(transform: Any) -> np.ndarray:
    q, p = transform.rotation, transform.translation
    return transform_from_quaternion((q.w, q.x, q.y, q.z), (p.x, p.y, p.z))


def set_matrix(transform: Any, matrix: np.ndarray) -> None:
    quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    for name, value in zip("xyzw", quaternion, strict=True):
        put(transform.rotation, name, float(value))
    for name, value in zip("xyz", matrix[:3, 3], strict=True):
        put(transform.translation, name, float(value))


def turned(angles_deg: tuple[float, float, float]) -> np.ndarray:
    """Return a rotation about x, y and z in degrees, as a transform."""
    return make_transform(Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix(), (0, 0, 0))
