"""Bags of nuScenes scenes, judged by the tables and by nuscenes-devkit."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import transform_from_quaternion
from streampetr_ros.bag.from_nuscenes import write_bag
from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
from streampetr_ros.bag.types import type_store
from training.synth import WorldOptions, write_world

REPOSITORY = Path(__file__).resolve().parents[2]
KEYFRAME = REPOSITORY.parent / "shared" / "nuscenes_keyframe"
SCENES = {"synthetic": "scene-0002", "real": "scene-0061"}


@pytest.fixture(scope="module", autouse=True)
def vision_msgs(tmp_path_factory):
    """A prefix with the definitions of vision_msgs, so that the tests need no compiled ones."""
    prefix = tmp_path_factory.mktemp("prefix")
    shutil.copytree(REPOSITORY / "ros_overlay" / "vision_msgs" / "msg", prefix / "share" / "vision_msgs" / "msg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", str(prefix), prepend=":")
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "world"
    write_world(root, WorldOptions(scenes=2, samples=3, width=64, height=36, sweeps=True))
    return root


@pytest.fixture
def copy(world, tmp_path):
    """A copy of the synthetic world to spoil."""
    return Path(shutil.copytree(world, tmp_path / "copy"))


def edit(root: Path, table: str, change) -> None:
    path = next(root.glob(f"v1.0-*/{table}.json"))
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows)))


def convert(root: Path, name: str, out: Path, **options) -> Path:
    write_bag(read_scene(open_root(root), name, **options), out)
    return out


def contents(bag: Path) -> dict[str, list]:
    """Return topic -> list of (log time, message), in the order of the file."""
    store, messages = type_store(), defaultdict(list)
    with Reader(bag) as reader:
        for connection, stamp_ns, data in reader.messages():
            messages[connection.topic].append((stamp_ns, store.deserialize_cdr(data, connection.msgtype)))
    return messages


@pytest.fixture(scope="module", params=["synthetic", "real"])
def case(request, world, tmp_path_factory):
    """The devkit's tables, the records of the scene's sensors, the bag's path and what is in it."""
    if request.param == "real" and not KEYFRAME.is_dir():
        pytest.skip("the real keyframe is not on this machine")
    root, name = (world if request.param == "synthetic" else KEYFRAME), SCENES[request.param]
    bag = convert(root, name, tmp_path_factory.mktemp("bags") / "bag")
    tables = NuScenes(next(root.glob("v1.0-*")).name, str(root), verbose=False)
    scene = next(scene for scene in tables.scene if scene["name"] == name)
    samples = [sample for sample in tables.sample if sample["scene_token"] == scene["token"]]
    tokens = {sample["token"] for sample in samples}
    records = [record for record in tables.sample_data if record["sample_token"] in tokens]
    return tables, samples, sorted(records, key=lambda record: record["timestamp"]), bag, contents(bag)


def cameras_of(records) -> list[str]:
    return sorted({record["channel"] for record in records if record["sensor_modality"] == "camera"})


