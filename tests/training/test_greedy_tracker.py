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
