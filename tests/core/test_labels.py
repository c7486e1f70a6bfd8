import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streampetr_core.labels import draw_labels, label_size, place_labels

WIDTH, HEIGHT = 200, 100
anchors = st.lists(st.tuples(st.floats(-20, WIDTH + 20), st.floats(-20, HEIGHT + 20)), min_size=1, max_size=30)


def _overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(anchors, st.integers(8, 40))
def test_labels_lie_inside_and_apart(points, width):
    clear = np.array([[60.0, 40, 120, 70]])
    places = place_labels(np.array(points), [(width, 12)] * len(points), (WIDTH, HEIGHT), clear)
    rectangles = [(left, top, left + width, top + 12) for left, top in filter(None, places)]
    for index, (left, top, right, bottom) in enumerate(rectangles):
        assert 0 <= left and right <= WIDTH and 0 <= top and bottom <= HEIGHT
        others = [*rectangles[:index], *clear.tolist()]
        assert not any(_overlap(rectangles[index], other) for other in others)


def test_a_label_stands_just_above_its_anchor_and_the_next_one_gives_way():
    first, second, none = place_labels(np.array([[100, 50], [100, 50], [np.nan, 0]]), [(20, 12)] * 3, (WIDTH, HEIGHT))
    assert first == (90, 37)
    assert second is not None and second != first
    assert none is None


def test_a_label_without_room_is_left_out():
    places = place_labels(np.full((60, 2), 50.0), [(30, 12)] * 60, (WIDTH, HEIGHT))
    assert places[0] is not None and places[-1] is None


def test_a_text_is_written_on_its_plate():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    draw_labels(image, np.array([[100.0, 50]]), ["42"], [(10, 200, 30)])
    width, height = label_size("42")
    rows, columns = np.nonzero(image.any(axis=2))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (width, height)
    assert (image[rows.min(), columns.min()] == (10, 200, 30)).all()
    assert (image[rows.min() : rows.max(), columns.min() : columns.max()].sum(axis=2) < 150).any()  # dark letters
