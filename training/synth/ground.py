"""Paints the ground of a site: grass, pavements, kerbs, asphalt, cycle tracks, lane marks, bays and zebras."""

from collections.abc import Sequence

import cv2
import numpy as np

from streampetr_core.geometry import Array
from training.synth.paths import Path
from training.synth.raster import GroundMap
from training.synth.roads import AISLE, BAY_DEPTH, ZEBRA_WIDTH, Gap, Road, Side, Site

_METRES_PER_PIXEL = 0.08
_MARGIN = 70.0  # metres of ground around the ego vehicle's way
_BITS = 4  # fractional bits of the corners given to OpenCV
_DASH, _DASH_PERIOD = 3.0, 9.0
_LINE = 0.14
_STEP = 2.0  # metres between the corners of a band

_LOOKS = {
    "train": {
        "open": ((96, 116, 70), (120, 124, 84), (132, 122, 100), (84, 104, 72)),
        "pavement": ((150, 146, 140), (164, 158, 150), (138, 140, 142)),
        "asphalt": ((82, 84, 88), (94, 94, 96), (72, 74, 78)),
        "cycles": ((136, 84, 72), (92, 94, 98), (80, 118, 96)),
    },
    "val": {
        "open": ((88, 110, 78), (126, 118, 92), (108, 112, 80)),
        "pavement": ((156, 152, 144), (144, 138, 130)),
        "asphalt": ((88, 90, 92), (76, 76, 82)),
        "cycles": ((128, 92, 80), (98, 100, 104), (90, 104, 126)),
    },
}
_WHITE, _YELLOW, _KERB = (222, 222, 216), (206, 164, 56), (176, 174, 168)


class _Painter:
    """A picture of the ground; rows run along y."""

    def __init__(self, low: Array, high: Array, colour: Sequence[float]) -> None:
        self.low = low
        columns, rows = np.ceil((high - low) / _METRES_PER_PIXEL).astype(int)
        self.image = np.full((rows, columns, 3), colour, np.uint8)

    def polygons(self, outlines: Sequence[Array], colour: Sequence[float]) -> None:
        """Fill outlines (K, 2) in site that do not overlap each other."""
        outlines = [
            np.rint((outline - self.low) * ((1 << _BITS) / _METRES_PER_PIXEL)).astype(np.int32) for outline in outlines
        ]
        if outlines:
            cv2.fillPoly(self.image, outlines, colour, cv2.LINE_AA, _BITS)

    def band(self, path: Path, inner: Array | float, outer: Array | float, colour: Sequence[float]) -> None:
        """Fill what lies between two offsets along the whole path."""
        s = np.linspace(0, path.length, int(path.length / _STEP) + 2)
        grid = np.arange(len(path.points)) * path.step
        rims = [path.at(s, np.interp(s, grid, np.broadcast_to(d, len(grid))))[0] for d in (inner, outer)]
        self.polygons([np.concatenate([rims[0], rims[1][::-1]])], colour)

    def pieces(self, path: Path, start: Array, end: Array, low: Array, high: Array, colour: Sequence[float]) -> None:
        """Fill N quadrangles from `start` to `end` along the path and between offsets `low` and `high`, each (N,)."""
        start, end, low, high = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(v, float)) for v in (start, end, low, high))
        )
        corners = path.at(np.stack([start, end, end, start], axis=1), np.stack([low, low, high, high], axis=1))[0]
        self.polygons(list(corners), colour)


def paint(site: Site, ego_track: Array, family: str, seed: int) -> GroundMap:
    """Return the ground around the way (T, 3) of the ego vehicle."""
    rng = np.random.default_rng(seed)
    look = {name: choices[int(rng.integers(len(choices)))] for name, choices in _LOOKS[family].items()}
    low, high = ego_track[:, :2].min(axis=0) - _MARGIN, ego_track[:, :2].max(axis=0) + _MARGIN
    painter = _Painter(low, high, look["open"])
    near = [_near_part(site, number, low, high) for number in range(len(site.roads))]
    for road in near:
        _paint_sides(painter, road, look)
    for road in near:
        right, left = (road.edges(side)[1] for side in road.sides)
        painter.band(road.centre, -right, left, look["asphalt"])
    if site.kind == "crossing":
        _paint_corners(painter, site, look)
    for number, road in enumerate(near):
        start = float(site.roads[number].centre.nearest(road.centre.points[0])[0][0])
        gaps = [
            Gap(0, gap.start - start, gap.end - start, gap.use, gap.sign) for gap in site.gaps if gap.road == number
        ]
        _paint_marks(painter, road, gaps, rng)
    texture = int(rng.integers(2**30)) * 2 + (family == "val")
    origin = tuple((low + 0.5 * _METRES_PER_PIXEL).tolist())
    return GroundMap(painter.image, _METRES_PER_PIXEL, origin, texture)


def _near_part(site: Site, number: int, low: Array, high: Array) -> Road:
    """Return the part of a road that may be on the map."""
    road = site.roads[number]
    points, reach = road.centre.points, road.reach + 10
    inside = np.flatnonzero(np.all((points > low - reach) & (points < high + reach), axis=1))
    first, last = (inside[0], inside[-1]) if len(inside) else (0, 2)
    part = slice(first, max(last, first + 2) + 1)
    centre = Path(points[part], road.centre.headings[part], road.centre.step)
    return Road(centre, road.lanes, road.width, road.right, road.left, road.shift[part])


