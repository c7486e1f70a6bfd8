"""What a synthetic scene is: rig, ego motion, objects, scenery, ground and light, as a pure function of a seed.

Everything is said in the frame `site`, whose origin is near the road; `world_T_site` puts it into the world, whose
coordinates are as large as those of nuScenes. z is up, the ground is flat at z = 0. Time 0 is the first keyframe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_core.geometry import Array, make_transform
from training.synth import crowd, kerb, scenery
from training.synth.driving import EgoDrive, add_traffic, drive
from training.synth.ground import paint
from training.synth.raster import GroundMap, Light
from training.synth.rig import Rig, make_rig
from training.synth.roads import KINDS, Site, make_site
from training.synth.scenery import Structure
from training.synth.stage import EGO_CENTRE, STANDING, SceneObject, Stage
from training.synth.traffic import STEP

FAMILIES = ("train", "val")
LONGEST = 60.0  # seconds of a scene; the ground of longer ones would not fit into memory
_BEFORE, _AFTER = 6, 6  # steps of the tracks before time 0 and after the end
_HALF_STEP = STEP / 2
_LEFT_HAND = 0.4  # share of scenes that keep to the left, as in Singapore
_DIVE, _SWAY = -0.0065, 0.0045  # radians of pitch and roll for each m/s^2
_STRIDE = {"pedestrian": 1.4, "bicycle": 5.0}  # metres in which the limbs move once to and fro
_GAITS = 6  # poses in a stride; each is a mesh


@dataclass(frozen=True)
class Trajectory:
    """Motion of base at `times` (T,) in s: `positions` (T, 3) in site, continuous `angles` (T, 3) yaw, pitch, roll."""

    times: Array
    positions: Array
    angles: Array

    def pose(self, time: float) -> Array:
        """Return `site_T_base` (4x4)."""
        index, share = _between(self.times, time)
        position, angles = (
            (1 - share) * values[index] + share * values[index + 1] for values in (self.positions, self.angles)
        )
        return make_transform(Rotation.from_euler("ZYX", angles).as_matrix(), position)


@dataclass(frozen=True)
class Backdrop:
    """What is around the objects. Where traffic keeps to the left, `site` is the `mirrored` image of the scene."""

    site: Site = field(repr=False)
    mirrored: bool
    structures: tuple[Structure, ...]
    light: Light
    ground_seed: int


@dataclass(frozen=True)
class SceneDescription:
    """Everything there is to draw and to write down about one scene.

    `tracks` (O, T, 3) are x, y, yaw of the objects' footprints in site at the `times` (T,) of the ego trajectory;
    `start` is the time 0 in microseconds.
    """

    name: str
    family: str
    start: int
    world_T_site: Array
    rig: Rig
    ego: Trajectory
    objects: tuple[SceneObject, ...]
    tracks: Array
    backdrop: Backdrop

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.backdrop.site.kind

    @cached_property
    def ground(self) -> GroundMap:
        """The painted ground, made when it is first asked for."""
        mirrored = self.backdrop.mirrored
        track = np.concatenate([self.ego.positions[:, :2], self.ego.angles[:, :1]], axis=1)
        track = _mirror(track) if mirrored else track
        ground = paint(self.backdrop.site, track, self.family, self.backdrop.ground_seed)
        if not mirrored:
            return ground
        low = -(ground.origin[1] + (len(ground.image) - 1) * ground.metres_per_pixel)
        return replace(ground, image=np.ascontiguousarray(ground.image[::-1]), origin=(ground.origin[0], low))

    @cached_property
    def sizes(self) -> Array:
        """Length, width and height (O, 3) of the objects."""
        return np.array([item.size for item in self.objects]).reshape(-1, 3)

    def places(self, time: float) -> Array:
        """Return x, y, yaw (O, 3) of the objects in site; yaw is continuous over time."""
        index, share = _between(self.ego.times, time)
        return (1 - share) * self.tracks[:, index] + share * self.tracks[:, index + 1]

    def boxes(self, time: float) -> Array:
        """Return the boxes (O, 7) in site, see `streampetr_core.geometry`."""
        places, sizes = self.places(time), self.sizes
        return np.concatenate([places[:, :2], sizes[:, 2:] / 2, sizes, places[:, 2:]], axis=1)

    def poses(self, time: float) -> Array:
        """Return `site_T_body` (O, 4, 4); the origin of body is the middle of the footprint."""
        return poses_of(self.places(time))

    def velocities(self, time: float) -> Array:
        """Return the velocities (O, 2) in m/s in site."""
        return (self.places(time + _HALF_STEP) - self.places(time - _HALF_STEP))[:, :2] / (2 * _HALF_STEP)

    def attributes(self, time: float) -> list[str]:
        """Return the nuScenes attribute of each object; empty for the classes that have none."""
        speeds = np.linalg.norm(self.velocities(time), axis=1).tolist()
        return [item.attribute(speed) for item, speed in zip(self.objects, speeds, strict=True)]

    def gaits(self, time: float) -> Array:
        """Return the phase (O,) of the limbs, 1/12, 3/12 ... 11/12 by the distance travelled; 0 for what stands."""
        index, share = _between(self.ego.times, time)
        travelled = (1 - share) * self._travelled[:, index] + share * self._travelled[:, index + 1]
        strides = np.array([_STRIDE.get(item.kind, np.inf) for item in self.objects])
        moving = np.isfinite(strides) & (np.linalg.norm(self.velocities(time), axis=1) > STANDING)
        return np.where(moving, (np.floor(travelled / strides % 1.0 * _GAITS) + 0.5) / _GAITS, 0.0)

    @cached_property
    def _travelled(self) -> Array:
        steps = np.linalg.norm(np.diff(self.tracks[:, :, :2], axis=1), axis=2)
        return np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)


def poses_of(places: Array) -> Array:
    """Return 4x4 transforms (N, 4, 4) of places (N, 3) = x, y, yaw on the ground."""
    poses = np.zeros((len(places), 4, 4))
    cos, sin = np.cos(places[:, 2]), np.sin(places[:, 2])
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = cos, -sin, sin, cos
    poses[:, :2, 3] = places[:, :2]
    poses[:, 2, 2] = poses[:, 3, 3] = 1.0
    return poses


def scene_rng(seed: int, family: str, index: int) -> np.random.Generator:
    """Return the generator of scene `index` of a family; no two (seed, family, index) share a stream."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(FAMILIES.index(family), index)))


