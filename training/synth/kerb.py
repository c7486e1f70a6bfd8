"""What stands along the roads of a scene: parked vehicles and cycles, road works, buses at their stops."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from streampetr_core.geometry import Array
from training.synth.roads import AISLE, BAY_DEPTH, BEHIND, Gap, Road, Side, Site
from training.synth.sizes import CLASSES, Size, draw_size
from training.synth.stage import Stage

_PARALLEL = {"car": 0.52, "truck": 0.11, "trailer": 0.20, "bus": 0.05, "motorcycle": 0.04, "construction_vehicle": 0.08}
_ANGLED = {"car": 0.90, "motorcycle": 0.10}
_IN_RANGE = {"traffic_cone": 15.0, "barrier": 15.0, "pedestrian": 20.0, "bicycle": 20.0, "motorcycle": 20.0}
_TRIES = 80


def place_at(road: Road, side: Side, s: float, distance: float, turn: float = 0.0) -> Array:
    """Return (x, y, yaw) at `distance` metres from the centre line; yaw 0 looks along the nearest lane, turned left."""
    point, heading = road.centre.at(s, side.sign * distance)
    return np.array([*point, heading + (np.pi if side.sign > 0 else 0.0) + turn])


def add_works(stage: Stage, site: Site) -> None:
    """Close the strip beside the shifted lanes: cones, rows of barriers, machines and workers."""
    for gap in site.gaps_of(0, -1, "works"):
        road, rng = site.roads[gap.road], stage.rng
        side, spacing = road.right, float(rng.uniform(2.2, 3.2))
        barriers, look = rng.random() < 0.8, int(rng.integers(60))
        middle = (gap.start + gap.end) / 2
        s = gap.start + 2.0
        while s < gap.end - 2:
            shift = float(np.interp(s, np.arange(len(road.shift)) * road.centre.step, road.shift))
            kind = "barrier" if barriers and shift > 1.6 else "traffic_cone"
            size = draw_size(rng, kind)
            turn = np.pi / 2 + rng.normal(0, 0.05) if kind == "barrier" else rng.uniform(-np.pi, np.pi)
            item = replace(stage.item(kind, size), variant=look)  # a row is made of one sort
            stage.add(item, place_at(road, side, s, road.half - shift + 0.75, turn), 0.05)
            s += size[1] + rng.uniform(0.15, 0.5) if kind == "barrier" else spacing
        for kind in ("construction_vehicle", *rng.permutation(["construction_vehicle", "truck", "trailer"])[:2]):
            size = draw_size(rng, kind)
            for _ in range(12):
                s = middle + rng.uniform(-0.5, 0.5) * (gap.end - gap.start - 34)
                where = place_at(road, side, s, road.half + rng.uniform(0.2, 1.2), rng.normal(0, 0.15))
                if stage.add(stage.item(kind, size, parked=bool(rng.random() < 0.7)), where, 0.4):
                    break
        for _ in range(int(rng.integers(2, 6))):
            where = place_at(road, side, middle + rng.uniform(-14, 14), road.half + rng.uniform(-0.8, 2.0))
            where[2] = rng.uniform(-np.pi, np.pi)
            stage.add(stage.item("pedestrian", draw_size(rng, "pedestrian")), where, 0.3)


def add_bus_stops(stage: Stage, site: Site) -> None:
    """Buses that stand in their bays, and people who wait."""
    rng = stage.rng
    for gap in (gap for gap in site.gaps if gap.use == "stop"):
        road = site.roads[gap.road]
        side = road.left if gap.sign > 0 else road.right
        _, kerb, _, _ = road.edges(side)
        s = gap.start + rng.uniform(2, 6)
        for _ in range(int(rng.choice([1, 1, 2]))):
            size = draw_size(rng, "bus")
            if s + size[0] > gap.end:
                break
            where = place_at(road, side, s + size[0] / 2, kerb - size[1] / 2 - rng.uniform(0.1, 0.3))
            stage.add(stage.item("bus", size), where, 0.1)
            s += size[0] + rng.uniform(1.2, 4)
        for _ in range(int(rng.integers(1, 6))):
            where = place_at(road, side, rng.uniform(gap.start, gap.end), kerb + side.cycles + rng.uniform(0.5, 1.6))
            where[2] += np.pi / 2 + rng.normal(0, 0.7)
            stage.add(stage.item("pedestrian", draw_size(rng, "pedestrian")), where, 0.2)


def add_parked(stage: Stage, site: Site) -> None:
    """Vehicles parked along the kerbs, at an angle or parallel, and in the rows of a car park."""
    fill = stage.rng.uniform(0.2, 0.55) if site.kind != "parking" else stage.rng.uniform(0.15, 0.4)
    for number, road in enumerate(site.roads):
        for side in road.sides:
            gaps = site.gaps_of(number, side.sign)
            if side.parking > 2:
                _park_row(stage, road, side, gaps, road.half + side.parking / 2, fill)
            for row in range(side.rows):
                distance = road.half + side.parking + AISLE + BAY_DEPTH / 2 + row * (BAY_DEPTH + AISLE)
                _park_row(stage, road, side, [], distance, fill)


def _park_row(stage: Stage, road: Road, side: Side, gaps: list[Gap], distance: float, fill: float) -> None:
    rng, s = stage.rng, float(stage.rng.uniform(0, 10))
    shares = _ANGLED if side.bays else _PARALLEL
    while s < road.centre.length:
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        size = draw_size(rng, kind)
        extent = 2.75 / np.sin(side.bays) if side.bays else size[0] + rng.uniform(0.7, 1.6)
        blocking = [gap.end for gap in gaps if gap.start < s + extent and gap.end > s]
        if blocking:
            s = max(blocking) + rng.uniform(0, 2)
            continue
        if rng.random() < fill:
            turn = -side.bays + rng.normal(0, 0.03)
            turn += np.pi if side.bays and rng.random() < 0.25 else 0.0
            where = place_at(road, side, s + extent / 2, distance + rng.uniform(-0.12, 0.12), turn)
            stage.add(stage.item(kind, size, parked=True), where)
        elif not side.bays:
            s += rng.exponential(9.0)
        s += extent


def add_small_works(stage: Stage, site: Site) -> None:
    """Here and there a machine, a trailer or nothing among cones and barriers at the side of the road."""
    rng = stage.rng
    for number, road in enumerate(site.roads):
        for _ in range(int(rng.poisson(3.6))):
            side = road.sides[int(rng.integers(2))]
            s, length = rng.uniform(BEHIND - 30, road.centre.length - 60), rng.uniform(5, 11)
            if any(gap.start < s + length + 3 and gap.end > s - 3 for gap in site.gaps_of(number, side.sign)):
                continue
            _, kerb, pavement, _ = road.edges(side)
            inner = road.half + 0.35 if side.parking > 2 else pavement + 0.4
            if rng.random() < 0.5 and side.parking > 2:
                kind = str(rng.choice(["construction_vehicle", "construction_vehicle", "trailer", "truck"]))
                size = draw_size(rng, kind)
                where = place_at(road, side, s + length / 2, kerb - size[1] / 2, rng.normal(0, 0.1))
                stage.add(stage.item(kind, size, parked=True), where)
                length = max(length, size[0] + 2)
            barriers, look = rng.random() < 0.5, int(rng.integers(60))
            for along in np.arange(s - 1, s + length + 1, 2.9 if barriers else 2.0):
                kind = "barrier" if barriers else "traffic_cone"
                size = draw_size(rng, kind)
                where = place_at(road, side, along, inner, np.pi / 2 + rng.normal(0, 0.1))
                stage.add(replace(stage.item(kind, size), variant=look), where)


def add_parked_cycles(stage: Stage, site: Site) -> None:
    """Rows of bicycles, sometimes of motorcycles, at the outer edge of the pavements."""
    rng = stage.rng
    for number, road in enumerate(site.roads):
        for _ in range(int(rng.poisson(2.4))):
            side = road.sides[int(rng.integers(2))]
            kind = "bicycle" if rng.random() < 0.75 else "motorcycle"
            s, far = rng.uniform(BEHIND - 40, road.centre.length - 60), road.edges(side)[3]
            if any(gap.start < s + 6 and gap.end > s for gap in site.gaps_of(number, side.sign, "junction", "zebra")):
                continue
            turn = np.pi / 2 if rng.random() < 0.7 else 0.0
            for _ in range(int(rng.integers(1, 6))):
                size = draw_size(rng, kind)
                across = size[0] if turn else size[1]
                where = place_at(road, side, s, far - across / 2 - 0.1, turn + rng.normal(0, 0.08))
                stage.add(stage.item(kind, size), where, 0.04)
                s += (size[1] if turn else size[0]) + rng.uniform(0.25, 0.6)


def add_missing(stage: Stage, site: Site, extra: Mapping[str, int]) -> None:
    """Put one thing of each class that is missing near the ego vehicle's way beside it, and `extra` ones."""
    for kind in CLASSES:
        near = 0
        for item, track in zip(stage.objects, stage.tracks, strict=True):
            distance = np.hypot(*(track[:, :2] - stage.ego_track[:, :2]).T).min() if item.kind == kind else np.inf
            near += bool(distance < _IN_RANGE.get(kind, 25.0))
        for _ in range(max(1 - near, 0) + extra.get(kind, 0)):
            _add_beside(stage, site, kind)


