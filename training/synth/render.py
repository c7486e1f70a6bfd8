"""Paints what one camera of a synthetic scene sees: sky, ground, then solids from far to near (painter's algorithm)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.geometry import Array, box_corners, invert_transform, transform_points
from training.synth.scene import Camera, SceneDescription
from training.synth.shapes import Solid, solids_of

_NEAR = 0.3  # metres; nothing nearer than this is painted
_FAR, _FAR_STRUCTURES = 150.0, 260.0
_HAZE_LENGTH = 110.0  # metres after which haze takes away 63 % of the contrast
_HAZE, _ZENITH, _GRASS = np.array([206.0, 214, 222]), np.array([96.0, 146, 206]), (104, 120, 74)
_SHADOW = (46, 48, 54)
_TO_SUN = np.array([0.48, 0.36, 0.8])
_TILE, _TILE_METRES = 512, 51.2
_SHIFT = 4  # fractional bits of the corners given to OpenCV


@dataclass(frozen=True)
class Picture:
    """`image` (H, W, 3) uint8 RGB; `ids` (H, W) int16: index into the scene's objects, or -1."""

    image: NDArray[np.uint8]
    ids: NDArray[np.int16]


@dataclass(frozen=True)
class _View:
    """A camera in the world at one time."""

    camera: Camera
    cam_T_world: Array
    eye: Array  # (3,) in world

    def inside(self, points: Array) -> NDArray[np.bool_]:
        """Return which convex sets of points (N, K, 3) in world may be in the picture."""
        points = transform_points(self.cam_T_world, points)
        u, v, depth = np.moveaxis(points @ self.camera.intrinsics.T, -1, 0)
        outside = (u < 0, u > self.camera.width * depth, v < 0, v > self.camera.height * depth, depth < _NEAR)
        return ~np.any([side.all(axis=1) for side in outside], axis=0)

    def outlines(self, polygons: Sequence[Array]) -> list[NDArray[np.int32]]:
        """Return the pixels, as cv2.fillConvexPoly takes them, of polygons (K, 3) in world, cut off where too near."""
        if not len(polygons):
            return []
        points = transform_points(self.cam_T_world, np.concatenate(polygons))
        if points[:, 2].min() < _NEAR:
            polygons = [_clip_near(polygon) for polygon in _split(points, polygons)]
            points = np.concatenate(polygons)
        image = points @ self.camera.intrinsics.T
        return _split(np.rint(image[:, :2] / image[:, 2:] * (1 << _SHIFT)).astype(np.int32), polygons)


def render(scene: SceneDescription, camera: Camera, time: float) -> Picture:
    """Return what `camera` sees at `time` seconds after the start of the scene."""
    world_T_cam = scene.ego.pose(time) @ camera.base_T_cam
    view = _View(camera, invert_transform(world_T_cam), world_T_cam[:3, 3])
    boxes = np.array([item.box(time) for item in scene.objects]).reshape(-1, 7)
    image = _paint_ground(scene, view, boxes)
    ids = np.full(image.shape[:2], -1, np.int16)
    boxes = np.concatenate([boxes, np.array([item.box for item in scene.structures]).reshape(-1, 7)])
    for index in _from_far_to_near(view, boxes, len(scene.objects)):
        if index < len(scene.objects):
            item = scene.objects[index]
            solids = solids_of(item.kind, item.moving, np.array(item.size), item.trajectory.pose(time), item.colour)
        else:
            solids = _structure_solids(scene, index - len(scene.objects))
        _paint_solids(image, ids, view, solids, index if index < len(scene.objects) else -1)
    return Picture(image, ids)


def _structure_solids(scene: SceneDescription, index: int) -> list[Solid]:
    item = scene.structures[index]
    cos, sin = np.cos(item.box[6]), np.sin(item.box[6])
    pose = np.array([[cos, -sin, 0, item.box[0]], [sin, cos, 0, item.box[1]], [0, 0, 1, 0], [0, 0, 0, 1]])
    return solids_of(item.kind, False, item.box[3:6], pose, item.colour)


def _from_far_to_near(view: _View, boxes: Array, objects: int) -> list[int]:
    corners = box_corners(boxes)
    distance = np.linalg.norm(boxes[:, :2] - view.eye[:2], axis=1)
    reach = np.where(np.arange(len(boxes)) < objects, _FAR, _FAR_STRUCTURES)
    seen = np.flatnonzero(view.inside(corners) & (distance < reach))
    return seen[_painting_order(corners[seen], view.eye)].tolist()


