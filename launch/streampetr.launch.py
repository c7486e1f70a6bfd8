"""Start the detector and take it to active; with `bag:=` play a bag to it, with `rviz:=true` show it.

ros2 launch streampetr_ros streampetr.launch.py model:=/path/to/model.safetensors
"""

import tempfile
from pathlib import Path
from typing import Any, List  # noqa: UP035 - ParameterValue compares with this List

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from streampetr_ros.parameters import Parameters, parameters_from
from streampetr_ros.rviz import rviz_config

SHARE = Path(get_package_share_directory("streampetr_ros"))
ARGUMENTS = {
    "model": ("", "model file (.safetensors); `streampetr convert` or `streampetr init` writes one"),
    "params_file": (str(SHARE / "config" / "node.yaml"), "parameters of the node"),
    "cameras": (
        "[cam_front, cam_front_right, cam_front_left, cam_back, cam_back_left, cam_back_right]",
        "camera names in the order in which the model was trained",
    ),
    "camera_topics": (
        "",
        "where each of the cameras publishes, if not under its name: '[/rig/a, /rig/b]' takes images from "
        "/rig/a/image_raw (and below it) and calibrations from /rig/a/camera_info",
    ),
    "transport": ("compressed", "how images come: compressed or raw"),
    "reference_frame_xyz_rpy": (
        "",
        "for a rig without the model's LiDAR: where its reference frame sits on base_frame, 'x y z roll pitch yaw' in "
        "metres and radians; nuScenes: '0.94 0 1.84 0 0 -1.5708'",
    ),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("auto", "take the time from /clock: true, false, or auto: when a bag is played"),
    "bag": ("", "a bag to play with `streampetr bag play`"),
    "rviz": ("false", "show detections in RViz"),
    "log_level": ("info", "debug, info, warn or error"),
}

POSE_OPTIONS = ("--x", "--y", "--z", "--roll", "--pitch", "--yaw")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; everything else is described once their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_describe)])


def _describe(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = [str(camera) for camera in yaml.safe_load(values["cameras"])]
    parameters = _parameters(values["params_file"], cameras=cameras, transport=values["transport"])
    places = [str(place) for place in yaml.safe_load(values["camera_topics"] or "[]")]
    if places and len(places) != len(cameras):
        raise ValueError(
            f"camera_topics:='{values['camera_topics']}' must be one topic for each of {len(cameras)} cameras"
        )
    remaps = _remaps(parameters, dict(zip(cameras, places, strict=False)))
    sim_time = {"use_sim_time": bool(values["bag"])}
    if values["use_sim_time"] != "auto":
        sim_time = {"use_sim_time": yaml.safe_load(values["use_sim_time"])}
    detector = LifecycleNode(
        package="streampetr_ros",
        executable="streampetr_node",
        name="streampetr",
        namespace=values["namespace"],
        parameters=[
            values["params_file"],
            # As text, whatever it looks like: launch would make a number of a name like 1, and fail at an empty one.
            {name: ParameterValue(values[name], value_type=str) for name in ("model", "transport")},
            {"cameras": ParameterValue(cameras, value_type=List[str]), **sim_time},  # noqa: UP006
        ],
        remappings=remaps,
        arguments=["--ros-args", "--log-level", values["log_level"]],
        output="screen",
    )
    entities = [_activate_after_configure(detector), detector, _change(detector, Transition.TRANSITION_CONFIGURE)]
    if values["reference_frame_xyz_rpy"]:
        entities.append(_reference_frame(values["reference_frame_xyz_rpy"], parameters))
    images = {camera: dict(remaps).get(topic, topic) for camera, topic in parameters.image_topics.items()}
    if values["bag"]:
        # RViz does not listen to calibrations, and the node listens to all its topics at once, when it is active; then
        # the others need a moment to be found.
        awaited = parameters.camera_info_topics[cameras[0]]
        start = ["--wait-for-subscribers", dict(remaps).get(awaited, awaited), "--delay", "1"]
        command = ["streampetr", "bag", "play", values["bag"], "--clock", *start]
        entities.append(ExecuteProcess(cmd=command, output="screen"))
    if yaml.safe_load(values["rviz"]):
        entities.append(_rviz(images, values["namespace"], parameters.base_frame, sim_time))
    return entities


def _parameters(params_file: str, **arguments: Any) -> Parameters:
    """Return what the node will be told by the file and by the arguments."""
    values = {}
    for section in yaml.safe_load(Path(params_file).read_text(encoding="utf-8")).values():
        values |= section.get("ros__parameters", {})
    return parameters_from({name: values[name] for name in values if name != "use_sim_time"} | arguments)


def _remaps(parameters: Parameters, places: dict[str, str]) -> list[tuple[str, str]]:
    """Return the remappings (from, to) of the topics of cameras that publish elsewhere."""
    remaps = []
    for camera, place in places.items():
        image, place = parameters.image_topic.format(camera=camera), place.rstrip("/")
        remaps += [(f"{image}{kind}", f"{place}/image_raw{kind}") for kind in ("", "/compressed")]
        remaps.append((parameters.camera_info_topics[camera], f"{place}/camera_info"))
    return remaps


def _reference_frame(xyz_rpy: str, parameters: Parameters) -> Node:
    """Return a node that says where the model's reference frame sits on the vehicle."""
    numbers = xyz_rpy.split()
    if len(numbers) != len(POSE_OPTIONS):
        raise ValueError(f"reference_frame_xyz_rpy:='{xyz_rpy}' must be six numbers: x y z roll pitch yaw")
    pose = [word for option, number in zip(POSE_OPTIONS, numbers, strict=True) for word in (option, number)]
    frames = ["--frame-id", parameters.base_frame, "--child-frame-id", parameters.reference_frame]
    return Node(package="tf2_ros", executable="static_transform_publisher", arguments=[*pose, *frames])


def _rviz(images: dict[str, str], namespace: str, base_frame: str, sim_time: dict[str, bool]) -> Node:
    """Return RViz, with a configuration for these cameras and names."""
    template = yaml.safe_load((SHARE / "launch" / "streampetr.rviz").read_text(encoding="utf-8"))
    markers = "/".join(["", *filter(None, namespace.split("/")), "streampetr", "markers"])
    path = Path(tempfile.mkdtemp(prefix="streampetr_"), "streampetr.rviz")
    path.write_text(yaml.safe_dump(rviz_config(template, images, markers, base_frame), sort_keys=False))
    return Node(package="rviz2", executable="rviz2", arguments=["-d", str(path)], parameters=[sim_time])


def _change(detector: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(detector), transition_id=transition))


def _activate_after_configure(detector: LifecycleNode) -> RegisterEventHandler:
    # Without start_state the handler would also fire after a deactivate, and nobody could keep the node inactive.
    return RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=detector,
            start_state="configuring",
            goal_state="inactive",
            entities=[_change(detector, Transition.TRANSITION_ACTIVATE)],
        )
    )
