"""What a world shall hold: its options, and the scenes that follow from them."""

from dataclasses import dataclass

from streampetr_core.errors import StreampetrError
from training.synth.scene import LONGEST
from training.synth.sizes import CLASSES

KEYFRAME_PERIOD = 0.5
TURNS_PER_KEYFRAME = 6  # turns of the LiDAR between keyframes, at 12 Hz
SYNTH, MINI = "v1.0-synth", "v1.0-mini"


@dataclass(frozen=True)
class SceneSpec:
    """A scene to write: its name in the tables, and the family and index that stand for it."""

    name: str
    family: str
    index: int


@dataclass(frozen=True)
class WorldOptions:
    """What to write: `samples` keyframes (2 Hz) in each of `scenes` scenes, `val_scenes` of which are for validation.

    `quota` has pairs of a class and how many annotations of it every split must have, seen and in range; one, for a
    class that is not named. The same options give the same bytes, as long as the libraries are the same.
    """

    scenes: int = 1
    samples: int = 40
    seed: int = 0
    width: int = 1600
    height: int = 900
    sweeps: bool = False
    lidar: bool = False
    version: str = SYNTH
    val_scenes: int | None = None
    quota: tuple[tuple[str, int], ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from the first keyframe to the last."""
        return (self.samples - 1) * KEYFRAME_PERIOD

    @property
    def turns(self) -> range:
        """The numbers of the turns of the LiDAR to write, at 12 Hz; every sixth is a keyframe."""
        step = 1 if self.sweeps else TURNS_PER_KEYFRAME
        return range(0, (self.samples - 1) * TURNS_PER_KEYFRAME + 1, step)

    def specs(self) -> list[SceneSpec]:
        """Return the scenes: those for training first, but for v1.0-mini the official names, validation first."""
        if self.version == MINI:
            return self._mini_specs()
        val = self.val_scenes if self.val_scenes is not None else max(1, self.scenes // 5)
        train = self.scenes - val
        families = [("train", index) for index in range(train)] + [("val", index) for index in range(val)]
        return [SceneSpec(f"scene-{number:04d}", *which) for number, which in enumerate(families, start=1)]

    def _mini_specs(self) -> list[SceneSpec]:
        # Only this version needs the devkit, which takes seconds to import.
        from nuscenes.utils.splits import mini_train, mini_val

        specs = [SceneSpec(name, "val", index) for index, name in enumerate(mini_val)]
        specs += [SceneSpec(name, "train", index) for index, name in enumerate(mini_train)]
        if self.scenes > len(specs):
            raise StreampetrError(f"--scenes {self.scenes}: {MINI} has {len(specs)} scenes; use {SYNTH} for more")
        return specs[: self.scenes]

    def quotas(self) -> dict[str, int]:
        """Return how many annotations of each class every split must have."""
        return {**dict.fromkeys(CLASSES, 1), **dict(self.quota)}

    def check(self) -> None:
        """Raise StreampetrError for options that make no world."""
        most = int(LONGEST / KEYFRAME_PERIOD)
        limits = {"scenes": (1, 9999), "samples": (2, most), "seed": (0, 2**32 - 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise StreampetrError(f"--{name} {getattr(self, name)}: give a number from {low} to {high}")
        if not (64 <= self.width <= 4096 and 36 <= self.height <= 4096):
            raise StreampetrError(f"--size {self.width}x{self.height}: give a size from 64x36 to 4096x4096")
        if self.version not in (SYNTH, MINI):
            raise StreampetrError(f"--version {self.version}: give {SYNTH} or {MINI}")
        if self.val_scenes is not None:
            if self.version == MINI:
                raise StreampetrError(f"--val-scenes {self.val_scenes}: the split of {MINI} is fixed; leave it out")
            if not 0 <= self.val_scenes <= self.scenes:
                raise StreampetrError(f"--val-scenes {self.val_scenes}: give a number from 0 to {self.scenes}")
        for kind, count in self.quota:
            if kind not in CLASSES:
                raise StreampetrError(f"--quota {kind}={count}: no such class; there are {', '.join(CLASSES)}")
            if count < 0:
                raise StreampetrError(f"--quota {kind}={count}: give 0 or more")
        self.specs()
