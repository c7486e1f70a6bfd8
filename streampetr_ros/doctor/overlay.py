"""A picture of what calibration and mounting say: horizon, ground and directions, drawn into what the cameras saw."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.drawing import Colour, Tile, draw_lines, six_camera_picture
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform, projection
from streampetr_ros.calibration import camera_model
from streampetr_ros.doctor.evidence import Camera
from streampetr_ros.doctor.examination import camera_poses
from streampetr_ros.doctor.frames import Tree
from streampetr_ros.doctor.gather import Gatherer
from streampetr_ros.doctor.mounting import azimuth
from streampetr_ros.parameters import Parameters

_TILE_WIDTH = 640  # pixels
_REACH, _CELL, _PIECE = 40.0, 5.0, 2.5  # metres: of the ground's grid, between its lines, of a line drawn at once
_AXIS = 10.0  # metres of base's axes on the ground
_FAR = 1e5  # metres: as good as infinity, beside which the cameras' places do not matter
_RANGES = (5, 10, 20)  # metres, written on the ground
_GRID: Colour = (150, 150, 150)
_HORIZON: Colour = (0, 220, 255)
_X: Colour = (60, 60, 255)
_Y: Colour = (90, 220, 60)
_REF: Colour = (255, 200, 0)
_DARK: Colour = (32, 32, 32)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def overlay(expected: Parameters, gathered: Gatherer) -> NDArray[np.uint8] | None:
    """Return the picture of all cameras, seen from left to right; None if there is nothing to draw into.

    Cameras of which an image, a calibration or a pose is missing are shown with what there is, and so named.
    """
    tree = Tree(gathered.buffer, expected)
    poses = camera_poses(expected, gathered.evidence, tree)
    base_R_ref = _reference(expected, tree)
    tiles = []
    for name in _in_view_order(expected.cameras, poses):
        camera = gathered.evidence.cameras[name]
        if camera.picture is not None:
            tiles.append(_tile(name, camera, poses.get(name), base_R_ref))
    if not tiles:
        return None
    height, width = max((tile.image.shape[0], tile.image.shape[1]) for tile in tiles)
    columns = min(3, len(tiles)) if len(tiles) != 4 else 2
    tiles = [Tile(tile.name, _padded(tile.image, height * _TILE_WIDTH // width)) for tile in tiles]
    text = f"yellow: horizon; grey: {_CELL:g} m grid at z = 0 of {expected.base_frame}, its x red, its y green to "
    text += f"{_AXIS:g} m; blue: where the axes of {expected.reference_frame} point"
    return six_camera_picture(tiles, columns, _TILE_WIDTH, text)


def draw_geometry(image: NDArray[np.uint8], img_P_base: Array, base_T_cam: Array, base_R_ref: Array | None) -> None:
    """Draw horizon, ground and directions into an undistorted image; `img_P_base` projects points of base into it."""
    draw_lines(image, img_P_base, _grid(), _GRID)
    draw_lines(image, img_P_base, _pieces((0, 0, 0), (_AXIS, 0, 0)), _X, 2)
    draw_lines(image, img_P_base, _pieces((0, 0, 0), (0, _AXIS, 0)), _Y, 2)
    angles = np.radians(np.arange(0, 361, 2))
    around = _FAR * np.c_[np.cos(angles), np.sin(angles), np.zeros(len(angles))]
    draw_lines(image, img_P_base, np.stack([around[:-1], around[1:]], axis=1), _HORIZON)
    looks = np.radians(azimuth(base_T_cam))
    for metres in _RANGES:
        at = base_T_cam[:2, 3] + metres * np.array([np.cos(looks), np.sin(looks)])
        _write(image, img_P_base, np.array([*at, 0.0]), f"{metres} m", _GRID)
    if base_R_ref is not None:
        for axis, letter in enumerate("xyz"):
            for sign, mark in ((1, "+"), (-1, "-")):
                _mark(image, img_P_base, _FAR * sign * base_R_ref[:, axis], f"ref {mark}{letter}")


def _reference(expected: Parameters, tree: Tree) -> Array | None:
    try:
        return tree.latest(expected.base_frame, expected.reference_frame)[:3, :3]
    except StreampetrError:
        return None


def _in_view_order(cameras: Sequence[str], poses: Mapping[str, Array]) -> list[str]:
    """Return first those that look ahead and then those that look back, each from the vehicle's left to its right."""
    looks = {name: np.radians(azimuth(poses[name])) if name in poses else 0.0 for name in cameras}
    return sorted(cameras, key=lambda name: (np.cos(looks[name]) < -0.01, -round(np.sin(looks[name]), 3)))


