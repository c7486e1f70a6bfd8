"""What the launch file describes, what RViz shows, and how the node ends."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
import yaml
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from streampetr_ros.markers import _NAMESPACES
from streampetr_ros.node import StreampetrNode
from streampetr_ros.parameters import NUSCENES_CAMERAS
from streampetr_ros.rviz import rviz_config
from tests.ros import launch_stand_in as stand_in
from tests.ros.rig import spin_until, write_tiny_model

ROOT = Path(__file__).parents[2]
RVIZ = ROOT / "launch" / "streampetr.rviz"
TYPES = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/CompressedImage",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
}


def load():
    spec = importlib.util.spec_from_file_location("streampetr_launch", ROOT / "launch" / "streampetr.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def share(tmp_path_factory, monkeypatch):
    """The tree as an installed package, so that the launch file finds its own files."""
    prefix = tmp_path_factory.mktemp("prefix")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "streampetr_ros").touch()
    (prefix / "share" / "streampetr_ros").symlink_to(ROOT)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix), prepend=os.pathsep)


@pytest.fixture
def launch(monkeypatch):
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return load()


def described(launch, **given):
    """Return what is started with these arguments, by kind."""
    *arguments, describe = launch.generate_launch_description().entities
    values = {argument.name: argument.default_value for argument in arguments}
    assert set(given) <= set(values)
    return describe.function(stand_in.LaunchContext(values | given))


def only(entities, kind):
    (entity,) = (entity for entity in entities if type(entity) is kind)
    return entity


def test_the_node_gets_its_arguments(launch):
    entities = described(
        launch, model="007", cameras="[1, right]", transport="raw", namespace="front", log_level="debug"
    )
    node = only(entities, stand_in.LifecycleNode)
    assert (node.package, node.executable, node.name) == ("streampetr_ros", "streampetr_node", "streampetr")
    assert node.namespace == "front" and node.arguments == ["--ros-args", "--log-level", "debug"]
    file, texts, others = node.parameters
    assert Path(file).is_file()
    assert {name: (value.value, value.value_type) for name, value in texts.items()} == {
        "model": ("007", str),
        "transport": ("raw", str),
    }
    assert others["cameras"].value == ["1", "right"] and others["use_sim_time"] is False
    assert node.remappings == []
    assert len(entities) == 3  # no bag, no RViz, no other frame


def test_it_is_configured_then_activated_once_and_left_alone_after_a_deactivate(launch):
    entities = described(launch)
    node = only(entities, stand_in.LifecycleNode)
    handler = only(entities, stand_in.RegisterEventHandler).handler
    assert (handler.target_lifecycle_node, handler.start_state, handler.goal_state) == (node, "configuring", "inactive")
    (activate,) = handler.entities
    configure = only(entities, stand_in.EmitEvent)
    transitions = [each.event.transition_id for each in (configure, activate)]
    assert transitions == [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    assert all(each.event.lifecycle_node_matcher(node) for each in (configure, activate))


def test_cameras_that_publish_elsewhere_are_remapped(launch):
    entities = described(launch, cameras="[left, right]", camera_topics="[/rig/a, /rig/b/]", bag="a_bag", rviz="true")
    remaps = dict(only(entities, stand_in.LifecycleNode).remappings)
    assert remaps == {
        f"/{camera}/{kind}": f"/rig/{place}/{kind}"
        for camera, place in (("left", "a"), ("right", "b"))
        for kind in ("image_raw", "image_raw/compressed", "camera_info")
    }
    command = only(entities, stand_in.ExecuteProcess).cmd
    assert command[command.index("--wait-for-subscribers") + 1] == "/rig/a/camera_info"
    assert shown(only(entities, stand_in.Node))[0] == {
        "left": "/rig/a/image_raw/compressed",
        "right": "/rig/b/image_raw/compressed",
    }
    with pytest.raises(ValueError, match="camera_topics.*each of 6 cameras"):
        described(launch, camera_topics="[/a]")


def test_with_a_bag_the_time_is_that_of_the_bag(launch):
    entities = described(launch, bag="a_bag", rviz="true")
    assert only(entities, stand_in.ExecuteProcess).cmd[:5] == ["streampetr", "bag", "play", "a_bag", "--clock"]
    assert only(entities, stand_in.LifecycleNode).parameters[-1]["use_sim_time"] is True
    assert only(entities, stand_in.Node).parameters == [{"use_sim_time": True}]
    entities = described(launch, bag="a_bag", use_sim_time="false")
    assert only(entities, stand_in.LifecycleNode).parameters[-1]["use_sim_time"] is False


def test_a_reference_frame_without_a_lidar_is_published(launch, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("/**:\n  ros__parameters: {base_frame: car, reference_frame: ref, use_sim_time: false}\n")
    node = only(described(launch, reference_frame_xyz_rpy="1 0 2 0 0 -1.57", params_file=str(params)), stand_in.Node)
    assert node.executable == "static_transform_publisher"
    words = "--x 1 --y 0 --z 2 --roll 0 --pitch 0 --yaw -1.57 --frame-id car --child-frame-id ref"
    assert node.arguments == words.split()
    with pytest.raises(ValueError, match="six numbers"):
        described(launch, reference_frame_xyz_rpy="1 2 3")


def shown(rviz):
    """Return the images and the markers that RViz is told to show."""
    config = yaml.safe_load(Path(rviz.arguments[1]).read_text())
    displays = config["Visualization Manager"]["Displays"]
    images = {each["Name"]: each["Topic"]["Value"] for each in displays if each["Class"].endswith("/Image")}
    (markers,) = (each["Topic"]["Value"] for each in displays if each["Class"].endswith("/MarkerArray"))
    return images, markers


@pytest.mark.parametrize("namespace", ["", "front", "/front/"])
def test_rviz_shows_the_node_of_this_namespace(launch, namespace):
    node = only(described(launch, rviz="true", namespace=namespace, transport="raw"), stand_in.Node)
    images, markers = shown(node)
    assert images == {camera: f"/{camera}/image_raw" for camera in NUSCENES_CAMERAS}
    assert markers == ("/front/streampetr/markers" if namespace else "/streampetr/markers")


def test_the_real_launch_accepts_the_description():
    launch = pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    context = launch.LaunchContext()
    values = {"cameras": "[left, right]", "camera_topics": "[/a, /b]", "bag": "a_bag", "rviz": "true"}
    context.launch_configurations.update(values | {"reference_frame_xyz_rpy": "1 0 2 0 0 0"})
    *arguments, describe = load().generate_launch_description().entities
    for argument in arguments:
        argument.visit(context)
    assert len(describe.visit(context)) == 6


def displays():
    return yaml.safe_load(RVIZ.read_text())["Visualization Manager"]["Displays"]


def test_rviz_shows_six_images_boxes_with_trails_and_frames():
    classes = [each["Class"] for each in displays() if each["Enabled"]]
    assert classes.count("rviz_default_plugins/Image") == 6
    for name in ("Grid", "TF", "MarkerArray"):
        assert classes.count(f"rviz_default_plugins/{name}") == 1
    (markers,) = (each for each in displays() if each["Class"].endswith("/MarkerArray"))
    assert markers["Namespaces"] == dict.fromkeys(_NAMESPACES, True)


def test_the_configuration_follows_frames_and_names():
    template = yaml.safe_load(RVIZ.read_text())
    before = yaml.safe_dump(template)
    config = rviz_config(template, {"a": "/a/image"}, "/m", "car")
    assert yaml.safe_dump(template) == before
    manager = config["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == manager["Views"]["Current"]["Target Frame"] == "car"
    (image,) = (each for each in manager["Displays"] if each["Class"].endswith("/Image"))
    assert image["Name"] == "a" and image["Topic"]["Value"] == "/a/image"
    assert image["Topic"]["Reliability Policy"] == "Best Effort"


def test_rviz_shows_topics_of_the_node_with_their_types(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    rclpy.init()
    node = StreampetrNode(parameter_overrides=[Parameter("model", value=str(model))])
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        wanted = {each["Topic"]["Value"]: TYPES[each["Class"]] for each in displays() if "Topic" in each}
        assert len(wanted) == 7

        def seen():
            return {name: types for name, types in node.get_topic_names_and_types() if name in wanted}

        assert spin_until(lambda: len(seen()) == len(wanted))
        assert {name: types for name, (types,) in seen().items()} == wanted
        assert node.get_publishers_info_by_topic("/streampetr/markers")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_node_exits_with_0_when_it_is_told_to_end(number, tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    arguments = ["--ros-args", "-p", f"model:={model}", "-p", "autostart:=true"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streampetr_ros.node", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    context = rclpy.Context()
    rclpy.init(context=context)
    watcher = rclpy.create_node("watcher", context=context)
    try:
        topic = "/cam_front/image_raw/compressed"
        assert spin_until(lambda: watcher.count_subscribers(topic) or process.poll() is not None, 120)
        assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        watcher.destroy_node()
        rclpy.shutdown(context=context)
