"""Curves on the ground, measured by their length: the lines along which everything is laid out and moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from streampetr_core.geometry import Array

_STEP = 0.5  # metres between the stored points


@dataclass(frozen=True)
class Path:
    """Points (N, 2) at even distances `step` in metres, and the heading (N,) at each in radians, unwrapped."""

    points: Array
    headings: Array
    step: float

    @property
    def length(self) -> float:
        """The length in metres."""
        return self.step * (len(self.points) - 1)

    @property
    def curvature(self) -> Array:
        """The curvature (N,) in 1/m, positive to the left."""
        return np.gradient(self.headings, self.step)

    def at(self, s: ArrayLike, d: ArrayLike = 0.0) -> tuple[Array, Array]:
        """Return points (..., 2) and headings (...) at distance `s` and left offset `d`; straight beyond the ends."""
        s = np.asarray(s, dtype=np.float64)
        inside = np.clip(s, 0.0, self.length)
        index = np.minimum((inside / self.step).astype(int), len(self.points) - 2)
        share = inside / self.step - index
        heading = (1 - share) * self.headings[index] + share * self.headings[index + 1]
        point = (1 - share)[..., None] * self.points[index] + share[..., None] * self.points[index + 1]
        cos, sin = np.cos(heading), np.sin(heading)
        along, across = s - inside, np.asarray(d, dtype=np.float64)
        return point + np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1), heading

    def beside(self, d: ArrayLike) -> "Path":
        """Return the path at left offset `d`, one number or one for each point (N,)."""
        sideways = np.stack([-np.sin(self.headings), np.cos(self.headings)], axis=-1)
        return through(self.points + np.broadcast_to(d, len(self.points))[:, None] * sideways)

    def backwards(self) -> "Path":
        """Return the same line driven the other way."""
        return Path(self.points[::-1], self.headings[::-1] + np.pi, self.step)

    def between(self, start: float, end: float) -> "Path":
        """Return the part from `start` to `end` in metres, straight on where it lies beyond the ends."""
        count = max(int(np.ceil((end - start) / _STEP - 1e-3)), 1)
        points, headings = self.at(np.linspace(start, end, count + 1))
        return Path(points, headings, (end - start) / count)

    def nearest(self, points: ArrayLike) -> tuple[Array, Array]:
        """Return the distances s and d in metres, along and to the left, of the stored points nearest to (M, 2)."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        difference = points[:, None] - self.points[None]
        index = np.argmin(np.einsum("mnx,mnx->mn", difference, difference), axis=1)
        to_point = points - self.points[index]
        cos, sin = np.cos(self.headings[index]), np.sin(self.headings[index])
        along = cos * to_point[:, 0] + sin * to_point[:, 1]
        return index * self.step + along, cos * to_point[:, 1] - sin * to_point[:, 0]


def through(points: ArrayLike) -> Path:
    """Return the path through points (N, 2) that lie closely on a smooth line."""
    points = np.asarray(points, dtype=np.float64)
    travelled = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    count = max(int(np.ceil(travelled[-1] / _STEP - 1e-3)), 1)
    s = np.linspace(0.0, travelled[-1], count + 1)
    even = np.stack([np.interp(s, travelled, points[:, axis]) for axis in (0, 1)], axis=-1)
    tangent = np.gradient(even, axis=0)
    return Path(even, np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0])), travelled[-1] / count)


def from_curvature(nodes: Sequence[tuple[float, float]], point: ArrayLike, heading: float) -> Path:
    """Return the path whose curvature runs linearly between nodes (s, 1/m): straights, clothoids and arcs."""
    end = nodes[-1][0]
    count = int(np.ceil(end / _STEP))
    step = end / count
    curvature = np.interp(np.arange(count + 1) * step, *np.array(nodes).T)
    turned = np.append(0.0, np.cumsum((curvature[1:] + curvature[:-1]) / 2 * step))
    headings = heading + turned
    middle = (headings[1:] + headings[:-1]) / 2
    steps = step * np.stack([np.cos(middle), np.sin(middle)], axis=-1)
    points = np.asarray(point) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return Path(points, headings, step)


def joining(before: Path, after: Path) -> Path:
    """Return a smooth curve from the end of `before` to the start of `after` (a cubic Bezier curve)."""
    start, end = before.points[-1], after.points[0]
    reach = 0.4 * np.linalg.norm(end - start)
    first = start + reach * np.array([np.cos(before.headings[-1]), np.sin(before.headings[-1])])
    second = end - reach * np.array([np.cos(after.headings[0]), np.sin(after.headings[0])])
    t = np.linspace(0, 1, 100)[:, None]
    points = (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second + t**3 * end
    return through(points)


def chain(paths: Sequence[Path]) -> Path:
    """Return the paths, each beginning where the one before ends, as one."""
    points = np.concatenate([paths[0].points, *(path.points[1:] for path in paths[1:])])
    return through(points)
