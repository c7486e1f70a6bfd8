"""Triangle meshes and the few bodies that everything is put together from.

A mesh lives in the frame of its object: x forward, y left, z up, origin at the centre of the footprint on the ground.
Triangles are counter-clockwise seen from outside; what is behind them is never drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

# How a surface answers light.
MATTE, PAINT, GLASS, LAMP, MASONRY, FOLIAGE = range(6)

_BOX_FACES = np.array([[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7], [4, 5, 6, 7], [3, 2, 1, 0]])
_BOX_SIGNS = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]], dtype=np.float64)


_NEXT, _AFTER_NEXT = [1, 2, 0], [2, 0, 1]  # axes


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3) float32 in m, triangles (T, 3) int32, colours (T, 3) uint8 RGB and materials (T,) uint8."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    colours: NDArray[np.uint8]
    materials: NDArray[np.uint8]

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """Outward unit normals (T, 3); zero for a triangle without area."""
        a, b, c = np.moveaxis(self.vertices.astype(np.float64)[self.triangles], 1, 0)
        normals = _cross(b - a, c - a)
        return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    @cached_property
    def shading_normals(self) -> NDArray[np.float32]:
        """Normals (T, 3) for the light: the two halves of a slightly warped quadrilateral share one."""
        normals, before, after = self.normals.copy(), self.triangles[:-1], self.triangles[1:]
        halves = (before[:, 0] == after[:, 0]) & (before[:, 2] == after[:, 1])
        halves |= (before[:, 0] == after[:, 0]) & (before[:, 1] == after[:, 2])
        halves &= np.einsum("tx,tx->t", normals[:-1], normals[1:]) > 0.8
        first = np.flatnonzero(halves)
        mean = self.normals[first] + self.normals[first + 1]
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        normals[first] = normals[first + 1] = mean
        return normals

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest corner, (3,) each."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    @cached_property
    def height(self) -> float:
        """Highest z in metres."""
        return float(self.vertices[:, 2].max())

    @cached_property
    def footprint(self) -> NDArray[np.float64]:
        """What hides the sky from the ground (6,): middle x, y, half length, half width, reach and strength of it.

        It is measured on what is less than half a metre above the ground: the trunk of a tree, not its crown.
        """
        near = self.vertices[self.vertices[:, 2] < max(0.5, float(self.vertices[:, 2].min()) + 0.01), :2]
        low, high = near.min(axis=0).astype(np.float64), near.max(axis=0).astype(np.float64)
        reach = float(np.clip(0.3 * self.height, 0.15, 0.7))
        half = np.maximum((high - low) / 2 - 0.3 * reach, 0.0)
        return np.array([*(low + high) / 2, *half, reach, 0.75])

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """Centre (3,) of the bounds, that of the bounding sphere."""
        return np.mean(self.bounds, axis=0, dtype=np.float64)

    @cached_property
    def radius(self) -> float:
        """Radius of the sphere about `centre` that holds all vertices."""
        return float(np.linalg.norm(self.vertices - self.centre, axis=1).max())


def _cross(a: NDArray, b: NDArray) -> NDArray:
    """Return cross products (T, 3); `np.cross` takes several times as long for as few as a mesh has."""
    return a[:, _NEXT] * b[:, _AFTER_NEXT] - a[:, _AFTER_NEXT] * b[:, _NEXT]


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """Return one mesh of all triangles of `meshes`."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts, strict=True)]).astype(np.int32),
        np.concatenate([mesh.colours for mesh in meshes]),
        np.concatenate([mesh.materials for mesh in meshes]),
    )


def fit(mesh: Mesh, size: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None) -> Mesh:
    """Scale and shift a mesh so that its bounds become the box of `size` that stands on the origin.

    `low` and `high` (3,) replace the mesh's own bounds where a moving thing has larger ones at another moment.
    """
    low = mesh.bounds[0] if low is None else np.asarray(low)
    high = mesh.bounds[1] if high is None else np.asarray(high)
    size = np.asarray(size, dtype=np.float64)
    share = (mesh.vertices.astype(np.float64) - low) / (np.asarray(high, dtype=np.float64) - low)
    return replace(mesh, vertices=(share * size - size * (0.5, 0.5, 0.0)).astype(np.float32))


def placed(mesh: Mesh, translation: ArrayLike = (0.0, 0.0, 0.0), yaw: float = 0.0, pitch: float = 0.0) -> Mesh:
    """Return the mesh turned by `pitch` about y (positive: the front goes down), then `yaw` about z, then moved."""
    cos, sin = np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ about_y
    vertices = mesh.vertices.astype(np.float64) @ rotation.T + np.asarray(translation)
    return replace(mesh, vertices=vertices.astype(np.float32))


