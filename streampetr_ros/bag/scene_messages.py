"""A nuScenes scene as ROS messages: what a robot with nuScenes' sensors would have recorded, and the ground truth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from rosbags.typesys.store import Typestore

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.nuscenes_scene import REFERENCE, Camera, Exposure, Keyframe, Pose, Scene

MAP, ODOM, BASE = "map", "odom", "base_link"
GROUND_TRUTH_TOPIC = "/ground_truth"
SAMPLE_TOPIC = "/nuscenes/sample"
REFERENCE_TOPIC = f"/{REFERENCE.lower()}/stamp"
_TF = "tf2_msgs/msg/TFMessage"
_INFO = "sensor_msgs/msg/CameraInfo"
_IMAGE = "sensor_msgs/msg/CompressedImage"
_TRUTH = "vision_msgs/msg/Detection3DArray"
_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}


@dataclass(frozen=True)
class Event:
    """One message to come: its log time, topic and type, and how to make it (images are read only then)."""

    stamp_ns: int
    topic: str
    msgtype: str
    build: Callable[[], object]


def frame_of(channel: str) -> str:
    """Return the frame id of a nuScenes channel; a camera's is its optical frame."""
    return channel.lower()


def image_topic(channel: str) -> str:
    """Return the topic of a camera's JPEG images."""
    return f"/{channel.lower()}/image_raw/compressed"


def info_topic(channel: str) -> str:
    """Return the topic of a camera's calibration."""
    return f"/{channel.lower()}/camera_info"


def scene_messages(scene: Scene, store: Typestore) -> list[Event]:
    """Return every message of a scene in the order of log time, which is the time its header says.

    At one time, transforms come first, then what needs them. The last pose is at or after the last image, so a
    transform at any exposure time is found by interpolation.
    """
    make = Messages(store)
    start_ns = min(scene.poses[0][0], scene.keyframes[0].stamp_ns)
    events = [Event(start_ns, "/tf_static", _TF, partial(make.static_transforms, start_ns, scene))]
    for stamp_ns, pose in scene.poses:
        events.append(Event(stamp_ns, "/tf", _TF, partial(make.odometry, stamp_ns, pose)))
    for shot in scene.exposures:
        info = partial(make.camera_info, shot, scene.cameras[shot.channel])
        events.append(Event(shot.stamp_ns, info_topic(shot.channel), _INFO, info))
        events.append(Event(shot.stamp_ns, image_topic(shot.channel), _IMAGE, partial(make.image, shot)))
    for stamp_ns in scene.sweeps:
        events.append(Event(stamp_ns, REFERENCE_TOPIC, "std_msgs/msg/Header", partial(make.reference, stamp_ns)))
    for key in scene.keyframes:
        events.append(Event(key.stamp_ns, SAMPLE_TOPIC, "std_msgs/msg/String", partial(make.sample, key)))
        if scene.annotated:
            events.append(Event(key.stamp_ns, GROUND_TRUTH_TOPIC, _TRUTH, partial(make.truth, key)))
    return sorted(events, key=lambda event: event.stamp_ns)


class Messages:
    """Makes ROS messages (of the types in a rosbags type store) from the values of a scene."""

    def __init__(self, store: Typestore) -> None:
        """Take the store whose message classes are used; it must know vision_msgs."""
        self._types = store.types

    def static_transforms(self, stamp_ns: int, scene: Scene) -> object:
        """Return map -> odom (identity) and base_link -> every camera and the LiDAR."""
        identity = Pose((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
        sensors = {channel: camera.base_T_cam for channel, camera in scene.cameras.items()}
        sensors[REFERENCE] = scene.base_T_lidar
        transforms = [self._transform(stamp_ns, MAP, ODOM, identity)]
        transforms += [self._transform(stamp_ns, BASE, frame_of(name), pose) for name, pose in sensors.items()]
        return self._new(_TF, transforms)

    def odometry(self, stamp_ns: int, odom_T_base: Pose) -> object:
        """Return the transform odom -> base_link."""
        return self._new(_TF, [self._transform(stamp_ns, ODOM, BASE, odom_T_base)])

    def camera_info(self, exposure: Exposure, camera: Camera) -> object:
        """Return the calibration of an exposure; nuScenes' images are undistorted, so D is zero and P is K."""
        k = np.array(camera.intrinsics, dtype=np.float64)
        p = np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).ravel()
        header = self._header(exposure.stamp_ns, frame_of(exposure.channel))
        roi = self._new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        return self._new(
            _INFO, header, exposure.height, exposure.width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi
        )

    def image(self, exposure: Exposure) -> object:
        """Return the bytes of the image file as they are."""
        data = exposure.path.read_bytes()
        if data[:3] not in _MAGIC:
            raise StreampetrError(f"{exposure.path}: neither a JPEG nor a PNG image")
        header = self._header(exposure.stamp_ns, frame_of(exposure.channel))
        return self._new(_IMAGE, header, _MAGIC[data[:3]], np.frombuffer(data, dtype=np.uint8))

    def sample(self, keyframe: Keyframe) -> object:
        """Return the sample token, which marks the time of a keyframe."""
        return self._new("std_msgs/msg/String", keyframe.sample_token)

    def reference(self, stamp_ns: int) -> object:
        """Return the time of a sweep of the LiDAR, to which training refers everything around it."""
        return self._header(stamp_ns, frame_of(REFERENCE))

    def truth(self, keyframe: Keyframe) -> object:
        """Return the annotated boxes in base_link: size x is the length, y the width, z the height."""
        header = self._header(keyframe.stamp_ns, BASE)
        detections = []
        for box in keyframe.boxes:
            pose = self._pose(box.base_T_box)
            hypothesis = self._new("vision_msgs/msg/ObjectHypothesis", box.class_name, 1.0)
            with_covariance = self._new("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36))
            result = self._new("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis, with_covariance)
            size = self._new("geometry_msgs/msg/Vector3", *box.size_lwh)
            bbox = self._new("vision_msgs/msg/BoundingBox3D", pose, size)
            detections.append(self._new("vision_msgs/msg/Detection3D", header, [result], bbox, box.instance_token))
        return self._new(_TRUTH, header, detections)

    def _transform(self, stamp_ns: int, parent: str, child: str, parent_T_child: Pose) -> object:
        transform = self._new(
            "geometry_msgs/msg/Transform",
            self._new("geometry_msgs/msg/Vector3", *parent_T_child.translation),
            self._quaternion(parent_T_child),
        )
        return self._new("geometry_msgs/msg/TransformStamped", self._header(stamp_ns, parent), child, transform)

    def _pose(self, pose: Pose) -> object:
        position = self._new("geometry_msgs/msg/Point", *pose.translation)
        return self._new("geometry_msgs/msg/Pose", position, self._quaternion(pose))

    def _quaternion(self, pose: Pose) -> object:
        w, x, y, z = pose.quaternion_wxyz
        return self._new("geometry_msgs/msg/Quaternion", x, y, z, w)

    def _header(self, stamp_ns: int, frame: str) -> object:
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        return self._new("std_msgs/msg/Header", self._new("builtin_interfaces/msg/Time", seconds, nanoseconds), frame)

    def _new(self, msgtype: str, *fields: object) -> object:
        return self._types[msgtype](*fields)
