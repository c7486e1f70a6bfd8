"""What the things of a synthetic scene look like: a few tapered blocks each, that together fill the object's box.

Block coordinates are fractions of the box: x (forward) and y (left) from -0.5 to 0.5, z from 0 (ground) to 1.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from streampetr_core.geometry import Array, make_transform, transform_points

Colour = tuple[float, float, float]

# A colour that is not a number stands for the colour of the individual object.
_OWN = (np.nan, np.nan, np.nan)
_BLACK, _GLASS, _WHITE, _SKIN = (28, 28, 30), (46, 58, 70), (230, 230, 226), (205, 160, 130)
_RED, _LAMP, _STEEL, _TROUSERS = (190, 20, 24), (250, 246, 214), (120, 122, 126), (48, 50, 66)
_TRUNK, _SHIRT = (84, 64, 48), (60, 150, 170)

# Corners: the four of the bottom, counter-clockwise seen from above from front left, then those of the top.
_QUADS = np.array([[3, 0, 4, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [4, 5, 6, 7]])
_FRONT, _LEFT, _BACK, _RIGHT = range(4)
_FULL = (-0.5, 0.5)


@dataclass(frozen=True)
class Solid:
    """A convex body: `corners` (8, 3), `quads` (Q, 4, 3) on its surface and their `colours` (Q, 3), RGB.

    Quads are counter-clockwise seen from outside; a later one is painted over an earlier one.
    """

    corners: Array
    quads: Array
    colours: Array


def solids_of(kind: str, with_rider: bool, size: Array, ground_pose: Array, colour: Colour) -> list[Solid]:
    """Return the solids in world of a thing of `size` (length, width, height) at `ground_pose` (`world_T_body`)."""
    world_T_unit = ground_pose @ make_transform(np.diag(size), np.zeros(3))
    solids = []
    for unit in _unit_solids(kind, with_rider):
        colours = np.where(np.isnan(unit.colours), np.asarray(colour, dtype=np.float64), unit.colours)
        corners, quads = transform_points(world_T_unit, unit.corners), transform_points(world_T_unit, unit.quads)
        solids.append(Solid(corners, quads, colours))
    return solids


def _block(x: tuple, y: tuple, z: tuple, sides: Colour, top: Colour | None = None, taper: float = 1.0) -> Solid:
    """A block over the ranges x, y, z whose top is scaled by `taper` about its middle."""
    foot = np.array([[x[1], y[1]], [x[0], y[1]], [x[0], y[0]], [x[1], y[0]]], dtype=np.float64)
    head = foot.mean(axis=0) + taper * (foot - foot.mean(axis=0))
    corners = np.concatenate([np.insert(foot, 2, z[0], axis=1), np.insert(head, 2, z[1], axis=1)])
    return Solid(corners, corners[_QUADS], np.array([sides] * 4 + [top or sides], dtype=np.float64))


def _decorated(solid: Solid, side: int, patches: list[tuple[tuple, tuple, Colour]]) -> Solid:
    """Add flat patches (u range, v range, colour) on a side; u runs to the right as seen from outside, v upwards."""
    bottom_right, bottom_left, top_left, top_right = solid.corners[_QUADS[side]][[1, 0, 3, 2]]
    quads, colours = list(solid.quads), list(solid.colours)
    for (u0, u1), (v0, v1), colour in patches:
        rim = [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
        low = [bottom_left + u * (bottom_right - bottom_left) for u, _ in rim]
        high = [top_left + u * (top_right - top_left) for u, _ in rim]
        quads.append(np.array([a + v * (b - a) for a, b, (_, v) in zip(low, high, rim, strict=True)]))
        colours.append(np.array(colour, dtype=np.float64))
    return Solid(solid.corners, np.stack(quads), np.stack(colours))


def _lit(solid: Solid, height: tuple[float, float]) -> Solid:
    """Head lamps in front and red lamps behind, which show where a vehicle is heading."""
    solid = _decorated(solid, _FRONT, [((0.04, 0.22), height, _LAMP), ((0.78, 0.96), height, _LAMP)])
    return _decorated(solid, _BACK, [((0.04, 0.2), height, _RED), ((0.8, 0.96), height, _RED)])


def _wheels(height: float, *positions: float, half: float = 0.07) -> list[Solid]:
    return [_block((x - half, x + half), (-0.5, 0.5), (0, height), _BLACK) for x in positions]


def _bands(solid: Solid, rows: int) -> Solid:
    """Rows of windows around a solid."""
    for side in (_FRONT, _LEFT, _BACK, _RIGHT):
        patches = [((0.04, 0.96), ((row + 0.35) / rows, (row + 0.8) / rows), _GLASS) for row in range(rows)]
        solid = _decorated(solid, side, patches)
    return solid


def _car() -> list[Solid]:
    body = _lit(_block(_FULL, _FULL, (0.14, 0.6), _OWN), (0.5, 0.75))
    cabin = _block((-0.44, 0.26), (-0.47, 0.47), (0.6, 1), _GLASS, _OWN, 0.78)
    return [*_wheels(0.14, -0.32, 0.32), body, cabin]


def _truck() -> list[Solid]:
    cab = _lit(_block((0.24, 0.5), (-0.48, 0.48), (0.16, 0.85), _OWN), (0.1, 0.22))
    cab = _decorated(cab, _FRONT, [((0.08, 0.92), (0.5, 0.9), _GLASS)])
    for side in (_LEFT, _RIGHT):
        cab = _decorated(cab, side, [((0.2, 0.8), (0.55, 0.88), _GLASS)])
    load = _decorated(_block((-0.5, 0.21), _FULL, (0.2, 1), _WHITE), _BACK, [((0.08, 0.92), (0.06, 0.9), _STEEL)])
    return [*_wheels(0.2, -0.36, -0.2), *_wheels(0.16, 0.36), load, cab]


def _bus() -> list[Solid]:
    body = _lit(_bands(_block(_FULL, _FULL, (0.13, 1), _OWN), 1), (0.1, 0.2))
    return [*_wheels(0.13, -0.3, 0.32, half=0.05), body]


def _trailer() -> list[Solid]:
    doors = [((0.05, 0.48), (0.05, 0.95), _STEEL), ((0.52, 0.95), (0.05, 0.95), _STEEL)]
    body = _decorated(_block((-0.5, 0.44), _FULL, (0.28, 1), _OWN), _BACK, doors)
    leg = _block((0.3, 0.34), (-0.2, 0.2), (0, 0.28), _STEEL)
    tongue = _block((0.44, 0.5), (-0.1, 0.1), (0.28, 0.36), _STEEL)
    return [*_wheels(0.28, -0.38, -0.26, half=0.05), leg, body, tongue]


def _construction_vehicle() -> list[Solid]:
    tracks = [_block((-0.45, 0.25), y, (0, 0.28), _BLACK) for y in ((-0.5, -0.25), (0.25, 0.5))]
    body = _block((-0.5, 0.25), (-0.45, 0.45), (0.28, 0.62), _OWN)
    cabin = _block((-0.2, 0.12), (-0.4, 0.1), (0.62, 1), _GLASS, _OWN, 0.9)
    arm = _block((0.25, 0.42), (-0.12, 0.12), (0.45, 0.95), _OWN, taper=0.6)
    return [*tracks, body, cabin, arm, _block((0.42, 0.5), (-0.4, 0.4), (0.05, 0.45), _STEEL)]


def _pedestrian() -> list[Solid]:
    strides = (((-0.5, 0), (0.02, 0.3)), ((0, 0.5), (-0.3, -0.02)))
    legs = [_block(x, y, (0, 0.47), _TROUSERS) for x, y in strides]
    body = _block((-0.28, 0.28), _FULL, (0.47, 0.86), _OWN, taper=0.8)
    return [*legs, body, _block((-0.15, 0.18), (-0.17, 0.17), (0.86, 1), _SKIN, _TRUNK)]


def _traffic_cone() -> list[Solid]:
    rings = ((0.38, (0.06, 0.4), _OWN, 0.7), (0.27, (0.4, 0.7), _WHITE, 0.6), (0.16, (0.7, 1), _OWN, 0.3))
    stem = [_block((-r, r), (-r, r), z, colour, taper=taper) for r, z, colour, taper in rings]
    return [_block(_FULL, _FULL, (0, 0.06), _BLACK), *stem]


def _barrier() -> list[Solid]:
    edges = np.linspace(-0.5, 0.5, 6)
    return [_block(_FULL, edges[i : i + 2], (0, 1), _WHITE if i % 2 else _OWN) for i in range(5)]


def _tree() -> list[Solid]:
    rings = ((0.36, (0.3, 0.5), 1.35), (0.5, (0.5, 1), 0.4))
    crown = [_block((-r, r), (-r, r), z, _OWN, taper=taper) for r, z, taper in rings]
    return [_block((-0.05, 0.05), (-0.05, 0.05), (0, 0.3), _TRUNK), *crown]


def _building() -> list[Solid]:
    return [_bands(_block(_FULL, _FULL, (0, 1), _OWN), 4)]


def _two_wheeler(thick: float, with_rider: bool, shirt: Colour) -> list[Solid]:
    seat = 0.5 if with_rider else 0.75
    wheels = [_block(x, (-thick / 2, thick / 2), (0, 0.8 * seat), _BLACK) for x in ((-0.5, -0.2), (0.2, 0.5))]
    frame = _block((-0.2, 0.2), (-thick, thick), (0.5 * seat, seat), _OWN)
    bar = _block((0.2, 0.28), _FULL, (0.8 * seat, 0.65 if with_rider else 1), _STEEL)
    if not with_rider:
        return [*wheels, frame, bar]
    legs = _block((-0.08, 0.14), (-0.45, 0.45), (0.15, 0.5 * seat), _TROUSERS)
    rider = _block((-0.18, 0.16), (-0.4, 0.4), (seat, 0.85), shirt, taper=0.8)
    return [*wheels, legs, frame, bar, rider, _block((-0.08, 0.12), (-0.2, 0.2), (0.85, 1), _BLACK)]


_MAKERS = {
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "trailer": _trailer,
    "construction_vehicle": _construction_vehicle,
    "pedestrian": _pedestrian,
    "traffic_cone": _traffic_cone,
    "barrier": _barrier,
    "tree": _tree,
    "building": _building,
}


@lru_cache
def _unit_solids(kind: str, with_rider: bool) -> list[Solid]:
    if kind == "bicycle":
        return _two_wheeler(0.1, with_rider, _SHIRT)
    if kind == "motorcycle":
        return _two_wheeler(0.24, with_rider, _OWN)
    return _MAKERS[kind]()