def from_quads(vertices: ArrayLike, quads: ArrayLike, colours: ArrayLike, material: ArrayLike = MATTE) -> Mesh:
    """Return a mesh of `quads` (Q, 4) with `colours` (Q, 3) or (3,), RGB from 0 to 255, and materials (Q,) or one."""
    quads = np.asarray(quads, dtype=np.int32)
    colours = np.broadcast_to(np.clip(np.asarray(colours), 0, 255).astype(np.uint8), (len(quads), 3))
    materials = np.broadcast_to(np.asarray(material, dtype=np.uint8), len(quads))
    triangles = np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3)
    vertices = np.asarray(vertices, dtype=np.float32).reshape(-1, 3)
    return Mesh(vertices, triangles, np.repeat(colours, 2, axis=0), np.repeat(materials, 2))


def boxes(
    low: ArrayLike,
    high: ArrayLike,
    colours: ArrayLike,
    material: ArrayLike = MATTE,
    taper: tuple[float, float] = (1.0, 1.0),
    shift: tuple[float, float] = (0.0, 0.0),
) -> Mesh:
    """Return N boxes from `low` to `high` (N, 3) or (3,).

    Their tops are scaled by `taper` and moved by `shift` in x and y. `colours` is (3,), (N, 3) or
    (N, 6, 3) for front, left, back, right, top, bottom.
    """
    low, high = np.broadcast_arrays(np.atleast_2d(np.asarray(low, float)), np.atleast_2d(np.asarray(high, float)))
    middle, half = (low + high) / 2, (high - low) / 2
    foot = middle[:, None, :2] + _BOX_SIGNS * half[:, None, :2]
    head = middle[:, None, :2] + _BOX_SIGNS * half[:, None, :2] * np.asarray(taper) + np.asarray(shift)
    flat = np.concatenate([foot, head], axis=1)
    heights = np.repeat(np.stack([low[:, 2], high[:, 2]], axis=1), 4, axis=1)
    quads = (8 * np.arange(len(low))[:, None, None] + _BOX_FACES).reshape(-1, 4)
    colours = np.asarray(colours, float)
    if colours.ndim == 2:
        colours = colours[:, None]
    colours = np.broadcast_to(colours, (len(low), 6, 3)).reshape(-1, 3)
    materials = np.asarray(material)
    if materials.ndim:
        materials = np.repeat(materials, 6)
    return from_quads(np.concatenate([flat, heights[:, :, None]], axis=2), quads, colours, materials)


def tubes(
    start: ArrayLike,
    end: ArrayLike,
    radii: ArrayLike,
    colours: ArrayLike,
    sides: int = 6,
    material: int = MATTE,
    flat: float = 1.0,
) -> Mesh:
    """Return N closed tubes from `start` to `end` (N, 3) whose `radii` (N, 2) belong to the two ends.

    `flat` scales the thickness across the direction that is nearest to y.
    """
    start, end = np.atleast_2d(np.asarray(start, float)), np.atleast_2d(np.asarray(end, float))
    radii = np.broadcast_to(np.asarray(radii, float), (len(start), 2))
    along = end - start
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = np.where(np.abs(along[:, 1:2]) > 0.8, [[1.0, 0, 0]], [[0.0, 1, 0]])
    first = np.cross(across, along)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first) * flat
    angles = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    ring = np.cos(angles)[:, None] * first[:, None] + np.sin(angles)[:, None] * second[:, None]
    rings = np.stack([start[:, None] + ring * radii[:, :1, None], end[:, None] + ring * radii[:, 1:, None]], axis=1)
    index = np.arange(sides)
    following = (index + 1) % sides
    walls = np.stack([index, following, sides + following, sides + index], axis=1)
    inner = np.arange(1, sides - 1, 2)
    tops = np.stack([0 * inner, inner, inner + 1, np.minimum(inner + 2, sides - 1)], axis=1)
    faces = np.concatenate([walls, tops[:, ::-1], sides + tops])
    quads = (2 * sides * np.arange(len(start))[:, None, None] + faces).reshape(-1, 4)
    colours = np.broadcast_to(np.asarray(colours, float), (len(start), 3))
    return _without_slivers(from_quads(rings, quads, np.repeat(colours, len(faces), axis=0), material))


def loft(rings: ArrayLike, colours: ArrayLike, material: ArrayLike = MATTE, caps: ArrayLike | None = None) -> Mesh:
    """Return the closed skin over `rings` (S, K, 3), joined one to the next, with a lid on the first and the last.

    `colours` is (3,) or (S - 1, K, 3), `material` one or (S - 1, K); `caps` (2, 3) are the colours of the lids.
    """
    rings = np.asarray(rings, dtype=np.float64)
    stations, count = rings.shape[:2]
    colours = np.asarray(colours, float)
    if caps is None:
        caps = np.stack([colours, colours]) if colours.ndim == 1 else colours[[0, -1]].mean(axis=1)
    colours = np.broadcast_to(colours, (stations - 1, count, 3)).reshape(-1, 3)
    materials = np.broadcast_to(np.asarray(material), (stations - 1, count)).reshape(-1)
    index, following = np.arange(count), (np.arange(count) + 1) % count
    band = np.stack([index, following, count + following, count + index], axis=1)
    walls = (count * np.arange(stations - 1)[:, None, None] + band).reshape(-1, 4)
    inner = np.arange(1, count - 1, 2)
    lid = np.stack([0 * inner, inner, inner + 1, np.minimum(inner + 2, count - 1)], axis=1)
    quads = np.concatenate([walls, lid[:, ::-1], count * (stations - 1) + lid])
    colours = np.concatenate([colours, np.repeat(np.asarray(caps, float), len(lid), axis=0)])
    materials = np.concatenate([materials, np.full(2 * len(lid), materials[0])])
    return _outward(_without_slivers(from_quads(rings, quads, colours, materials)))


