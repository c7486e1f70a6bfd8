"""Start the detector and take it to active; with `bag:=` play a bag to it, with `rviz:=true` show it.

ros2 launch streampetr_ros streampetr.launch.py model:=/path/to/model.safetensors
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

SHARE = Path(get_package_share_directory("streampetr_ros"))
ARGUMENTS = {
    "model": ("", "model file (.safetensors); `streampetr convert` or `streampetr init` writes one"),
    "params_file": (str(SHARE / "config" / "node.yaml"), "parameters of the node"),
    "cameras": (
        "[cam_front, cam_front_right, cam_front_left, cam_back, cam_back_left, cam_back_right]",
        "camera names in the order in which the model was trained",
    ),
    "transport": ("compressed", "how images come: compressed or raw"),
    "reference_frame_xyz_rpy": (
        "",
        "for a rig without the model's LiDAR: where its reference frame sits on base_frame, 'x y z roll pitch yaw' in "
        "metres and radians; nuScenes: '0.94 0 1.84 0 0 -1.5708'",
    ),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("false", "take the time from /clock"),
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
    sim_time = {"use_sim_time": yaml.safe_load(values["use_sim_time"])}
    detector = LifecycleNode(
        package="streampetr_ros",
        executable="streampetr_node",
        name="streampetr",
        namespace=values["namespace"],
        parameters=[
            values["params_file"],
            {"model": values["model"], "transport": values["transport"], **sim_time},
            {"cameras": yaml.safe_load(values["cameras"])},
        ],
        arguments=["--ros-args", "--log-level", values["log_level"]],
        output="screen",
    )
    entities = [_activate_after_configure(detector), detector, _change(detector, Transition.TRANSITION_CONFIGURE)]
    if values["reference_frame_xyz_rpy"]:
        entities.append(_reference_frame(values["reference_frame_xyz_rpy"], values["params_file"]))
    if values["bag"]:
        entities.append(ExecuteProcess(cmd=["streampetr", "bag", "play", values["bag"], "--clock"], output="screen"))
    if yaml.safe_load(values["rviz"]):
        display = ["-d", str(SHARE / "launch" / "streampetr.rviz")]
        entities.append(Node(package="rviz2", executable="rviz2", arguments=display, parameters=[sim_time]))
    return entities


def _reference_frame(xyz_rpy: str, params_file: str) -> Node:
    """Return a node that says where the model's reference frame sits on the vehicle."""
    numbers = xyz_rpy.split()
    if len(numbers) != len(POSE_OPTIONS):
        raise ValueError(f"reference_frame_xyz_rpy:='{xyz_rpy}' must be six numbers: x y z roll pitch yaw")
    parameters = {"base_frame": "base_link", "reference_frame": "lidar_top"}
    for section in yaml.safe_load(Path(params_file).read_text(encoding="utf-8")).values():
        parameters |= section.get("ros__parameters", {})
    pose = [word for option, number in zip(POSE_OPTIONS, numbers, strict=True) for word in (option, number)]
    frames = ["--frame-id", parameters["base_frame"], "--child-frame-id", parameters["reference_frame"]]
    return Node(package="tf2_ros", executable="static_transform_publisher", arguments=[*pose, *frames])


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
