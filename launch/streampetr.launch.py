"""Start the detector and take it to active; with `bag:=` play a bag to it, with `rviz:=true` show it.

ros2 launch streampetr_ros streampetr.launch.py model:=/path/to/model.safetensors
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import EqualsSubstitution, LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

SHARE = FindPackageShare("streampetr_ros")
ARGUMENTS = {
    "model": ("", "model file (.safetensors); `streampetr convert` or `streampetr init` writes one"),
    "params_file": (PathJoinSubstitution([SHARE, "config", "node.yaml"]), "parameters of the node"),
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
    """Describe the launch: the node, its two transitions, and what was asked for beside it."""
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    detector = LifecycleNode(
        package="streampetr_ros",
        executable="streampetr_node",
        name="streampetr",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "model": ParameterValue(LaunchConfiguration("model"), value_type=str),
                "cameras": ParameterValue(LaunchConfiguration("cameras"), value_type=list[str]),
                "transport": LaunchConfiguration("transport"),
                "use_sim_time": use_sim_time,
            },
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        emulate_tty=True,
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([SHARE, "launch", "streampetr.rviz"])],
        parameters=[{"use_sim_time": use_sim_time}],
        condition=IfCondition(EqualsSubstitution(LaunchConfiguration("rviz"), "true")),
    )
    player = ExecuteProcess(
        cmd=["streampetr", "bag", "play", LaunchConfiguration("bag"), "--clock"],
        condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("bag"), "")),
        output="screen",
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=d, description=text) for name, (d, text) in ARGUMENTS.items()
    ]
    return LaunchDescription(
        [*arguments, _activate_after_configure(detector), detector, _configure(detector), player, rviz]
    )


def _configure(detector: LifecycleNode) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(detector), transition_id=Transition.TRANSITION_CONFIGURE
        )
    )


def _activate_after_configure(detector: LifecycleNode) -> RegisterEventHandler:
    # Without start_state the handler would also fire after a deactivate, and nobody could keep the node inactive.
    activate = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(detector), transition_id=Transition.TRANSITION_ACTIVATE)
    )
    return RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=detector, start_state="configuring", goal_state="inactive", entities=[activate]
        )
    )
