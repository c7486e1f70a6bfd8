"""Small texts in pictures that do not cover each other."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_core.drawing import Colour

_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
_PADDING = 2
_DARK = (32, 32, 32)
_NOTHING = np.empty((0, 4))

Corner = tuple[int, int]  # left, top of a label in pixels


def place_labels(
    anchors: NDArray[np.float64],
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    keep_clear: NDArray[np.float64] = _NOTHING,
) -> list[Corner | None]:
    """Return where labels of `sizes` (width, height) go, near their anchors (D, 2), all inside and none on another.

    Nor do they touch the rectangles `keep_clear` (K, 4; left, top, right, bottom). The first come first: a label for
    which no room is left near its anchor, or whose anchor is NaN, gets None.
    """
    placed: list[Corner | None] = []
    taken = keep_clear
    for anchor, size in zip(anchors, sizes, strict=True):
        place = None if np.isnan(anchor).any() else _free_place(anchor, size, taken, image_size)
        placed.append(place)
        if place is not None:
            taken = np.vstack([taken, [*place, place[0] + size[0], place[1] + size[1]]])
    return placed


def draw_labels(
    image: NDArray[np.uint8],
    anchors: NDArray[np.float64],
    texts: Sequence[str],
    colours: Sequence[Colour],
    plates: bool = True,
    keep_clear: NDArray[np.float64] = _NOTHING,
) -> None:
    """Write texts just above their anchors (D, 2), most important first.

    They are dark on plates of the given colours, or without `plates` in these colours on dark ground. They stay off
    the rectangles `keep_clear` (K, 4; left, top, right, bottom). Texts for which there is no room are left out: a crowd
    of unreadable ones says less.
    """
    sizes = [label_size(text) for text in texts]
    places = place_labels(anchors, sizes, (image.shape[1], image.shape[0]), keep_clear)
    for place, (width, height), text, colour in zip(places, sizes, texts, colours, strict=True):
        if place is not None:
            left, top = place
            plate = colour if plates else _DARK
            cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), plate, cv2.FILLED)
            origin = (left + _PADDING, top + height - _PADDING - 1)
            cv2.putText(image, text, origin, _FONT, _SCALE, _DARK if plates else colour, 1, cv2.LINE_AA)


def label_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels of the plate that `draw_labels` puts below a text."""
    (width, height), _ = cv2.getTextSize(text, _FONT, _SCALE, 1)
    return width + 2 * _PADDING, height + 2 * _PADDING + 1


def _free_place(
    anchor: NDArray[np.float64], size: tuple[int, int], taken: NDArray[np.float64], image_size: tuple[int, int]
) -> Corner | None:
    width, height = size
    x, y = anchor.round().astype(int).tolist()
    for rise in (1, 2, 0):  # just above the anchor, one line higher, just below
        for shift in (0.5, 0.0, 1.0, -0.25, 1.25):  # centred, to its right, to its left, further
            left = min(max(round(x - shift * width), 0), image_size[0] - width)
            top = y - rise * (height + 1)
            inside = left >= 0 and 0 <= top <= image_size[1] - height
            apart = (
                (taken[:, 2] <= left)
                | (taken[:, 0] >= left + width)
                | (taken[:, 3] <= top)
                | (taken[:, 1] >= top + height)
            )
            if inside and apart.all():
                return left, top
    return None
