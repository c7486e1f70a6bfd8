"""Images as they come over a wire: what is missing of a JPEG OpenCV fills with grey and says nothing, so this does."""

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.errors import StreampetrError

_START, _END = b"\xff\xd8", b"\xff\xd9"
_TAIL = 64  # bytes: some writers and camera drivers put padding behind the end marker


def ends_as_jpeg(content: bytes | NDArray) -> bool:
    """Say whether the last bytes hold a JPEG's end marker."""
    return _END in bytes(memoryview(content)[-_TAIL:])


def begins_as_jpeg(content: bytes | NDArray) -> bool:
    """Say whether the bytes begin with a JPEG's marker."""
    return bytes(memoryview(content)[: len(_START)]) == _START


def is_cut_off(content: bytes | NDArray) -> bool:
    """Say whether the bytes begin as a JPEG and do not end as one."""
    return begins_as_jpeg(content) and not ends_as_jpeg(content)


def decode_image(content: bytes | NDArray, name: str, flag: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """Decode JPEG or PNG to (height, width, 3): blue, green, red; `flag` is one of OpenCV's, of a reduced size say.

    Raises:
        StreampetrError: data that is no image, or is truncated; the message begins with `name`.
    """
    data = np.frombuffer(content, np.uint8)
    check_complete(data, name)
    try:
        image = cv2.imdecode(data, flag) if len(data) else None
    except cv2.error:  # of more pixels than OpenCV allows, say
        image = None
    if image is None:
        raise no_image(name, len(data))
    return image


def check_complete(content: bytes | NDArray, name: str) -> None:
    """Raise StreampetrError, beginning with `name`, for a JPEG that ends early."""
    if is_cut_off(content):
        raise StreampetrError(
            f"{name}: JPEG of {len(content)} bytes is truncated; check the camera driver, the bandwidth or the file"
        )


def no_image(name: str, size: int) -> StreampetrError:
    """Return what to say of bytes that cannot be decoded."""
    return StreampetrError(f"{name}: {size} bytes are no image; check the camera driver or the file")
