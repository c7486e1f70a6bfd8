"""Pictures and videos of what the node published: the cameras, and a bird's-eye view with trails. D objects."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streampetr_core.birds_eye import BirdsEye, birds_eye_ground, draw_footprints, draw_trail, draw_velocities
from streampetr_core.drawing import Colour, Tile, banner_strip, pad_below
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, box_corners, invert_transform, transform_points
from streampetr_core.nuscenes_results import FoundObjects
from streampetr_core.scene_drawing import NO_CORNERS, TRUTH, LabelledBoxes, camera_tile, label_footprints
from streampetr_ros.bag.moments import BagScenery, Moment

Picture = NDArray[np.uint8]  # blue, green, red

# Left to right, front above back, as the cameras look.
LAYOUT = ("cam_front_left", "cam_front", "cam_front_right", "cam_back_left", "cam_back", "cam_back_right")
_COLUMNS = 3
_REACH = 45.0  # metres, seen from above
VEHICLE = (3.3, 0.8, 0.87)  # metres ahead of base, behind it, to each side
_TRAIL_NS = 4_000_000_000
_DARK: Colour = (32, 32, 32)


@dataclass(frozen=True)
class PictureOptions:
    """How a moment is drawn."""

    cameras: Sequence[str] = LAYOUT
    tile_width: int = 480
    most_boxes: int = 60
    lowest_score: float = 0.0
    note: str = ""
    truth: bool = True


@dataclass
class Trails:
    """Where tracks were in the last seconds: by id, (stamp, x, y, z) in odom, oldest first."""

    points: dict[object, list[tuple]] = field(default_factory=dict)

    def extend(self, stamp_ns: int, found: FoundObjects, odom_T_base: Array) -> None:
        """Note where the tracks of a moment are, and forget what is long ago."""
        for id_, centre in zip(found.ids_D, transform_points(odom_T_base, found.boxes_D7[:, :3]), strict=True):
            if id_:
                self.points.setdefault(id_, []).append((stamp_ns, *centre))
        for id_, way in list(self.points.items()):
            self.points[id_] = [point for point in way if point[0] > stamp_ns - _TRAIL_NS]

    def of(self, id_: object, base_T_odom: Array) -> Array:
        """Return one trail (T, 3) in base."""
        way = np.array([point[1:] for point in self.points.get(id_, [])]).reshape(-1, 3)
        return transform_points(base_T_odom, way)


def pictures(
    scenery: BagScenery, published: dict[int, FoundObjects], stamps: Sequence[int], options: PictureOptions
) -> Iterator[Picture]:
    """Yield a picture of each of the stamps at which something was published; trails begin with the first."""
    for followed in _followed(scenery, published, stamps, options):
        yield compose(*followed, options)


def write_video(
    scenery: BagScenery, published: dict[int, FoundObjects], path: Path, options: PictureOptions, speed: float = 1.0
) -> int:
    """Write an MP4 (MPEG-4 part 2) of everything published, as fast as it was; return the number of its pictures.

    Raises:
        StreampetrError: nothing was published, or the video cannot be written.
    """
    stamps = sorted(published)
    if not stamps:
        raise StreampetrError(f"{path}: nothing was published, so there is nothing to show")
    seconds = max((stamps[-1] - stamps[0]) / 1e9, 1e-3)
    rate = float(np.clip(speed * (len(stamps) - 1) / seconds, 1.0, 60.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for picture in tqdm(
        pictures(scenery, published, stamps, options), total=len(stamps), desc="video", leave=False, disable=None
    ):
        if writer is None:
            size = picture.shape[1], picture.shape[0]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
            if not writer.isOpened():
                raise StreampetrError(f"{path}: OpenCV cannot write this video; choose another name or folder")
        writer.write(picture)
    writer.release()
    return len(stamps)


def write_picture(scenery: BagScenery, published: dict[int, FoundObjects], path: Path, options: PictureOptions) -> None:
    """Write a picture of the last moment for which the bag tells the truth, or of the last of all."""
    last = scenery.last_true(sorted(published))
    stamps = [stamp for stamp in sorted(published) if last - _TRAIL_NS < stamp <= last]
    (last_followed,) = deque(_followed(scenery, published, stamps, options), maxlen=1)
    picture = compose(*last_followed, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise StreampetrError(f"{path}: cannot be written; choose another name or folder")


def compose(moment: Moment, found: FoundObjects, trails: Trails, options: PictureOptions) -> Picture:
    """Return the cameras in rows of three, and beside them the scene from above."""
    tiles = [_tile(camera, moment, found, options) for camera in options.cameras]
    height = max((tile.shape[0] for tile in tiles if tile is not None), default=270)
    blank = np.full((height, options.tile_width, 3), _DARK, np.uint8)
    tiles = [blank if tile is None else pad_below(tile, height) for tile in tiles]
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    grid = np.vstack(rows)
    above = _from_above(moment, found, trails, options, len(grid))
    whole = np.hstack([grid, above])
    whole = np.vstack([banner_strip(_banner(moment, found, options), whole.shape[1]), whole])
    return np.ascontiguousarray(whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2])  # as videos need it


def labels_of(found: FoundObjects) -> list[str]:
    """Return the ids of tracks, the scores of detections."""
    return [
        str(id_) or f"{score:.2f}".removeprefix("0") for id_, score in zip(found.ids_D, found.scores_D, strict=True)
    ]


def best_of(found: FoundObjects, options: PictureOptions) -> FoundObjects:
    """Return what is to be shown, best first."""
    order = np.argsort(-found.scores_D, kind="stable").tolist()
    kept = [index for index in order if found.scores_D[index] >= options.lowest_score]
    return found.select(kept[: options.most_boxes])


def _followed(
    scenery: BagScenery, published: dict[int, FoundObjects], stamps: Sequence[int], options: PictureOptions
) -> Iterator[tuple[Moment, FoundObjects, Trails]]:
    """Yield moments with what is to be shown of each, and the trails until then."""
    trails = Trails()
    for moment in scenery.moments(stamps):
        found = best_of(published[moment.stamp_ns], options)
        trails.extend(moment.stamp_ns, found, moment.odom_T_base)
        yield moment, found, trails


def _banner(moment: Moment, found: FoundObjects, options: PictureOptions) -> str:
    kind = "tracks" if any(found.ids_D) else "detections"
    truth = f", truth in white ({len(moment.truth)} boxes)" if options.truth and moment.truth is not None else ""
    return f"{len(found.scores_D)} {kind} at {moment.stamp_ns / 1e9:.3f} s{truth}. {options.note}".rstrip()


def _tile(camera: str, moment: Moment, found: FoundObjects, options: PictureOptions) -> Picture | None:
    shot = moment.shots.get(camera)
    if shot is None:
        return None
    source = shot.image
    height = round(source.shape[0] * options.tile_width / source.shape[1])
    scale = np.diag([options.tile_width / source.shape[1], height / source.shape[0], 1.0, 1.0])
    image = cv2.resize(source, (options.tile_width, height), interpolation=cv2.INTER_AREA)
    return camera_tile(Tile(camera, image), scale @ shot.img_P_base, _labelled(found), _true_corners(moment, options))


def _from_above(moment: Moment, found: FoundObjects, trails: Trails, options: PictureOptions, height: int) -> Picture:
    window = BirdsEye(height, height, _REACH)
    image, boxes, true_corners = birds_eye_ground(window, VEHICLE), _labelled(found), _true_corners(moment, options)
    base_T_odom = invert_transform(moment.odom_T_base)
    for id_, colour in zip(found.ids_D, boxes.colours, strict=True):
        draw_trail(image, window, trails.of(id_, base_T_odom)[::-1][::3][::-1], colour)
    draw_footprints(image, window, boxes.corners_D83, boxes.colours, fill=0.55)
    draw_footprints(image, window, true_corners, [TRUTH] * len(true_corners))
    draw_velocities(image, window, found.boxes_D7[:, :2], found.velocities_D2, boxes.colours)
    label_footprints(image, window, boxes)
    return image


def _true_corners(moment: Moment, options: PictureOptions) -> Array:
    """Return the corners (D, 8, 3) of the true boxes that are to be drawn."""
    return NO_CORNERS if moment.truth is None or not options.truth else box_corners(moment.truth)


def _labelled(found: FoundObjects) -> LabelledBoxes:
    return LabelledBoxes.of_classes(box_corners(found.boxes_D7), found.names_D, labels_of(found))