def stamp_of(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def matrix_of(transform) -> np.ndarray:
    """Return the 4x4 matrix of a ROS transform or pose."""
    place = getattr(transform, "translation", None) or transform.position
    turn = getattr(transform, "rotation", None) or transform.orientation
    return transform_from_quaternion([turn.w, turn.x, turn.y, turn.z], [place.x, place.y, place.z])


def sensor_to_lidar(tables, record, lidar) -> np.ndarray:
    """Return lidar@t_lidar_T_cam@t_cam through the global frame, as official code does it."""
    chain = np.eye(4)
    for row, inverse in ((record, False), (lidar, True)):
        calibration = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
        ego = tables.get("ego_pose", row["ego_pose_token"])
        steps = [(item["translation"], Quaternion(item["rotation"])) for item in (calibration, ego)]
        for step in reversed(steps) if inverse else steps:
            chain = transform_matrix(*step, inverse=inverse) @ chain
    return chain


def test_images_are_the_files_byte_for_byte_at_the_sensors_own_times(case):
    tables, _, records, _, messages = case
    for channel in cameras_of(records):
        images = messages[f"/{channel.lower()}/image_raw/compressed"]
        files = [record for record in records if record["channel"] == channel]
        assert len(images) == len(files)
        for (log_ns, image), record in zip(images, files, strict=True):
            assert log_ns == stamp_of(image) == record["timestamp"] * 1000
            assert image.data.tobytes() == Path(tables.dataroot, record["filename"]).read_bytes()
            assert (image.format, image.header.frame_id) == ("jpeg", channel.lower())


def test_camera_info_is_the_tables_calibration_beside_every_image(case):
    tables, _, records, _, messages = case
    for channel in cameras_of(records):
        infos = messages[f"/{channel.lower()}/camera_info"]
        files = [record for record in records if record["channel"] == channel]
        assert [log_ns for log_ns, _ in infos] == [record["timestamp"] * 1000 for record in files]
        for (log_ns, info), record in zip(infos, files, strict=True):
            k = np.array(tables.get("calibrated_sensor", record["calibrated_sensor_token"])["camera_intrinsic"])
            assert stamp_of(info) == log_ns and info.header.frame_id == channel.lower()
            assert (info.width, info.height) == (record["width"], record["height"])
            assert np.array_equal(info.k.reshape(3, 3), k)
            assert np.array_equal(info.p.reshape(3, 4), np.hstack([k, np.zeros((3, 1))]))
            assert np.array_equal(info.r.reshape(3, 3), np.eye(3))
            assert info.distortion_model == "plumb_bob" and info.d.tolist() == [0.0] * 5


def test_transforms_in_the_bag_lead_from_each_exposure_to_the_lidar(case):
    tables, samples, records, _, messages = case
    odometry = {log_ns: message.transforms[0] for log_ns, message in messages["/tf"]}
    assert all((step.header.frame_id, step.child_frame_id) == ("odom", "base_link") for step in odometry.values())
    assert all(stamp_of(step) == log_ns for log_ns, step in odometry.items())
    ((_, static),) = messages["/tf_static"]
    fixed = {(step.header.frame_id, step.child_frame_id): matrix_of(step.transform) for step in static.transforms}
    assert np.array_equal(fixed["map", "odom"], np.eye(4))
    assert set(fixed) == {("map", "odom"), ("base_link", "lidar_top")} | {
        ("base_link", channel.lower()) for channel in cameras_of(records)
    }
    lidar = tables.get("sample_data", samples[-1]["data"]["LIDAR_TOP"])
    odom_T_lidar = matrix_of(odometry[lidar["timestamp"] * 1000].transform) @ fixed["base_link", "lidar_top"]
    for record in records:
        if record["sensor_modality"] == "camera":
            odom_T_base = matrix_of(odometry[record["timestamp"] * 1000].transform)
            odom_T_cam = odom_T_base @ fixed["base_link", record["channel"].lower()]
            lidar_T_cam = np.linalg.inv(odom_T_lidar) @ odom_T_cam
            np.testing.assert_allclose(lidar_T_cam, sensor_to_lidar(tables, record, lidar), atol=1e-6)


def test_tf2_finds_the_same_from_the_exposure_times(case):
    tf2_ros = pytest.importorskip("tf2_ros")
    from geometry_msgs.msg import TransformStamped
    from rclpy.duration import Duration
    from rclpy.time import Time

    def converted(step) -> TransformStamped:
        message = TransformStamped(child_frame_id=step.child_frame_id)
        message.header.frame_id = step.header.frame_id
        message.header.stamp.sec, message.header.stamp.nanosec = step.header.stamp.sec, step.header.stamp.nanosec
        for part, axes in (("translation", "xyz"), ("rotation", "xyzw")):
            for axis in axes:
                value = getattr(getattr(step.transform, part), axis)
                setattr(getattr(message.transform, part), axis, value)
        return message

    tables, samples, records, _, messages = case
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=60))
    for step in messages["/tf_static"][0][1].transforms:
        buffer.set_transform_static(converted(step), "test")
    for _, message in messages["/tf"]:
        buffer.set_transform(converted(message.transforms[0]), "test")
    lidar = tables.get("sample_data", samples[-1]["data"]["LIDAR_TOP"])
    reference = Time(nanoseconds=lidar["timestamp"] * 1000)
    for record in records:
        if record["sensor_modality"] == "camera":
            exposure = Time(nanoseconds=record["timestamp"] * 1000)
            found = buffer.lookup_transform_full("lidar_top", reference, record["channel"].lower(), exposure, "odom")
            expected = sensor_to_lidar(tables, record, lidar)
            np.testing.assert_allclose(matrix_of(found.transform), expected, atol=1e-6)


