from hypothesis import given
from hypothesis import strategies as st

from streampetr_ros.grouping import Grouping, ImageSet

MS = 1_000_000
OFFSETS = {"a": 0, "b": 15, "c": 40}  # ms, when each camera exposes in a rotation
PERIOD = 83


def _feed(grouping: Grouping, arrivals: list[tuple[str, int]]) -> list[ImageSet]:
    return [s for camera, stamp in arrivals for s in grouping.add(camera, stamp * MS, f"{camera}{stamp}")]


def test_a_set_is_released_when_its_last_image_comes():
    grouping = Grouping(("a", "b", "c"), 50 * MS)
    assert _feed(grouping, [("a", 0), ("c", 40)]) == []
    (image_set,) = _feed(grouping, [("b", 15)])
    assert image_set.images == {"a": "a0", "b": "b15", "c": "c40"}
    assert image_set.newest_stamp == 40 * MS
    assert not grouping.drops


def test_after_a_lost_image_the_next_rotation_is_whole():
    grouping = Grouping(("a", "b"), 50 * MS)
    (image_set,) = _feed(grouping, [("a", 0), ("a", 100), ("b", 130)])
    assert image_set.images == {"a": "a100", "b": "b130"}
    assert grouping.drops == {"another camera has no image of this time": 1}


def test_duplicates_and_images_that_go_back_are_counted():
    grouping = Grouping(("a", "b"), 50 * MS)
    _feed(grouping, [("a", 10), ("a", 10), ("a", 5)])
    assert grouping.drops == {"not newer than the image before it": 2}


def test_a_dead_camera_does_not_fill_the_memory():
    grouping = Grouping(("a", "b"), 50 * MS)
    _feed(grouping, [("a", PERIOD * turn) for turn in range(100)])
    assert grouping.drops == {"waited too long for the other cameras": 84}
    grouping.clear()
    assert grouping.drops["waited when time went back"] == 16
    assert _feed(grouping, [("a", 0), ("b", 15)])[0].images == {"a": "a0", "b": "b15"}


@given(st.randoms(use_true_random=False), st.sets(st.tuples(st.integers(0, 19), st.sampled_from("abc"))))
def test_whatever_the_order_of_arrival_rotations_stay_apart_and_nothing_is_lost(random, lost: set[tuple[int, str]]):
    """Cameras run ahead of each other by whole rotations, as when a busy machine empties one queue after the other.

    The spread of 50 ms is less than that of any set of two rotations (58 ms), which is what `max_spread` is for.
    """
    queues = {c: [turn for turn in range(20) if (turn, c) not in lost] for c in OFFSETS}
    grouping, sets = Grouping(tuple(OFFSETS), 50 * MS), []
    while any(queues.values()):
        camera = random.choice([c for c, turns in queues.items() if turns])
        sets += _feed(grouping, [(camera, PERIOD * queues[camera].pop(0) + OFFSETS[camera])])
    # A camera may run ahead by 16 images before its oldest is given up; beyond that, whole rotations all come out.
    given_up = grouping.drops["waited too long for the other cameras"]
    whole = {turn for turn in range(20) if not any((turn, c) in lost for c in OFFSETS)}
    turns = [{(stamp // MS - OFFSETS[c]) // PERIOD for c, stamp in s.stamps.items()} for s in sets]
    assert all(len(turn) == 1 for turn in turns)
    assert given_up or {turn for (turn,) in turns} == whole
    waiting = sum(len(queue) for queue in grouping._waiting.values())
    assert 3 * len(sets) + sum(grouping.drops.values()) + waiting == 60 - len(lost)