def _add_beside(stage: Stage, site: Site, kind: str) -> bool:
    vehicle = kind not in ("pedestrian", "bicycle", "traffic_cone", "barrier")
    for attempt in range(_TRIES):
        size = draw_size(stage.rng, kind)
        find = _spot_at_kerb if attempt < _TRIES // 2 else _spot_off_roads
        where = find(stage, site, kind, size)
        if where is not None and stage.add(stage.item(kind, size, parked=vehicle), where, 0.2):
            return True
    return False


def _spot_at_kerb(stage: Stage, site: Site, kind: str, size: Size) -> Array | None:
    rng = stage.rng
    here, ahead = stage.ego_track[int(rng.integers(len(stage.times)))], rng.uniform(0, 25)
    point = here[:2] + ahead * np.array([np.cos(here[2]), np.sin(here[2])])
    number = int(np.argmin([abs(road.centre.nearest(point)[1][0]) for road in site.roads]))
    road = site.roads[number]
    s = float(road.centre.nearest(point)[0][0])
    side = road.sides[int(rng.integers(2))]
    if any(gap.start < s + 4 and gap.end > s - 4 for gap in site.gaps_of(number, side.sign, "junction", "zebra")):
        return None
    _, kerb, pavement, far = road.edges(side)
    strip = side.parking > 2 and not side.bays
    if kind in _IN_RANGE:
        # At the edge of the lanes nothing that is parked later hides it.
        low, high = (road.half + 0.5, kerb - 0.5) if strip else (pavement + 0.4, far - 0.4)
        low, high = (pavement + 0.2, far - 0.4) if kind == "pedestrian" else (low, high)
        return place_at(road, side, s, rng.uniform(low, high), rng.uniform(-np.pi, np.pi))
    if strip:
        return place_at(road, side, s, kerb - side.parking / 2, rng.normal(0, 0.04))
    return place_at(road, side, s, far + size[1] / 2 + rng.uniform(0.3, 2.5), rng.normal(0, 0.2))


def _spot_off_roads(stage: Stage, site: Site, kind: str, size: Size) -> Array | None:
    """A place near the ego vehicle on the pavement or, for vehicles, behind it, where two roads meet for instance."""
    rng = stage.rng
    here, angle = stage.ego_track[int(rng.integers(len(stage.times)))], rng.uniform(-np.pi, np.pi)
    away = rng.uniform(5, _IN_RANGE.get(kind, 28.0))
    point = here[:2] + away * np.array([np.cos(angle), np.sin(angle)])
    for road in site.roads:
        d = float(road.centre.nearest(point)[1][0])
        _, kerb, _, far = road.edges(road.left if d > 0 else road.right)
        if abs(d) < (kerb + size[0] / 2 if kind in _IN_RANGE else far + size[1] / 2):
            return None
    return np.array([*point, rng.uniform(-np.pi, np.pi)])
