"""Evidence from a running rig; a message arrives when it is taken from its subscription."""

import time
from collections.abc import Callable
from functools import partial

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from streampetr_ros.bag.play import CLOCK_TOPIC
from streampetr_ros.bag.terminal import stop_signals
from streampetr_ros.doctor.evidence import Offer, Topic
from streampetr_ros.doctor.gather import TF, TF_STATIC, Gatherer, type_name, wanted_topics
from streampetr_ros.parameters import Parameters

_SPIN_SECONDS = 0.02
_LOOK_SECONDS = 0.5  # between two looks for topics that were not there before
_CLOCK_SECONDS = 1.0  # in which a publisher of /clock is found, if there is one
_PAIR_EVERY_NS = 1_000_000_000
_DEPTH = 200


def listen(expected: Parameters, seconds: float) -> Gatherer:
    """Listen to what runs in this ROS domain; ends early by SIGINT or SIGTERM."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("streampetr_doctor", context=context, enable_rosout=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        with stop_signals() as stopped:
            listener = _Listener(node, expected)
            listener.run(executor, seconds, stopped)
        executor.shutdown()
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return listener.gatherer


class _Listener:
    """Subscribes to each wanted topic once it is there with the wanted type."""

    def __init__(self, node: Node, expected: Parameters) -> None:
        self._node = node
        self._wanted = wanted_topics(expected)
        self._subscribed: set[str] = set()
        self._clock = Clock(clock_type=ClockType.SYSTEM_TIME)
        self.gatherer = Gatherer(expected, "what runs", _PAIR_EVERY_NS)

    def run(self, executor: SingleThreadedExecutor, seconds: float, stopped: Callable[[], bool]) -> None:
        """Listen for so long after a publisher of /clock would have been found."""
        start = next_look = time.monotonic()
        while not stopped() and time.monotonic() < start + _CLOCK_SECONDS:
            executor.spin_once(timeout_sec=_SPIN_SECONDS)
        if self._node.count_publishers(CLOCK_TOPIC):
            self._node.set_parameters([Parameter("use_sim_time", value=True)])
            self._clock = self._node.get_clock()
        start = time.monotonic()
        with tqdm(total=seconds, desc="listening", unit="s", leave=False, disable=None) as bar:
            while not stopped() and (now := time.monotonic()) < start + seconds:
                if now >= next_look:
                    self._look()
                    next_look = now + _LOOK_SECONDS
                executor.spin_once(timeout_sec=_SPIN_SECONDS)
                bar.update(min(seconds, round(time.monotonic() - start, 1)) - bar.n)
        self._look()

    def _look(self) -> None:
        """Note what is published, and subscribe to what is wanted of it."""
        for name, msgtypes in self._node.get_topic_names_and_types():
            publishers = self._node.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            topic = self.gatherer.evidence.topics.setdefault(name, Topic())
            topic.msgtypes |= set(msgtypes)
            topic.offers |= {_offer(publisher.qos_profile) for publisher in publishers}
            kind = self._wanted.get(name)
            if kind is not None and name not in self._subscribed and type_name(kind) in msgtypes:
                self._subscribe(name, kind, topic)

    def _subscribe(self, name: str, kind: type, topic: Topic) -> None:
        # A subscriber that asks for more than is offered gets nothing: the doctor asks for no more than there is.
        sure = name in (TF, TF_STATIC) and all(offer.reliable for offer in topic.offers)
        latched = name == TF_STATIC and all(offer.latched for offer in topic.offers)
        qos = QoSProfile(
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if sure else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        topic.count = 0
        self._node.create_subscription(kind, name, partial(self._take, name), qos)
        self._subscribed.add(name)

    def _take(self, name: str, message: object) -> None:
        self.gatherer.evidence.topics[name].count += 1
        self.gatherer.take(name, message, self._clock.now().nanoseconds)


def _offer(qos: QoSProfile) -> Offer:
    reliable = qos.reliability != ReliabilityPolicy.BEST_EFFORT
    return Offer(reliable, qos.durability == DurabilityPolicy.TRANSIENT_LOCAL)
