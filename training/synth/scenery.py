"""What hides objects but is not annotated: buildings, trees, hedges, lamp posts, signs and traffic lights."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streampetr_core.geometry import Array, box_corners
from training.synth.kerb import place_at
from training.synth.roads import BEHIND, Site
from training.synth.sizes import Size
from training.synth.stage import Stage

_REACH = 130.0  # metres from the ego vehicle's way
_POLE = (0.4, 0.4, 1.0)


@dataclass(frozen=True, eq=False)
class Structure:
    """`kind` is one of those of `raster.structure_mesh`; `place` is (x, y, yaw) of the middle of its foot in site."""

    kind: str
    size: Size
    place: Array
    seed: int


def add_poles(stage: Stage, site: Site) -> list[Structure]:
    """Lamp posts and signs along the kerbs, and traffic lights where lanes end before a crossing or a zebra."""
    rng, poles = stage.rng, []
    spacing, arm, height = rng.uniform(22, 40), float(rng.uniform(1.2, 2.4)), float(rng.uniform(6, 9))
    for number, road in enumerate(site.roads):
        for side in road.sides:
            _, _, inner, _ = road.edges(side)
            for s in np.arange(rng.uniform(0, spacing), road.centre.length, spacing):
                if any(gap.start < s < gap.end for gap in site.gaps_of(number, side.sign, "junction", "zebra", "stop")):
                    continue
                if _take(stage, place_at(road, side, s, inner + 0.25), _POLE):
                    # The arm reaches over the road; what is placed is the middle between its ends.
                    middle = place_at(road, side, s, inner + 0.25 - arm / 2, np.pi / 2)
                    poles.append(Structure("lamp_post", (arm, 0.25, height), middle, int(rng.integers(2**31))))
                place = place_at(road, side, s + rng.uniform(4, spacing - 4), inner + 0.3, np.pi)
                if rng.random() < 0.35 and _take(stage, place, _POLE):
                    size = (0.15, 0.7, float(rng.uniform(2.4, 3.0)))
                    poles.append(Structure("sign", size, place, int(rng.integers(2**31))))
    return poles + _traffic_lights(stage, site)


def _traffic_lights(stage: Stage, site: Site) -> list[Structure]:
    lights = []
    for gap in (gap for gap in site.gaps if gap.use in ("zebra", "junction")):
        road = site.roads[gap.road]
        for side, s in ((road.right, gap.start + 3.5), (road.left, gap.end - 3.5)):
            place = place_at(road, side, s, road.edges(side)[2] + 0.3, np.pi)
            if _take(stage, place, _POLE):
                lights.append(Structure("traffic_light", (0.35, 0.4, 3.4), place, int(stage.rng.integers(2**31))))
    return lights


def _take(stage: Stage, place: Array, foot: Size) -> bool:
    """Keep a place free if it is near and free."""
    if not _near(stage, place) or not stage.is_free(place, foot, 0.05):
        return False
    stage.block(place, foot)
    return True


def add_buildings_and_trees(stage: Stage, site: Site) -> list[Structure]:
    """Rows of houses behind the pavements, with trees before them; denser in some scenes than in others."""
    found = []
    built, green = stage.rng.uniform(0.3, 1.0), stage.rng.uniform(0.2, 1.0)
    for structure, foot in _candidates(stage, site, built, green):
        clear = _off_the_roads(site, structure.place, foot)
        if clear and _near(stage, structure.place) and stage.is_free(structure.place, foot, 0.3):
            stage.block(structure.place, foot)
            found.append(structure)
    return found


def _candidates(stage: Stage, site: Site, built: float, green: float) -> Iterator[tuple[Structure, Size]]:
    rng = stage.rng
    for road in site.roads:
        for side in road.sides:
            far, s = road.edges(side)[3], float(rng.uniform(0, 15))
            while s < road.centre.length:
                length = rng.uniform(9, 26)
                depth, height, setback = rng.uniform(8, 14), 3.1 * rng.integers(2, 8), rng.uniform(2.5, 8)
                if rng.random() < built:
                    place = place_at(road, side, s + length / 2, far + setback + depth / 2)
                    size = (float(length), float(depth), float(height))
                    yield Structure("building", size, place, int(rng.integers(2**31))), size
                if rng.random() < green * 0.6:
                    kind = str(rng.choice(["bush", "bush", "wall", "fence"]))
                    run, high = float(rng.uniform(1.0, length)), float(rng.uniform(0.7, 1.6))
                    run = min(run, 8.0) if kind != "bush" or run > 2.5 else 1.4
                    size = (run, 1.2 if kind == "bush" else 0.3, high)
                    place = place_at(road, side, s + length / 2 + rng.uniform(-0.3, 0.3) * length, far + 1.0)
                    yield Structure(kind, size, place, int(rng.integers(2**31))), size
                if rng.random() < green:
                    crown = float(rng.uniform(2.4, 5.0))
                    place = place_at(road, side, s + rng.uniform(0, length), far + crown / 2 + rng.uniform(0.1, 1.0))
                    place[2] = rng.uniform(-np.pi, np.pi)
                    size = (crown, crown, float(rng.uniform(4.5, 9)))
                    yield Structure("tree", size, place, int(rng.integers(2**31))), size
                s += length + (rng.uniform(0.5, 12) if built < 0.7 else rng.uniform(0.3, 3))


def _near(stage: Stage, place: Array) -> bool:
    difference = stage.ego_track[:, :2] - place[:2]
    return bool(np.einsum("tx,tx->t", difference, difference).min() < _REACH**2)


def _off_the_roads(site: Site, place: Array, size: Size) -> bool:
    box = (place[0], place[1], 0.0, *size, place[2])
    corners = box_corners(box)[0, :4, :2]
    points = np.concatenate([corners, (corners + np.roll(corners, 1, axis=0)) / 2])
    for road in site.roads:
        s, d = road.centre.nearest(points)
        inside = (s > -BEHIND) & (s < road.centre.length + BEHIND)
        left, right = road.edges(road.left)[3], road.edges(road.right)[3]
        if np.any(inside & (d < left + 0.3) & (d > -right - 0.3)):
            return False
    return True
