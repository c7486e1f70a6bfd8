"""People on foot and on bicycles: along pavements and cycle tracks, across the road, and waiting."""

import numpy as np
from numpy.typing import ArrayLike

from streampetr_core.geometry import Array
from training.synth.kerb import place_at
from training.synth.roads import BEHIND, Road, Side, Site
from training.synth.sizes import draw_size
from training.synth.stage import Stage

_WALK = (1.35, 0.25)  # m/s, mean and spread
_TURN_STEPS = 6  # steps in which a walker turns about


def add_cyclists(stage: Stage, site: Site) -> None:
    """Riders on the cycle tracks, and on the edge of the pavement where there is none."""
    rng = stage.rng
    for road in site.roads:
        for side in road.sides:
            speed, count = rng.uniform(3.0, 6.0), int(rng.poisson(3.5 if side.cycles else 1.0))
            _, kerb, pavement, _ = road.edges(side)
            distance = (kerb + pavement) / 2 if side.cycles else pavement + 0.5
            for s in rng.uniform(BEHIND - 60, road.centre.length - 60, count):
                along = s - side.sign * speed * stage.times
                kind = "bicycle" if rng.random() < 0.85 else "motorcycle"
                track = _along(road, side, along, distance)
                stage.add(stage.item(kind, draw_size(rng, kind, True), with_rider=True), track, 0.3)


def add_walkers(stage: Stage, site: Site) -> None:
    """Groups and single people who walk along the pavements, stop before crossings, or stand and talk."""
    rng = stage.rng
    busy = rng.uniform(0.35, 1.05)
    for number, road in enumerate(site.roads):
        for side in road.sides:
            ends = [gap for gap in site.gaps_of(number, side.sign, "junction")]
            _, _, inner, outer = road.edges(side)
            for _ in range(int(rng.poisson(busy * road.centre.length / 32))):
                s = float(rng.uniform(BEHIND - 60, road.centre.length - 50))
                if any(gap.start < s < gap.end for gap in ends):
                    continue
                if rng.random() < 0.1:
                    _add_talk(stage, road, side, s, float(rng.uniform(inner + 0.8, outer - 0.4)))
                else:
                    _add_group(stage, road, side, s, _stretch(s, ends, road.centre.length))


def _stretch(s: float, ends: list, length: float) -> tuple[float, float]:
    """Return the part of the pavement around `s` that no junction cuts."""
    low = max([gap.end for gap in ends if gap.end <= s], default=0.0)
    high = min([gap.start for gap in ends if gap.start >= s], default=length)
    return low, high


def _add_group(stage: Stage, road: Road, side: Side, s: float, stretch: tuple[float, float]) -> None:
    rng = stage.rng
    _, _, inner, outer = road.edges(side)
    members, direction = int(rng.choice([1, 1, 1, 2, 2, 3, 4])), int(rng.choice([-1, 1]))
    speed = max(float(rng.normal(*_WALK)), 0.5)
    first = float(rng.uniform(inner + 0.5, outer - 0.5))
    moving = np.ones(len(stage.times))
    if rng.random() < 0.2:  # stands still from some moment on, or until then
        moment = rng.uniform(stage.times[0], stage.times[-1])
        moving = (stage.times < moment if rng.random() < 0.5 else stage.times >= moment).astype(np.float64)
    travelled = direction * speed * np.append(0.0, np.cumsum(moving[1:] * np.diff(stage.times)))
    for member in range(members):
        distance = first + (member % 2) * 0.95 * (1 if first < (inner + outer) / 2 else -1)
        start = s - direction * (member // 2) * 1.15 + rng.uniform(-0.15, 0.15)
        along = np.clip(start + travelled, stretch[0] + 0.4 * member, stretch[1] - 0.4 * member)
        track = _along(road, side, along, distance)
        track[:, 2] += 0.0 if direction * side.sign < 0 else np.pi
        stage.add(stage.item("pedestrian", draw_size(rng, "pedestrian")), track, 0.08)


def _add_talk(stage: Stage, road: Road, side: Side, s: float, distance: float) -> None:
    """Two to four people who stand around a point and look at it."""
    rng = stage.rng
    count, turn, radius = int(rng.integers(1, 5)), rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 0.95)
    middle = place_at(road, side, s, distance)
    for angle in turn + np.arange(count) * 2 * np.pi / count:
        point = middle[:2] + radius * np.array([np.cos(angle), np.sin(angle)])
        where = np.array([*point, angle + np.pi + rng.normal(0, 0.25)])
        stage.add(stage.item("pedestrian", draw_size(rng, "pedestrian")), where, 0.05)


def add_crossers(stage: Stage, site: Site) -> None:
    """People who wait at a zebra until the way is clear, cross, and walk on along the pavement."""
    rng = stage.rng
    for gap in (gap for gap in site.gaps if gap.use in ("zebra", "crosswalk")):
        road, middle = site.roads[gap.road], (gap.start + gap.end) / 2
        for _ in range(int(rng.integers(1, 6))):
            side = road.sides[int(rng.integers(2))]
            s, speed = middle + rng.uniform(-1.4, 1.4), max(float(rng.normal(*_WALK)), 0.8)
            lines = _crossing_line(road, side, s, float(rng.choice([-1, 1])) * 40.0)
            item = stage.item("pedestrian", draw_size(rng, "pedestrian"))
            for wait in np.arange(stage.times[0] + rng.uniform(0, 1), stage.times[-1], 0.9):
                track = _follow(lines, speed * np.clip(stage.times - wait, 0.0, None))
                if stage.add(item, track, 0.45):
                    break


def _crossing_line(road: Road, side: Side, s: float, onward: float) -> Array:
    """Return the corners (3, 2) of the way from the near pavement over the road, and along the far one."""
    other = road.left if side is road.right else road.right
    near, far = road.edges(side)[2] + 0.6, road.edges(other)[2] + 1.0
    points = [place_at(road, side, s, near), place_at(road, other, s, far), place_at(road, other, s + onward, far)]
    return np.array(points)[:, :2]


def _follow(corners: Array, travelled: ArrayLike) -> Array:
    """Return the track (T, 3) of someone `travelled` metres (T,) along straight lines, who turns smoothly."""
    steps = np.diff(corners, axis=0)
    ends = np.append(0.0, np.cumsum(np.linalg.norm(steps, axis=1)))
    travelled = np.asarray(travelled, dtype=np.float64)
    points = np.stack([np.interp(travelled, ends, corners[:, axis]) for axis in (0, 1)], axis=-1)
    headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    yaw = headings[np.clip(np.searchsorted(ends, travelled, side="right") - 1, 0, len(headings) - 1)]
    kernel = np.ones(_TURN_STEPS) / _TURN_STEPS
    padded = np.concatenate([np.full(_TURN_STEPS, yaw[0]), yaw, np.full(_TURN_STEPS, yaw[-1])])
    smooth = np.convolve(padded, kernel, mode="same")[_TURN_STEPS:-_TURN_STEPS]
    return np.concatenate([points, smooth[:, None]], axis=1)


def _along(road: Road, side: Side, s: Array, distance: float) -> Array:
    points, headings = road.centre.at(s, side.sign * distance)
    return np.concatenate([points, (headings + (np.pi if side.sign > 0 else 0.0))[:, None]], axis=1)