def kind_of(seed: int, family: str, index: int) -> str:
    """Return the kind of scene `index`: each run of six scenes has all of KINDS, in a shuffled order."""
    order = np.random.SeedSequence(seed, spawn_key=(FAMILIES.index(family), index // len(KINDS), 1))
    return KINDS[int(np.random.default_rng(order).permutation(len(KINDS))[index % len(KINDS)])]


def make_scene(
    seed: int,
    family: str,
    index: int,
    duration: float,
    image_size: tuple[int, int],
    name: str = "",
    kind: str | None = None,
    extra: Mapping[str, int] | None = None,
) -> SceneDescription:
    """Return scene `index` of a family ("train" or "val") as `seed` has it: `duration` seconds.

    `kind` is one of KINDS, by default that of `kind_of`; `extra` asks for more things of some classes.
    """
    if not 0 < duration <= LONGEST:
        raise ValueError(f"a scene of {duration} s; give more than 0 and at most {LONGEST} s")
    rng = scene_rng(seed, family, index)
    kind = kind or kind_of(seed, family, index)
    times = np.arange(-_BEFORE, round(duration / STEP) + _AFTER + 1) * STEP
    site = make_site(rng, kind, duration)
    ego, others = drive(rng, site, times)
    stage = Stage(rng, times, ego.track)
    add_traffic(stage, others)
    structures = _furnish(stage, site, extra or {})
    mirrored = bool(rng.random() < _LEFT_HAND)
    tracks, trajectory = stage.tracks, _trajectory(rng, ego, times, mirrored)
    if mirrored:
        tracks = _mirror(tracks)
        structures = [replace(item, place=_mirror(item.place)) for item in structures]
    turn, (x, y) = rng.uniform(-np.pi, np.pi), rng.uniform(300, 1900, 2)
    world_T_site = make_transform(Rotation.from_euler("z", turn).as_matrix(), (x, y, 0.0))
    return SceneDescription(
        name or f"{family}-{index:04d}",
        family,
        _start(family, index),
        world_T_site,
        make_rig(image_size, rng),
        trajectory,
        tuple(stage.objects),
        tracks,
        Backdrop(site, mirrored, tuple(structures), Light.sample(rng), int(rng.integers(2**31))),
    )


def _start(family: str, index: int) -> int:
    return 1_600_000_000_000_000 + (index * len(FAMILIES) + FAMILIES.index(family)) * 200_000_000


def _furnish(stage: Stage, site: Site, extra: Mapping[str, int]) -> list[Structure]:
    """Put everything but the driving traffic onto the stage; what comes later makes way for what came before."""
    kerb.add_works(stage, site)
    kerb.add_bus_stops(stage, site)
    kerb.add_missing(stage, site, extra)
    kerb.add_small_works(stage, site)
    poles = scenery.add_poles(stage, site)
    kerb.add_parked(stage, site)
    kerb.add_parked_cycles(stage, site)
    crowd.add_crossers(stage, site)
    crowd.add_cyclists(stage, site)
    crowd.add_walkers(stage, site)
    return poles + scenery.add_buildings_and_trees(stage, site)


def _trajectory(rng: np.random.Generator, ego: EgoDrive, times: Array, mirrored: bool) -> Trajectory:
    """Return the motion of base: the rear axle, with the body diving, squatting and leaning on its springs."""
    track = ego.track
    forward = np.stack([np.cos(track[:, 2]), np.sin(track[:, 2])], axis=-1)
    base = np.concatenate([track[:, :2] - EGO_CENTRE * forward, np.zeros((len(track), 1))], axis=1)
    along = np.gradient(ego.speed, STEP)
    across = ego.speed**2 * ego.curvature
    road = 0.0012 * np.minimum(ego.speed / 5, 1.0)
    first, second = rng.uniform(0, 2 * np.pi, 2)
    pitch = _DIVE * _damped(along) + road * np.sin(2 * np.pi * 1.1 * times + first)
    roll = _SWAY * _damped(across) + road * np.sin(2 * np.pi * 0.8 * times + second)
    angles = np.stack([track[:, 2], pitch, roll], axis=-1)
    if mirrored:
        base, angles = base * (1, -1, 1), angles * (-1, 1, -1)
    return Trajectory(times, base, angles)


def _damped(values: Array) -> Array:
    """Let the values come about 0.3 s late and smoothed, as a body on springs follows."""
    late, level = np.empty_like(values), float(values[0])
    for index, value in enumerate(values):
        level += 0.3 * (value - level)
        late[index] = level
    return late


def _mirror(places: Array) -> Array:
    return places * (1, -1, -1)


def _between(times: Array, time: float) -> tuple[int, float]:
    """Return the step before `time` and how far the next one is gone."""
    position = (time - times[0]) / STEP
    if not -1e-6 <= position <= len(times) - 1 + 1e-6:
        raise ValueError(f"time {time} s is outside the scene's {times[0]} to {times[-1]} s")
    index = min(max(int(position + 1e-9), 0), len(times) - 2)
    return index, position - index