def test_ground_truth_is_the_devkits_boxes_in_base_link(case):
    tables, samples, _, _, messages = case
    assert len(messages["/ground_truth"]) == len(samples)
    for (log_ns, array), sample in zip(messages["/ground_truth"], samples, strict=True):
        lidar = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
        assert log_ns == stamp_of(array) == lidar["timestamp"] * 1000 and array.header.frame_id == "base_link"
        calibration = tables.get("calibrated_sensor", lidar["calibrated_sensor_token"])
        base_T_lidar = transform_matrix(calibration["translation"], Quaternion(calibration["rotation"]))
        _, boxes, _ = tables.get_sample_data(lidar["token"])
        boxes = {tables.get("sample_annotation", box.token)["instance_token"]: box for box in boxes}
        assert {detection.id for detection in array.detections} == set(boxes) and boxes
        for detection in array.detections:
            box = boxes[detection.id]
            width, length, height = box.wlh
            base_T_box = base_T_lidar @ transform_matrix(box.center, box.orientation)
            np.testing.assert_allclose(matrix_of(detection.bbox.center), base_T_box, atol=1e-6)
            size = detection.bbox.size
            assert (size.x, size.y, size.z) == (length, width, height)
            (result,) = detection.results
            assert result.hypothesis.class_id == category_to_detection_name(box.name)
            assert result.hypothesis.score == 1.0
            assert result.pose.pose == detection.bbox.center


def test_samples_are_marked_and_everything_is_in_the_order_of_time(case):
    tables, samples, _, bag, messages = case
    marks = [(log_ns, message.data) for log_ns, message in messages["/nuscenes/sample"]]
    lidars = [tables.get("sample_data", sample["data"]["LIDAR_TOP"]) for sample in samples]
    assert marks == [(lidar["timestamp"] * 1000, lidar["sample_token"]) for lidar in lidars]
    with Reader(bag) as reader:
        order = [(connection.topic, stamp_ns) for connection, stamp_ns, _ in reader.messages()]
        offers = {connection.topic: connection.ext.offered_qos_profiles[0] for connection in reader.connections}
    stamps = [stamp_ns for _, stamp_ns in order]
    assert stamps == sorted(stamps) and order[0][0] == "/tf_static"
    images = [stamp_ns for topic, stamp_ns in order if topic.endswith("compressed")]
    poses = [log_ns for log_ns, _ in messages["/tf"]]
    assert poses == sorted(set(poses)) and poses[0] <= images[0] and images[-1] <= poses[-1]
    seen: set[int] = set()
    for topic, stamp_ns in order:
        seen |= {stamp_ns} if topic == "/tf" else set()
        assert topic in ("/tf", "/tf_static") or stamp_ns in seen, f"{topic} comes before the pose of its time"
    assert all(offer.reliability is QosReliability.RELIABLE for offer in offers.values())
    latched = {topic for topic, offer in offers.items() if offer.durability is QosDurability.TRANSIENT_LOCAL}
    assert latched == {"/tf_static"}


def test_without_sweeps_images_are_those_of_keyframes_and_odometry_stays(world, tmp_path):
    every = contents(convert(world, "scene-0001", tmp_path / "every"))
    key = contents(convert(world, "scene-0001", tmp_path / "key", sweeps=False))
    topic = "/cam_front/image_raw/compressed"
    assert (len(every[topic]), len(key[topic]), len(key["/cam_front/camera_info"])) == (13, 3, 3)
    assert len(every["/tf"]) == len(key["/tf"]) > 13


def test_sweeps_before_the_first_keyframe_belong_to_the_scene(copy, tmp_path):
    def add_early(rows):
        front = [row for row in rows if "CAM_FRONT__" in row["filename"] and row["prev"] == ""]
        early = [{**row, "token": row["token"][::-1], "timestamp": row["timestamp"] - 80_000} for row in front]
        return rows + [{**row, "is_key_frame": False} for row in early]

    before = contents(convert(copy, "scene-0001", tmp_path / "before"))
    edit(copy, "sample_data", add_early)
    after = contents(convert(copy, "scene-0001", tmp_path / "after"))
    first_ns = before["/cam_front/image_raw/compressed"][0][0]
    assert after["/cam_front/image_raw/compressed"][0][0] == first_ns - 80_000_000
    assert after["/tf_static"][0][0] == after["/tf"][0][0] == first_ns - 80_000_000


