"""What a synthetic scene is: rig, ego motion, objects, structures and ground, as a pure function of a seed.

The road is an arc. `s` is the distance along the lane of the ego vehicle in metres, `d` the offset to its left.
World: z up, flat ground at z = 0. Time 0 is the first keyframe.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_core.geometry import Array, make_transform

# channel: yaw, pitch, roll (degrees), position in base (m), focal length, cx, cy (pixels at 1600x900), exposure (s).
# Rounded, nominal values of a nuScenes-like car. The cameras are exposed one after the other while the LiDAR turns;
# its stamp is the end of the turn.
_CAMERAS = {
    "CAM_FRONT": ((0.0, 0.3, 0.2), (1.70, 0.02, 1.51), 1266.4, 816.3, 491.5, -0.035),
    "CAM_FRONT_RIGHT": ((-56.0, 0.6, -0.4), (1.55, -0.49, 1.50), 1260.8, 808.0, 495.3, -0.028),
    "CAM_FRONT_LEFT": ((55.0, -0.2, 0.1), (1.52, 0.49, 1.51), 1272.6, 826.6, 479.8, -0.043),
    "CAM_BACK": ((180.0, 0.9, 0.5), (0.03, 0.00, 1.58), 809.2, 829.2, 481.8, -0.010),
    "CAM_BACK_LEFT": ((108.5, 0.4, -0.3), (1.04, 0.48, 1.59), 1256.7, 792.1, 492.8, -0.001),
    "CAM_BACK_RIGHT": ((-110.8, -0.5, 0.6), (1.01, -0.48, 1.56), 1259.5, 807.3, 501.2, -0.020),
}
_NOMINAL_SIZE = (1600, 900)
_LIDAR_ANGLES, _LIDAR_POSITION = (-90.2, 0.3, -0.2), (0.94, 0.0, 1.84)
# Optical axes (x right, y down, z forward) in a frame with x forward, y left, z up.
_FORWARD_R_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])

# Detection class: usual length, width, height in metres.
SIZES = {
    "car": (4.6, 1.95, 1.7),
    "truck": (6.9, 2.5, 2.9),
    "bus": (11.0, 2.9, 3.4),
    "trailer": (10.5, 2.7, 3.6),
    "construction_vehicle": (6.3, 2.6, 3.1),
    "pedestrian": (0.7, 0.65, 1.75),
    "motorcycle": (2.1, 0.8, 1.5),
    "bicycle": (1.75, 0.6, 1.6),
    "traffic_cone": (0.42, 0.42, 1.0),
    "barrier": (0.5, 2.5, 1.0),
}
_PAINTS = ((176, 28, 34), (28, 70, 150), (222, 222, 218), (60, 64, 70), (150, 156, 162), (30, 110, 80), (214, 168, 40))
_FACADES = ((206, 198, 184), (176, 120, 96), (190, 186, 180), (214, 192, 150), (150, 156, 162))
_TYPICAL_COLOURS = {
    "construction_vehicle": (232, 172, 24),
    "bus": (206, 92, 30),
    "traffic_cone": (240, 96, 20),
    "barrier": (200, 40, 40),
}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; `exposure` is its time in seconds relative to the stamp of the LiDAR turn it belongs to."""

    channel: str
    width: int
    height: int
    intrinsics: Array
    base_T_cam: Array
    exposure: float


@dataclass(frozen=True)
class Rig:
    """The sensors of the ego vehicle."""

    base_T_lidar: Array
    cameras: tuple[Camera, ...]


