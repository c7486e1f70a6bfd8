"""What `streampetr watch` says of what it heard."""

import math
import subprocess
import sys
import time

import rclpy
from builtin_interfaces.msg import Time
from std_msgs.msg import Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from streampetr_ros.latency import Latencies, latency_line
from streampetr_ros.watch import Watched, summary, watch_lines

SECOND = 1_000_000_000


def _watched() -> Watched:
    """Twelve sets in two seconds, each 0.1 s after the last of its two images."""
    watched = Watched()
    for index in range(24):
        arrival = 100.0 + index / 12
        for number, camera in enumerate(("left", "right")):
            watched.exposures.append((index * SECOND // 12 + number, arrival + 0.01 * number, camera))
        if index % 2 == 0:
            watched.heard_detections(index * SECOND // 12 + 1, ["car", "car", "traffic_cone"], arrival + 0.11)
    return watched


def test_rates_ages_and_objects_are_told():
    watched = _watched()
    watched.tracks = [("7", "car", 0.91, 12.3, -4.5, 8.0)]
    lines = watch_lines(watched, 102.0)
    assert lines[0] == "running    2.4 sets/s   age of output 100 ms (95 %: 100 ms)"
    assert lines[1] == "cameras (Hz): left 5  right 5"
    assert lines[2] == "detections: 2 car, 1 traffic cone"
    assert lines[4].split() == ["7", "car", "0.91", "at", "12.3", "-4.5", "m", "8.0", "m/s"]
    assert summary(watched) == "12 sets of detections; age of output 100 ms (95 %: 100 ms)"


def test_the_latency_that_the_detector_tells_is_shown():
    watched = _watched()
    latencies = Latencies()
    latencies.note(100.0, receive=0.002, decode=0.0061, encode=0.101, step=0.0399, publish=0.0012, age=0.15)
    latencies.note(100.0, wait=0.01)
    watched.latency = latency_line({key: f"{value:.3f}" for key, value in latencies.facts(101.0).items()})
    lines = watch_lines(watched, 102.0)
    assert lines[2] == "ms: receive 2  decode 6  wait 10  encode 101  step 40  publish 1  age 150"
    assert latency_line({}) == ""


def test_silence_and_complaints_are_told():
    assert watch_lines(Watched(), 0.0)[0].startswith("waiting for detections")
    watched = _watched()
    watched.complaint = "streampetr: no images from /left/image_raw; " + "x" * 80
    lines = watch_lines(watched, 106.5)
    assert lines[0].startswith("silent for 5 s") and "left" in lines[-1]
    assert max(map(len, lines)) <= 80


def test_the_age_is_unknown_where_no_camera_was_heard():
    watched = Watched()
    watched.heard_detections(SECOND, [], 5.0)
    assert math.isnan(watched.outputs[-1][1])
    assert watch_lines(watched, 5.5)[0].endswith("age of output unknown")


def test_the_command_counts_what_it_hears_and_ends_when_nothing_comes():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("detector", context=context)
    publisher = node.create_publisher(Detection3DArray, "/detector/detections", 100)
    code = (
        "import argparse; from streampetr_ros.commands import watch; parser = argparse.ArgumentParser(); "
        "watch.add_arguments(parser); watch.run(parser.parse_args())"
    )
    command = [sys.executable, "-c", code, "--node", "/detector", "--cameras", "left", "--wait", "60", "--idle", "2"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not publisher.get_subscription_count() and time.monotonic() < deadline:
        time.sleep(0.05)
    found = ObjectHypothesisWithPose()
    found.hypothesis.class_id = "bus"
    for index in range(20):
        header = Header(stamp=Time(sec=index))
        publisher.publish(Detection3DArray(header=header, detections=[Detection3D(results=[found])]))
    said, _ = watching.communicate(timeout=60)
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert watching.returncode == 0
    assert said.splitlines()[-1] == "20 sets of detections; age of output unknown"
