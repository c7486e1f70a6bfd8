"""Playing a bag through rclpy, where rosbag2 is missing: the recorded bytes at the recorded times."""

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Connection, Qos, QosDurability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.qos import strongest
from streampetr_ros.bag.reading import open_bag, read_messages
from streampetr_ros.bag.terminal import has_keyboard, keys, stop_signals
from streampetr_ros.bag.timeline import Timeline

CLOCK_TOPIC = "/clock"
_CLOCK_PERIOD = 0.01
# The longest sleep between looks at the keyboard and at signals, in seconds.
_STEP = 0.05
_LEEWAY = 200  # messages of a topic that a subscriber may fall behind before it misses some


@dataclass(frozen=True)
class PlayOptions:
    """How to play; times in seconds of the wall clock.

    `wait` gives discovery time before the first message; `wait_for` replaces it: topics that must have `listeners`
    subscribers first, a topic that is named twice twice as many. `delay` is slept after either. `skip_unknown` leaves
    out topics whose type is not installed.
    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    start_paused: bool = False
    delay: float = 0.0
    wait: float = 1.0
    wait_for: tuple[str, ...] = ()
    listeners: int = 1
    skip_unknown: bool = False


@dataclass(frozen=True)
class PlayReport:
    """What was played: messages in all, and how many of the bag were left out, by topic."""

    played: int
    left_out: dict[str, int]


def play(bag: Path, options: PlayOptions) -> PlayReport:
    """Play a bag until its end, or until SIGINT or SIGTERM, and report what was played.

    Raises:
        StreampetrError: no such bag, a broken or empty one, a type that is not installed or has other fields here, a
            topic to wait for that is not in the bag, or a paused start without a keyboard.
    """
    if options.start_paused and not has_keyboard():
        raise StreampetrError("--start-paused needs a terminal: the space bar starts the playback")
    with open_bag(bag) as reader:
        classes, left_out = _choose(bag, reader.connections, options)
        with stop_signals() as stopped, own_node("streampetr_bag_player") as node, keys() as read_key:
            publishers = _publishers(node, reader.connections, classes)
            _check_definitions(bag, node, [each for each in reader.connections if each.topic in publishers])
            clock = node.create_publisher(Clock, CLOCK_TOPIC, 10) if options.clock else None
            player = Player(options, publishers, clock, stopped, read_key)
            player.wait_for_listeners()
            player.run(reader, bag)
            _flush([*publishers.values(), *([clock] if clock else [])])
    return PlayReport(player.played, left_out)


class Player:
    """The loop of a playback: holds each message until its time, and serves /clock, keyboard and status meanwhile."""

    def __init__(
        self,
        options: PlayOptions,
        publishers: dict[str, Publisher],
        clock: Publisher | None,
        stopped: Callable[[], bool],
        read_key: Callable[[float], str],
    ) -> None:
        """Take a publisher for each topic, one for /clock or None, and the two functions of `terminal`."""
        self.played = 0
        self._options = options
        self._publishers = publishers
        self._clock = clock
        self._stopped = stopped
        self._read_key = read_key
        self._start_ns = 0
        self._timeline = Timeline(0, 0.0, options.rate, options.start_paused)
        self._next_tick = 0.0

    def wait_for_listeners(self) -> None:
        """Wait until discovery had its chance, or until every topic of `wait_for` has enough subscribers."""
        if not self._options.wait_for:
            self._sleep(self._options.wait)
        announced: list[str] = []
        while not self._stopped():
            lonely = [topic for topic in self._options.wait_for if not self._has_listeners(topic)]
            if not lonely:
                break
            if lonely != announced:
                print(f"waiting for subscribers on {', '.join(lonely)}", file=sys.stderr)
                announced = lonely
            time.sleep(_STEP)
        self._sleep(self._options.delay)

    def _has_listeners(self, topic: str) -> bool:
        needed = self._options.listeners * self._options.wait_for.count(topic)
        return self._publishers[topic].get_subscription_count() >= needed

    def run(self, reader: Reader, bag: Path) -> None:
        """Play all messages once, or over and over, until stopped."""
        wanted = [connection for connection in reader.connections if connection.topic in self._publishers]
        self._start_ns = reader.start_time
        span = (reader.end_time - reader.start_time) / 1e9
        layout = "{desc} |{bar}| {n:.1f}/{total:.1f} s{postfix}"
        with tqdm(total=span, desc="playing", bar_format=layout, miniters=0, file=sys.stderr, disable=None) as status:
            self._say_paused(status)
            while not self._stopped():
                paused = self._timeline.paused
                self._timeline = Timeline(self._start_ns, time.monotonic(), self._options.rate, paused)
                self._play_once(read_messages(reader, bag, wanted), status)
                if not self._options.loop:
                    break
                # A bag of one instant must not become a flood.
                self._sleep(_STEP)

    def _play_once(self, messages: Iterable[tuple[Connection, int, bytes]], status: tqdm) -> None:
        for connection, stamp_ns, data in messages:
            if not self._hold(stamp_ns, status):
                return
            self._publishers[connection.topic].publish(bytes(data))
            self.played += 1
        status.update(status.total - status.n)

    def _hold(self, stamp_ns: int, status: tqdm) -> bool:
        """Wait until a message is due; False if playing is to stop instead."""
        while not self._stopped():
            now = time.monotonic()
            self._tick(now, status)
            delay = self._timeline.delay(stamp_ns, now)
            if delay <= 0:
                return True
            step = _CLOCK_PERIOD if self._clock else _STEP
            if self._read_key(min(delay, step)) == " ":
                self._timeline = self._timeline.toggled(time.monotonic())
                self._say_paused(status)
        return False

    def _tick(self, now: float, status: tqdm) -> None:
        if now < self._next_tick:
            return
        self._next_tick = max(self._next_tick, now - _CLOCK_PERIOD) + _CLOCK_PERIOD
        bag_ns = self._timeline.bag_time(now)
        if self._clock:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(bag_ns, 1_000_000_000)
            self._clock.publish(message)
        status.update(min((bag_ns - self._start_ns) / 1e9, status.total) - status.n)

    def _say_paused(self, status: tqdm) -> None:
        status.set_postfix_str("paused: press space" if self._timeline.paused else "")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))


def message_class(msgtype: str) -> type | None:
    """Return the Python class of a type such as `std_msgs/msg/String`; None if it is not installed."""
    package, _, name = msgtype.rpartition("/")
    try:
        return getattr(importlib.import_module(package.replace("/", ".")), name, None)
    except ImportError:
        return None


def _choose(
    bag: Path, connections: Sequence[Connection], options: PlayOptions
) -> tuple[dict[str, type], dict[str, int]]:
    """Return the message class of each topic that is played, and the message count of each that is left out."""
    if not any(connection.msgcount for connection in connections):
        raise StreampetrError(f"{bag}: this bag holds no messages")
    classes: dict[str, type] = {}
    left_out: dict[str, int] = {}
    for connection in connections:
        found = message_class(connection.msgtype)
        if found is None and not options.skip_unknown:
            raise StreampetrError(
                f"{bag}: topic {connection.topic} has type {connection.msgtype}, which is not installed; install the "
                f"package {connection.msgtype.split('/')[0]}, or leave such topics out with --skip-unknown"
            )
        if found is None or (options.clock and connection.topic == CLOCK_TOPIC):
            left_out[connection.topic] = left_out.get(connection.topic, 0) + connection.msgcount
        elif classes.setdefault(connection.topic, found) is not found:
            raise StreampetrError(
                f"{bag}: topic {connection.topic} has messages of two types; no publisher can send both"
            )
    if not classes:
        raise StreampetrError(f"{bag}: no topic of this bag can be played; left out are: {', '.join(left_out)}")
    unknown = [topic for topic in options.wait_for if topic not in classes]
    if unknown:
        raise StreampetrError(f"{bag}: no topic {unknown[0]} to wait for; played are: {', '.join(sorted(classes))}")
    return classes, left_out


@contextmanager
def own_node(name: str) -> Iterator[Node]:
    """Yield a node with a context of its own, so that it works in any program and leaves signals alone."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(name, context=context, enable_rosout=False, start_parameter_services=False)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def _publishers(node: Node, connections: Sequence[Connection], classes: dict[str, type]) -> dict[str, Publisher]:
    publishers = {}
    for topic, message_type in classes.items():
        same = [connection for connection in connections if connection.topic == topic]
        offers = [profile for connection in same for profile in connection.ext.offered_qos_profiles]
        qos = strongest(offers, sum(connection.msgcount for connection in same))
        publishers[topic] = node.create_publisher(message_type, topic, _rclpy_profile(qos))
    return publishers


