"""Stands in for ROS 2's `launch` and `launch_ros`, which pip cannot install: its actions only keep what they are told.

Every class takes the arguments that the real one takes, and no others, so that a wrong name fails here too.
"""

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass
class LaunchContext:
    values: dict[str, str]


@dataclass
class LaunchDescription:
    entities: list[Any]


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str
    description: str


@dataclass
class OpaqueFunction:
    function: Any


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: LaunchContext) -> str:
        return context.values[self.name]


@dataclass
class ExecuteProcess:
    cmd: list[str]
    output: str


@dataclass
class EmitEvent:
    event: Any


@dataclass
class RegisterEventHandler:
    handler: Any


@dataclass(kw_only=True, eq=False)
class Node:
    package: str
    executable: str
    name: str | None = None
    namespace: str | None = None
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    output: str | None = None


class LifecycleNode(Node):
    pass


@dataclass
class OnStateTransition:
    target_lifecycle_node: Any
    start_state: str
    goal_state: str
    entities: list[Any]


@dataclass
class ChangeState:
    lifecycle_node_matcher: Any
    transition_id: int


@dataclass
class ParameterValue:
    value: Any
    value_type: Any


def matches_action(action: Any) -> Any:
    return lambda other: other is action


def modules() -> dict[str, ModuleType]:
    """Return the modules to put into sys.modules."""
    this = sys.modules[__name__]
    contents = {
        "launch": (LaunchContext, LaunchDescription),
        "launch.actions": (DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction, RegisterEventHandler),
        "launch.events": (matches_action,),
        "launch.substitutions": (LaunchConfiguration,),
        "launch_ros": (),
        "launch_ros.actions": (LifecycleNode, Node),
        "launch_ros.event_handlers": (OnStateTransition,),
        "launch_ros.events": (),
        "launch_ros.events.lifecycle": (ChangeState,),
        "launch_ros.parameter_descriptions": (ParameterValue,),
    }
    made = {}
    for name, values in contents.items():
        made[name] = ModuleType(name)
        for value in values:
            setattr(made[name], value.__name__, getattr(this, value.__name__))
    made["launch"].LaunchDescriptionEntity = object
    return made
