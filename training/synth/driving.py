"""The traffic of a scene: who drives where, and the tracks that follow."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streampetr_core.geometry import Array
from training.synth.roads import BEHIND, Site
from training.synth.sizes import Size, draw_size
from training.synth.stage import EGO_SIZE, Stage
from training.synth.traffic import Driver, Route, simulate

_SHARES = {"car": 0.53, "truck": 0.10, "bus": 0.11, "motorcycle": 0.09, "train": 0.14, "construction_vehicle": 0.03}
_DRAWBAR = 1.6  # metres between a truck and the trailer it draws
_GENTLE = 1 / 60  # 1/m, the curvature that long vehicles can take in their lane
_LONG = ("truck", "bus", "train", "construction_vehicle")


@dataclass(frozen=True)
class _Vehicle:
    driver: Driver
    kind: str
    size: Size
    trailer: Size | None = None


@dataclass(frozen=True)
class EgoDrive:
    """How the ego vehicle drives: over `times` (T,), the track (T, 3) of its middle, speed (T,) and curvature (T,)."""

    track: Array
    speed: Array
    curvature: Array


# Class, size and track (T, 3) of a vehicle, and of the trailer that it draws.
Train = list[tuple[str, Size, Array]]


def drive(rng: np.random.Generator, site: Site, times: Array) -> tuple[EgoDrive, list[Train]]:
    """Return the ego vehicle's drive, and all other driving vehicles."""
    ego_route = site.routes[int(rng.choice(site.ego_routes))]
    ego = Driver(ego_route, site.start, EGO_SIZE[0], site.pace)
    vehicles = list(_vehicles(rng, site, ego, times[-1]))
    s, v = simulate(site.lanes, site.signals, [ego, *(vehicle.driver for vehicle in vehicles)], len(times))
    curvature = np.interp(s[0], np.arange(len(ego_route.limit)) * ego_route.path.step, ego_route.path.curvature)
    others = []
    for vehicle, along in zip(vehicles, s[1:], strict=True):
        train = [(vehicle.kind, vehicle.size, _track(vehicle.driver.route, along))]
        if vehicle.trailer:
            train.append(("trailer", vehicle.trailer, _trailer_track(vehicle, along)))
        others.append(train)
    return EgoDrive(_track(ego_route, s[0]), v[0], curvature), others


def add_traffic(stage: Stage, others: list[Train]) -> None:
    """Let the driving vehicles in, one after the other; one that would touch another stays out."""
    for train in others:
        items = [stage.item(kind, size, with_rider=kind == "motorcycle") for kind, size, _ in train]
        stage.add_all(items, [track for _, _, track in train], margin=0.1)


def _vehicles(rng: np.random.Generator, site: Site, ego: Driver, duration: float) -> Iterator[_Vehicle]:
    by_first: dict[int, list[Route]] = {}
    for route in site.routes:
        by_first.setdefault(route.lanes[0], []).append(route)
    spacing = rng.uniform(15, 65)
    stops = [gap for gap in site.gaps if gap.use == "stop"]
    entered = {lane for route in site.routes for lane in route.lanes[1:]}
    for first, routes in by_first.items():
        length = site.lanes[first].path.length
        # What comes towards the ego vehicle at the end of the scene is far away at its beginning.
        s = rng.uniform(-site.pace * duration, 20.0 - site.pace * duration)
        if first == ego.route.lanes[0] or first in entered:
            s = rng.uniform(4.0, 40.0)
        while True:
            route = routes[int(rng.integers(len(routes)))]
            vehicle = _vehicle(rng, route, site.pace)
            half, tail = vehicle.size[0] / 2, vehicle.trailer[0] + _DRAWBAR if vehicle.trailer else 0.0
            s += tail + half
            if first == ego.route.lanes[0] and BEHIND - 14 - half < s < BEHIND + 12 + half + tail:
                s = BEHIND + 12 + half + tail
            if s + half > length - 4:
                break
            speed = site.pace * rng.uniform(0.85, 1.35)
            halts = _halts(rng, vehicle, site, stops) if vehicle.kind == "bus" else ()
            driver = Driver(route, s, vehicle.size[0], speed, tail, halts)
            yield _Vehicle(driver, vehicle.kind, vehicle.size, vehicle.trailer)
            s += half + 5.0 + 0.8 * speed + rng.exponential(spacing)


def _vehicle(rng: np.random.Generator, route: Route, pace: float) -> _Vehicle:
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    if kind in _LONG and np.abs(route.path.curvature).max() > _GENTLE or pace < 5.5 and kind in ("bus", "train"):
        kind = "car" if kind != "train" else "motorcycle"
    driver = Driver(route, 0.0, 0.0, 0.0)
    if kind == "train":
        length, width, height = draw_size(rng, "truck")
        return _Vehicle(driver, "truck", (min(length, 7.5), width, height), draw_size(rng, "trailer"))
    return _Vehicle(driver, kind, draw_size(rng, kind, with_rider=kind == "motorcycle"))


def _halts(rng: np.random.Generator, vehicle: _Vehicle, site: Site, stops: list) -> tuple[tuple[float, float], ...]:
    """Let a bus halt in its lane where there is a bus stop on the right of it."""
    path, road, halts = vehicle.driver.route.path, site.roads[0], []
    for stop in stops:
        s, d = path.nearest(road.centre.at((stop.start + stop.end) / 2, stop.sign * road.half)[0])
        if -2 * road.width < d[0] < 0:
            halts.append((float(s[0]) + vehicle.size[0] / 2, float(rng.uniform(5, 12))))
    return tuple(sorted(halts))


def _track(route: Route, s: Array) -> Array:
    points, headings = route.path.at(s)
    return np.concatenate([points, headings[:, None]], axis=1)


def _trailer_track(vehicle: _Vehicle, s: Array) -> Array:
    """Let the trailer roll behind: its rear axle moves towards the hitch, which is all that steers it."""
    route, length = vehicle.driver.route, vehicle.trailer[0]
    hitch_back = vehicle.size[0] / 2 + _DRAWBAR / 2
    points, headings = route.path.at(s)
    hitch = points - hitch_back * np.stack([np.cos(headings), np.sin(headings)], axis=-1)
    bar = _DRAWBAR / 2 + 0.8 * length  # hitch to axle
    yaw = np.empty(len(s))
    yaw[0] = route.path.at(s[0] - hitch_back - bar / 2)[1]
    for index in range(1, len(s)):
        axle = hitch[index - 1] - bar * np.array([np.cos(yaw[index - 1]), np.sin(yaw[index - 1])])
        towards = hitch[index] - axle
        turn = np.arctan2(towards[1], towards[0]) - yaw[index - 1]
        yaw[index] = yaw[index - 1] + (turn + np.pi) % (2 * np.pi) - np.pi
    middle = _DRAWBAR / 2 + length / 2
    centre = hitch - middle * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    return np.concatenate([centre, yaw[:, None]], axis=1)