def _check_definitions(bag: Path, node: Node, connections: Sequence[Connection]) -> None:
    """Compare the type hashes in the bag with ours, as bytes of another definition would be read as nonsense.

    Bags and distributions before Iron have no hashes; there is nothing to compare then.
    """
    for connection in connections:
        endpoints = node.get_publishers_info_by_topic(connection.topic)
        ours = {str(getattr(end, "topic_type_hash", "")) for end in endpoints if end.node_name == node.get_name()}
        if connection.digest and any(ours) and connection.digest not in ours:
            raise StreampetrError(
                f"{bag}: topic {connection.topic} was recorded with another definition of {connection.msgtype} than "
                "the installed one; install the version of that package that recorded the bag"
            )


def _rclpy_profile(qos: Qos) -> QoSProfile:
    # A latched topic's depth says what late subscribers get; elsewhere, how far a subscriber may fall behind.
    latched = qos.durability is QosDurability.TRANSIENT_LOCAL
    return QoSProfile(
        history=HistoryPolicy[qos.history.name],
        depth=qos.depth if latched else max(qos.depth, _LEEWAY),
        reliability=ReliabilityPolicy[qos.reliability.name],
        durability=DurabilityPolicy[qos.durability.name],
        avoid_ros_namespace_conventions=qos.avoid_ros_namespace_conventions,
    )


def _flush(publishers: Sequence[Publisher]) -> None:
    """Give reliable subscribers up to two seconds to confirm the last messages before the publishers vanish."""
    end = time.monotonic() + 2.0
    for publisher in publishers:
        publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))
