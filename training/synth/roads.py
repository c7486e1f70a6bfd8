"""Roads with their cross-sections, and the lanes, routes and signals upon them, for each kind of scene.

Everything is in the frame `site`: the first road begins along its x axis. Vehicles keep to the right here; a scene of
left-hand traffic is the mirror image of one (see `scene`). Distances s run along the centre line of a road, offsets d
to its left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streampetr_core.geometry import Array
from training.synth.paths import Path, from_curvature, joining
from training.synth.traffic import Lane, Route, Signals, make_route

KINDS = ("straight", "curve", "crossing", "roadworks", "parking", "bus_stop")
BEHIND, AHEAD = 100.0, 130.0  # metres of road behind the start of the ego vehicle and beyond its farthest end
ZEBRA_WIDTH = 3.6
_STOP_GAP = 2.0  # metres between a stop line and the zebra behind it
BAY_DEPTH, AISLE = 5.4, 6.2  # of car parks


@dataclass(frozen=True)
class Side:
    """What is beside the lanes, from the inside out, widths in metres; `sign` is +1 for the left.

    `bays` is the angle in radians between lane and parked vehicles; `rows` counts further rows of bays behind an aisle.
    """

    sign: int
    parking: float = 2.5
    bays: float = 0.0
    rows: int = 0
    cycles: float = 0.0
    pavement: float = 3.5


@dataclass(frozen=True)
class Road:
    """A road with `lanes` each way; all of them are moved left by `shift` (N,), one value a point of `centre`."""

    centre: Path
    lanes: int
    width: float
    right: Side
    left: Side
    shift: Array

    @property
    def half(self) -> float:
        """Half the width of all lanes."""
        return self.lanes * self.width

    @property
    def sides(self) -> tuple[Side, Side]:
        """Right and left."""
        return self.right, self.left

    def lane(self, number: int, direction: int) -> Path:
        """Return lane `number`, from the inside out, as driven along (+1) or against (-1) the centre line."""
        path = self.centre.beside(self.shift - direction * (number + 0.5) * self.width)
        return path if direction > 0 else path.backwards()

    def edges(self, side: Side) -> tuple[float, float, float, float]:
        """Return the distances of the lanes' edge, of the kerb, of the pavement and of its far end, from the centre."""
        kerb = self.half + side.parking + side.rows * (BAY_DEPTH + AISLE)
        return self.half, kerb, kerb + side.cycles, kerb + side.cycles + side.pavement

    @property
    def reach(self) -> float:
        """How far the road with its pavements extends from the centre line at most."""
        return max(self.edges(side)[3] for side in self.sides)


@dataclass(frozen=True)
class Gap:
    """A stretch of a road, from `start` to `end`, and why it is no ordinary kerb there.

    `use` is junction, zebra, works, stop (of buses); `sign` is that of the side, 0 for both.
    """

    road: int
    start: float
    end: float
    use: str
    sign: int = 0


@dataclass(frozen=True)
class Site:
    """The roads of a scene, the lanes on them, the `routes` over these and those of them that the ego vehicle may take.

    `start` is where on its route the ego vehicle begins, `pace` how fast it would like to go, in m/s.
    """

    kind: str
    roads: tuple[Road, ...]
    gaps: tuple[Gap, ...]
    lanes: tuple[Lane, ...]
    signals: Signals
    routes: tuple[Route, ...]
    ego_routes: tuple[int, ...]
    start: float
    pace: float

    def gaps_of(self, road: int, sign: int, *uses: str) -> list[Gap]:
        """Return the gaps of one side of a road, of all or the given uses."""
        gaps = [gap for gap in self.gaps if gap.road == road and gap.sign in (0, sign)]
        return [gap for gap in gaps if not uses or gap.use in uses]


@dataclass
class _Builder:
    """A site that is being built."""

    rng: np.random.Generator
    length: float
    roads: list[Road] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    routes: list[tuple[int, ...]] = field(default_factory=list)
    signals: Signals = Signals()
    slow: tuple[float, float] | None = None  # m/s on the whole road

    def side(self, sign: int, **changes: object) -> Side:
        rng = self.rng
        parking = 2.5 if rng.random() < 0.75 else 0.6
        bays = 0.0
        if parking > 1 and rng.random() < 0.2:
            bays, parking = np.deg2rad(rng.choice([45.0, 60.0, 75.0])), BAY_DEPTH
        cycles = 1.8 if rng.random() < 0.6 else 0.0
        return replace(Side(sign, parking, bays, 0, cycles, rng.uniform(2.6, 4.2)), **changes)

    def road(self, centre: Path, lanes: int, width: float = 3.5, **changes: object) -> Road:
        side = {"right": self.side(-1), "left": self.side(1), "shift": np.zeros(len(centre.points))}
        return Road(centre, lanes, width, **{**side, **changes})


