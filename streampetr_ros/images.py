"""From image messages to pixels: (height, width, 3) bytes in OpenCV's order blue, green, red."""

from io import BytesIO

import cv2
import numpy as np
import PIL.Image
from cv_bridge import CvBridge
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from streampetr_core.errors import StreampetrError
from streampetr_core.jpeg import check_complete, decode_image, no_image

# Encodings of sensor_msgs/image_encodings.hpp that are read here, with the bytes of a pixel.
BYTES_PER_PIXEL = {
    "bgr8": 3,
    "rgb8": 3,
    "bgra8": 4,
    "rgba8": 4,
    "mono8": 1,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}
# cv_bridge of ROS 2 converts all of these; the cv-bridge on the Python package index lacks some, so they go to OpenCV.
_OPENCV_CODES = {
    "bayer_grbg8": cv2.COLOR_BayerGB2BGR,
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}
_bridge = CvBridge()


def decode_compressed(message: CompressedImage, topic: str) -> NDArray[np.uint8]:
    """Decode JPEG or PNG; raises StreampetrError for data that is broken or cut off."""
    return decode_image(message.data, topic)


def compressed_size(message: CompressedImage, topic: str) -> tuple[int, int]:
    """Return width and height that JPEG or PNG data announce, without decoding it.

    OpenCV believes every length that it reads, and takes gigabytes and many seconds for a few wrong bytes.
    Raises StreampetrError for data that is broken, cut off, or announces more pixels than any camera has.
    """
    check_complete(message.data, topic)
    try:
        with PIL.Image.open(BytesIO(message.data), formats=("JPEG", "PNG")) as image:
            size = image.size
            if image.format == "PNG":
                image.verify()
    except PIL.Image.DecompressionBombError as error:
        raise StreampetrError(f"{topic}: {error}; check the camera driver") from error
    except Exception as error:  # which one depends on the byte that is wrong
        raise no_image(topic, len(message.data)) from error
    return size


def decode_raw(message: Image, topic: str) -> NDArray[np.uint8]:
    """Return the pixels of a raw image; bgr8 is a view of the message's own bytes.

    Raises StreampetrError for encodings that are not colour or grey bytes, and for data that does not fill the image.
    """
    pixel_bytes = BYTES_PER_PIXEL.get(message.encoding)
    if pixel_bytes is None:
        known = ", ".join(BYTES_PER_PIXEL)
        raise StreampetrError(f"{topic}: encoding '{message.encoding}' is not supported; publish one of {known}")
    row_bytes = message.width * pixel_bytes
    if not message.width or message.step < row_bytes or len(message.data) < message.step * message.height:
        raise StreampetrError(
            f"{topic}: {len(message.data)} bytes with step {message.step} cannot hold {message.width}x{message.height} "
            f"pixels of {message.encoding}; check the camera driver"
        )
    rows = np.frombuffer(message.data, np.uint8, message.step * message.height).reshape(message.height, message.step)
    pixels = rows[:, :row_bytes].reshape(message.height, message.width, pixel_bytes)
    if message.encoding == "bgr8":
        return pixels
    try:
        if message.encoding in _OPENCV_CODES:
            return cv2.cvtColor(pixels, _OPENCV_CODES[message.encoding])
        return np.asarray(_bridge.imgmsg_to_cv2(_without_padding(message, pixels), "bgr8"))
    except (
        Exception
    ) as error:  # cv_bridge raises CvBridgeError, KeyError or cv2.error, depending on where it comes from
        raise StreampetrError(f"{topic}: {message.encoding} cannot be converted to bgr8: {error}") from error


def _without_padding(message: Image, pixels: NDArray[np.uint8]) -> Image:
    """Return the message itself, or a copy whose rows follow each other without gaps, as some cv_bridge expect."""
    if message.step == pixels.shape[1] * pixels.shape[2]:
        return message
    packed = Image(height=message.height, width=message.width, encoding=message.encoding)
    packed.step = pixels.shape[1] * pixels.shape[2]
    packed.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return packed
