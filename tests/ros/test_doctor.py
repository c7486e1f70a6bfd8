"""The doctor finds nothing wrong in a sound bag, and by name what was spoilt in another."""

import argparse
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.interfaces import QosReliability

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import make_transform
from streampetr_ros.bag.play import PlayOptions, play
from streampetr_ros.bag.qos import reliable
from streampetr_ros.commands import doctor as command
from streampetr_ros.doctor.examination import examine
from streampetr_ros.doctor.findings import Severity
from streampetr_ros.doctor.read_bag import read_bag
from streampetr_ros.parameters import NUSCENES_CAMERAS, parameters_from
from tests.ros.doctored import (
    Spoiler,
    arriving,
    edited,
    posed,
    put,
    renamed,
    stamped,
    turned,
    whole,
    without,
    write_scene_bag,
)

ROOT = Path(__file__).parents[2]
IMAGES, INFO = "/cam_back/image_raw/compressed", "/cam_back/camera_info"
# The frame of the camera's body: x forward, y left, z up.
OPTICAL_T_BODY = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_scene_bag(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def spoiler(bag):
    return Spoiler(bag)


def findings(bag, **parameters):
    expected = parameters_from(parameters)
    return examine(expected, read_bag(bag, expected))


def wrong(found):
    return {(each.name, each.subject): each for each in found if each.severity is not Severity.OK}


def info_field(**changes):
    def edit(message):
        for name, change in changes.items():
            put(message, name, change(getattr(message, name)))

    return edited(INFO, edit)


def moved(change):
    """Mount the back camera elsewhere."""
    return posed(lambda child, matrix, _: change(matrix) if child == "cam_back" else matrix)


def driven(change):
    return posed(lambda child, matrix, seconds: change(matrix, seconds) if child == "base_link" else matrix)


def backwards(odom_T_base, _seconds):
    odom_T_base[:3, 3] *= -1
    return odom_T_base


def jumping(metres):
    def change(odom_T_base, seconds):
        odom_T_base[:3, 3] += metres * (seconds > 0.5)
        return odom_T_base

    return change


def framed(name):
    return lambda message: put(message.header, "frame_id", name)


def cut(message):
    put(message, "data", message.data[: len(message.data) // 2])


def broken(message):
    put(message, "data", np.full(1000, 7, np.uint8))


def two_parents(spoiler, topic, message, at):
    yield topic, message, at
    if topic == "/tf_static":
        again = spoiler.copy(message)
        put(again, "transforms", [each for each in again.transforms if each.child_frame_id == "cam_back"])
        put(again.transforms[0].header, "frame_id", "lidar_top")
        yield topic, again, at


def not_finite(message):
    put(message.transforms[0].transform.translation, "x", math.nan)


def as_text(spoiler, topic, message, at):
    yield topic, spoiler.store.types["std_msgs/msg/String"]("calibration") if topic == INFO else message, at


def repeated(_spoiler, topic, message, at):
    yield topic, message, at
    if topic == IMAGES:
        yield topic, message, at + 1_000_000


def swapped_in_time(_spoiler, topic, message, at):
    """Let the images of one camera come in another order: each third one 100 ms later."""
    late = topic == IMAGES and message.header.stamp.nanosec // 83_000_000 % 3 == 0
    yield topic, message, at + 100_000_000 * late


def test_a_sound_bag_has_neither_errors_nor_warnings(bag):
    found = findings(bag)
    assert wrong(found) == {}
    names = [each.name for each in found]
    assert names.count("topics") == 14 and names.count("CameraInfo") == names.count("mounting") == 6
    assert names.count("static things") == 6
    once = ("rhythm", "sets", "latency", "transforms", "transform rate", "camera order", "reference frame", "odometry")
    assert [names.count(name) for name in once] == [1] * len(once)
    sets = next(each for each in found if each.name == "sets")
    assert sets.found == "13 sets of 78 images, 13 of them with all 6 cameras"


SPOILT = {
    "renamed topic": (renamed(IMAGES, "/cam_back/image_rect/compressed"), "no images", IMAGES),
    "no calibration": (without(lambda topic, _: topic == INFO), "no CameraInfo", INFO),
    "no tf": (without(lambda topic, _: topic == "/tf"), "no transforms", "/tf"),
    "wrong type": (as_text, "wrong type", INFO),
    "zero K": (info_field(k=lambda k: 0 * k), "unusable CameraInfo", "cam_back"),
    "NaN in K": (info_field(k=lambda k: k * math.nan), "unusable CameraInfo", "cam_back"),
    "unknown lens": (
        info_field(distortion_model=lambda _: "omnidirectional", d=lambda d: d + 0.1),
        "unusable CameraInfo",
        "cam_back",
    ),
    "seven coefficients": (info_field(d=lambda _: np.full(7, 0.1)), "unusable CameraInfo", "cam_back"),
    "other size": (info_field(width=lambda width: 2 * width), "image size", "cam_back"),
    "K of another size": (info_field(k=lambda k: np.where(k == 1, k, 5 * k)), "principal point", "cam_back"),
    "no frame": (edited(IMAGES, framed("")), "frame_id", "cam_back"),
    "unknown frame": (edited(IMAGES, framed("cam_bakc")), "no transform", "cam_bakc"),
    "half a JPEG": (edited(IMAGES, cut), "unusable images", "cam_back"),
    "no JPEG at all": (edited(IMAGES, broken), "unusable images", "cam_back"),
    "no static transform": (
        posed(lambda child, matrix, _: None if child == "cam_back" else matrix),
        "no transform",
        "cam_back",
    ),
    "static odometry": (renamed("/tf", "/other"), "no transform", "base_link"),
    "body frame": (moved(lambda pose: pose @ OPTICAL_T_BODY), "optical frame", "cam_back"),
    "rolled": (moved(lambda pose: pose @ turned((0, 0, 90))), "optical frame", "cam_back"),
    "upside down": (moved(lambda pose: pose @ turned((0, 0, 180))), "upside down", "cam_back"),
    "two parents": (two_parents, "two parents", "cam_back"),
    "reference on the ground": (
        posed(lambda child, matrix, _: np.eye(4) if child == "lidar_top" else matrix),
        "reference frame",
        "lidar_top",
    ),
    "zero stamps": (stamped("/cam_back/", None), "zero stamps", "cam_back"),
    "other clock": (stamped("/cam_back/", 2.0), "stamps apart", "cam_back"),
    "stamps of the future": (stamped("image_raw", 0.3), "stamps in the future", ""),
    "other order": (swapped_in_time, "stamps go back", "cam_back"),
    "standing odometry": (driven(lambda matrix, _: np.eye(4)), "static things", ""),
    "wrong sign": (driven(backwards), "odometry sign", ""),
    "jump": (driven(jumping(30.0)), "odometry jump", ""),
    "late odometry": (arriving("/tf", 0.7), "transform lag", "odom -> base_link"),
    "odometry that ends": (without(lambda topic, s: topic == "/tf" and s > 0.4), "extrapolation", "cam_back"),
    "invalid transform": (edited("/tf_static", not_finite), "invalid transform", "odom"),
}
SUSPICIOUS = {
    "lost images": (
        without(lambda topic, s: topic == IMAGES and round(12 * s) % 4 == 1),
        "lost images",
        "cam_back",
    ),
    "slow images": (arriving("image_raw", 0.8), "latency", ""),
    "replayed": (arriving("", 1e6), "other clock", ""),
    "repeated images": (repeated, "duplicate stamps", "cam_back"),
    "gap in the odometry": (
        without(lambda topic, s: topic == "/tf" and 0.2 < s < 0.8),
        "transform gap",
        "odom -> base_link",
    ),
    "frames differ": (edited(INFO, framed("back")), "frame_id", "cam_back"),
    "narrow view": (
        info_field(k=lambda k: k * np.array([20, 1, 1, 1, 20, 1, 1, 1, 1])),
        "focal length",
        "cam_back",
    ),
    "camera below ground": (
        moved(lambda pose: make_transform(pose[:3, :3], pose[:3, 3] - (0, 0, 2))),
        "camera height",
        "cam_back",
    ),
    "small jump": (driven(jumping(0.5)), "odometry jump", ""),
    "driving backwards": (driven(backwards), "odometry direction", "base_link"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_spoilt_is_an_error_by_name(case, spoiler, tmp_path):
    assert_found(spoiler, tmp_path, *SPOILT[case], Severity.ERROR)


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_what_is_suspicious_is_a_warning_by_name(case, spoiler, tmp_path):
    assert_found(spoiler, tmp_path, *SUSPICIOUS[case], Severity.WARNING)


def assert_found(spoiler, folder, change, name, subject, severity):
    found = wrong(findings(spoiler.write(folder / "bag", change)))
    assert (name, subject) in found, list(found)
    finding = found[name, subject]
    assert finding.severity is severity
    assert finding.expected and finding.found and finding.remedy


def test_near_misses_are_suggested(spoiler, tmp_path):
    found = wrong(findings(spoiler.write(tmp_path / "a", renamed(IMAGES, "/cam_back/image_rect/compressed"))))
    assert "did you mean /cam_back/image_rect/compressed?" in found["no images", IMAGES].remedy
    found = wrong(findings(spoiler.write(tmp_path / "b", edited(IMAGES, framed("cam_bakc")))))
    assert "did you mean cam_back" in found["no transform", "cam_bakc"].remedy


def test_images_that_come_in_another_transport_are_named(bag):
    found = wrong(findings(bag, transport="raw"))
    assert (
        found["no images", "/cam_back/image_raw"].remedy
        == f"{IMAGES} is there: set the parameter 'transport' to compressed"
    )


def test_quality_of_service_that_matches_nobody_is_an_error(spoiler, tmp_path):
    best_effort = reliable(5)._replace(reliability=QosReliability.BEST_EFFORT)
    offers = {"/tf": best_effort, IMAGES: best_effort, "/tf_static": reliable(5)}
    bag = spoiler.write(tmp_path / "bag", whole, offers)
    found = wrong(findings(bag))
    assert set(found) == {("quality of service", "/tf"), ("quality of service", "/tf_static")}
    assert ("quality of service", IMAGES) in wrong(findings(bag, reliability="reliable"))


def test_another_order_of_the_cameras_is_told_with_the_right_one(bag):
    order = ["cam_front", "cam_front_left", "cam_front_right", "cam_back", "cam_back_left", "cam_back_right"]
    found = wrong(findings(bag, cameras=order))
    assert list(found) == [("camera order", "cam_front_left, cam_front_right")]
    assert (
        f"set 'cameras' to [{', '.join(NUSCENES_CAMERAS)}]"
        in found["camera order", "cam_front_left, cam_front_right"].remedy
    )


def test_mirrored_cameras_are_told_by_their_pictures_and_by_their_names(spoiler, tmp_path):
    poses = {}

    def mirror(child, matrix, _seconds):
        poses.setdefault(child, matrix)
        other = {"cam_front_left": "cam_front_right", "cam_front_right": "cam_front_left"}.get(child, child)
        return poses[other]

    spoiler.write(tmp_path / "sound", posed(lambda child, matrix, _: poses.setdefault(child, matrix)))
    found = wrong(
        findings(spoiler.write(tmp_path / "bag", posed(lambda *a: mirror(*a) if a[0] != "base_link" else a[1])))
    )
    for camera, other in (("cam_front_left", "cam_front_right"), ("cam_front_right", "cam_front_left")):
        assert found["camera pose", camera].severity is Severity.ERROR
        assert f"where {other} does" in found["camera pose", camera].remedy
        assert found["camera side", camera].severity is Severity.WARNING
    assert ("camera pose", "cam_front") not in found and ("camera pose", "cam_back") not in found
    assert any(name == "camera order" for name, _ in found)


def test_two_cameras_at_one_place_are_an_error(spoiler, tmp_path):
    names = {"/cam_front_left/image_raw/compressed", "/cam_front_left/camera_info"}
    found = wrong(findings(spoiler.write(tmp_path / "bag", shared_frame(names, "cam_front_right"))))
    assert found["same pose", "cam_front_right, cam_front_left"].severity is Severity.ERROR


def shared_frame(topics, frame):
    def change(_spoiler, topic, message, at):
        if topic in topics:
            put(message.header, "frame_id", frame)
        yield topic, message, at

    return change


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(each) for each in arguments]))


def test_the_command_writes_findings_and_a_picture(bag, tmp_path, capsys):
    run(bag, "--out", tmp_path / "doctor.png", "--json", tmp_path / "doctor.json")
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    values = json.loads((tmp_path / "doctor.json").read_text())
    assert values["counts"]["error"] == 0 and values["counts"]["ok"] == len(values["findings"])
    picture = cv2.imread(str(tmp_path / "doctor.png"))
    assert picture.shape == (34 + 2 * 360, 3 * 640, 3)
    # The front camera is the middle one of the upper row. The synthetic cars stand on a plane, and it looks level:
    # the horizon, in yellow, is a little below its middle.
    front = picture[34 : 34 + 360, 640:1280].astype(int)
    rows = np.argwhere((abs(front - (0, 220, 255)) < 60).all(axis=2))[:, 0]
    assert len(rows) > 400 and rows.std() < 5
    assert 150 < rows.mean() < 230


def test_the_command_fails_where_there_is_an_error(spoiler, tmp_path, capsys):
    bag = spoiler.write(tmp_path / "bag", info_field(k=lambda k: 0 * k))
    with pytest.raises(StreampetrError, match="1 errors, .*remedies"):
        run(bag, "--out", tmp_path / "doctor.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "error    unusable CameraInfo: cam_back"
    assert lines[3].split()[0] == "remedy" and "camera_calibration" in lines[3]
    assert (tmp_path / "doctor.png").is_file()


def test_the_parameter_file_of_the_node_tells_what_is_expected(bag, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("/**:\n  ros__parameters:\n    fixed_frame: world\n    use_sim_time: true\n")
    with pytest.raises(StreampetrError, match="errors"):
        run(bag, "--params", params, "--out", tmp_path / "doctor.png", "--json", tmp_path / "a.json")
    names = {(each["name"], each["subject"]) for each in json.loads((tmp_path / "a.json").read_text())["findings"]}
    assert ("no transform", "base_link") in names
    run(bag, "--params", params, "--fixed-frame", "odom", "--out", tmp_path / "doctor.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "no parameter file"),
        ("/**:\n  ros__parameters:\n    fixed_farme: odom", "no parameter 'fixed_farme'"),
        ("/**:\n  ros__parameters:\n    max_wait: soon", "parameter 'max_wait' is 'soon'"),
    ],
)
def test_a_wrong_parameter_file_is_told(bag, tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(StreampetrError, match=message):
        run(bag, "--params", tmp_path / "params.yaml", "--out", tmp_path / "doctor.png")


def test_bad_usage_is_told(bag, tmp_path):
    for arguments in ([], [bag, "--live"], [bag, "--out", "doctor.txt"], ["--live", "--seconds", "0"]):
        with pytest.raises(StreampetrError):
            run(*arguments)


def test_the_doctor_listens_to_what_runs(bag, tmp_path):
    code = (
        "import argparse; from streampetr_ros.commands import doctor; parser = argparse.ArgumentParser(); "
        "doctor.add_arguments(parser); doctor.run(parser.parse_args())"
    )
    outputs = ["--out", tmp_path / "doctor.png", "--json", tmp_path / "doctor.json"]
    listening = subprocess.Popen([sys.executable, "-c", code, "--live", "--seconds", "300", *map(str, outputs)])
    try:
        kinds = ("image_raw/compressed", "camera_info")
        topics = [f"/{camera}/{kind}" for camera in NUSCENES_CAMERAS for kind in kinds]
        play(bag, PlayOptions(wait_for=(*topics, "/tf", "/tf_static"), delay=0.5))
    finally:
        listening.send_signal(signal.SIGINT)
        listening.wait(timeout=120)
    found = json.loads((tmp_path / "doctor.json").read_text())["findings"]
    well = [each["name"] for each in found if each["severity"] == "ok"]
    assert well.count("topics") == 14 and well.count("CameraInfo") == 6
    assert {"transforms", "clocks agree", "camera order", "static things"} <= set(well)
    assert {each["name"] for each in found if each["severity"] != "ok"} >= {"other clock"}
    assert cv2.imread(str(tmp_path / "doctor.png")) is not None


def test_every_finding_that_was_provoked_is_explained_in_the_documentation():
    text = (ROOT / "docs" / "doctor.md").read_text()
    names = {name for _, name, _ in (*SPOILT.values(), *SUSPICIOUS.values())}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