def make_site(rng: np.random.Generator, kind: str, duration: float) -> Site:
    """Return a random site of one of KINDS, long enough for `duration` seconds."""
    pace = float(rng.uniform(6.0, 11.0))
    if kind == "parking":
        pace = float(rng.uniform(3.0, 5.0))
    builder = _Builder(rng, BEHIND + pace * duration + AHEAD)
    _MAKERS[kind](builder)
    slow = [(0.0, 1e6, pace * 1.3)] if kind == "parking" else []
    slow += [_slow_place(rng)] if kind in ("straight", "curve", "bus_stop") else []
    slow += [(gap.start - 15, gap.end + 5, 6.0) for gap in builder.gaps if gap.use == "works" and kind == "roadworks"]
    routes = tuple(make_route(builder.lanes, numbers, slow) for numbers in builder.routes)
    roads = tuple(builder.roads)
    ego = tuple(index for index, route in enumerate(routes) if _follows(route, roads[0]))
    return Site(kind, roads, tuple(builder.gaps), tuple(builder.lanes), builder.signals, routes, ego, BEHIND, pace)


def _slow_place(rng: np.random.Generator) -> tuple[float, float, float]:
    start = BEHIND + rng.uniform(0, 80)
    return (start, start + rng.uniform(20, 60), rng.uniform(4, 7))


def _follows(route: Route, road: Road) -> bool:
    """Whether the route begins on the road and along it."""
    point, heading = route.path.points[0], route.path.headings[0]
    s, _ = road.centre.nearest(point)
    return abs(float(s[0])) < 5 and np.cos(heading - road.centre.headings[0]) > 0.9


def _winding(builder: _Builder, straightest: float, sharpest: float) -> Path:
    """A line of straights and arcs with clothoids between, that never turns far from its first heading."""
    rng, nodes, s, heading = builder.rng, [(0.0, 0.0)], 0.0, 0.0
    s = rng.uniform(40, 120)
    nodes.append((s, 0.0))
    while s < builder.length:
        transition, arc = rng.uniform(12, 25), rng.uniform(15, 75)
        curvature = 1 / rng.uniform(sharpest, straightest)
        curvature *= -np.sign(heading) if abs(heading) > 0.5 else rng.choice([-1.0, 1.0])
        arc = min(arc, max(1.2 / abs(curvature) - transition, 5.0))
        nodes += [(s + transition, curvature), (s + transition + arc, curvature), (s + 2 * transition + arc, 0.0)]
        heading += curvature * (transition + arc)
        s = nodes[-1][0] + rng.uniform(5, 60)
        nodes.append((s, 0.0))
    return from_curvature([node for node in nodes if node[0] < builder.length] + [(builder.length, 0.0)], (0, 0), 0.0)


def _add_lanes(builder: _Builder, number: int, crossings: Sequence[float] = ()) -> None:
    """Lanes both ways over the whole road, cut in three at each zebra (s), and a route over each."""
    road = builder.roads[number]
    reach = ZEBRA_WIDTH / 2 + _STOP_GAP
    for direction in (1, -1):
        for index in range(road.lanes):
            path = road.lane(index, direction)
            points, _ = road.centre.at(np.array(crossings, dtype=np.float64).reshape(-1))
            cuts = np.sort(path.nearest(points)[0]) if len(crossings) else []
            numbers, start = [], 0.0
            for cut in cuts:
                numbers += [len(builder.lanes), len(builder.lanes) + 1]
                builder.lanes.append(Lane(path.between(start, cut - reach)))
                builder.lanes.append(Lane(path.between(cut - reach, cut + reach), "zebra"))
                start = cut + reach
            numbers.append(len(builder.lanes))
            builder.lanes.append(Lane(path.between(start, path.length)))
            builder.routes.append(tuple(numbers))
    for s in crossings:
        builder.gaps.append(Gap(number, s - reach - 1, s + reach + 1, "zebra"))


