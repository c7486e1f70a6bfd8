import numpy as np
import pytest

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.drawing import Tile, box_outlines, class_colour, draw_boxes, draw_corners, six_camera_picture
from streampetr_core.geometry import box_corners, projection

RED = (0, 0, 255)
K = [[100.0, 0, 100], [0, 100.0, 60], [0, 0, 1]]
# The camera looks along x of the boxes' frame: its x is -y, its y is -z.
CAM_T_BOX = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
IMG_P_BOX = projection(K, CAM_T_BOX)


def _drawn(box: list[float]) -> np.ndarray:
    image = np.zeros((120, 200, 3), np.uint8)
    draw_boxes(image, IMG_P_BOX, np.array([box]), [RED], thickness=1)
    assert not image[..., :2].any()
    return image[..., 2]


def test_a_box_is_drawn_where_it_projects():
    drawn = _drawn([12.0, 0, 0, 4, 2, 2, 0])  # its near face is 10 m away and 2 m wide: 20 pixels
    rows, columns = np.nonzero(drawn > 100)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (90, 110, 50, 70)
    assert drawn[60, 90] > 200 and drawn[60, 95] < 50


def test_the_cross_is_on_the_face_in_front():
    towards, away = _drawn([12.0, -3, 0, 4, 2, 2, np.pi]), _drawn([12.0, -3, 0, 4, 2, 2, 0])
    # To the right of the axis the centres of the near face (column 130) and the far one (column 121) lie apart.
    assert towards[60, 130] > 200 and away[60, 130] < 100
    assert away[60, 121] > 200 and towards[60, 121] < 100


def test_nothing_is_drawn_of_a_box_behind_and_the_visible_part_of_one_that_passes():
    assert not _drawn([-12.0, 0, 0, 4, 2, 2, 0]).any()
    passing = _drawn([0.0, -3, 0, 8, 1, 1, 0])  # to the right, from 4 m behind to 4 m ahead
    rows, columns = np.nonzero(passing)
    assert columns.min() > 150 and columns.max() == 199


def test_corners_may_be_turned_any_way_and_go_without_a_cross():
    corners = box_corners([[0.0, 0, 0, 4, 2, 2, 0]])[0]
    upright = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # its length stands upright now
    image = np.zeros((120, 200, 3), np.uint8)
    draw_corners(image, IMG_P_BOX, (corners @ upright.T + [11.0, 0, 0])[None], [RED], thickness=1, cross=False)
    rows, columns = np.nonzero(image[..., 2] > 100)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (90, 110, 40, 80)
    assert image[60, 95, 2] < 50


def test_an_outline_bounds_what_the_image_shows_of_a_box():
    boxes = [[12.0, 0, 0, 4, 2, 2, 0], [-12.0, 0, 0, 4, 2, 2, 0], [0.0, -3, 0, 8, 1, 1, 0], [12.0, 90, 0, 4, 2, 2, 0]]
    near, behind, passing, beside = box_outlines(IMG_P_BOX, box_corners(boxes), (200, 120))
    assert near.tolist() == [90, 50, 110, 70]
    assert np.isnan(behind).all() and np.isnan(beside).all()
    assert passing[0] > 150 and passing[2] == 199


def test_tiles_are_laid_out_in_rows_below_the_banner():
    tiles = [Tile(f"cam{index}", np.full((90, 160, 3), 40 * index, np.uint8)) for index in range(5)]
    picture = six_camera_picture(tiles, columns=3, tile_width=80, banner="text")
    assert picture.shape == (34 + 2 * 45, 240, 3)
    assert [int(picture[34 + 40, 40 + 80 * column, 0]) for column in range(3)] == [0, 40, 80]
    assert [int(picture[34 + 85, 40 + 80 * column, 0]) for column in range(2)] == [120, 160]
    assert picture[:34].max() > 200  # the banner's letters


@pytest.mark.parametrize("name", ["car", "tram"])
def test_a_class_has_one_colour(name: str):
    assert class_colour(name) == class_colour(name)
    assert len({class_colour(known) for known in NUSCENES_CLASSES}) == len(NUSCENES_CLASSES)