def lathe(profile: ArrayLike, colours: ArrayLike, sides: int = 8, material: int = MATTE) -> Mesh:
    """Return the body that `profile` (S, 2) of (radius, z) sweeps about z; `colours` (3,) or (S - 1, 3)."""
    profile = np.asarray(profile, float)
    angles = 2 * np.pi * np.arange(sides) / sides
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    flat = profile[:, None, :1] * circle
    rings = np.concatenate([flat, np.broadcast_to(profile[:, None, 1:], (*flat.shape[:2], 1))], axis=2)
    colours = np.asarray(colours, float)
    if colours.ndim == 2:
        colours = np.repeat(colours[:, None], sides, axis=1)
    return loft(rings, colours, material)


def wheels(centres: ArrayLike, radius: float, width: float, sides: int = 10, hub: ArrayLike = (150, 152, 156)) -> Mesh:
    """Return wheels that roll along x: `centres` (N, 3) are on the axles, in the middle of the tyres."""
    shares = ((1.0, -1.0), (1.0, 1.0), (0.6, 1.0), (0.5, 0.8), (0.1, 0.9))
    tyre, rim = np.array([26.0, 26, 28]), np.asarray(hub, float)
    parts = []
    for x, y, z in np.atleast_2d(np.asarray(centres, float)):
        outward = 1.0 if y >= 0 else -1.0
        wheel = lathe(
            [(radius * r, width / 2 * w) for r, w in shares], [tyre, tyre * 1.5, rim * 0.6, rim], sides, MATTE
        )
        # The axis of the lathe becomes the axle, with the rim on the outside.
        vertices = wheel.vertices[:, [0, 2, 1]] * (1, outward, 1) + (x, y, z)
        parts.append(_outward(replace(wheel, vertices=vertices.astype(np.float32))))
    return merge(parts)


_PLATES = {
    "front": (0, 1, 2, 1),
    "back": (0, 1, 2, -1),
    "left": (1, 0, 2, 1),
    "right": (1, 0, 2, -1),
    "top": (2, 0, 1, 1),
}


def plates(
    side: str, at: ArrayLike, u: ArrayLike, v: ArrayLike, colours: ArrayLike, material: ArrayLike = MATTE
) -> Mesh:
    """Return N flat rectangles, such as windows and lamps, that face one way.

    They lie at x (`side` front, back), y (left, right) or z (top) `at`; `u` and `v` (N, 2) are their ranges along the
    other two axes in the order x, y, z.
    """
    axis, along, up, sign = _PLATES[side]
    u, v = np.broadcast_arrays(np.atleast_2d(np.asarray(u, float)), np.atleast_2d(np.asarray(v, float)))
    corners = np.empty((len(u), 4, 3))
    corners[:, :, axis] = np.broadcast_to(np.asarray(at, float).reshape(-1, 1), (len(u), 4))
    corners[:, :, along], corners[:, :, up] = u[:, [0, 1, 1, 0]], v[:, [0, 0, 1, 1]]
    colours = np.broadcast_to(np.asarray(colours, float), (len(u), 3))
    mesh = from_quads(corners, np.arange(4 * len(u)).reshape(-1, 4), colours, material)
    return mesh if np.sign(mesh.normals[0, axis]) == sign else _flipped(mesh)


def doubled(mesh: Mesh) -> Mesh:
    """Return the mesh with each triangle seen from both sides, for sheets."""
    return merge([mesh, _flipped(mesh)])


def _flipped(mesh: Mesh) -> Mesh:
    return replace(mesh, triangles=np.ascontiguousarray(mesh.triangles[:, [0, 2, 1]]))


def _outward(mesh: Mesh) -> Mesh:
    """Turn the triangles of a closed mesh so that its volume is positive."""
    a, b, c = np.moveaxis((mesh.vertices - mesh.vertices.mean(axis=0)).astype(np.float64)[mesh.triangles], 1, 0)
    return mesh if np.einsum("tx,tx->", a, _cross(b, c)) >= 0 else _flipped(mesh)


def _without_slivers(mesh: Mesh) -> Mesh:
    a, b, c = np.moveaxis(mesh.vertices.astype(np.float64)[mesh.triangles], 1, 0)
    kept = np.linalg.norm(_cross(b - a, c - a), axis=1) > 1e-9
    return Mesh(mesh.vertices, mesh.triangles[kept], mesh.colours[kept], mesh.materials[kept])
