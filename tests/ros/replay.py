"""A scene through the live node and back: played from a bag, recorded, read."""

import time
from pathlib import Path
from threading import Thread

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from streampetr_ros.bag.from_nuscenes import BAG_VERSION
from streampetr_ros.bag.play import PlayOptions, own_node, play
from streampetr_ros.bag.record import Recorder, RecordOptions
from streampetr_ros.node import StreampetrNode
from streampetr_ros.parameters import NUSCENES_CAMERAS
from tests.ros.rig import Spinner, spin_until

PUBLISHED = ("detections", "detections/points", "tracks", "objects")
EVERY_SET = {
    "realtime": False,
    "transform_wait": 5.0,
    "reliability": "reliable",
    "reference_topic": "/lidar_top/stamp",
    "score_threshold": 0.0,
    "device": "cpu",
    "runtime": "reference",
}
_PATIENCE = 60.0  # seconds; for broken code


def through_the_node(bag: Path, out: Path, sets: int, rate: float = 4.0, **values: object) -> Path:
    """Play a bag to a node with these parameters; return a bag of what it published, complete with `sets` sets."""
    parameters = [Parameter(name, value=value) for name, value in (EVERY_SET | values).items()]
    rclpy.init()
    node = StreampetrNode(parameter_overrides=parameters)
    spinner = Spinner(node)
    topics = tuple(f"/streampetr/{name}" for name in PUBLISHED)
    recorded = Thread(target=_record, args=(out, topics, sets))
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        recorded.start()
        assert spin_until(lambda: all(node.count_subscribers(topic) for topic in topics))
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        with Reader(bag) as reader:
            there = {connection.topic for connection in reader.connections}
        inputs = [f"/{name}/{kind}" for name in NUSCENES_CAMERAS for kind in ("image_raw/compressed", "camera_info")]
        waited = tuple(there & {"/tf", "/tf_static", EVERY_SET["reference_topic"], *inputs})
        play(bag, PlayOptions(rate=rate, wait_for=waited, delay=0.2))
        recorded.join()
    finally:
        node.trigger_deactivate()
        spinner.stop()
        node.destroy_node()
        rclpy.try_shutdown()
    return out


def _record(out: Path, topics: tuple[str, ...], sets: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    with own_node("recorder") as node, Writer(out, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        recorder, executor = Recorder(node, writer, RecordOptions(topics)), SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        recorder.run(executor, lambda: min(recorder.counts.values()) >= sets or time.monotonic() > deadline)
        executor.shutdown()
