import numpy as np
import pytest

from streampetr_core.birds_eye import BirdsEye, birds_eye_ground, draw_footprints, draw_trail, draw_velocities
from streampetr_core.geometry import box_corners

RED = (0, 0, 255)
VIEW = BirdsEye(200, 300, 50.0)  # two pixels a metre


def _blank():
    return np.zeros((VIEW.height, VIEW.width, 3), np.uint8)


def _extent(image):
    rows, columns = np.nonzero(image[..., 2] > 60)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_forward_is_up_and_left_is_left():
    assert VIEW.scale == 2
    assert VIEW.pixels([[0, 0], [10, 0], [0, 10]]).tolist() == [[100, 150], [100, 130], [80, 150]]


def test_a_footprint_is_drawn_where_the_box_stands():
    image = _blank()
    draw_footprints(image, VIEW, box_corners([[20, 10, 0, 8, 4, 2, 0]]), [RED])
    assert _extent(image) == (76, 84, 102, 118)
    assert image[104, 80, 2] > 200 and image[116, 80, 2] < 60  # the line from the centre to the front


def test_a_filled_footprint_lets_the_ground_through():
    image = np.full_like(_blank(), 100)
    draw_footprints(image, VIEW, box_corners([[20, 10, 0, 8, 4, 2, 0]]), [RED], fill=0.5)
    assert image[114, 78].tolist() == pytest.approx([50, 50, 178], abs=1)
    assert image[130, 78].tolist() == [100, 100, 100]


def test_an_arrow_leads_to_where_a_box_is_a_second_later():
    image = _blank()
    velocities = [[10, 0], [np.nan, np.nan], [0.1, 0]]
    draw_velocities(image, VIEW, [[0, 0], [0, 30], [0, -30]], velocities, [RED] * 3)
    left, right, top, bottom = _extent(image)
    assert (top, bottom) == pytest.approx((130, 150), abs=1)
    assert 90 < left < right < 110  # nothing of the one that stands, nor of the one whose velocity is not known


def test_a_trail_leads_through_its_points():
    image = _blank()
    draw_trail(image, VIEW, [[-10, 0, 1], [0, 0, 1], [10, 10, 1]], RED)
    for row, column in [(170, 100), (150, 100), (130, 80), (140, 90)]:
        assert image[row - 1 : row + 2, column - 1 : column + 2, 2].max() > 100


def test_rings_stand_every_ten_metres_around_the_vehicle():
    image = birds_eye_ground(VIEW, (3, 1, 1)).astype(int)
    to_the_left = image[150, :90, 0]
    assert np.nonzero(to_the_left > to_the_left.min() + 20)[0].tolist() == [0, 20, 40, 60, 80]
    assert (image[142:155, 96:105].max(axis=(0, 1)) > 200).all()  # its outline


def test_what_is_far_out_of_reach_is_left_out():
    image = _blank()
    far = np.full((2, 2), 1e9)
    draw_footprints(image, VIEW, box_corners([[1e9, 0, 0, 4, 2, 2, 0]]), [RED], fill=0.5)
    draw_velocities(image, VIEW, far[:1], [[5, 5]], [RED])
    draw_trail(image, VIEW, far, RED)
    assert not image.any()