@dataclass(frozen=True)
class Trajectory:
    """Motion sampled at `times` (T,) in s: `positions` (T, 3) in world, `angles` (T, 3) = yaw, pitch, roll, unwrapped.

    An object's position is the centre of its footprint on the ground, the ego vehicle's is that of base.
    """

    times: Array
    positions: Array
    angles: Array

    def _at(self, values: Array, time: float) -> Array:
        if not self.times[0] <= time <= self.times[-1]:
            raise ValueError(f"time {time} s is outside the trajectory's {self.times[0]} to {self.times[-1]} s")
        after = max(int(np.searchsorted(self.times, time)), 1)
        share = (time - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
        return (1 - share) * values[after - 1] + share * values[after]

    def pose(self, time: float) -> Array:
        """Return `world_T_body` (4x4)."""
        rotation = Rotation.from_euler("ZYX", self._at(self.angles, time)).as_matrix()
        return make_transform(rotation, self.position(time))

    def position(self, time: float) -> Array:
        """Return the place (3,) in world."""
        return self._at(self.positions, time)

    def yaw(self, time: float) -> float:
        """Return the heading in radians in world."""
        return float(self._at(self.angles, time)[0])

    def velocity(self, time: float, half_step: float = 0.05) -> Array:
        """Return the velocity (3,) in m/s in world, by central difference."""
        return (self.position(time + half_step) - self.position(time - half_step)) / (2 * half_step)


@dataclass(frozen=True)
class SceneObject:
    """Something to detect. `kind` is one of the ten detection classes, `size` is (length, width, height) in m."""

    kind: str
    size: tuple[float, float, float]
    trajectory: Trajectory
    moving: bool
    colour: tuple[int, int, int]

    def box(self, time: float) -> Array:
        """Return (x, y, z, length, width, height, yaw) in world: gravity centre, see `streampetr_core.geometry`."""
        x, y, z = self.trajectory.position(time)
        return np.array([x, y, z + self.size[2] / 2, *self.size, self.trajectory.yaw(time)])

    @property
    def attribute(self) -> str:
        """The nuScenes attribute; empty for the classes that have none."""
        if self.kind in ("barrier", "traffic_cone"):
            return ""
        if self.kind == "pedestrian":
            return "pedestrian.moving" if self.moving else "pedestrian.standing"
        if self.kind in ("bicycle", "motorcycle"):
            return "cycle.with_rider" if self.moving else "cycle.without_rider"
        return "vehicle.moving" if self.moving else "vehicle.parked"


@dataclass(frozen=True)
class Structure:
    """Scenery that hides objects but is not annotated: `kind` is building or tree, `box` (7,) is in world."""

    kind: str
    box: Array
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class GroundPatch:
    """A convex, flat-coloured piece of the ground: `outline` (4, 3) in world."""

    outline: Array
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class SceneDescription:
    """Everything there is to draw and to write down about one scene; `start` is the time 0 in microseconds."""

    name: str
    start: int
    rig: Rig
    ego: Trajectory
    objects: tuple[SceneObject, ...]
    structures: tuple[Structure, ...]
    ground: tuple[GroundPatch, ...]


def make_rig(image_size: tuple[int, int] = _NOMINAL_SIZE) -> Rig:
    """Return six cameras and a LiDAR like those of the nuScenes car, with pictures of `image_size` (width, height)."""
    scale = np.diag([image_size[0] / _NOMINAL_SIZE[0], image_size[1] / _NOMINAL_SIZE[1], 1.0])
    cameras = []
    for channel, (angles, position, focal, cx, cy, exposure) in _CAMERAS.items():
        intrinsics = scale @ np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
        rotation = Rotation.from_euler("ZYX", angles, degrees=True).as_matrix() @ _FORWARD_R_OPTICAL
        cameras.append(Camera(channel, *image_size, intrinsics, make_transform(rotation, position), exposure))
    lidar = Rotation.from_euler("ZYX", _LIDAR_ANGLES, degrees=True).as_matrix()
    return Rig(make_transform(lidar, _LIDAR_POSITION), tuple(cameras))


@dataclass(frozen=True)
class _Arc:
    """The lane of the ego vehicle: position and heading at s = 0, and curvature in 1/m (never zero)."""

    origin: Array
    heading: float
    curvature: float

    def place(self, s: Array, d: Array) -> tuple[Array, Array]:
        """Return world points (..., 3) and headings (...) at distance `s` and left offset `d`."""
        heading = self.heading + self.curvature * np.asarray(s)
        radius = 1 / self.curvature - np.asarray(d)
        centre = self.origin + np.array([-np.sin(self.heading), np.cos(self.heading)]) / self.curvature
        x, y = centre[0] + radius * np.sin(heading), centre[1] - radius * np.cos(heading)
        return np.stack([x, y, np.zeros_like(x)], axis=-1), heading


@dataclass(frozen=True)
class _Strip:
    """A lane of things: offset d, direction of travel, speeds (m/s), gaps (m) and kinds, taken in turn."""

    d: float
    direction: int
    speed: tuple[float, float]
    gap: tuple[float, float]
    kinds: tuple[str, ...]


_WORKS = ("traffic_cone", "barrier", "construction_vehicle", "barrier", "traffic_cone")
# All things on a strip share one speed, so none ever runs into another.
_STRIPS = (
    _Strip(3.5, 1, (6.0, 11.0), (12, 45), ("car", "motorcycle", "truck", "car", "bus")),
    _Strip(7.0, -1, (6.0, 10.0), (15, 60), ("car", "bus", "car", "motorcycle", "truck")),
    _Strip(10.5, -1, (6.0, 10.0), (30, 70), ("truck", "car", "car", "bus")),
    _Strip(-3.9, 1, (0.0, 0.0), (1.5, 9), ("car", *_WORKS, "car", "motorcycle", "trailer")),
    _Strip(13.9, -1, (0.0, 0.0), (8, 26), ("car", "car", "trailer", "car", "truck", *_WORKS)),
    _Strip(-6.1, 1, (3.0, 5.0), (25, 60), ("bicycle",)),
    _Strip(16.1, -1, (3.0, 5.0), (35, 80), ("bicycle",)),
    _Strip(-7.6, 1, (1.0, 1.6), (10, 40), ("pedestrian",)),
    _Strip(-9.0, -1, (1.0, 1.6), (20, 60), ("pedestrian",)),
    _Strip(-10.2, 1, (0.0, 0.0), (25, 60), ("pedestrian", "bicycle")),
    _Strip(18.0, -1, (1.0, 1.6), (25, 60), ("pedestrian",)),
)
_BEHIND, _AHEAD = 35.0, 60.0  # metres of traffic around the way the ego vehicle drives
_GRASS_TO_KERB = (-10.9, -7.0, -5.5, 15.4, 17.0, 19.6)  # d: pavement, cycle path, road, cycle path, pavement


def make_scene(seed: int, name: str, duration: float, image_size: tuple[int, int] = _NOMINAL_SIZE) -> SceneDescription:
    """Return the scene that `seed` and `name` (scene-NNNN) stand for: `duration` seconds, all ten classes present."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    curvature = rng.choice([-1, 1]) / rng.uniform(150, 400)
    arc = _Arc(rng.uniform(300, 1500, 2), rng.uniform(-np.pi, np.pi), curvature)
    times = np.arange(-5, 10 * duration + 6) / 10
    speed = rng.uniform(6, 9)
    objects = next(
        objects
        for objects in (tuple(_traffic(rng, arc, times, speed)) for _ in itertools.count())
        if {item.kind for item in objects} == set(SIZES)
    )
    end = speed * duration + 2.5 * _AHEAD
    return SceneDescription(
        name=name,
        start=1_600_000_000_000_000 + int(name[-4:]) * 1_000_000_000,
        rig=make_rig(image_size),
        ego=_ego(arc, times, speed),
        objects=objects,
        structures=tuple(_structures(rng, arc, end)),
        ground=tuple(_ground(arc, end)),
    )


def _ego(arc: _Arc, times: Array, speed: float) -> Trajectory:
    positions, yaw = arc.place(speed * times, np.zeros_like(times))
    pitch, roll = 0.006 * np.sin(1.4 * times), 0.004 * np.cos(1.8 * times)
    return Trajectory(times, positions, np.stack([yaw, pitch, roll], axis=-1))


def _traffic(rng: np.random.Generator, arc: _Arc, times: Array, ego_speed: float) -> Iterator[SceneObject]:
    duration = times[-1]
    own_lane = _Strip(0.0, 1, (ego_speed, ego_speed), (14, 40), ("car", "truck", "car", "bus"))
    for strip in (own_lane, *_STRIPS):
        speed = rng.uniform(*strip.speed)
        s = -_BEHIND + rng.uniform(*strip.gap)
        end = ego_speed * duration + _AHEAD + (speed * duration if strip.direction < 0 else 0.0)
        for kind in itertools.islice(itertools.cycle(strip.kinds), int(rng.integers(len(strip.kinds))), None):
            size = np.array(SIZES[kind]) * rng.uniform(0.92, 1.08, 3)
            extent = size[1] if kind == "barrier" else size[0]
            if strip is own_lane and -10 - extent < s < 16:
                s = 16.0 + rng.uniform(0, 10)  # keeps the place of the ego vehicle free
            if s + extent > end:
                break
            colour = _TYPICAL_COLOURS.get(kind) or _PAINTS[rng.integers(len(_PAINTS))]
            trajectory = _drive(arc, times, s + extent / 2, strip, speed, np.pi / 2 if kind == "barrier" else 0.0)
            yield SceneObject(kind, tuple(size.tolist()), trajectory, speed > 0, colour)
            s += extent + rng.uniform(*strip.gap)


def _drive(arc: _Arc, times: Array, s: float, strip: _Strip, speed: float, turned: float) -> Trajectory:
    # An inner lane is shorter than the lane that s is measured on.
    along = s + strip.direction * speed * times / (1 - arc.curvature * strip.d)
    positions, heading = arc.place(along, np.full_like(times, strip.d))
    yaw = heading + turned + (np.pi if strip.direction < 0 else 0.0)
    return Trajectory(times, positions, np.stack([yaw, np.zeros_like(yaw), np.zeros_like(yaw)], axis=-1))


def _structures(rng: np.random.Generator, arc: _Arc, end: float) -> Iterator[Structure]:
    for kerb, side in ((_GRASS_TO_KERB[0], -1), (_GRASS_TO_KERB[-1], 1)):
        s = -2 * _BEHIND
        while s < end:
            length, depth, height = rng.uniform(10, 24), rng.uniform(8, 14), 3.2 * rng.integers(2, 7)
            position, yaw = arc.place(s + length / 2, kerb + side * (7 + depth / 2))
            facade = rng.uniform(0.75, 1.0) * np.array(_FACADES[rng.integers(len(_FACADES))])
            colour = tuple(facade.astype(int).tolist())
            yield Structure("building", np.array([*position[:2], height / 2, length, depth, height, yaw]), colour)
            height = rng.uniform(5, 8)
            position, yaw = arc.place(s + rng.uniform(0, length), kerb + side * 2.6)
            green = tuple(rng.uniform((60, 96, 44), (90, 128, 60)).astype(int).tolist())
            yield Structure("tree", np.array([*position[:2], height / 2, 3.0, 3.0, height, yaw]), green)
            s += length + rng.uniform(1, 10)


def _ground(arc: _Arc, end: float) -> Iterator[GroundPatch]:
    pavement, cycles, asphalt, white = (150, 146, 140), (136, 84, 72), (84, 86, 90), (226, 226, 220)
    colours = (pavement, cycles, asphalt, cycles, pavement)
    for s in np.arange(-2 * _BEHIND, end, 5.0):
        for right, left, colour in zip(_GRASS_TO_KERB, _GRASS_TO_KERB[1:], colours, strict=False):
            yield _patch(arc, s, s + 5, right, left, colour)
        for d in (-2.2, 12.2):  # where the parking strips begin
            yield _patch(arc, s, s + 5, d - 0.06, d + 0.06, white)
        for d in (5.15, 5.35):  # between the directions
            yield _patch(arc, s, s + 5, d - 0.05, d + 0.05, white)
    for s in np.arange(-2 * _BEHIND, end, 9.0):
        for d in (1.75, 8.75):
            yield _patch(arc, s, s + 3, d - 0.07, d + 0.07, white)


def _patch(arc: _Arc, s0: float, s1: float, d0: float, d1: float, colour: tuple[int, int, int]) -> GroundPatch:
    outline, _ = arc.place(np.array([s0, s1, s1, s0]), np.array([d0, d0, d1, d1]))
    return GroundPatch(outline, colour)
