"""Tracks and memory of a perception that sees sets faster than the memory is written."""

import numpy as np
import pytest

from streampetr_core.tracking import TrackerConfig
from streampetr_ros.perception import CameraView, Perception, ResetPolicy, Snapshot
from tests.core.query_world import Thing, World, curve, line
from tests.ros.rig import K, picture
from tests.ros.scripted import ScriptedRuntime

POLICY = ResetPolicy(max_gap=2.0, max_speed=80.0)
START = 1_600_000_000.0
SCENE = {
    "passing": Thing(line(-20, 4, vx=9.0)),
    "crossing": Thing(line(15, -12, vy=6.0), is_seen=lambda time: not 1.05 < time < 2.0),
    "parked": Thing(line(8, 3), label=lambda time: 1),
}


def _snapshot(time: float, world_T_ref=curve) -> Snapshot:
    return Snapshot(START + time, [CameraView(picture(0), K, np.eye(4))], world_T_ref(time))


def _run(rate: float, seconds: float, tracking: TrackerConfig | None = None) -> tuple[World, Perception, list]:
    world = World(SCENE, world_T_ref=curve)
    perception = Perception(ScriptedRuntime(world), POLICY, tracking=tracking)
    every = []
    for index in range(int(seconds * rate) + 1):
        perceived = perception.process(_snapshot(index / rate))
        assert perceived.reset_reason is None
        world.times.append(index / rate)
        world._note(perceived.tracks, index / rate)
        every.append(perceived)
    return world, perception, every


@pytest.mark.parametrize("rate", [2, 5, 10, 12])
@pytest.mark.parametrize("method", ["identity", "distance"])
def test_ids_survive_a_second_out_of_sight_at_every_rate(rate: float, method: str):
    config = ScriptedRuntime.config
    tracking = TrackerConfig.for_model(config) if method == "identity" else TrackerConfig.by_distance(config)
    world, _, every = _run(rate, 4.0, tracking)
    assert world.switches() == 0
    assert world.found()
    assert {len(perceived.tracks) for perceived in every} == {2, 3}
    np.testing.assert_allclose(every[-1].tracks.age_T, 4.0, atol=1e-6)


@pytest.mark.parametrize("rate", [2, 4, 6, 8, 10, 12, 20])
def test_the_memory_is_written_twice_a_second_at_every_rate(rate: float):
    world = World(SCENE, world_T_ref=curve)
    runtime = ScriptedRuntime(world)
    perception = Perception(runtime, POLICY)
    written = []
    for index in range(4 * rate + 1):
        perception.process(_snapshot(index / rate))
        written.append(perception.state.written.stamp - START)
    np.testing.assert_allclose(sorted(set(written)), np.arange(0, 4.1, 0.5), atol=1e-6)
    assert max(runtime.ages) == pytest.approx(0.5, abs=1e-6)  # what the step is told is the age of the memory


@pytest.mark.parametrize(
    ("time", "shift", "reason"), [(-1.0, 0.0, "time went back"), (9.0, 0.0, "a gap"), (2.1, 500.0, "odometry jumped")]
)
def test_after_a_reset_tracks_are_new_and_no_id_is_used_again(time: float, shift: float, reason: str):
    _, perception, every = _run(10, 2.0)
    before = {id_ for perceived in every for id_ in perceived.tracks.ids_T.tolist()}
    world_T_ref = curve(time)
    world_T_ref[0, 3] += shift
    perceived = perception.process(_snapshot(time, lambda _: world_T_ref))
    assert perceived.reset_reason.startswith(reason)
    assert len(perceived.tracks) == 3 and not before & set(perceived.tracks.ids_T.tolist())
    assert perceived.tracks.age_T.tolist() == [0.0] * 3


def test_the_state_is_a_value():
    _, perception, _ = _run(10, 1.0)
    before = perception.state
    ids = before.tracker.tracks.ids_T.copy()
    perception.process(_snapshot(1.1))
    assert perception.state is not before
    assert before.last.stamp == START + 1.0 and np.array_equal(before.tracker.tracks.ids_T, ids)