def _painting_order(corners: Array, eye: Array) -> list[int]:
    """Return an order of disjoint convex solids with corners (N, 8, 3) in which none is hidden by an earlier one.

    A face plane of a that has b on its outer side and the eye on its inner one proves that b does not hide a. Among
    those left, one that hides none comes next; where a circle leaves no such one, the farthest.
    """
    count = len(corners)
    origins, normals = corners[:, [0, 0, 1, 2, 4, 0]], _outward_normals(corners)
    offsets = np.einsum("afx,afx->af", normals, origins)
    farthest_in = np.einsum("afx,bkx->afbk", normals, corners) - offsets[:, :, None, None]
    beyond = farthest_in.min(axis=3) > -1e-6  # (a, face, b): all of b is outside this face of a
    eye_inside = normals @ eye - offsets < 0
    behind = np.any(beyond & eye_inside[:, :, None], axis=1)  # (a, b): b is behind a face of a that looks away
    in_front = np.any(beyond & ~eye_inside[:, :, None], axis=1)  # (a, b): b and the eye share a side that a is not on
    hides = ~(behind.T | in_front)  # (a, b): nothing proves that a does not hide b
    np.fill_diagonal(hides, False)
    distance = np.linalg.norm(corners.mean(axis=1) - eye, axis=1)
    left, order = np.ones(count, bool), []
    for _ in range(count):
        free = left & ~np.any(hides & left, axis=1)
        choice = free if free.any() else left
        order.append(int(np.argmax(np.where(choice, distance, -1.0))))
        left[order[-1]] = False
    return order


def _outward_normals(corners: Array) -> Array:
    """Return normals (N, 6, 3) of front, left, back, right, top and bottom of the solids with corners (N, 8, 3)."""
    first, second, third = [3, 0, 1, 2, 4, 0], [0, 1, 2, 3, 5, 3], [4, 5, 6, 7, 6, 2]
    a, b, c = corners[:, first], corners[:, second], corners[:, third]
    return np.cross(b - a, c - a)


def _paint_solids(image: NDArray, ids: NDArray, view: _View, solids: list[Solid], label: int) -> None:
    """Paint the solids of one thing into the picture and `label` into its ids."""
    order = _painting_order(np.stack([solid.corners for solid in solids]), view.eye) if len(solids) > 1 else [0]
    quads = np.concatenate([solids[index].quads for index in order])
    colours = np.concatenate([solids[index].colours for index in order])
    normals = np.cross(quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0])
    faces_eye = np.einsum("qx,qx->q", normals, view.eye - quads[:, 0]) > 0
    quads, colours, normals = quads[faces_eye], colours[faces_eye], normals[faces_eye]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = 0.55 + 0.5 * np.clip(normals @ _TO_SUN, 0, None)
    distance = np.linalg.norm(quads.mean(axis=1) - view.eye, axis=1)
    colours = _hazy(colours * light[:, None], distance)
    for outline, colour in zip(view.outlines(quads), colours.tolist(), strict=True):
        if len(outline):  # empty where the whole polygon is too near
            cv2.fillConvexPoly(image, outline, colour, cv2.LINE_AA, _SHIFT)
            cv2.fillConvexPoly(ids, outline, label, cv2.LINE_8, _SHIFT)


def _hazy(colours: Array, distance: Array) -> Array:
    clear = np.exp(-np.asarray(distance) / _HAZE_LENGTH)[:, None]
    return np.clip(colours, 0, 255) * clear + _HAZE * (1 - clear)


