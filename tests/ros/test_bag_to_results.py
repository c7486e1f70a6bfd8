"""Recording what the node publishes, and turning it into results files that nuscenes-devkit judges."""

import json
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.rosbag2 import StoragePlugin, Writer
from std_msgs.msg import String

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.from_nuscenes import BAG_VERSION
from streampetr_ros.bag.nuscenes_scene import Keyframe, open_root, read_scene
from streampetr_ros.bag.published import read_topics
from streampetr_ros.bag.scene_messages import Messages
from streampetr_ros.bag.types import type_store
from streampetr_ros.commands import bag as bag_command
from training.commands import score as score_command
from training.synth import WorldOptions, write_world

FLOATS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy", "score")


def run(command, *arguments) -> None:
    parser = ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results") / "world"
    write_world(root, WorldOptions(scenes=1, val_scenes=1, samples=4, width=64, height=36))
    return root


def write_truth(root: Path, path: Path, lag_ns: int = 0, leave_out: tuple[str, ...] = (), last: int = 4) -> Path:
    """Write a bag of a node that publishes the truth, with tracks numbered as the instances of the tables."""
    tables = open_root(root)
    scene, store = read_scene(tables, "scene-0001"), type_store()
    make, numbers = Messages(store), {}
    with Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for keyframe in scene.keyframes[:last]:
            rows = annotations(tables, keyframe)
            seen = [box for box in keyframe.boxes if rows[box.instance_token]["num_lidar_pts"]]
            keyframe = replace(keyframe, boxes=tuple(seen))
            array = make.truth(keyframe)
            array.header.stamp.nanosec += lag_ns
            for box, detection in zip(keyframe.boxes, array.detections, strict=True):
                detection.id = str(numbers.setdefault(box.instance_token, len(numbers) + 1))
            cloud = cloud_of(store, tables, keyframe, array)
            kinds = {"detections": array, "tracks": array, "detections/points": cloud, "objects": cloud}
            for name, message in kinds.items():
                if name in leave_out:
                    continue
                topic, kind = f"/streampetr/{name}", message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=store)
                writer.write(connections[topic], keyframe.stamp_ns, store.serialize_cdr(message, kind))
    return path


def annotations(tables: NuScenes, keyframe: Keyframe) -> dict[str, dict]:
    rows = [tables.get("sample_annotation", token) for token in tables.get("sample", keyframe.sample_token)["anns"]]
    return {row["instance_token"]: row for row in rows}


def cloud_of(store, tables: NuScenes, keyframe, array):
    """Return the cloud with the true velocities, in base_link."""
    sample = tables.get("sample", keyframe.sample_token)
    lidar = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
    turn = tables.get("ego_pose", lidar["ego_pose_token"])["rotation"]
    base_R_world = Quaternion(turn).inverse.rotation_matrix
    rows = annotations(tables, keyframe)
    points = np.zeros((len(array.detections), len(FLOATS)), "<f4")
    for point, box in zip(points, keyframe.boxes, strict=True):
        velocity = np.nan_to_num(tables.box_velocity(rows[box.instance_token]["token"]))
        point[7:9] = (base_R_world @ velocity)[:2]
    field = store.types["sensor_msgs/msg/PointField"]
    fields = [field(name, 4 * index, 7, 1) for index, name in enumerate(FLOATS)]
    data = np.frombuffer(points.tobytes(), np.uint8)
    cloud = store.types["sensor_msgs/msg/PointCloud2"]
    return cloud(array.header, 1, len(points), fields, False, points.strides[0], points.nbytes, data, True)


def test_the_truth_as_the_nodes_output_is_perfect(root: Path, tmp_path: Path, capsys):
    recorded = write_truth(root, tmp_path / "recorded")
    run(bag_command, "to-results", recorded, "--dataroot", root, "--out", tmp_path)
    files = tmp_path / "results_nusc.json", tmp_path / "tracking_result.json"
    run(score_command, *files, "--dataroot", root)
    said = capsys.readouterr().out
    summary = json.loads((tmp_path / "metrics_summary.json").read_text())
    assert summary["mean_ap"] > 0.99
    assert max(summary["tp_errors"][name] for name in ("trans_err", "scale_err", "orient_err", "vel_err")) < 0.02
    tracking = json.loads((tmp_path / "tracking_metrics" / "metrics_summary.json").read_text())
    assert tracking["ids"] == 0 and tracking["amota"] > 0.9
    assert "in 4 samples" in said and "AMOTA" in said


def test_samples_without_a_message_are_there_and_counted(root: Path, tmp_path: Path, capsys):
    recorded = write_truth(root, tmp_path / "recorded", last=3)
    run(bag_command, "to-results", recorded, "--dataroot", root, "--out", tmp_path)
    assert "1 of 4 samples had no message of detections" in capsys.readouterr().out
    results = json.loads((tmp_path / "results_nusc.json").read_text())["results"]
    assert sorted(map(bool, results.values())) == [False, True, True, True]


def test_a_tolerance_takes_messages_of_nearly_the_right_time(root: Path, tmp_path: Path):
    recorded = write_truth(root, tmp_path / "recorded", lag_ns=2_000_000)
    with pytest.raises(StreampetrError, match="no sample has the time of a message.*reference_topic:=/lidar_top/stamp"):
        run(bag_command, "to-results", recorded, "--dataroot", root, "--out", tmp_path)
    run(bag_command, "to-results", recorded, "--dataroot", root, "--out", tmp_path, "--tolerance", 0.01)
    assert all(json.loads((tmp_path / "results_nusc.json").read_text())["results"].values())


@pytest.mark.parametrize(
    ("leave_out", "said"),
    [
        (("detections", "tracks"), "nothing that /streampetr published is in this bag; record /streampetr/detections"),
        (("objects",), "4 of 4 messages of /streampetr/tracks have no counterpart on /streampetr/objects"),
    ],
)
def test_what_was_not_recorded_is_named(root: Path, tmp_path: Path, leave_out: tuple[str, ...], said: str):
    recorded = write_truth(root, tmp_path / "recorded", leave_out=leave_out)
    with pytest.raises(StreampetrError, match=said):
        run(bag_command, "to-results", recorded, "--dataroot", root, "--out", tmp_path)


def test_a_recording_has_every_message_also_latched_ones_from_before(tmp_path: Path):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("source", context=context)
    latched = node.create_publisher(
        String, "/recorded/latched", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    latched.publish(String(data="before"))
    plain = node.create_publisher(String, "/recorded/plain", 100)
    out = tmp_path / "bag"
    code = (
        "import argparse; from streampetr_ros.commands import bag; parser = argparse.ArgumentParser(); "
        "bag.add_arguments(parser); bag.run(parser.parse_args())"
    )
    topics = ["/recorded/latched", "/recorded/plain", "/recorded/nobody"]
    command = [sys.executable, "-c", code, "record", str(out), "--topics", *topics, "--idle", "2"]
    recorder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not plain.get_subscription_count() and time.monotonic() < deadline:
        time.sleep(0.05)
    for index in range(50):
        plain.publish(String(data=str(index)))
    said, _ = recorder.communicate(timeout=60)
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert f"{out}: 51 messages" in said and "/recorded/nobody: nothing came; was there a publisher?" in said
    messages = read_topics(out, {topic: topic for topic in topics})
    assert [message.data for message in messages["/recorded/plain"]] == [str(index) for index in range(50)]
    assert [message.data for message in messages["/recorded/latched"]] == ["before"]
