"""What the node publishes: detections, tracks, what their classes mean, and markers."""

from collections.abc import Sequence

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, VisionClass
from visualization_msgs.msg import MarkerArray

try:  # LabelInfo came with Iron; VisionInfo is what Humble has in its place
    from vision_msgs.msg import LabelInfo
except ImportError:
    from vision_msgs.msg import VisionInfo as LabelInfo

from streampetr_core.geometry import Array, invert_transform
from streampetr_ros.markers import Shown, track_markers
from streampetr_ros.messages import DetectionArrays, Objects, point_cloud
from streampetr_ros.perception import Perceived

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """The publishers of a node; made on configure, used while it is active."""

    def __init__(
        self, node: LifecycleNode, class_names: Sequence[str], model: str, base_frame: str, depth: int
    ) -> None:
        """Make the publishers.

        Args:
            node: whose topics they are.
            class_names: of the labels.
            model: path of the model, the resource that holds the class names.
            base_frame: in which everything is published.
            depth: of the queues.
        """
        self._node = node
        self._class_names = class_names
        self._arrays = DetectionArrays(class_names)
        self._model = model
        self._base_frame = base_frame
        self._shown = Shown()
        create = node.create_lifecycle_publisher
        self._detections = create(Detection3DArray, "~/detections", depth)
        self._detection_points = create(PointCloud2, "~/detections/points", depth)
        self._tracks = create(Detection3DArray, "~/tracks", depth)
        self._objects = create(PointCloud2, "~/objects", depth)
        self._markers = create(MarkerArray, "~/markers", depth)
        self._label_info = create(LabelInfo, "~/label_info", _LATCHED)

    def begin(self, threshold: float) -> None:
        """Say what the classes are; call it when the node has become active."""
        self._shown = Shown()
        self._label_info.publish(label_info(self._header(0), self._class_names, self._model, threshold))

    def publish(
        self, stamp_ns: int, perceived: Perceived, base_T_ref: Array, world_T_ref: Array, threshold: float
    ) -> None:
        """Publish what was found at a time: detections from `threshold` on, and all tracks."""
        header = self._header(stamp_ns)
        detections = perceived.detections.select(perceived.detections.scores_D >= threshold)
        found = Objects.of_detections(detections, base_T_ref)
        tracks = Objects.of_tracks(perceived.tracks, base_T_ref)
        world_T_base = np.asarray(world_T_ref) @ invert_transform(base_T_ref)
        for publisher, make in (
            (self._detections, lambda: self._arrays.make(header, found)),
            (self._detection_points, lambda: point_cloud(header, found)),
            (self._tracks, lambda: self._arrays.make(header, tracks)),
            (self._objects, lambda: point_cloud(header, tracks)),
        ):
            if publisher.get_subscription_count():
                publisher.publish(make())
        if self._markers.get_subscription_count():
            markers, self._shown = track_markers(header, tracks, self._shown, world_T_base, self._class_names)
            self._markers.publish(markers)
        else:  # who comes later sees trails too
            self._shown = Shown(None, self._shown.trails.extended(tracks, stamp_ns / 1e9, world_T_base))

    def destroy(self) -> None:
        """Let go of the publishers."""
        publishers = (self._detections, self._detection_points, self._tracks, self._objects, self._markers)
        for publisher in (*publishers, self._label_info):
            self._node.destroy_lifecycle_publisher(publisher)

    def _header(self, stamp_ns: int) -> Header:
        return Header(frame_id=self._base_frame, stamp=Time(nanoseconds=stamp_ns).to_msg())


def label_info(header: Header, class_names: Sequence[str], model: str, threshold: float) -> LabelInfo:
    """Return what the numbers in the field `class` mean; on Humble, where they are written."""
    if not hasattr(LabelInfo(), "class_map"):
        return LabelInfo(header=header, method="StreamPETR", database_location=model)
    classes = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(class_names)]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)
