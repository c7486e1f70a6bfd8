import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from streampetr_core.errors import StreampetrError
from streampetr_ros.images import BYTES_PER_PIXEL, compressed_size, decode_compressed, decode_raw
from tests.ros.rig import picture

BGR = picture(0)


def _bayer(image: np.ndarray, pattern: str) -> np.ndarray:
    """Sample a colour image through a colour filter whose 2x2 pattern is written row by row, such as rggb."""
    channel = {"b": 0, "g": 1, "r": 2}
    mosaic = np.empty(image.shape[:2], np.uint8)
    for index, letter in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = image[row::2, column::2, channel[letter]]
    return mosaic[..., None]


GREY = cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY)
ENCODED = {
    "bgr8": BGR,
    "rgb8": BGR[..., ::-1],
    "bgra8": np.dstack([BGR, np.full_like(GREY, 7)]),
    "rgba8": np.dstack([BGR[..., ::-1], np.full_like(GREY, 7)]),
    "mono8": GREY[..., None],
    "bayer_rggb8": _bayer(BGR, "rggb"),
    "bayer_bggr8": _bayer(BGR, "bggr"),
    "bayer_gbrg8": _bayer(BGR, "gbrg"),
    "bayer_grbg8": _bayer(BGR, "grbg"),
    "yuv422": cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV_UYVY),
    "uyvy": cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV_UYVY),
    "yuv422_yuy2": cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV_YUY2),
    "yuyv": cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV_YUY2),
}


def _message(encoding: str, pixels: np.ndarray, padding: int = 0) -> Image:
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.data = array.array("B", rows.tobytes())
    return message


def test_every_encoding_is_covered_here():
    assert set(ENCODED) == set(BYTES_PER_PIXEL)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings_give_the_same_picture(encoding: str, padding: int):
    image = decode_raw(_message(encoding, ENCODED[encoding], padding), "/cam/image_raw")
    expected = np.dstack([GREY] * 3) if encoding == "mono8" else BGR
    assert image.shape == BGR.shape and image.dtype == np.uint8
    # Mosaics and subsampled colours lose detail; away from the border the smooth picture must come back.
    tolerance = 0 if encoding in ("bgr8", "rgb8", "bgra8", "rgba8", "mono8") else 12
    assert np.abs(image[4:-4, 4:-4].astype(int) - expected[4:-4, 4:-4]).max() <= tolerance


def test_bgr8_is_not_copied():
    message = _message("bgr8", BGR)
    image = decode_raw(message, "/cam/image_raw")
    assert np.shares_memory(image, np.frombuffer(message.data, np.uint8))


def test_unknown_encoding_names_topic_and_remedy():
    with pytest.raises(
        StreampetrError, match=r"/cam/image_raw: encoding '32FC1' is not supported; publish one of bgr8"
    ):
        decode_raw(_message("32FC1", BGR), "/cam/image_raw")


def test_short_data_is_refused():
    message = _message("bgr8", BGR)
    message.data = message.data[:-1]
    with pytest.raises(StreampetrError, match="/cam/image_raw: .* cannot hold 160x120"):
        decode_raw(message, "/cam/image_raw")


def test_jpeg_and_truncated_jpeg():
    data = cv2.imencode(".jpg", BGR, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    image = decode_compressed(CompressedImage(format="jpeg", data=data), "/cam")
    assert np.abs(image.astype(int) - BGR).max() < 12
    padded = decode_compressed(CompressedImage(format="jpeg", data=data + bytes(16)), "/cam")
    assert np.array_equal(padded, image)
    with pytest.raises(StreampetrError, match="/cam: JPEG of .* is truncated"):
        decode_compressed(CompressedImage(format="jpeg", data=data[: len(data) // 2]), "/cam")
    with pytest.raises(StreampetrError, match="/cam: 3 bytes are no image"):
        decode_compressed(CompressedImage(format="jpeg", data=b"abc"), "/cam")
    with pytest.raises(StreampetrError, match="/cam: 0 bytes"):
        decode_compressed(CompressedImage(format="jpeg"), "/cam")


def test_what_an_image_announces_is_known_without_decoding_it():
    data = cv2.imencode(".jpg", BGR)[1].tobytes()
    assert compressed_size(CompressedImage(format="jpeg", data=data), "/cam") == (160, 120)
    at = data.index(b"\xff\xc0") + 5
    bomb = data[:at] + b"\x75\x30" * 2 + data[at + 4 :]  # 30000 x 30000 pixels in a few thousand bytes
    with pytest.raises(StreampetrError, match="/cam: .*pixels.*; check the camera driver"):
        compressed_size(CompressedImage(format="jpeg", data=bomb), "/cam")
    png = cv2.imencode(".png", BGR)[1].tobytes()
    assert compressed_size(CompressedImage(format="png", data=png), "/cam") == (160, 120)
    at = png.index(b"IDAT") - 4
    long = png[:at] + b"\x7f\xff\xff\xff" + png[at + 4 :]  # a chunk of 2 GB
    with pytest.raises(StreampetrError, match="/cam: .* are no image"):
        compressed_size(CompressedImage(format="png", data=long), "/cam")
