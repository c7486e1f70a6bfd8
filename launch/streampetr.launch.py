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
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("false", "take the time from /clock"),
    "bag": ("", "a bag to play with `streampetr bag play`"),
    "rviz": ("false", "show detections in RViz"),
    "log_level": ("info", "debug, info, warn or error"),
}


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
    if values["bag"]:
        entities.append(ExecuteProcess(cmd=["streampetr", "bag", "play", values["bag"], "--clock"], output="screen"))
    if yaml.safe_load(values["rviz"]):
        display = ["-d", str(SHARE / "launch" / "streampetr.rviz")]
        entities.append(Node(package="rviz2", executable="rviz2", arguments=display, parameters=[sim_time]))
    return entities


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
