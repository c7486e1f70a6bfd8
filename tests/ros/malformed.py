"""Messages of every kind that are wrong in every way, as hypothesis draws them; some are right."""

import array
from functools import cache
from typing import Any

import cv2
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from streampetr_ros.images import BYTES_PER_PIXEL
from tests.ros.rig import HEIGHT, WIDTH, K, jpeg, picture, transform

_CHILDREN = ["left", "right", "base_link", "ref", "", "/left", "nowhere", "\u00fc" * 100]
_FRAMES = st.sampled_from([*_CHILDREN, "odom"])  # odom has no parent: tf would never forget one, nor the loop it makes
_NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, -1e300, float("nan"), float("inf"), float("-inf")])
_STAMPS = st.sampled_from([(0, 0), (0, 1), (-1, 0), (-(2**31), 0), (2**31 - 1, 2**32 - 1), (5, 0), (4_000_000, 7)])
_SIZES = st.sampled_from([WIDTH, WIDTH, HEIGHT, HEIGHT, 0, 1, 2, 161, 32_767, 2**32 - 1])
_DATA = 4 * WIDTH * (HEIGHT + 1)  # bytes, more than any encoding needs
_SIZE_MARKER = b"\xff\xc0"


def items(transport: str) -> st.SearchStrategy[tuple[str, Any, bool]]:
    """Return the last part of a topic's name, a message, and whether the sender is to give it the present time."""
    image, kind = (_compressed(), "image_raw/compressed") if transport == "compressed" else (_raw(), "image_raw")
    named = [
        *[st.tuples(st.sampled_from([f"/left/{kind}", f"/right/{kind}"]), _stamped(image))] * 4,
        st.tuples(st.sampled_from(["/left/camera_info", "/right/camera_info"]), _stamped(_infos())),
        st.tuples(st.sampled_from(["/tf", "/tf_static"]), _transforms()),
        st.tuples(st.just("/times"), st.builds(_header, st.just("lidar"), _STAMPS)),
    ]
    return st.tuples(st.one_of(named), st.integers(0, 3).map(bool)).map(lambda pair: (*pair[0], pair[1]))


def _header(frame: str, stamp: tuple[int, int]) -> Header:
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = stamp
    return header


def _stamped(messages: st.SearchStrategy) -> st.SearchStrategy:
    def stamp(message: Any, header: Header) -> Any:
        message.header = header
        return message

    return st.builds(stamp, messages, st.builds(_header, _FRAMES, _STAMPS))


@cache
def _encoded(width: int, height: int, kind: str) -> bytes:
    image = cv2.resize(picture(0), (width, height))
    return jpeg(image) if kind == "jpeg" else cv2.imencode(".png", image)[1].tobytes()


@st.composite
def _compressed(draw: st.DrawFn) -> CompressedImage:
    kind = draw(st.sampled_from(["whole", "whole", "cut", "spoilt", "garbage", "huge"]))
    size = draw(st.sampled_from([(WIDTH, HEIGHT), (WIDTH, HEIGHT), (HEIGHT, WIDTH), (1, 1), (17, 9)]))
    data = _encoded(*size, draw(st.sampled_from(["jpeg", "jpeg", "png"])))
    if kind == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == "spoilt":
        at, noise = draw(st.integers(0, len(data) - 1)), draw(st.binary(min_size=1, max_size=8))
        data = data[:at] + noise + data[at + len(noise) :]
    elif kind == "garbage":
        data = draw(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"])) + draw(st.binary(max_size=16))
    elif kind == "huge" and _SIZE_MARKER in data:
        at = data.index(_SIZE_MARKER) + 5
        data = data[:at] + draw(st.sampled_from([b"\xff\xff", b"\x75\x30", b"\0\0"])) * 2 + data[at + 4 :]
    return CompressedImage(format=draw(st.sampled_from(["jpeg", "", "png", "h264"])), data=array.array("B", data))


@st.composite
def _raw(draw: st.DrawFn) -> Image:
    encoding = draw(st.sampled_from([*BYTES_PER_PIXEL, "8UC3", "32FC1", "", "BGR8", "rgb16"]))
    width, height = draw(st.one_of(st.just((WIDTH, HEIGHT)), st.tuples(_SIZES, _SIZES)))
    row = BYTES_PER_PIXEL.get(encoding, 3) * width
    step = min(max(0, draw(st.sampled_from([row, row, row, 0, row - 1, row + 7, 2**32 - 1]))), 2**32 - 1)
    count = draw(st.sampled_from([step * height, step * height, 0, 1, step * height - 1, step * height + 5]))
    data = array.array("B", bytes(min(max(0, count), _DATA)))
    return Image(
        encoding=encoding, width=width, height=height, step=step, is_bigendian=draw(st.integers(0, 1)), data=data
    )


@st.composite
def _infos(draw: st.DrawFn) -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, k=K.flatten().tolist(), distortion_model="plumb_bob")
    if draw(st.booleans()):
        info.k = [draw(_NUMBERS) if draw(st.integers(0, 4)) == 0 else value for value in info.k]
    if draw(st.booleans()):
        info.width, info.height = draw(_SIZES), draw(_SIZES)
    info.d = draw(st.one_of(st.just([]), st.lists(st.one_of(_NUMBERS, st.just(0.01)), max_size=15)))
    info.distortion_model = draw(st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "thin_plate"]))
    return info


@st.composite
def _transforms(draw: st.DrawFn) -> TFMessage:
    transforms = []
    for _ in range(draw(st.integers(0, 2))):
        rotation = draw(st.one_of(st.just((1.0, 0.0, 0.0, 0.0)), st.tuples(*[_NUMBERS] * 4)))
        pose = rotation, draw(st.tuples(*[_NUMBERS] * 3))
        message = transform(draw(_FRAMES), draw(st.sampled_from(_CHILDREN)), 0, *pose)
        message.header.stamp = _header("", draw(_STAMPS)).stamp
        transforms.append(message)
    return TFMessage(transforms=transforms)