def _paint_ground(scene: SceneDescription, view: _View, boxes: Array) -> NDArray[np.uint8]:
    width, height = view.camera.width, view.camera.height
    ground = np.full((height, width, 3), _GRASS, np.uint8)
    outlines = np.array([patch.outline for patch in scene.ground]).reshape(-1, 4, 3)
    near = np.linalg.norm(outlines[:, 0, :2] - view.eye[:2], axis=1) < _FAR
    shown = np.flatnonzero(near & view.inside(outlines))
    shadows = _shadows(boxes[np.linalg.norm(boxes[:, :2] - view.eye[:2], axis=1) < _FAR])
    shadows = [_hull(corners) for corners in shadows[view.inside(shadows)]]
    colours = [scene.ground[index].colour for index in shown] + [_SHADOW] * len(shadows)
    for outline, colour in zip(view.outlines([*outlines[shown], *shadows]), colours, strict=True):
        if len(outline):
            cv2.fillConvexPoly(ground, outline, colour, cv2.LINE_AA, _SHIFT)
    up = _upward_slope(view)
    depth = view.eye[2] / np.maximum(-up, 1e-6)
    grain = cv2.warpPerspective(
        _noise(),
        _tile_from_image(view),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    fine = np.exp(-depth / 25.0)  # far away the grain is finer than the pixels
    grain = 1 + (grain.astype(np.float32) / 128 - 1) * fine
    ground = cv2.multiply(ground, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    clear = np.where(up < 0, np.exp(-depth / _HAZE_LENGTH), 0).astype(np.float32)
    return cv2.blendLinear(ground, _sky(up), clear, 1 - clear)


def _shadows(boxes: Array) -> Array:
    """Return (N, 8, 3): the footprint of each box, then where the sun throws its roof."""
    corners = box_corners(boxes)
    corners[:, :4, 2] = 0.0
    # The blocks taper and stand clear of the ground, so a shadow as long as the box's would look too big.
    corners[:, 4:] = corners[:, :4] - 0.6 * boxes[:, None, 5:6] * np.append(_TO_SUN[:2] / _TO_SUN[2], 0.0)
    return corners


def _hull(points: Array) -> Array:
    """Return the convex hull (K, 3) of points (N, 3) on the ground."""
    # World coordinates are too large for the float32 that OpenCV works in.
    chosen = cv2.convexHull((points[:, :2] - points[0, :2]).astype(np.float32), returnPoints=False)[:, 0]
    return points[chosen]


def _upward_slope(view: _View) -> NDArray[np.float32]:
    """Return (H, W): how much the ray of each pixel climbs per metre of depth."""
    row = view.cam_T_world[:3, 2] @ np.linalg.inv(view.camera.intrinsics)
    u, v = np.arange(view.camera.width), np.arange(view.camera.height)
    return ((row[0] * u)[None, :] + (row[1] * v + row[2])[:, None]).astype(np.float32)


def _sky(up: NDArray[np.float32]) -> NDArray[np.uint8]:
    level = np.clip(np.sqrt(np.clip(up, 0, None)) * 255, 0, 255).astype(np.uint8)
    share = np.linspace(0, 1, 256)[:, None]
    return cv2.applyColorMap(level, np.rint(_HAZE + share * (_ZENITH - _HAZE)).astype(np.uint8)[:, None])


def _tile_from_image(view: _View) -> Array:
    """Return the homography (3, 3) from pixels to the noise tile that repeats on the ground."""
    origin = np.floor(view.eye[:2] / _TILE_METRES) * _TILE_METRES
    ground_to_cam = view.cam_T_world[:3, [0, 1, 3]].copy()
    ground_to_cam[:, 2] += view.cam_T_world[:3, :2] @ origin
    scale = _TILE_METRES / _TILE
    return np.linalg.inv(view.camera.intrinsics @ ground_to_cam @ np.diag([scale, scale, 1.0]))


@lru_cache
def _noise() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :])
    total = np.zeros((_TILE, _TILE))
    for sigma, strength in ((0.7, 9.0), (4.0, 5.0), (24.0, 7.0)):
        spectrum = np.fft.rfft2(rng.standard_normal((_TILE, _TILE)))
        smooth = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * sigma * frequency) ** 2))  # a blur that wraps around
        total += strength * smooth / smooth.std()
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def _split(flat: NDArray, like: Sequence[NDArray]) -> list[NDArray]:
    """Cut `flat` into pieces as long as those of `like`."""
    ends = itertools.accumulate(len(piece) for piece in like)
    return [flat[end - len(piece) : end] for end, piece in zip(ends, like, strict=True)]


def _clip_near(polygon: Array) -> Array:
    """Return the part of a polygon (K, 3) in cam that is at least `_NEAR` away; (0, 3) when there is none."""
    kept = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            kept.append(a + (_NEAR - a[2]) / (b[2] - a[2]) * (b - a))
    return np.array(kept).reshape(-1, 3)