def _tile(name: str, camera: Camera, base_T_cam: Array | None, base_R_ref: Array | None) -> Tile:
    """Return a camera's image, undistorted and small, with what can be drawn into it."""
    try:
        model = camera_model(camera.infos[-1], name) if camera.infos else None
    except StreampetrError:
        model = None
    small = _TILE_WIDTH / camera.picture.shape[1]
    if model is None or base_T_cam is None or camera.picture.shape[:2] != (model.height, model.width):
        lacking = "no transform" if base_T_cam is None else "no fitting CameraInfo"
        return Tile(f"{name}: {lacking}", _resized(camera.picture, small))
    image = _resized(model.undistort(camera.picture), small)
    half = 0.5 * small - 0.5  # coordinates are those of pixel centres
    K = np.array([[small, 0, half], [0, small, half], [0, 0, 1]]) @ model.K
    draw_geometry(image, projection(K, invert_transform(base_T_cam)), base_T_cam, base_R_ref)
    return Tile(name, image)


def _resized(image: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    size = round(part * image.shape[1]), round(part * image.shape[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).copy()


def _padded(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    return cv2.copyMakeBorder(image, 0, max(0, height - image.shape[0]), 0, 0, cv2.BORDER_CONSTANT, value=_DARK)


def _grid() -> Array:
    """Return the lines (S, 2, 3) of the ground's grid in base, in short pieces."""
    lines = []
    for at in np.arange(-_REACH, _REACH + _CELL / 2, _CELL):
        lines += [_pieces((at, -_REACH, 0), (at, _REACH, 0)), _pieces((-_REACH, at, 0), (_REACH, at, 0))]
    return np.concatenate(lines)


def _pieces(start: Sequence[float], end: Sequence[float]) -> Array:
    """Return a line in pieces (S, 2, 3): a long one that passes the camera closely would not be drawn at all."""
    length = float(np.linalg.norm(np.subtract(end, start)))
    points = np.linspace(start, end, round(length / _PIECE) + 1)
    return np.stack([points[:-1], points[1:]], axis=1)


def _pixel(image: NDArray[np.uint8], img_P_base: Array, point: Array) -> tuple[int, int] | None:
    u, v, depth, _ = img_P_base @ [*point, 1.0]
    if depth <= 0 or not (0 <= u / depth < image.shape[1] and 0 <= v / depth < image.shape[0]):
        return None
    return round(u / depth), round(v / depth)


def _write(image: NDArray[np.uint8], img_P_base: Array, point: Array, text: str, colour: Colour) -> None:
    at = _pixel(image, img_P_base, point)
    if at is not None:
        for shade, thickness in ((_DARK, 3), (colour, 1)):
            cv2.putText(image, text, (at[0] + 3, at[1] - 3), _FONT, 0.45, shade, thickness, cv2.LINE_AA)


def _mark(image: NDArray[np.uint8], img_P_base: Array, point: Array, text: str) -> None:
    at = _pixel(image, img_P_base, point)
    if at is not None:
        cv2.line(image, (at[0], at[1] - 14), (at[0], at[1] + 14), _REF, 2, cv2.LINE_AA)
        _write(image, img_P_base, point, text, _REF)
