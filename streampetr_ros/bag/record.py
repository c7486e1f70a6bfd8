"""Recording topics into a bag where rosbag2 is missing: the bytes as they come."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.from_nuscenes import BAG_VERSION, check_out, whole_or_nothing
from streampetr_ros.bag.play import message_class, own_node
from streampetr_ros.bag.qos import reliable
from streampetr_ros.bag.terminal import stop_signals
from streampetr_ros.bag.types import type_store

_LOOK_SECONDS = 0.1  # between two looks for publishers that were not there before
_SPIN_SECONDS = 0.05
_DEPTH = 1000


@dataclass(frozen=True)
class RecordOptions:
    """What to record; seconds of the wall clock.

    The recording ends after `seconds`, or when nothing came for `idle` seconds after something did, or by a signal.
    """

    topics: tuple[str, ...]
    seconds: float | None = None
    idle: float | None = None
    force: bool = False


def record(out: Path, options: RecordOptions) -> dict[str, int]:
    """Record until the end that the options name, or SIGINT or SIGTERM; return the number of messages of each topic.

    Raises:
        StreampetrError: `out` exists, or a topic's type is not known.
    """
    check_out(out, options.force)
    with stop_signals() as stopped, own_node("streampetr_bag_recorder") as node:
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        with whole_or_nothing(out) as partial:
            with Writer(partial, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
                recorder = Recorder(node, writer, options)
                recorder.run(executor, stopped)
        executor.shutdown()
    return recorder.counts


class Recorder:
    """Subscribes to each topic when it gets a publisher, and writes what comes."""

    def __init__(self, node: Node, writer: Writer, options: RecordOptions) -> None:
        """Take a node to subscribe with, and an open writer."""
        self.counts = dict.fromkeys(options.topics, 0)
        self._node = node
        self._writer = writer
        self._options = options
        self._store = type_store()
        self._subscribed: set[str] = set()
        self._last = time.monotonic()

    def run(self, executor: SingleThreadedExecutor, stopped: Callable[[], bool]) -> None:
        """Record until the end."""
        start = next_look = time.monotonic()
        while not stopped() and not self._is_over(start):
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + _LOOK_SECONDS
            executor.spin_once(timeout_sec=_SPIN_SECONDS)

    def _is_over(self, start: float) -> bool:
        now, options = time.monotonic(), self._options
        is_idle = options.idle is not None and any(self.counts.values()) and now - self._last > options.idle
        return is_idle or (options.seconds is not None and now - start > options.seconds)

    def _look(self) -> None:
        for topic in self.counts.keys() - self._subscribed:
            publishers = self._node.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, publishers)

    def _subscribe(self, topic: str, publishers: list) -> None:
        msgtype = publishers[0].topic_type
        kind = message_class(msgtype)
        if kind is None or msgtype not in self._store.fielddefs:
            raise StreampetrError(f"topic {topic} has type {msgtype}, which cannot be recorded; leave it out")
        offers = [publisher.qos_profile for publisher in publishers]
        is_reliable = all(offer.reliability != ReliabilityPolicy.BEST_EFFORT for offer in offers)
        is_latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        # A subscriber that asks for more than is offered gets nothing at all.
        qos = QoSProfile(
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if is_reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE,
        )
        profile = reliable(10, latched=is_latched)
        connection = self._writer.add_connection(topic, msgtype, typestore=self._store, offered_qos_profiles=[profile])
        self._node.create_subscription(kind, topic, partial(self._write, connection), qos, raw=True)
        self._subscribed.add(topic)
        print(f"recording {topic}", file=sys.stderr)

    def _write(self, connection: object, data: bytes) -> None:
        self._last = time.monotonic()
        self._writer.write(connection, time.time_ns(), data)
        self.counts[connection.topic] += 1
