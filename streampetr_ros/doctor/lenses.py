"""Is what CameraInfo says possible, and does it fit the images?"""

import math
from collections.abc import Iterator
from typing import Any

from streampetr_core.errors import StreampetrError
from streampetr_ros.calibration import camera_model
from streampetr_ros.doctor.evidence import Camera, Evidence
from streampetr_ros.doctor.findings import Finding, error, ok, warning
from streampetr_ros.parameters import Parameters

_NARROWEST, _WIDEST = 12.0, 140.0  # degrees across, for a pinhole camera
_MOST_OFF_CENTRE = 0.2  # part of the image's size
_MOST_OBLONG = 1.1  # one focal length to the other
_CALIBRATE = "calibrate the camera at this resolution, and publish the result"


def check_lenses(expected: Parameters, seen: Evidence) -> Iterator[Finding]:
    """Check the calibration and the images of every camera."""
    for name, camera in seen.cameras.items():
        for fault, number in camera.faults.items():
            remedy = "check the camera's driver, its encoding and the bandwidth"
            yield error("unusable images", name, "images that can be decoded", f"{number} times: {fault}", remedy)
        if camera.infos:
            yield from _calibration(expected.camera_info_topics[name], name, camera)
        yield from _frames(name, camera)


def _calibration(topic: str, name: str, camera: Camera) -> Iterator[Finding]:
    if len(camera.infos) > 1:
        found = f"{len(camera.infos)} different ones, one after the other"
        yield warning(
            "calibration changes", name, "one calibration", found, "publish the calibration of this camera alone"
        )
    info = camera.infos[-1]
    try:
        camera_model(info, topic)
        wrong = [*_geometry(name, info), *_sizes(name, info, camera)]
    except StreampetrError as fault:
        text, _, remedy = str(fault).partition("; ")
        wrong = [error("unusable CameraInfo", name, "K, D and size of a calibrated camera", text, remedy)]
    yield from wrong
    if not wrong:
        distorted = info.distortion_model if any(info.d) else "no distortion"
        yield ok("CameraInfo", name, f"{info.width}x{info.height}, {_across(info):.0f} degrees wide, {distorted}")


def _across(info: Any) -> float:
    return math.degrees(2 * math.atan(info.width / (2 * info.k[0])))


def _geometry(name: str, info: Any) -> Iterator[Finding]:
    fx, fy, cx, cy = info.k[0], info.k[4], info.k[2], info.k[5]
    inside = 0 <= cx < info.width and 0 <= cy < info.height
    off = max(abs(cx / info.width - 0.5), abs(cy / info.height - 0.5))
    found = f"({cx:.0f}, {cy:.0f}) of {info.width}x{info.height}"
    if not inside:
        yield error("principal point", name, "a point inside the image", found, _CALIBRATE)
    elif off > _MOST_OFF_CENTRE:
        remedy = f"if the image is no crop of a larger one, {_CALIBRATE}"
        yield warning("principal point", name, "a point near the middle", found, remedy)
    if not _NARROWEST <= _across(info) <= _WIDEST:
        expected = f"a view {_NARROWEST:.0f} to {_WIDEST:.0f} degrees wide"
        found = f"{_across(info):.0f} degrees (focal length {fx:.0f} pixels, width {info.width})"
        yield warning("focal length", name, expected, found, _CALIBRATE)
    if max(fx / fy, fy / fx) > _MOST_OBLONG:
        yield warning("focal length", name, "nearly square pixels", f"fx {fx:.0f}, fy {fy:.0f}", _CALIBRATE)


def _sizes(name: str, info: Any, camera: Camera) -> Iterator[Finding]:
    wrong = [size for size in camera.sizes if size != (info.width, info.height)]
    if wrong:
        found = f"images of {' and '.join(f'{w}x{h}' for w, h in wrong)}, calibration of {info.width}x{info.height}"
        yield error("image size", name, "images of the calibrated size", found, _CALIBRATE)


def _frames(name: str, camera: Camera) -> Iterator[Finding]:
    remedy = "let the driver write the camera's optical frame into header.frame_id of images and CameraInfo"
    bad = [frame for frame in camera.frames if not frame or frame.startswith("/")]
    if bad:
        found = "none" if not bad[0] else f"'{bad[0]}'"
        yield error("frame_id", name, "the name of the camera's optical frame, without a leading /", found, remedy)
    elif len(camera.frames) > 1:
        found = " and ".join(f"'{frame}'" for frame in camera.frames)
        yield warning("frame_id", name, "one frame", found, remedy)
    elif camera.frames and camera.infos:
        image, info = next(iter(camera.frames)), camera.infos[-1].header.frame_id
        if image != info:
            found = f"images in '{image}', CameraInfo in '{info}'"
            yield warning("frame_id", name, "one frame", found, remedy + "; the images' counts")
        else:
            yield ok("frame_id", name, f"'{image}'")
