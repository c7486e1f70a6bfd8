"""The node's life: many cycles without a leak, two of them at once, and clocks that stop, pause and begin anew."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from vision_msgs.msg import Detection3DArray

from streampetr_ros.node import StreampetrNode
from tests.ros.observer import INTERVAL, LAG, SECOND, START, observers
from tests.ros.rig import Rig, Spinner, jpeg, make_node, overrides, picture, spin_until, write_tiny_model

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
CYCLES = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


def _held(node: StreampetrNode) -> dict[str, int]:
    """Return how much of each kind a node has."""
    kinds = ("publishers", "subscriptions", "timers", "services", "clients", "guards", "waitables")
    held = {kind: len(list(getattr(node, kind))) for kind in kinds}
    return held | {"threads": threading.active_count(), "managed": len(node._managed_entities)}


def test_many_lives_leave_nothing_behind(ros: None, model: Path):
    node = StreampetrNode(parameter_overrides=overrides(model=str(model)))
    before, buffers = _held(node), []
    for _ in range(CYCLES):
        assert node.trigger_configure() == SUCCESS
        buffers.append(weakref.ref(node._buffer))
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
    assert _held(node) == before
    gc.collect()
    assert not any(buffer() for buffer in buffers)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert _held(node) == before
    node.destroy_node()


def test_an_activation_that_fails_says_why_and_can_be_mended(ros: None, model: Path):
    rig = Rig()
    node = make_node(rig, model=str(model), image_topic="/{camera}/no topic")
    spinner = Spinner(rig.node, node)
    assert node.trigger_configure() == SUCCESS
    before = _held(node)
    assert node.trigger_activate() == FAILURE
    assert spin_until(lambda: rig.logged("InvalidTopicNameException", "/left/no topic"))
    assert _held(node) == before
    assert node.trigger_cleanup() == SUCCESS
    assert node.set_parameters([Parameter("image_topic", value="/{camera}/image_raw")])[0].successful
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    spinner.stop()
    node.destroy_node()
    rig.node.destroy_node()


def test_two_nodes_in_two_namespaces_hear_each_their_own_cameras(ros: None, model: Path):
    topics = {"image_topic": "{camera}/image_raw", "camera_info_topic": "{camera}/camera_info"}
    parameters = overrides(model=str(model), **topics)
    nodes = {name: StreampetrNode(parameter_overrides=parameters, namespace=name) for name in ("car", "truck")}
    rig = Rig()
    seen: dict[str, list[int]] = {name: [] for name in nodes}
    images, infos = {}, {}
    for name, node in nodes.items():
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        rig.node.create_subscription(
            Detection3DArray,
            f"/{name}/streampetr/detections",
            lambda m, name=name: seen[name].append(Time.from_msg(m.header.stamp).nanoseconds),
            10,
        )
        for camera in ("left", "right"):
            create = rig.node.create_publisher
            images[name, camera] = create(CompressedImage, f"/{name}/{camera}/image_raw/compressed", 10)
            infos[name, camera] = create(CameraInfo, f"/{name}/{camera}/camera_info", 10)
    spinner = Spinner(rig.node, *nodes.values())
    rig.send_static()
    stamp = START

    def sends_to(name: str) -> None:
        nonlocal stamp
        stamp += INTERVAL
        rig.send_poses({stamp + step * INTERVAL: (10.0, 0.0, 0.0) for step in range(-1, 2)})
        rig.infos = {camera: infos[name, camera] for camera in ("left", "right")}
        for camera, lag in (("left", LAG), ("right", 0)):
            rig.send_info(camera)
            message = CompressedImage(format="jpeg", data=jpeg(picture(0)))
            message.header.frame_id, message.header.stamp = camera, Time(nanoseconds=stamp - lag).to_msg()
            images[name, camera].publish(message)
        time.sleep(0.05)

    assert spin_until(lambda: sends_to("car") or bool(seen["car"]))
    assert not seen["truck"]
    of_car = set(seen["car"])
    assert spin_until(lambda: sends_to("truck") or bool(seen["truck"]))
    assert of_car.isdisjoint(seen["truck"])
    spinner.stop()
    for node in (*nodes.values(), rig.node):
        node.destroy_node()


def test_simulated_time_that_pauses_jumps_back_and_ends(model: Path):
    with observers(model) as make:
        observer = make(use_sim_time=True, max_wait=0.5, realtime=True, min_cameras=1)
        rig, node = observer.rig, observer.node
        clock = rig.node.create_publisher(Clock, "/clock", 10)
        now = [START]

        def ticks() -> None:
            now[0] += INTERVAL
            clock.publish(Clock(clock=Time(nanoseconds=now[0]).to_msg()))

        observer.besides = ticks
        observer.activate()
        assert observer.detects_again()
        observer.besides = lambda: None  # a pause of /clock, in which images go on
        assert observer.detects_again()
        observer.begin_at(START - 60 * SECOND)  # a bag begins anew
        now[0] = START - 60 * SECOND
        observer.besides = ticks
        # Sets that were on their way still come, so the jump is waited for first.
        assert observer.sends_until(lambda: observer.rig.logged("images jumped back in time"))
        assert observer.detects_again()
        assert spin_until(lambda: _released(node) == _done(node))
        observer.silent = {"right"}
        observer.send()  # the last set of a bag misses an image, and /clock has ended
        observer.besides = lambda: None
        released = _released(node)
        assert spin_until(lambda: _released(node) > released)
        assert spin_until(lambda: _released(node) == _done(node))


def _released(node: StreampetrNode) -> int:
    return node.monitor.released


def _done(node: StreampetrNode) -> int:
    return node.monitor.published + node.monitor.set_drops.total()
