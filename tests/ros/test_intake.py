import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from streampetr_core.errors import StreampetrError
from streampetr_ros.calibration import camera_model
from streampetr_ros.intake import Calibrations, ThrottledLog

K = [100.0, 0, 80, 0, 110.0, 60, 0, 0, 1]


def _info(**fields: object) -> CameraInfo:
    return CameraInfo(**{"width": 160, "height": 120, "k": K, "distortion_model": "plumb_bob"} | fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"k": [0.0] * 9}, "intrinsics K are zero or not finite"),
        ({"k": [float("nan"), *K[1:]]}, "intrinsics K are zero or not finite"),
        ({"width": 0}, "image size is 0x120"),
        ({"d": [float("inf"), 0.0, 0.0, 0.0]}, "distortion D is not finite"),
        ({"d": [0.1, 0.0, 0.0, 0.0], "distortion_model": "thin_plate"}, "distortion model 'thin_plate' is unknown"),
        ({"d": [0.1] * 7}, "distortion D has 7 coefficients, not 4 or 5 or 8 or 12 or 14 as 'plumb_bob' takes"),
        ({"d": [0.1] * 5, "distortion_model": "equidistant"}, "distortion D has 5 coefficients, not 4 as"),
        ({"k": [*K[:8], 0.0]}, "intrinsics K are no pinhole camera's"),
        ({"k": [1e300, *K[1:]]}, "intrinsics K are no pinhole camera's"),
        ({"width": 2**32 - 1}, "image size is 4294967295x120"),
    ],
)
def test_unusable_calibration_is_named(fields: dict, reason: str):
    with pytest.raises(StreampetrError, match=f"/cam/camera_info: .*{reason}.*; "):
        camera_model(_info(**fields), "/cam/camera_info")


def test_without_distortion_the_image_is_untouched():
    image = np.zeros((120, 160, 3), np.uint8)
    assert camera_model(_info(d=[0.0] * 5), "/cam").undistort(image) is image


@pytest.mark.parametrize(
    ("name", "coefficients"),
    [
        ("plumb_bob", [-0.3, 0.1, 0.001, -0.002, 0.0]),
        ("rational_polynomial", [-0.3, 0.1, 0.0, 0.0, 0.01, 0.02, 0.0, 0.0]),
        ("equidistant", [-0.1, 0.02, 0.0, 0.0]),
    ],
)
def test_undistorted_points_lie_where_a_pinhole_sees_them(name: str, coefficients: list[float]):
    model = camera_model(_info(d=coefficients, distortion_model=name), "/cam")
    point = np.array([[[0.6, -0.4, 1.0]]])
    project = cv2.fisheye.projectPoints if name == "equidistant" else cv2.projectPoints
    distorted = project(point, np.zeros(3), np.zeros(3), model.K, np.array(coefficients))[0].reshape(2)
    image = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(image, tuple(distorted.round().astype(int).tolist()), 3, (255, 255, 255), cv2.FILLED)
    seen = np.argwhere(model.undistort(image)[..., 0] > 127).mean(axis=0)[::-1]
    pinhole = (model.K @ point[0, 0])[:2]
    assert np.linalg.norm(distorted - pinhole) > 2.5  # the lens matters here
    assert np.linalg.norm(seen - pinhole) < 1.5


def test_a_new_calibration_replaces_the_old_and_is_noticed():
    calibrations = Calibrations({"a": "/a/camera_info", "b": "/b/camera_info"})
    with pytest.raises(StreampetrError, match="/a/camera_info: no CameraInfo yet"):
        calibrations.model("a")
    assert not calibrations.update("a", _info())
    assert not calibrations.update("a", _info())
    assert calibrations.update("a", _info(k=[200.0, *K[1:]]))
    assert calibrations.model("a").K[0, 0] == 200.0
    assert calibrations.update("a", _info(k=[0.0] * 9))
    with pytest.raises(StreampetrError, match="zero"):
        calibrations.model("a")
    assert calibrations.missing() == {"b": "/b/camera_info"}


def test_throttled_log_repeats_a_text_only_after_its_period():
    lines: list[str] = []
    log = ThrottledLog(lines.append, period=3600)
    for text in ("a", "b", "a", "a"):
        log(text)
    assert lines == ["a", "b"]
    log = ThrottledLog(lines.append, period=0)
    log("c")
    log("c")
    assert lines == ["a", "b", "c", "c"]
