"""Sends transforms that hold for all time."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class StaticTransformBroadcaster:
    """Publishes on /tf_static, latched: who comes later still gets everything that was sent."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos)
        self._sent: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Add one transform or several to those sent before (the last of a child frame counts), and send them all."""
        transforms = [transform] if isinstance(transform, TransformStamped) else list(transform)
        self._sent |= {each.child_frame_id: each for each in transforms}
        self.pub_tf.publish(TFMessage(transforms=list(self._sent.values())))
