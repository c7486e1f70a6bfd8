"""The published tracker against the tracks that the official code recorded."""

import pytest

from tests.training import golden
from training.evaluation.greedy_tracker import TrackedFrame, TrackerConfig, track

GOLDEN = golden.load_json("tracker")
FRAMES = [TrackedFrame(frame["token"], frame["timestamp"], frame["first"]) for frame in GOLDEN["frames"]]
CONFIGS = {
    "greedy": TrackerConfig(),
    "greedy_max_age1": TrackerConfig(max_age=1),
    "hungarian": TrackerConfig(hungarian=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_tracks_are_the_official_ones(name):
    assert track(FRAMES, GOLDEN["detections"], CONFIGS[name]) == GOLDEN[f"expected_{name}"]


def entry(x, name="car", score=0.9, velocity=(0.0, 0.0)):
    return {
        "translation": [x, 0.0, 1.0],
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": list(velocity),
        "detection_name": name,
        "detection_score": score,
    }


def ids(detections, config=None, times=None):
    """Track ids of each frame of one scene, frames half a second apart."""
    times = times or [0.5 * number for number in range(len(detections))]
    frames = [TrackedFrame(str(number), time, number == 0) for number, time in enumerate(times)]
    results = track(frames, {str(n): entries for n, entries in enumerate(detections)}, config or TrackerConfig())
    return [[item["tracking_id"] for item in results[frame.token]] for frame in frames]


def test_velocity_carries_over_long_ways():
    fast = (20.0, 0.0)
    assert ids([[entry(0, velocity=fast)], [entry(10, velocity=fast)]]) == [["1"], ["1"]]
    assert ids([[entry(0)], [entry(10)]]) == [["1"], ["2"]]


def test_classes_and_distances_keep_objects_apart():
    assert ids([[entry(0)], [entry(0, "truck")], [entry(2.4), entry(2.6, "truck")]]) == [["1"], ["2"], ["1", "3"]]


def test_only_sure_detections_of_moving_classes_count():
    assert ids([[entry(0, score=0.2), entry(5, "barrier"), entry(9, score=0.25)]]) == [["1"]]


def test_a_lost_track_is_found_again_until_it_is_too_old():
    two, three = TrackerConfig(max_age=2), TrackerConfig(max_age=3)
    elsewhere = [entry(99)]
    lost_for_one = [[entry(0)], elsewhere, [entry(0)]]
    lost_for_two = [[entry(0)], elsewhere, elsewhere, [entry(0)]]
    assert ids(lost_for_one, two)[-1] == ["1"]
    assert ids(lost_for_two, two)[-1] == ["3"]
    assert ids(lost_for_two, three)[-1] == ["1"]


def test_a_lost_track_moves_on_by_the_step_it_was_last_seen_with():
    moving, elsewhere = (4.0, 0.0), [entry(99)]
    seen = [[entry(0, velocity=moving)], [entry(2, velocity=moving)], elsewhere, [entry(6, velocity=moving)]]
    assert ids(seen)[-1] == ["1"]
    # Lost right after the first frame, a track has no step yet.
    assert ids([seen[0], elsewhere, [entry(4, velocity=(0, 0))]])[-1] == ["3"]


def test_a_new_scene_begins_with_id_1():
    frames = [TrackedFrame("a", 0.0, True), TrackedFrame("b", 0.5, True)]
    results = track(frames, {"a": [entry(0)], "b": [entry(0), entry(9)]}, TrackerConfig())
    assert [item["tracking_id"] for item in results["b"]] == ["1", "2"]


def test_the_hungarian_method_does_not_let_the_first_take_all():
    """The first detection is near both tracks, the second near one only."""
    frames = [[entry(0), entry(2)], [entry(1.1), entry(3.5)]]
    greedy, hungarian = (ids(frames, TrackerConfig(hungarian=flag)) for flag in (False, True))
    assert greedy[1] == ["2", "3"]
    assert hungarian[1] == ["1", "2"]


def test_frames_without_detections_are_fine():
    assert ids([[], [entry(0)], [], [entry(0.5)]]) == [[], ["1"], [], ["1"]]


def test_a_frame_without_detections_drops_no_track():
    """Published behaviour: a track that is too old freezes, and may still be found."""
    short = TrackerConfig(max_age=1)
    assert ids([[entry(0)], [], [], [entry(0)]], short)[-1] == ["1"]
    assert ids([[entry(0)], [entry(99)], [], [entry(0)]], short)[-1] == ["3"]