def test_other_categories_are_left_out_and_a_test_set_has_no_ground_truth(copy, tmp_path):
    everything = contents(convert(copy, "scene-0001", tmp_path / "all"))
    edit(copy, "category", lambda rows: [{**row, "name": row["name"].replace("vehicle.car", "animal")} for row in rows])
    kept = contents(convert(copy, "scene-0001", tmp_path / "kept"))

    def classes(messages) -> list[str]:
        return [
            box.results[0].hypothesis.class_id for _, array in messages["/ground_truth"] for box in array.detections
        ]

    assert "car" in classes(everything)
    assert classes(kept) == [name for name in classes(everything) if name != "car"]
    edit(copy, "sample_annotation", lambda rows: [])
    assert "/ground_truth" not in contents(convert(copy, "scene-0001", tmp_path / "test_set"))


def test_what_cannot_be_converted_is_said_in_one_line_and_leaves_nothing(copy, tmp_path):
    out = tmp_path / "bags" / "bag"
    with pytest.raises(StreampetrError, match=r"no nuScenes tables here"):
        open_root(tmp_path / "nowhere")
    with pytest.raises(StreampetrError, match=r"no version 'v9'; there are: v1.0-synth"):
        open_root(copy, "v9")
    with pytest.raises(StreampetrError, match=r"no scene 'scene-1234'; there are: scene-0001, scene-0002"):
        read_scene(open_root(copy), "scene-1234")
    scene = read_scene(open_root(copy), "scene-0001")
    scene.exposures[4].path.write_bytes(b"no picture")
    with pytest.raises(StreampetrError, match=f"{scene.exposures[4].path.name}: neither a JPEG nor a PNG image"):
        write_bag(scene, out)
    scene.exposures[4].path.unlink()
    with pytest.raises(StreampetrError, match=f"{scene.exposures[4].path.name}: image file is missing; .*--no-sweeps"):
        write_bag(scene, out)
    assert list(out.parent.iterdir()) == []
    shutil.copytree(copy / "v1.0-synth", copy / "v1.0-mini")
    with pytest.raises(StreampetrError, match=r"several versions; choose one with --version: v1.0-mini, v1.0-synth"):
        open_root(copy)
    (copy / "v1.0-mini" / "ego_pose.json").write_text("[")
    with pytest.raises(StreampetrError, match=r"nuscenes-devkit cannot load these tables"):
        open_root(copy, "v1.0-mini")


def test_tables_that_no_bag_can_say_are_refused(copy):
    def recalibrate(rows):
        chosen = next(row for row in rows if "CAM_BACK__" in row["filename"])
        other = next(row for row in rows if "CAM_BACK__" in row["filename"] and "scene-0002" in row["filename"])
        chosen["calibrated_sensor_token"] = other["calibrated_sensor_token"]
        return rows

    edit(copy, "sample_data", recalibrate)
    with pytest.raises(StreampetrError, match="scene-0001: the calibration of CAM_BACK changes"):
        read_scene(open_root(copy), "scene-0001")
    edit(copy, "sample_data", lambda rows: [row for row in rows if "LIDAR_TOP" not in row["filename"]])
    with pytest.raises(StreampetrError, match="no LIDAR_TOP record"):
        read_scene(open_root(copy), "scene-0002")


def test_an_existing_bag_is_replaced_by_force_only_and_other_folders_never(world, tmp_path):
    scene = read_scene(open_root(world), "scene-0001", sweeps=False)
    bag, folder = tmp_path / "bag", tmp_path / "folder"
    write_bag(scene, bag)
    before = (bag / "bag.mcap").stat().st_ino
    with pytest.raises(StreampetrError, match=r"exists already.*--force"):
        write_bag(scene, bag)
    assert (bag / "bag.mcap").stat().st_ino == before
    write_bag(scene, bag, force=True)
    assert (bag / "bag.mcap").stat().st_ino != before
    folder.mkdir()
    with pytest.raises(StreampetrError, match="is no bag"):
        write_bag(scene, folder, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "folder"]


def test_without_vision_msgs_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(StreampetrError, match="vision_msgs is not installed: install"):
        type_store()
