"""The things of a scene while it is being furnished: nothing is let in that would ever touch what is there already."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from streampetr_core.geometry import Array
from training.synth.sizes import Size

EGO_SIZE: Size = (4.08, 1.73, 1.56)
STANDING = 0.2  # m/s; what is slower stands
EGO_CENTRE = 1.45  # metres from base (the rear axle) forward to the middle of the ego vehicle


@dataclass(frozen=True)
class SceneObject:
    """Something to detect. `kind` is one of the ten detection classes, `size` is (length, width, height) in metres.

    `variant` and `seed` choose the mesh; `parked` says that a standing vehicle is parked, not stopped.
    """

    kind: str
    size: Size
    colour: tuple[int, int, int]
    variant: int
    seed: int
    parked: bool = False
    with_rider: bool = False

    def attribute(self, speed: float) -> str:
        """Return the nuScenes attribute at `speed` in m/s; empty for the classes that have none."""
        if self.kind in ("barrier", "traffic_cone"):
            return ""
        if self.kind == "pedestrian":
            return "pedestrian.moving" if speed > STANDING else "pedestrian.standing"
        if self.kind in ("bicycle", "motorcycle"):
            return "cycle.with_rider" if self.with_rider else "cycle.without_rider"
        if self.parked:
            return "vehicle.parked"
        return "vehicle.moving" if speed > STANDING else "vehicle.stopped"


@njit(cache=True, error_model="numpy")
def _touch(track, half, tracks, halves, margin):  # noqa: ANN001, ANN202
    """Return the number of the first of `tracks` (N, T, 3) that `track` (T, 3) ever touches, or -1."""
    half_x, half_y = half[0] + margin, half[1] + margin
    reach = np.sqrt(half_x * half_x + half_y * half_y)
    for other in range(len(tracks)):
        length, width = halves[other]
        limit = (reach + np.sqrt(length * length + width * width)) ** 2
        for time in range(len(track)):
            dx = tracks[other, time, 0] - track[time, 0]
            dy = tracks[other, time, 1] - track[time, 1]
            if dx * dx + dy * dy > limit:
                continue
            cos, sin = np.cos(track[time, 2]), np.sin(track[time, 2])
            other_cos, other_sin = np.cos(tracks[other, time, 2]), np.sin(tracks[other, time, 2])
            turn_cos = abs(cos * other_cos + sin * other_sin)
            turn_sin = abs(cos * other_sin - sin * other_cos)
            # Two rectangles are apart if one of their four axes separates them.
            if abs(cos * dx + sin * dy) > half_x + length * turn_cos + width * turn_sin:
                continue
            if abs(cos * dy - sin * dx) > half_y + length * turn_sin + width * turn_cos:
                continue
            if abs(other_cos * dx + other_sin * dy) > length + half_x * turn_cos + half_y * turn_sin:
                continue
            if abs(other_cos * dy - other_sin * dx) > width + half_x * turn_sin + half_y * turn_cos:
                continue
            return other
    return -1


def first_touch(track: Array, size: ArrayLike, tracks: Array, sizes: ArrayLike, margin: float = 0.0) -> int:
    """Return which of `tracks` (N, T, 3) of (x, y, yaw) comes within `margin` of `track` (T, 3) first, or -1.

    Sizes are length and width (and what follows is not looked at), in metres.
    """
    sizes = np.asarray(sizes, dtype=np.float64).reshape(len(tracks), -1)
    half = np.asarray(size, dtype=np.float64)[:2] / 2
    return int(_touch(np.ascontiguousarray(track), half, np.ascontiguousarray(tracks), sizes[:, :2] / 2, margin))


@dataclass
class Stage:
    """What a scene holds so far, over `times` (T,). Row 0 is the ego vehicle; obstacles are never annotated."""

    rng: np.random.Generator
    times: Array
    ego_track: Array  # (T, 3): x, y, yaw of the middle of the ego vehicle
    reach: float = 95.0  # metres from the ego vehicle's way beyond which nothing is kept
    objects: list[SceneObject] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _tracks: NDArray[np.float64] = field(init=False)
    _sizes: NDArray[np.float64] = field(init=False)
    _count: int = 1

    def __post_init__(self):
        self._tracks = np.empty((256, len(self.times), 3))
        self._sizes = np.empty((256, 2))
        self._tracks[0], self._sizes[0] = self.ego_track, EGO_SIZE[:2]

    @property
    def tracks(self) -> Array:
        """The tracks (O, T, 3) of `objects`."""
        return self._tracks[self._rows]

    def is_near(self, track: ArrayLike) -> bool:
        """Whether a track (T, 3) or place (3,) comes near the ego vehicle."""
        return self._distance(np.asarray(track, dtype=np.float64)) < self.reach

    def _distance(self, track: Array) -> float:
        difference = track[..., :2] - self.ego_track[:, :2]
        return float(np.sqrt(np.einsum("tx,tx->t", difference, difference).min()))

    def is_free(self, track: ArrayLike, size: ArrayLike, margin: float) -> bool:
        """Whether something of `size` would never come within `margin` metres of what is there."""
        track = np.broadcast_to(np.asarray(track, dtype=np.float64), self._tracks.shape[1:])
        return first_touch(track, size, self._tracks[: self._count], self._sizes[: self._count], margin) < 0

    def block(self, track: ArrayLike, size: ArrayLike) -> None:
        """Keep a place free for something that is no object, such as a tree."""
        if self._count == len(self._tracks):
            self._tracks = np.concatenate([self._tracks, np.empty_like(self._tracks)])
            self._sizes = np.concatenate([self._sizes, np.empty_like(self._sizes)])
        self._tracks[self._count], self._sizes[self._count] = track, np.asarray(size)[:2]
        self._count += 1

    def add(self, item: SceneObject, track: ArrayLike, margin: float = 0.15) -> bool:
        """Let `item` in on a track (T, 3) or at a place (3,) of (x, y, yaw); False if it is in the way or far away."""
        return self.add_all([item], [track], margin)

    def add_all(self, items: Sequence[SceneObject], tracks: Sequence[ArrayLike], margin: float = 0.15) -> bool:
        """Let several things in that belong together, or none of them."""
        tracks = [np.asarray(track, dtype=np.float64) for track in tracks]
        if not any(self.is_near(track) for track in tracks):
            return False
        if not all(self.is_free(track, item.size, margin) for item, track in zip(items, tracks, strict=True)):
            return False
        for item, track in zip(items, tracks, strict=True):
            self._rows.append(self._count)
            self.block(track, item.size)
            self.objects.append(item)
        return True

    def item(self, kind: str, size: Size, **flags: bool) -> SceneObject:
        """Return a new thing with a random look."""
        palette = _PALETTES.get(kind, _PAINTS)
        colour = np.clip(np.array(palette[self.rng.integers(len(palette))]) + self.rng.integers(-14, 15, 3), 8, 250)
        look = self.rng.integers(2**31, size=2)
        return SceneObject(kind, size, tuple(colour.tolist()), int(look[0] % 60), int(look[1]), **flags)


_PAINTS = (
    (176, 28, 34),
    (28, 70, 150),
    (228, 228, 224),
    (228, 228, 224),
    (38, 40, 44),
    (60, 64, 70),
    (150, 156, 162),
    (180, 184, 188),
    (30, 110, 80),
    (214, 168, 40),
    (96, 60, 44),
    (110, 150, 180),
)
_SHIRTS = (
    (176, 40, 44),
    (40, 70, 140),
    (220, 220, 214),
    (36, 38, 44),
    (60, 110, 70),
    (210, 170, 60),
    (120, 70, 120),
    (96, 100, 108),
    (190, 120, 90),
    (70, 150, 170),
)
_PALETTES = {
    "pedestrian": _SHIRTS,
    "construction_vehicle": ((232, 172, 24), (232, 172, 24), (222, 120, 30), (216, 200, 60)),
    "bus": ((206, 92, 30), (190, 30, 36), (36, 90, 160), (226, 224, 214), (50, 120, 80), (230, 180, 50)),
    "traffic_cone": ((240, 96, 20), (236, 76, 24), (226, 60, 30)),
    "barrier": ((200, 40, 40), (226, 110, 30), (200, 200, 196), (214, 120, 40)),
    "trailer": ((216, 216, 212), (190, 194, 198), (40, 84, 150), (150, 40, 44), (226, 226, 222)),
}
