"""Vehicles that follow lanes and each other: the intelligent driver model, with signals and halts.

Model: M. Treiber, A. Hennecke, D. Helbing, "Congested traffic states in empirical observations and microscopic
simulations", Physical Review E 62 (2000). Time goes in steps of `STEP` seconds; there is no chance in here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streampetr_core.geometry import Array
from training.synth.paths import Path, chain

STEP = 0.1
WARM_UP = 40  # steps before the first time, in which queues form and speeds settle
_ACCELERATION, _BRAKING, _HARDEST = 1.6, 2.0, 5.0  # m/s^2
_HEADWAY, _STANDSTILL = 1.3, 2.2  # s, m
_SIDEWAYS = 2.2  # m/s^2 that a driver accepts in a curve
_SIGHT = 80.0  # metres
_CLEARING = 1.0  # seconds that all signals stay red at least


@dataclass(frozen=True)
class Lane:
    """A piece of lane. `signal` names the signal at its beginning; without one, nobody waits there."""

    path: Path
    signal: str = ""


@dataclass(frozen=True)
class Route:
    """Lanes driven one after the other: their numbers, `starts` in metres along `path`, speed limits on its points."""

    lanes: tuple[int, ...]
    starts: tuple[float, ...]
    path: Path
    limit: Array


@dataclass(frozen=True)
class Signals:
    """Phases that follow each other: the signals that show green, and for how many seconds.

    Between phases all are red until the lanes `inner` are empty.
    """

    phases: tuple[tuple[frozenset[str], float], ...] = ()
    inner: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Driver:
    """A vehicle at the start: its centre is `s` metres along its route; `tail` is what it draws behind it, in metres.

    `halts` are places along the route, for the front bumper, with the seconds it stands there.
    """

    route: Route
    s: float
    length: float
    speed: float
    tail: float = 0.0
    halts: tuple[tuple[float, float], ...] = ()


@dataclass
class _Car:
    driver: Driver
    s: float
    v: float
    place: int = 0  # which lane of the route the centre is on
    rear_place: int = 0
    halt: int = 0
    stood: float = 0.0

    def settle(self) -> None:
        starts, last = self.driver.route.starts, len(self.driver.route.starts) - 1
        while self.place < last and self.s >= starts[self.place + 1]:
            self.place += 1
        rear = self.rear
        while self.rear_place < last and rear >= starts[self.rear_place + 1]:
            self.rear_place += 1

    @property
    def rear(self) -> float:
        return self.s - self.driver.length / 2 - self.driver.tail


@dataclass
class _Clock:
    """Which signals are green now."""

    signals: Signals
    phase: int = 0
    left: float = field(init=False)
    red: float = 0.0

    def __post_init__(self):
        self.left = self.signals.phases[0][1] if self.signals.phases else 0.0

    def step(self, occupied: set[int]) -> frozenset[str]:
        phases = self.signals.phases
        if not phases:
            return frozenset()
        if self.left > 0:
            self.left -= STEP
            return phases[self.phase][0]
        self.red += STEP
        if self.red >= _CLEARING and not occupied & self.signals.inner:
            self.phase, self.red = (self.phase + 1) % len(phases), 0.0
            self.left = phases[self.phase][1]
        return frozenset()


def make_route(lanes: Sequence[Lane], numbers: Sequence[int], slow: Sequence[tuple[float, float, float]] = ()) -> Route:
    """Return the route over `numbers` of `lanes`; `slow` are places (s from, s to, m/s) with a speed limit."""
    path = chain([lanes[number].path for number in numbers])
    starts = np.append(0.0, np.cumsum([lanes[number].path.length for number in numbers]))[:-1]
    limit = np.sqrt(_SIDEWAYS / np.maximum(np.abs(path.curvature), 1e-3))
    s = np.arange(len(limit)) * path.step
    for start, end, speed in slow:
        limit[(s >= start) & (s <= end)] = np.minimum(limit[(s >= start) & (s <= end)], speed)
    for index in range(len(limit) - 2, -1, -1):  # brake in time
        limit[index] = min(limit[index], np.sqrt(limit[index + 1] ** 2 + 2 * 1.3 * path.step))
    return Route(tuple(numbers), tuple(starts.tolist()), path, limit)


def simulate(lanes: Sequence[Lane], signals: Signals, drivers: Sequence[Driver], steps: int) -> tuple[Array, Array]:
    """Return the distance along its route and the speed of each driver (V, steps), after the warm-up."""
    cars = [_Car(driver, driver.s, _first_speed(driver)) for driver in drivers]
    clock = _Clock(signals)
    s, v = np.empty((2, len(cars), steps))
    for step in range(-WARM_UP, steps):
        for car in cars:
            car.settle()
        if step >= 0:
            s[:, step], v[:, step] = [car.s for car in cars], [car.v for car in cars]
        rears = _rears(cars)
        green = clock.step({car.driver.route.lanes[place] for car in cars for place in {car.place, car.rear_place}})
        accelerations = [_acceleration(car, rears, lanes, green) for car in cars]
        for car, acceleration in zip(cars, accelerations, strict=True):
            before, car.v = car.v, max(car.v + STEP * acceleration, 0.0)
            car.s += STEP * (before + car.v) / 2
    return s, v


def _first_speed(driver: Driver) -> float:
    return float(min(driver.speed, _limit(driver, driver.s)))


def _limit(driver: Driver, s: float) -> float:
    limit = driver.route.limit
    return limit[min(max(int(s / driver.route.path.step), 0), len(limit) - 1)]


def _rears(cars: list[_Car]) -> dict[int, list[tuple[float, float]]]:
    """Return for each lane where along it the rear ends on it are, with the speeds."""
    rears: dict[int, list[tuple[float, float]]] = {}
    for car in cars:
        route = car.driver.route
        rears.setdefault(route.lanes[car.rear_place], []).append((car.rear - route.starts[car.rear_place], car.v))
    return rears


def _acceleration(car: _Car, rears: dict, lanes: Sequence[Lane], green: frozenset[str]) -> float:
    driver = car.driver
    front = car.s + driver.length / 2
    wish = max(min(driver.speed, _limit(driver, front)), 0.5)
    gap, speed = _leader(car, front, rears)
    # Towards a red signal or a halt one drives as towards a wall, if one can still stop.
    wall = min(_red_line(car, front, lanes, green), _halt_line(car, front))
    free = _ACCELERATION * (1 - (car.v / wish) ** 4)
    worst = min(free, _follow(car.v, wish, gap, speed), _follow(car.v, wish, wall + 1.2, 0.0))
    return max(worst, -_HARDEST)


def _follow(v: float, wish: float, gap: float, leader_v: float) -> float:
    if gap > _SIGHT:
        return _ACCELERATION
    closing = v * (v - leader_v) / (2 * (_ACCELERATION * _BRAKING) ** 0.5)
    wanted = _STANDSTILL + max(v * _HEADWAY + closing, 0.0)
    return _ACCELERATION * (1 - (v / wish) ** 4 - (wanted / max(gap, 0.1)) ** 2)


def _leader(car: _Car, front: float, rears: dict) -> tuple[float, float]:
    """Return the gap in metres to the nearest rear end ahead on the route, and its speed."""
    route = car.driver.route
    best, speed = np.inf, 0.0
    for place in range(car.place, len(route.lanes)):
        start = route.starts[place]
        if start > front + _SIGHT or best < np.inf:
            break
        for rear, v in rears.get(route.lanes[place], ()):
            # What is behind one's own centre is oneself, or follows.
            if car.s < start + rear and start + rear - front < best:
                best, speed = start + rear - front, v
    return best, speed


def _red_line(car: _Car, front: float, lanes: Sequence[Lane], green: frozenset[str]) -> float:
    route = car.driver.route
    for place in range(car.place + 1, len(route.lanes)):
        distance = route.starts[place] - front
        if distance > _SIGHT:
            break
        signal = lanes[route.lanes[place]].signal
        if signal and signal not in green and distance > max(car.v**2 / (2 * _HARDEST) - 0.5, -0.3):
            return distance
    return np.inf


def _halt_line(car: _Car, front: float) -> float:
    halts = car.driver.halts
    if car.halt >= len(halts):
        return np.inf
    place, seconds = halts[car.halt]
    if abs(place - front) < 3.0 and car.v < 0.05:
        car.stood += STEP
    if car.stood >= seconds or front > place + 1.0:
        car.halt, car.stood = car.halt + 1, 0.0
        return np.inf
    return place - front
