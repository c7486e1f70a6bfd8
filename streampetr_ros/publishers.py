"""Who publishes on the topics that the node listens to, and cannot be heard: other types, incompatible QoS."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from streampetr_ros.diagnosis import Level, State

WRONG_TYPE, WRONG_QOS = "wrong message type", "incompatible QoS"


@dataclass(frozen=True)
class Listening:
    """A subscription, and the camera that it is for, if it is for one."""

    subscription: Subscription
    camera: str = ""


def unheard_publishers(node: Node, listening: Sequence[Listening]) -> list[State]:
    """Return a state for each publisher whose messages cannot arrive.

    The middleware tells of such a publisher once, when it appears; asked for, it is known as long as it is there.
    """
    return [state for each in listening for state in _unheard(node, each)]


def _unheard(node: Node, each: Listening) -> Iterator[State]:
    topic = each.subscription.topic_name
    expected = _type_name(each.subscription.msg_type)
    for publisher in node.get_publishers_info_by_topic(topic):
        if publisher.topic_type != expected:
            text = f"{_name(publisher)} publishes {publisher.topic_type} on {topic}, where {expected} is expected"
            remedy = "stop it, or set 'transport' and the names of topics to what the cameras publish"
            yield State(WRONG_TYPE, Level.ERROR, text, remedy, each.camera)
            continue
        compatible, reason = qos_check_compatible(publisher.qos_profile, each.subscription.qos_profile)
        if compatible == QoSCompatibility.ERROR:
            reason = reason.replace("ERROR: ", "").strip(" ;").lower()
            yield State(WRONG_QOS, Level.ERROR, f"{_name(publisher)} on {topic}: {reason}", _remedy(each), each.camera)


def _remedy(each: Listening) -> str:
    if each.camera:
        return "set 'reliability' to best_effort, or let it publish reliably"
    profile = each.subscription.qos_profile
    return f"let it publish {profile.reliability.name.lower()} and {profile.durability.name.lower()}"


def _type_name(message_type: type) -> str:
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def _name(publisher: TopicEndpointInfo) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
