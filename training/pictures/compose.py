"""From what a sample shows to one picture: six cameras around a bird's-eye view, and a legend."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.birds_eye import BirdsEye, birds_eye_ground, draw_footprints, draw_trail, draw_velocities
from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.drawing import Colour, Tile, banner_strip, class_colour, pad_below
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import box_corners, transform_points
from streampetr_core.jpeg import is_cut_off
from streampetr_core.labels import draw_labels
from streampetr_core.scene_drawing import NO_CORNERS, TRUTH, LabelledBoxes, camera_tile, label_footprints
from training.pictures.results import Boxes
from training.pictures.views import TRAIL_SECONDS, CameraView, SampleView

Picture = NDArray[np.uint8]  # blue, green, red

TRUTH_WITHOUT_POINTS: Colour = (135, 135, 135)
_TILE_WIDTH = 640
_REACH = 53.0  # metres; the evaluation looks 50 m far
_VEHICLE = (3.3, 0.8, 0.87)  # nuScenes' car, a Renault Zoe: metres ahead of its rear axle, behind it, to each side
_DARK, _LIGHT, _DIM = (32, 32, 32), (240, 240, 240), (150, 150, 150)
_ID_LETTERS = 6  # of a track's id are shown: some are 32 letters long
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def compose(view: SampleView) -> Picture:
    """Return the picture of a sample, 1920 pixels wide.

    Raises:
        StreampetrError: an image that cannot be read.
    """
    tiles = [_camera_tile(camera, view) for camera in view.cameras]
    height = max(tile.shape[0] for tile in tiles)
    tiles = [pad_below(tile, height) for tile in tiles]
    above = _seen_from_above(view, BirdsEye(_TILE_WIDTH, 2 * height, _REACH))
    top, left, right = tiles[:3], [tiles[3], tiles[4]], [tiles[5], _legend(view, height)]
    bottom = [np.vstack(left), above, np.vstack(right)]
    return np.vstack([banner_strip(_banner(view), 3 * _TILE_WIDTH), np.hstack(top), np.hstack(bottom)])


def _banner(view: SampleView) -> str:
    moment, found = view.moment, view.found
    time = datetime.fromtimestamp(moment.timestamp, timezone.utc)
    parts = [
        moment.scene,
        f"sample {moment.number + 1} of {moment.number_in_scene}, {moment.seconds:.1f} s",
        f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 100_000} UTC",
        f"{len(found.boxes)} of {found.total} boxes (score from {found.lowest_score:g})",
    ]
    if view.truth is not None:
        parts.append(f"{int(view.truth.has_points_D.sum())} true objects")
    return "   |   ".join(parts)


def _camera_tile(camera: CameraView, view: SampleView) -> Picture:
    image = _read_at_width(camera, _TILE_WIDTH)
    tile_P_world = np.diag([*np.array(image.shape[1::-1]) / camera.size, 1.0, 1.0]) @ camera.img_P_world
    truth = view.truth
    true_corners = NO_CORNERS if truth is None else truth.boxes.corners_D83[truth.has_points_D]
    found = _labelled(view.found.boxes, view.found.boxes.corners_D83)
    tile = camera_tile(Tile(camera.name, image), tile_P_world, found, true_corners)
    # Neighbours do not run into each other.
    cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, tile.shape[0] - 1), _DARK, 1)
    return tile


def _read_at_width(camera: CameraView, width: int) -> Picture:
    # A JPEG of twice the width or more is cheaper to decode at half its size.
    mode = cv2.IMREAD_REDUCED_COLOR_2 if camera.size[0] >= 2 * width else cv2.IMREAD_COLOR
    content = camera.path.read_bytes()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), mode) if content else None
    if image is None or is_cut_off(content):
        raise StreampetrError(f"{camera.path}: a damaged image; unpack or download it again")
    height = round(width * camera.size[1] / camera.size[0])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _seen_from_above(view: SampleView, window: BirdsEye) -> Picture:
    image = birds_eye_ground(window, _VEHICLE)
    base_T_world = view.base_T_world
    found = _labelled(view.found.boxes, transform_points(base_T_world, view.found.boxes.corners_D83))
    if view.found.trails:
        for points, colour in zip(view.found.trails, found.colours, strict=True):
            draw_trail(image, window, transform_points(base_T_world, points), colour)
    draw_footprints(image, window, found.corners_D83, found.colours, fill=0.55)
    true_corners = NO_CORNERS
    if view.truth is not None:
        greys = [TRUTH if has_points else TRUTH_WITHOUT_POINTS for has_points in view.truth.has_points_D]
        true_corners = transform_points(base_T_world, view.truth.boxes.corners_D83)
        draw_footprints(image, window, true_corners, greys)
        _draw_velocities(image, window, view, view.truth.boxes, greys)
    _draw_velocities(image, window, view, view.found.boxes, found.colours)
    label_footprints(image, window, found, keep_clear_D83=true_corners)
    cv2.putText(image, "seen from above, forward is up", (8, window.height - 10), _FONT, 0.45, _DIM, 1, cv2.LINE_AA)
    return image


def _draw_velocities(
    image: Picture, window: BirdsEye, view: SampleView, boxes: Boxes, colours: Sequence[Colour]
) -> None:
    velocities = np.c_[boxes.velocities_D2, np.zeros(len(boxes))] @ view.base_T_world[:3, :3].T
    draw_velocities(image, window, transform_points(view.base_T_world, boxes.centres_D3), velocities, colours)


def _labelled(boxes: Boxes, corners_D83: NDArray[np.float64]) -> LabelledBoxes:
    """Return boxes with ids or scores; their corners may be in another frame."""
    labels = [
        track[:_ID_LETTERS] or f"{score:.2f}".removeprefix("0")
        for track, score in zip(boxes.ids, boxes.scores_D, strict=True)
    ]
    return LabelledBoxes.of_classes(corners_D83, boxes.names, labels)


def _legend(view: SampleView, height: int) -> Picture:
    image = np.full((height, _TILE_WIDTH, 3), _DARK, np.uint8)
    found = Counter(view.found.boxes.names)
    true = Counter()
    if view.truth is not None:
        true.update(np.array(view.truth.boxes.names)[view.truth.has_points_D].tolist())
    names = [*NUSCENES_CLASSES, *sorted({*found, *true} - {*NUSCENES_CLASSES})]
    _legend_row(image, 26, "class", ("shown", "true") if view.truth is not None else ("shown", ""), _DIM)
    step = min(24, (height - 44) // len(names))
    for index, name in enumerate(names):
        row = 26 + step * (index + 1)
        cv2.rectangle(image, (18, row - 12), (36, row + 1), class_colour(name), cv2.FILLED)
        counts = str(found[name]), str(true[name]) if view.truth is not None else ""
        _legend_row(image, row, name.replace("_", " "), counts, _LIGHT if found[name] or true[name] else _DIM)
    _legend_symbols(image, view)
    return image


def _legend_row(image: Picture, row: int, name: str, counts: tuple[str, str], colour: Colour) -> None:
    cv2.putText(image, name, (48, row), _FONT, 0.5, colour, 1, cv2.LINE_AA)
    for count, right in zip(counts, (245, 300), strict=True):
        (width, _), _ = cv2.getTextSize(count, _FONT, 0.5, 1)
        cv2.putText(image, count, (right - width, row), _FONT, 0.5, colour, 1, cv2.LINE_AA)


def _legend_symbols(image: Picture, view: SampleView) -> None:
    """Explain how boxes, numbers and arrows are to be read, on a car of 4.4 x 2 m that drives to the right."""
    tracked = any(view.found.boxes.ids)
    window = BirdsEye(60, 28, 2.0)
    corners = box_corners([[0, 0, 0, 4.4, 2, 1.5, -np.pi / 2]])
    colour, label = class_colour("car"), "12" if tracked else ".87"
    symbols = [
        ("result; the line marks its front", lambda part: draw_footprints(part, window, corners, [colour], fill=0.55)),
        (_label_meaning(tracked), lambda part: draw_labels(part, np.array([[30.0, 20.0]]), [label], [colour])),
        ("where it is in a second", lambda part: draw_velocities(part, window, [[0, 3]], [[0, -6]], [colour])),
    ]
    if tracked:
        way = [[0, 4], [0.2, 2], [0.2, 0], [0, -2], [0, -4]]
        symbols.append(
            (f"where it was in the last {TRAIL_SECONDS:.0f} s", lambda part: draw_trail(part, window, way, colour))
        )
    if view.truth is not None:
        symbols += [
            ("truth", lambda part: draw_footprints(part, window, corners, [TRUTH])),
            (
                "truth without LiDAR points",
                lambda part: draw_footprints(part, window, corners, [TRUTH_WITHOUT_POINTS]),
            ),
        ]
    for index, (meaning, draw) in enumerate(symbols):
        top = 16 + 34 * index
        draw(image[top : top + window.height, 322 : 322 + window.width])
        cv2.putText(image, meaning, (395, top + 19), _FONT, 0.4, _LIGHT, 1, cv2.LINE_AA)


def _label_meaning(tracked: bool) -> str:
    return "track id" if tracked else "score"
