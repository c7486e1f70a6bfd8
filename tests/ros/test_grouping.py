from hypothesis import given
from hypothesis import strategies as st

from streampetr_ros.grouping import LatestSet

MS = 1_000_000


def test_a_set_is_released_when_its_last_image_comes():
    grouping = LatestSet(("a", "b", "c"), max_spread=50 * MS)
    assert grouping.add("a", 0, "a0") is None
    assert grouping.add("c", 40 * MS, "c0") is None
    assert grouping.missing() == ["b"]
    image_set = grouping.add("b", 20 * MS, "b0")
    assert image_set.images == {"a": "a0", "b": "b0", "c": "c0"}
    assert image_set.newest_stamp == 40 * MS
    assert grouping.missing() == ["a", "b", "c"] and not grouping.drops


def test_after_a_lost_image_the_next_rotation_is_whole():
    grouping = LatestSet(("a", "b"), max_spread=50 * MS)
    sets = [grouping.add(*image) for image in (("a", 0, 0), ("a", 100 * MS, 1), ("b", 130 * MS, 1))]
    assert sets[:2] == [None, None] and sets[2].images == {"a": 1, "b": 1}
    assert grouping.drops == {"replaced before its set was complete": 1}


def test_duplicates_and_late_images_are_counted():
    grouping = LatestSet(("a", "b"), max_spread=50 * MS)
    for stamp in (10, 10, 5):
        grouping.add("a", stamp * MS, None)
    assert grouping.drops == {"older than the image before it": 2}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000)), max_size=200))
def test_no_set_is_wider_than_allowed_and_no_image_is_lost_from_the_count(arrivals: list[tuple[str, int]]):
    grouping = LatestSet(("a", "b", "c"), max_spread=60)
    sets = [s for camera, stamp in arrivals if (s := grouping.add(camera, stamp, None))]
    assert all(max(s.stamps.values()) - min(s.stamps.values()) <= 60 for s in sets)
    waiting = 3 - len(grouping.missing())
    assert 3 * len(sets) + sum(grouping.drops.values()) + waiting == len(arrivals)
