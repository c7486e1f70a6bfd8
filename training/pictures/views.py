"""What one picture shows, as a value: the processes that draw need neither tables nor the devkit."""

from dataclasses import dataclass
from pathlib import Path

from streampetr_core.geometry import Array
from training.pictures.results import Boxes

# Row by row as the pictures show them.
CAMERAS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
TRAIL_SECONDS = 4.0


@dataclass(frozen=True)
class CameraView:
    """One image and the projection from the world into it, through the vehicle's pose at its exposure."""

    name: str
    path: Path
    size: tuple[int, int]  # width, height that the projection belongs to
    img_P_world: Array


@dataclass(frozen=True)
class Truth:
    """The annotated boxes; the evaluation counts only those with a LiDAR or radar point."""

    boxes: Boxes
    has_points_D: Array


@dataclass(frozen=True)
class Moment:
    """Which sample it is."""

    scene: str
    token: str
    number: int  # within the scene, from 0
    number_in_scene: int
    timestamp: float  # unix, seconds
    seconds: float  # since the scene's first sample

    @property
    def file_name(self) -> str:
        """Name of its picture; names sort by time."""
        return f"{self.number:04d}_{self.token}.png"


@dataclass(frozen=True)
class Found:
    """The results that reach `lowest_score`, out of `total`, and where their tracks have been."""

    boxes: Boxes
    total: int
    lowest_score: float
    trails: tuple[Array, ...]  # world positions (T, 3), oldest first, for each box; none for detections


@dataclass(frozen=True)
class SampleView:
    """What one picture shows; `truth` is None where there is none, or none is wanted."""

    moment: Moment
    cameras: tuple[CameraView, ...]
    base_T_world: Array
    found: Found
    truth: Truth | None
