"""Playing bags: live, a child process plays over loopback and this process listens."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header, String

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.play import PlayOptions, play
from streampetr_ros.bag.qos import reliable

ROOT = Path(__file__).resolve().parents[2]
# Runs the subcommand whether or not the package is installed.
COMMAND = (
    "import argparse; from streampetr_ros.commands import bag; parser = argparse.ArgumentParser(); "
    "bag.add_arguments(parser); bag.run(parser.parse_args())"
)
START_NS = 1_532_402_927_604_844_000
STEP_NS = 20_000_000
COUNT = 30


def build(path: Path, rows: list, plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Write a bag; rows are (topic, message, log time, QoS), the message a string or the stamp of a header."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("float32 value", "nowhere_msgs/msg/Strange"))
    kinds = {str: "std_msgs/msg/String", int: "std_msgs/msg/Header", float: "nowhere_msgs/msg/Strange"}
    with Writer(path, version=8, storage_plugin=plugin) as writer:
        connections = {}
        for topic, value, stamp_ns, qos in rows:
            kind = kinds[type(value)]
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store, offered_qos_profiles=[qos])
            if kind == "std_msgs/msg/Header":
                stamp = store.types["builtin_interfaces/msg/Time"](*divmod(value, 10**9))
                message = store.types[kind](stamp, "base_link")
            else:
                message = store.types[kind](value)
            writer.write(connections[topic], stamp_ns, store.serialize_cdr(message, kind))
    return path


def small_bag(path: Path, plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    rows: list[tuple[str, object, int, Qos]] = [("/latched", "map", START_NS, reliable(1, latched=True))]
    rows.append(("/latched", "odom", START_NS, reliable(1, latched=True)))
    for index in range(COUNT):
        stamp_ns = START_NS + index * STEP_NS
        rows.append(("/stamped", stamp_ns, stamp_ns, reliable(5)))
        rows.append(("/words", f"word {index}", stamp_ns, reliable(5)))
    return build(path, rows, plugin)


class Listener:
    """Subscriptions in this process, in the domain of the test's child processes."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = {}

    def listen(self, kind: type, topic: str, *, latched: bool = False) -> list:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, heard.append, qos)
        return heard

    def spin_until(self, done, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"heard only { {topic: len(heard) for topic, heard in self.heard.items()} }"
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def start(listener):
    """Start `bag play` as a child of its own session; every child is ended with the test."""
    children = []

    def run(*arguments: str, **options) -> subprocess.Popen:
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        # Another environment's bootstrap mark, inherited, would keep the child from finding its own libraries.
        environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        command = [sys.executable, "-c", COMMAND, "play", *arguments]
        if "preexec_fn" not in options:
            settings["start_new_session"] = True
        child = subprocess.Popen(command, env=environment, cwd=ROOT, **{**settings, **options})
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def stamp_of(message) -> int:
    return message.stamp.sec * 10**9 + message.stamp.nanosec


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_every_message_arrives_once_in_order_and_unchanged(tmp_path, listener, start, plugin):
    bag = small_bag(tmp_path / "bag", plugin)
    stamped, words = listener.listen(Header, "/stamped"), listener.listen(String, "/words")
    latched = listener.listen(String, "/latched", latched=True)
    child = start(str(bag), "--wait-for-subscribers", "/stamped", "/words", "/latched")
    listener.spin_until(lambda: child.poll() is not None)
    listener.spin_until(lambda: len(stamped) + len(words) + len(latched) >= 2 * COUNT + 2)
    assert child.returncode == 0, child.stderr.read()
    assert f"played {2 * COUNT + 2} messages" in child.stdout.read()
    assert [stamp_of(message) for message in stamped] == [START_NS + index * STEP_NS for index in range(COUNT)]
    assert {message.frame_id for message in stamped} == {"base_link"}
    assert [message.data for message in words] == [f"word {index}" for index in range(COUNT)]
    assert [message.data for message in latched] == ["map", "odom"]


@pytest.mark.parametrize(
    "waiting", [("--subscribers", "2", "--wait-for-subscribers", "/words"), ("--wait-for-subscribers", *["/words"] * 2)]
)
def test_it_waits_for_as_many_subscribers_as_it_is_told(tmp_path, listener, start, waiting):
    bag = small_bag(tmp_path / "bag")
    words = listener.listen(String, "/words")
    child = start(str(bag), *waiting)
    listener.spin_until(lambda: "waiting for subscribers on /words" in child.stderr.readline())
    assert child.poll() is None and not words
    listener.listen(String, "/words")  # a second subscription, into the same list
    listener.spin_until(lambda: child.poll() is not None)
    listener.spin_until(lambda: len(words) >= 2 * COUNT)
    assert child.returncode == 0


def test_the_clock_runs_through_the_bag_at_a_hundred_hertz_of_wall_time(tmp_path, listener, start):
    bag = small_bag(tmp_path / "bag")
    clock, stamped = listener.listen(Clock, "/clock"), listener.listen(Header, "/stamped")
    child = start(str(bag), "--clock", "--rate", "0.5", "--wait-for-subscribers", "/stamped")
    listener.spin_until(lambda: child.poll() is not None)
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert child.returncode == 0 and len(stamped) == COUNT
    assert times == sorted(times)
    assert times[0] >= START_NS and times[-1] >= START_NS + (COUNT - 2) * STEP_NS
    # 0.58 s of bag at half the rate and 100 Hz are 116 ticks; a busy machine makes fewer, never many more.
    assert len(times) < 130


def test_a_subscriber_that_comes_late_hears_what_is_latched_and_loops_start_anew(tmp_path, listener, start):
    bag = small_bag(tmp_path / "bag")
    words = listener.listen(String, "/words")
    child = start(str(bag), "--loop", "--rate", "4", "--wait-for-subscribers", "/words")
    listener.spin_until(lambda: len(words) > COUNT + 3)
    late = listener.listen(String, "/latched", latched=True)
    listener.spin_until(lambda: len(late) >= 2)
    assert [message.data for message in late[:2]] == ["map", "odom"]
    assert [message.data for message in words[COUNT : COUNT + 3]] == ["word 0", "word 1", "word 2"]
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors and output.startswith("played ")


def test_the_space_bar_pauses_and_resumes_and_the_terminal_is_restored(tmp_path, listener, start):
    bag = small_bag(tmp_path / "bag")
    words = listener.listen(String, "/words")
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)

    def take_terminal():
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    child = start(str(bag), "--start-paused", "--loop", stdin=terminal, preexec_fn=take_terminal)
    listener.spin_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ICANON)
    listener.spin_until(lambda: listener.node.count_publishers("/words") == 1)
    end = time.monotonic() + 2.0
    listener.spin_until(lambda: time.monotonic() > end)
    assert words == []
    os.write(keyboard, b" ")
    listener.spin_until(lambda: len(words) > 3)
    os.write(keyboard, b" ")
    heard = -1
    while heard != len(words):  # what was under way may still arrive
        heard, end = len(words), time.monotonic() + 1.0
        listener.spin_until(lambda end=end: time.monotonic() > end)
    os.write(keyboard, b" ")
    listener.spin_until(lambda: len(words) > heard)
    assert words[heard].data == f"word {heard % COUNT}"
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=20)
    assert child.returncode == 0
    assert termios.tcgetattr(terminal) == before
    os.close(keyboard)
    os.close(terminal)


