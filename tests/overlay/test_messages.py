"""The compiled messages are those of the published packages: type hashes as on the wire, and the bytes themselves."""

import numpy as np
import pytest
import rclpy
from ament_index_python import get_package_share_path
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionInfo,
)

# As the released packages tf2_msgs and vision_msgs of Jazzy and Kilted announce them.
PUBLISHED_HASHES = {
    TFMessage: "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    Detection3DArray: "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    LabelInfo: "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    VisionInfo: "RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
}


@pytest.fixture(scope="module")
def node():
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("hashes", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


def hash_text(type_hash):
    return f"RIHS{type_hash.version:02}_{bytes(type_hash.value).hex()}"


@pytest.mark.parametrize("message", PUBLISHED_HASHES, ids=lambda message: message.__name__)
def test_the_compiled_type_hash_is_the_published_one(node, message):
    topic = f"hash_of_{message.__name__}"
    publisher = node.create_publisher(message, topic, 1)
    (endpoint,) = node.get_publishers_info_by_topic(topic)
    node.destroy_publisher(publisher)
    assert hash_text(endpoint.topic_type_hash) == PUBLISHED_HASHES[message]


@pytest.fixture(scope="module")
def typestore():
    store = get_typestore(Stores.ROS2_KILTED)
    types = {}
    for path in (get_package_share_path("vision_msgs") / "msg").glob("*.msg"):
        types |= get_types_from_msg(path.read_text(), f"vision_msgs/msg/{path.stem}")
    store.register(types)
    return store


@pytest.mark.parametrize("message", PUBLISHED_HASHES, ids=lambda message: message.__name__)
def test_the_installed_definition_is_the_published_one(typestore, message):
    package = message.__module__.split(".", 1)[0]
    assert typestore.hash_rihs01(f"{package}/msg/{message.__name__}") == PUBLISHED_HASHES[message]


def make_detections():
    pose = Pose(position=Point(x=1.0, y=-2.0, z=0.5), orientation=Quaternion(x=0.0, y=0.0, z=0.6, w=0.8))
    hypothesis = ObjectHypothesisWithPose(
        hypothesis=ObjectHypothesis(class_id="pedestrian", score=0.75),
        pose=PoseWithCovariance(pose=pose, covariance=np.arange(36.0)),
    )
    detection = Detection3D(
        header=Header(stamp=Time(sec=7, nanosec=8), frame_id="base_link"),
        results=[hypothesis],
        bbox=BoundingBox3D(center=pose, size=Vector3(x=0.6, y=0.7, z=1.8)),
        id="17",
    )
    return Detection3DArray(header=detection.header, detections=[detection, Detection3D()])


def test_detections_survive_the_wire():
    detections = make_detections()
    assert deserialize_message(serialize_message(detections), Detection3DArray) == detections


def test_an_independent_reader_finds_every_field(typestore):
    read = typestore.deserialize_cdr(serialize_message(make_detections()), "vision_msgs/msg/Detection3DArray")
    first = read.detections[0]
    assert (first.id, first.header.frame_id, first.header.stamp.nanosec) == ("17", "base_link", 8)
    assert (first.bbox.size.x, first.bbox.size.y, first.bbox.size.z) == (0.6, 0.7, 1.8)
    (result,) = first.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("pedestrian", 0.75)
    np.testing.assert_array_equal(result.pose.covariance, np.arange(36.0))
    assert (result.pose.pose.orientation.z, result.pose.pose.orientation.w) == (0.6, 0.8)