def _paint_sides(painter: _Painter, road: Road, look: dict) -> None:
    for side in road.sides:
        _, kerb, inner, outer = road.edges(side)
        painter.band(road.centre, side.sign * inner, side.sign * outer, look["pavement"])
        if side.cycles:
            painter.band(road.centre, side.sign * kerb, side.sign * inner, look["cycles"])
            painter.band(road.centre, side.sign * (inner - 0.08), side.sign * (inner + 0.06), _WHITE)
        painter.band(road.centre, side.sign * (kerb - 0.05), side.sign * (kerb + 0.2), _KERB)


def _paint_corners(painter: _Painter, site: Site, look: dict) -> None:
    """Asphalt where turning vehicles cut the corners of a crossing."""
    for number in site.signals.inner:
        painter.band(site.lanes[number].path, -1.9, 1.9, look["asphalt"])


def _paint_marks(painter: _Painter, road: Road, gaps: list[Gap], rng: np.random.Generator) -> None:
    junctions = [(gap.start + 3.0, gap.end - 3.0) for gap in gaps if gap.use == "junction"]
    stripes = junctions + [(gap.start + 1.0, gap.end - 1.0) for gap in gaps if gap.use == "zebra"]
    middle = _YELLOW if rng.random() < 0.5 else _WHITE
    s = np.arange(0, road.centre.length, 3.0)
    shift = np.interp(s, np.arange(len(road.shift)) * road.centre.step, road.shift)
    solid = ~_within(s, 3.0, stripes)
    if road.lanes > 1 or rng.random() < 0.5:
        for d in (-0.18, 0.18):
            _line(painter, road.centre, s[solid], 3.0, d + shift[solid], middle)
    else:
        dashed = solid & (np.arange(len(s)) % 3 == 0)
        _line(painter, road.centre, s[dashed], _DASH, shift[dashed], middle)
    dashed = ~_within(s, 3.0, stripes) & (np.arange(len(s)) % int(_DASH_PERIOD / _DASH) == 0)
    for lane in range(1, road.lanes):
        for sign in (-1, 1):
            _line(painter, road.centre, s[dashed], _DASH, sign * lane * road.width + shift[dashed], _WHITE)
    for side in road.sides:
        _line(painter, road.centre, s[solid], 3.0, side.sign * (road.half - 0.05) + shift[solid], _WHITE)
        _paint_bays(painter, road, side, [(gap.start, gap.end) for gap in gaps if gap.sign in (0, side.sign)])
    _paint_zebras(painter, road, gaps)
    for gap in (gap for gap in gaps if gap.use == "stop"):
        edge = road.half if gap.sign > 0 else -road.half
        _line(painter, road.centre, np.arange(gap.start, gap.end - 2, 4.0), 2.0, edge + gap.sign * 0.4, _YELLOW)


def _within(s: Array, length: float, spans: Sequence[tuple[float, float]]) -> Array:
    hits = [(s + length > start) & (s < end) for start, end in spans]
    return np.any(hits, axis=0) if hits else np.zeros(len(s), bool)


def _line(painter: _Painter, path: Path, s: Array, length: float, d: Array | float, colour: Sequence[float]) -> None:
    d = np.broadcast_to(d, len(s))
    if len(s):
        painter.pieces(path, s, s + length, d - _LINE / 2, d + _LINE / 2, colour)


def _paint_bays(painter: _Painter, road: Road, side: Side, closed: Sequence[tuple[float, float]]) -> None:
    """Lines between angled bays, also in the rows of a car park; ticks between parallel ones."""
    if side.parking < 2:
        return
    spacing = 2.75 / np.sin(side.bays) if side.bays else 6.2
    s = np.arange(0, road.centre.length, spacing)
    s = s[~_within(s, 0.2, closed)]
    rows = [(road.half, road.half + side.parking)]
    starts = road.half + side.parking + AISLE + np.arange(side.rows) * (BAY_DEPTH + AISLE)
    rows += [(start, start + BAY_DEPTH) for start in starts]
    lean = BAY_DEPTH / np.tan(side.bays) if side.bays else 0.0
    for inner, outer in rows:
        outer = outer if side.bays else inner + 0.5
        # Bays lean the way the nearest lane is driven.
        far = s - side.sign * lean
        corners = [(s, inner), (s + _LINE, inner), (far + _LINE, outer), (far, outer)]
        outlines = np.stack([road.centre.at(along, side.sign * d)[0] for along, d in corners], axis=1)
        painter.polygons(list(outlines), _WHITE)


def _paint_zebras(painter: _Painter, road: Road, gaps: Sequence[Gap]) -> None:
    right, left = (road.edges(side)[2] for side in road.sides)
    for gap in gaps:
        middle = (gap.start + gap.end) / 2
        if gap.use in ("zebra", "crosswalk"):
            d = np.arange(-right + 0.3, left - 0.5, 1.0)
            start, end = middle - ZEBRA_WIDTH / 2, middle + ZEBRA_WIDTH / 2
            painter.pieces(road.centre, start, end, d, d + 0.5, _WHITE)
        if gap.use in ("zebra", "junction"):
            for s, low, high in ((gap.start + 1.4, -road.half, 0.0), (gap.end - 1.4, 0.0, road.half)):
                s += 2.6 if gap.use == "junction" and low < 0 else -2.6 if gap.use == "junction" else 0.0
                painter.pieces(road.centre, s - 0.2, s + 0.2, low, high, _WHITE)