def test_a_type_that_is_not_installed_is_an_error_or_left_out_and_counted(tmp_path, listener, start):
    rows = [("/words", "hello", START_NS, reliable(5)), ("/odd", 1.5, START_NS, reliable(5))]
    bag = build(tmp_path / "bag", [*rows, ("/odd", 2.5, START_NS + 1, reliable(5))])
    with pytest.raises(StreampetrError, match=r"/odd has type nowhere_msgs/msg/Strange.*--skip-unknown"):
        play(bag, PlayOptions(wait=0.0))
    words = listener.listen(String, "/words")
    child = start(str(bag), "--skip-unknown", "--wait-for-subscribers", "/words")
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert output.splitlines() == ["played 1 messages", "left out 2 messages of /odd"]
    listener.spin_until(lambda: len(words) == 1)


def test_another_definition_of_a_type_is_refused(tmp_path, listener):
    definition = {"msgdef": "int32 data", "rihs01": f"RIHS01_{0:064x}"}
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/words", "std_msgs/msg/String", **definition)
        writer.write(connection, START_NS, b"\x00\x01\x00\x00\x07\x00\x00\x00")
    with pytest.raises(StreampetrError, match="/words was recorded with another definition of std_msgs/msg/String"):
        play(tmp_path / "bag", PlayOptions(wait=0.0))


def test_what_cannot_be_played_is_said_in_one_line(tmp_path):
    bag = small_bag(tmp_path / "bag")
    with pytest.raises(StreampetrError, match="no topic /nowhere to wait for; played are: /latched, /stamped, /words"):
        play(bag, PlayOptions(wait_for=("/nowhere",)))
    with pytest.raises(StreampetrError, match="holds no messages"):
        play(build(tmp_path / "empty", []), PlayOptions())
    with pytest.raises(StreampetrError, match="no topic of this bag can be played"):
        play(build(tmp_path / "odd", [("/odd", 1.0, 1, reliable(5))]), PlayOptions(skip_unknown=True))
    with pytest.raises(StreampetrError, match="no such bag"):
        play(tmp_path / "missing", PlayOptions())


def test_serialised_bytes_reach_the_wire_as_recorded(tmp_path, listener, start):
    text = "".join(chr(code) for code in np.arange(32, 127)) + " é 漢"
    bag = build(tmp_path / "bag", [("/words", text, START_NS, reliable(5))])
    words = listener.listen(String, "/words")
    start(str(bag), "--wait-for-subscribers", "/words")
    listener.spin_until(lambda: len(words) == 1)
    assert words[0].data == text