def _maybe_zebra(builder: _Builder, share: float) -> None:
    """With the probability `share`, a zebra with a signal that turns red once in a while."""
    rng = builder.rng
    crossings = [float(BEHIND + rng.uniform(25, 70))] if rng.random() < share else []
    _add_lanes(builder, 0, crossings)
    if crossings:
        inner = frozenset(index for index, lane in enumerate(builder.lanes) if lane.signal)
        green, red = float(rng.uniform(4, 9)), float(rng.uniform(5, 8))
        phases = ((frozenset(), red), (frozenset({"zebra"}), green + 10))
        phases = phases[::-1] if rng.random() < 0.5 else phases
        phases = ((phases[0][0], float(rng.uniform(3, green + 4))), *phases[1:], phases[0])
        builder.signals = Signals(phases, inner)


def _straight(builder: _Builder) -> None:
    centre = _winding(builder, 2000.0, 500.0)
    builder.roads.append(builder.road(centre, int(builder.rng.choice([1, 2, 2, 3]))))
    _maybe_zebra(builder, 0.6)


def _curve(builder: _Builder) -> None:
    centre = _winding(builder, 110.0, 32.0)
    lanes = int(builder.rng.choice([1, 2]))
    # Bays that fan out on the inside of a sharp bend would run into each other.
    sides = {name: builder.side(sign, bays=0.0, parking=2.5) for name, sign in (("right", -1), ("left", 1))}
    builder.roads.append(builder.road(centre, lanes, **sides))
    _maybe_zebra(builder, 0.3)


def _bus_stop(builder: _Builder) -> None:
    rng = builder.rng
    lanes = int(rng.choice([1, 2]))
    sides = {name: builder.side(sign, bays=0.0, parking=3.2) for name, sign in (("right", -1), ("left", 1))}
    builder.roads.append(builder.road(_winding(builder, 1500.0, 160.0), lanes, **sides))
    for sign, count in ((-1, 2), (1, int(rng.choice([1, 2])))):
        for s in BEHIND + rng.uniform(5, 30) + np.arange(count) * rng.uniform(70, 110):
            builder.gaps.append(Gap(0, float(s), float(s + rng.uniform(28, 42)), "stop", sign))
    _maybe_zebra(builder, 0.2)
    zebras = [gap for gap in builder.gaps if gap.use == "zebra"]
    stops = [gap for gap in builder.gaps if gap.use == "stop"]
    clear = [stop for stop in stops if all(stop.end < z.start or stop.start > z.end for z in zebras)]
    builder.gaps = [*clear, *zebras]


def _parking(builder: _Builder) -> None:
    rng = builder.rng
    angle = np.deg2rad(rng.choice([60.0, 75.0, 90.0]))
    changes = {"parking": BAY_DEPTH, "bays": float(angle), "cycles": 0.0}
    sides = {
        name: builder.side(sign, rows=int(rng.integers(2)), **changes) for name, sign in (("right", -1), ("left", 1))
    }
    builder.roads.append(builder.road(_winding(builder, 1500.0, 300.0), 1, 3.2, **sides))
    _add_lanes(builder, 0)


def _roadworks(builder: _Builder) -> None:
    rng = builder.rng
    centre = _winding(builder, 900.0, 150.0)
    start, length = BEHIND + rng.uniform(12, 45), rng.uniform(30, 50)
    s = np.arange(len(centre.points)) * centre.step
    # Both ways move to the left, into the parking strip there, and free as much on the right.
    ramp = 14.0
    inside = np.clip(np.minimum((s - start + ramp) / ramp, (start + length + ramp - s) / ramp), 0, 1)
    shift = rng.uniform(2.3, 2.7) * (0.5 - 0.5 * np.cos(np.pi * inside))
    lanes = int(rng.choice([1, 2]))
    sides = {name: builder.side(sign, bays=0.0, parking=2.9) for name, sign in (("right", -1), ("left", 1))}
    builder.roads.append(builder.road(centre, lanes, shift=shift, **sides))
    builder.gaps.append(Gap(0, start - ramp - 2, start + length + ramp + 2, "works"))
    _add_lanes(builder, 0)


