"""Listener and broadcasters over the real middleware, and a buffer that follows the clock of its node."""

import gc
import time

import pytest
import rclpy
import tf2_ros
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from tests.overlay.transforms import AUTHORITY, make_transform, seconds, x_of


@pytest.fixture
def executor():
    context = rclpy.Context()
    context.init()
    executor = SingleThreadedExecutor(context=context)
    yield executor
    for node in executor.get_nodes():
        node.destroy_node()
    executor.shutdown()
    context.shutdown()


def add_node(executor, name, **options):
    node = rclpy.create_node(name, context=executor.context, **options)
    executor.add_node(node)
    return node


def spin_until(executor, condition):
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "nothing arrived in 30 s"
        executor.spin_once(timeout_sec=0.05)


def test_a_late_listener_gets_every_static_transform_and_the_moving_ones(executor):
    sender = add_node(executor, "sender")
    static, moving = tf2_ros.StaticTransformBroadcaster(sender), tf2_ros.TransformBroadcaster(sender)
    # In one call each, so that it holds for Humble too, which latches the last call only.
    static.sendTransform([make_transform("base", "cam", 0.0, (0.0, 0.0, 2.0)), make_transform("base", "imu")])
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, add_node(executor, "receiver"))
    spin_until(executor, lambda: buffer.can_transform("imu", "cam", Time()))

    def sent_and_received():
        moving.sendTransform(make_transform("map", "base", 5.0, (3.0, 0.0, 0.0)))
        return buffer.can_transform("map", "cam", seconds(5.0))

    spin_until(executor, sent_and_received)
    assert x_of(buffer.lookup_transform("map", "cam", seconds(5.0))) == 3.0
    listener.unregister()


def test_static_transforms_sent_in_several_calls_are_all_latched(executor):
    broadcaster = tf2_ros.StaticTransformBroadcaster(add_node(executor, "sender"))
    broadcaster.sendTransform(make_transform("base", "cam", 0.0, (1.0, 0.0, 0.0)))
    broadcaster.sendTransform(make_transform("base", "imu"))
    broadcaster.sendTransform(make_transform("base", "cam", 0.0, (2.0, 0.0, 0.0)))
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, add_node(executor, "receiver"))
    spin_until(executor, lambda: buffer.can_transform("imu", "cam", Time()))
    assert x_of(buffer.lookup_transform("base", "cam", Time())) == 2.0
    listener.unregister()


def test_a_listener_with_a_thread_of_its_own_needs_no_spinning(executor):
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    broadcaster = tf2_ros.StaticTransformBroadcaster(add_node(executor, "sender"), latched)
    broadcaster.sendTransform(make_transform("base", "cam"))
    buffer = tf2_ros.Buffer()
    node = rclpy.create_node("receiver", context=executor.context)
    listener = tf2_ros.TransformListener(buffer, node, spin_thread=True, qos=10, static_qos=latched)
    assert buffer.can_transform("base", "cam", Time(), timeout=rclpy.duration.Duration(seconds=30))
    listener.unregister()
    node.destroy_node()


def test_a_buffer_with_a_node_empties_itself_when_the_clock_jumps_back(executor):
    node = add_node(executor, "replay", parameter_overrides=[Parameter("use_sim_time", value=True)])
    clock = add_node(executor, "clock").create_publisher(Clock, "/clock", 10)
    buffer = tf2_ros.Buffer(node=node)

    def spin_to(sec):
        def arrived():
            clock.publish(Clock(clock=TimeMessage(sec=sec)))
            return node.get_clock().now() == Time(seconds=sec, clock_type=node.get_clock().clock_type)

        spin_until(executor, arrived)

    spin_to(100)
    buffer.set_transform(make_transform("map", "base", 100.0), AUTHORITY)
    buffer.set_transform_static(make_transform("base", "cam"), AUTHORITY)
    spin_to(105)
    assert buffer.can_transform("map", "cam", Time())
    spin_to(50)
    assert not buffer.can_transform("map", "cam", Time())
    assert buffer.can_transform("base", "cam", Time())


def test_a_clock_forgets_buffers_that_are_gone(executor):
    node = add_node(executor, "many_lives", parameter_overrides=[Parameter("use_sim_time", value=True)])
    for _ in range(200):  # a buffer's handle may come to lie where that of another was
        tf2_ros.Buffer(node=node)
        gc.collect(generation=0)
    clock = add_node(executor, "clock").create_publisher(Clock, "/clock", 10)

    def jumped_back():
        clock.publish(Clock(clock=TimeMessage(sec=100)))
        clock.publish(Clock(clock=TimeMessage(sec=50)))
        return node.get_clock().now() == Time(seconds=50, clock_type=node.get_clock().clock_type)

    spin_until(executor, jumped_back)
