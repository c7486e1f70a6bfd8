"""Whether a JPEG is complete: OpenCV fills what is missing of one with grey, and says nothing."""

from numpy.typing import NDArray

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