def _crossing(builder: _Builder) -> None:
    rng = builder.rng
    at = BEHIND + rng.uniform(40, 75)
    own = from_curvature([(0.0, 0.0), (builder.length, 0.0)], (0, 0), 0.0)
    angle, reach, bend = np.deg2rad(rng.uniform(70, 110)), max(builder.length - at, 150.0), rng.uniform(-1, 1) / 250
    nodes = [(0.0, 0.0), (reach - 80, 0.0), (reach - 60, bend), (reach - 50, 0.0), (reach + 50, 0.0)]
    nodes += [(reach + 60, -bend), (reach + 80, 0.0), (2 * reach, 0.0)]
    other = from_curvature(nodes, (0, 0), 0.0)
    # Turned and moved so that its middle lies on the crossing, with the wanted angle.
    middle, heading = other.at(reach)
    cos, sin = np.cos(angle - heading), np.sin(angle - heading)
    begin = own.at(at)[0] - np.array([[cos, -sin], [sin, cos]]) @ middle
    other = from_curvature(nodes, begin, float(angle - heading))
    for centre in (own, other):
        builder.roads.append(builder.road(centre, int(rng.choice([1, 2]))))
    _add_junction(builder, (at, reach))


def _add_junction(builder: _Builder, places: tuple[float, float]) -> None:
    """Lanes towards and away from the crossing of the two roads at `places`, and the ways across."""
    roads, rng = builder.roads, builder.rng
    corner, zebra = 3.5, ZEBRA_WIDTH + 2.0
    boxes = [max(roads[1 - i].edges(side)[2] for side in roads[i - 1].sides) + corner for i in (0, 1)]
    approaches, exits = {}, {}
    for i, road in enumerate(roads):
        box = boxes[i] + zebra
        builder.gaps.append(Gap(i, places[i] - box - _STOP_GAP - 4, places[i] + box + _STOP_GAP + 4, "junction"))
        builder.gaps += [
            Gap(
                i,
                places[i] + way * (boxes[i] + ZEBRA_WIDTH / 2) - ZEBRA_WIDTH / 2,
                places[i] + way * (boxes[i] + ZEBRA_WIDTH / 2) + ZEBRA_WIDTH / 2,
                "crosswalk",
            )
            for way in (-1, 1)
        ]
        point = road.centre.at(places[i])[0]
        for direction in (1, -1):
            for index in range(road.lanes):
                path = road.lane(index, direction)
                middle = float(path.nearest(point)[0][0])
                approaches[i, direction, index] = path.between(0.0, middle - box - _STOP_GAP)
                exits[i, direction, index] = path.between(middle + box, path.length)
    first_exit = {}
    for key, path in exits.items():
        first_exit[key] = len(builder.lanes)
        builder.lanes.append(Lane(path))
    turning = [bool(rng.random() < 0.7) for _ in roads]  # left turns are allowed, each way has its own green
    for key, path in approaches.items():
        number = len(builder.lanes)
        builder.lanes.append(Lane(path))
        for target in _ways_across(roads, key, turning[key[0]], exits):
            builder.routes.append((number, len(builder.lanes), first_exit[target]))
            builder.lanes.append(Lane(joining(path, exits[target]), f"{key[0]}{key[1]:+d}"))
    # Beyond the crossing there is traffic from the beginning.
    builder.routes += [(number,) for number in first_exit.values()]
    inner = frozenset(index for index, lane in enumerate(builder.lanes) if lane.signal)
    builder.signals = Signals(_phases(rng, turning), inner)


def _ways_across(roads: Sequence[Road], key: tuple[int, int, int], left: bool, exits: dict) -> list[tuple]:
    """Return the exits that the approach `key` (road, direction, lane) leads to: straight on, right, left."""
    road, direction, index = key
    other = 1 - road
    ways = [key]
    heading = exits[key].headings[0]
    for way in (1, -1):
        turn = np.sin(exits[other, way, 0].headings[0] - heading)
        if turn < 0 and index == roads[road].lanes - 1:
            ways.append((other, way, roads[other].lanes - 1))
        if turn > 0 and index == 0 and left:
            ways.append((other, way, 0))
    return ways


def _phases(rng: np.random.Generator, turning: Sequence[bool]) -> tuple[tuple[frozenset[str], float], ...]:
    phases = []
    for road, left in enumerate(turning):
        groups = [{f"{road}+1"}, {f"{road}-1"}] if left else [{f"{road}+1", f"{road}-1"}]
        phases += [(frozenset(group), float(rng.uniform(4.5, 8.0))) for group in groups]
    start = int(rng.integers(len(phases)))
    return tuple(phases[start:] + phases[:start])


_MAKERS = {
    "straight": _straight,
    "curve": _curve,
    "crossing": _crossing,
    "roadworks": _roadworks,
    "parking": _parking,
    "bus_stop": _bus_stop,
}
