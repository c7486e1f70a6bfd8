"""What hides objects but is not annotated: buildings, trees and poles beside the roads."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streampetr_core.geometry import Array, box_corners
from training.synth.kerb import place_at
from training.synth.roads import BEHIND, Site
from training.synth.sizes import Size
from training.synth.stage import Stage

_REACH = 130.0  # metres from the ego vehicle's way


@dataclass(frozen=True, eq=False)
class Structure:
    """`kind` is building, tree or pole; `place` is (x, y, yaw) of the middle of its foot in site."""

    kind: str
    size: Size
    place: Array
    seed: int


def add_poles(stage: Stage, site: Site) -> list[Structure]:
    """Lamp posts along the kerbs."""
    rng, poles = stage.rng, []
    spacing = rng.uniform(22, 40)
    for number, road in enumerate(site.roads):
        for side in road.sides:
            _, _, inner, _ = road.edges(side)
            for s in np.arange(rng.uniform(0, spacing), road.centre.length, spacing):
                if any(gap.start < s < gap.end for gap in site.gaps_of(number, side.sign, "junction", "zebra", "stop")):
                    continue
                place = place_at(road, side, s, inner + 0.25)
                if _near(stage, place) and stage.is_free(place, (0.4, 0.4), 0.05):
                    stage.block(place, (0.4, 0.4))
                    poles.append(Structure("pole", (0.3, 0.3, rng.uniform(6, 9)), place, int(rng.integers(2**31))))
    return poles


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
                if rng.random() < green:
                    place = place_at(road, side, s + rng.uniform(0, length), far + rng.uniform(0.9, 2.0))
                    place[2] = rng.uniform(-np.pi, np.pi)
                    crown = float(rng.uniform(2.4, 5.0))
                    size = (crown, crown, float(rng.uniform(4.5, 9)))
                    yield Structure("tree", size, place, int(rng.integers(2**31))), (0.6, 0.6, 1.0)
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
