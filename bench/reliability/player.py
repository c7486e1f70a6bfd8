"""Plays a recording over and over, and lets a fault change the messages on their way."""

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage

from bench.reliability.recording import IMAGE, TF, TF_STATIC, Item, Recording, stamped
from streampetr_core.geometry import Array
from streampetr_ros.transforms import matrix_from_transform

Change = Callable[[Item, random.Random], Iterable[Item]]
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_STEP = 0.05  # seconds between looks at whether to stop


def unchanged(item: Item, rng: random.Random) -> list[Item]:
    """Let a message pass."""
    return [item]


class Player:
    """A thread that publishes; stamps are the wall clock's at the time at which a message is due."""

    def __init__(self, node: Node, recording: Recording) -> None:
        self.sent: Counter[str] = Counter()  # images of each camera
        self.change: Change = unchanged
        self._recording = recording
        self._rng = random.Random(0)
        self._stop = threading.Event()
        self._publishers = {}
        for item in recording.items:
            if item.topic not in self._publishers:
                qos = _LATCHED if item.kind == TF_STATIC else 100
                self._publishers[item.topic] = node.create_publisher(type(item.message), item.topic, qos)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listeners(self) -> int:
        """Return how many topics have a subscriber."""
        return sum(publisher.get_subscription_count() > 0 for publisher in self._publishers.values())

    @property
    def topics(self) -> list[str]:
        """Return the topics that are published."""
        return list(self._publishers)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        queue: list[tuple[float, int, Item]] = []
        numbers = itertools.count()
        offset = time.time() - time.monotonic()
        start = time.monotonic()
        for item in self._endless():
            due = start + item.stamp_ns / 1e9
            while not self._stop.is_set() and (queue and queue[0][0] <= due or time.monotonic() < due):
                self._publish_until(min(due, time.monotonic()), queue)
                next_due = min(due, queue[0][0]) if queue else due
                self._stop.wait(min(max(0.0, next_due - time.monotonic()), _STEP))
            if self._stop.is_set():
                return
            for changed in self.change(replace(item, stamp_ns=int((due + offset) * 1e9)), self._rng):
                heapq.heappush(queue, (due + changed.delay, next(numbers), changed))
            self._publish_until(time.monotonic(), queue)

    def _publish_until(self, now: float, queue: list[tuple[float, int, Item]]) -> None:
        while queue and queue[0][0] <= now:
            item = heapq.heappop(queue)[2]
            self._publishers[item.topic].publish(stamped(item))
            if item.kind == IMAGE:
                self.sent[item.camera] += 1

    def _endless(self) -> Iterable[Item]:
        recording = self._recording
        moved = None
        for round_ in itertools.count():
            for item in recording.items:
                item = replace(item, stamp_ns=item.stamp_ns + round_ * recording.span_ns)
                yield moved_by(item, moved) if item.kind == TF and moved is not None else item
            moved = recording.world_T_world if moved is None else recording.world_T_world @ moved


def moved_by(item: Item, world_T_world: Array) -> Item:
    """Return odometry as seen from another origin."""
    (transform,) = item.message.transforms
    pose = world_T_world @ matrix_from_transform(transform.transform)
    moved = type(transform)(header=transform.header, child_frame_id=transform.child_frame_id)
    rotation, translation = moved.transform.rotation, moved.transform.translation
    rotation.x, rotation.y, rotation.z, rotation.w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    translation.x, translation.y, translation.z = map(float, pose[:3, 3])
    return replace(item, message=TFMessage(transforms=[moved]))
