"""The identity-propagation tracker in a scripted world: ids stay, and what must hold holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streampetr_core.decode import Detections, decode_detections
from streampetr_core.geometry import make_transform
from streampetr_core.heads import admitted_queries
from streampetr_core.tracking import TrackerConfig, TrackerState, track
from tests.core.models import lively_detector, make_frame, tiny_config
from tests.core.query_world import CONFIG, STILL, Thing, World, curve, line

HALF_SECONDS = [0.5 * number for number in range(12)]
PEDESTRIAN = (0.7, 0.7, 1.8)


def test_ids_stay_while_everything_moves():
    things = {"parked": Thing(line(8, 3)), "faster": Thing(line(-20, 0, 15)), "oncoming": Thing(line(40, 6, -12, 0.5))}
    world = World(things, world_T_ref=curve, noise=0.1).run(HALF_SECONDS)
    assert (world.switches(), world.found()) == (0, True)
    assert world.state.next_id == 4


def test_without_memory_distance_alone_keeps_ids():
    things = {"parked": Thing(line(8, 3)), "faster": Thing(line(-20, 0, 15)), "oncoming": Thing(line(40, 6, -12, 0.5))}
    world = World(things, world_T_ref=curve, noise=0.1, propagates=False).run(HALF_SECONDS, lambda index: False)
    assert (world.switches(), world.found()) == (0, True)


def test_queries_keep_pedestrians_apart_who_cross():
    """They meet between two frames and have no telling velocity, so distance alone would swap them."""
    crossing = {
        "one": Thing(lambda time: (1.0 - time, 0.0) if time < 1 else (1.0 - time, 0.4), size=PEDESTRIAN),
        "other": Thing(lambda time: (time - 1.0, 0.4) if time < 1 else (time - 1.0, 0.0), size=PEDESTRIAN),
    }

    def misled(world: World) -> World:
        detect = world.detect

        def without_velocity(time):
            names, found = detect(time)
            return names, replace(found, velocities_D2=torch.zeros_like(found.velocities_D2))

        world.detect = without_velocity
        return world

    times = [0.2, 0.7, 1.2, 1.7]
    assert misled(World(crossing)).run(times).switches() == 0
    assert misled(World(crossing, propagates=False)).run(times, lambda index: False).switches() == 2


def test_of_two_objects_that_meet_the_hidden_one_keeps_its_id():
    """For a frame both queries stand on one place: one object hides behind the other, and comes out again."""
    things = {
        "one": Thing(line(-1, 0, 1), size=PEDESTRIAN, score=0.9),
        "other": Thing(line(1, 0, -1), size=PEDESTRIAN, score=0.6),
    }
    world = World(things).run([0, 0.5, 1.0, 1.5, 2.0])
    assert [len(tracks) for tracks in world.tracks] == [2, 2, 1, 2, 2]
    assert (world.ids["one"][0], world.ids["other"][0]) == (world.ids["one"][-1], world.ids["other"][-1])
    assert world.state.next_id == 3


@pytest.mark.parametrize("propagates", [True, False])
def test_a_second_of_occlusion_changes_no_id(propagates):
    hidden = Thing(line(0, 5, 8), is_seen=lambda time: not 1.9 < time < 2.6)
    world = World({"hidden": hidden, "other": Thing(line(30, -6))}, world_T_ref=curve, propagates=propagates)
    world.run(HALF_SECONDS, lambda index: propagates)
    assert world.ids["hidden"][4:6] == [None, None]  # seen at 1.5 s, then at 3.0 s
    assert world.ids["hidden"][3] is not None
    assert (world.switches(), world.found()) == (0, True)


def test_a_track_is_forgotten_after_a_second_and_its_id_is_not_used_again():
    hidden = Thing(line(0, 5), is_seen=lambda time: not 1.4 < time < 4.1)
    world = World({"hidden": hidden, "other": Thing(line(30, -6))}).run(HALF_SECONDS)
    assert world.switches() == 1
    assert world.ids["hidden"][-1] == 3


def test_missed_frames_do_not_matter():
    world = World({"car": Thing(line(0, 5, 12)), "still": Thing(line(5, 5))}, world_T_ref=curve)
    world.run([0, 0.5, 1.5, 2.0, 3.0, 3.5])
    assert (world.switches(), world.found()) == (0, True)


def test_several_queries_on_one_object_make_one_track():
    world = World({"car": Thing(line(0, 5, 12), num_queries=3), "still": Thing(line(20, 5))}, noise=0.1)
    world.run(HALF_SECONDS)
    assert [len(tracks) for tracks in world.tracks] == [2] * len(HALF_SECONDS)
    assert (world.switches(), world.state.next_id) == (0, 3)


def test_of_duplicates_the_best_gives_the_box_and_identity_stays():
    first, state = step([box(0, 0.5)], [0])
    better = detections([box(0.3, 0.9), box(0.0, 0.4)], [1, CONFIG.num_learned])
    tracks, _ = track(better, None, state, STILL, 0.5, CONFIG)
    assert tracks.ids_T.tolist() == first.ids_T.tolist() == [1]
    assert tracks.boxes_T7[0, 0] == pytest.approx(0.3)


def test_neighbours_are_no_duplicates():
    parked = [box(0, 0.9), [0.0, 2.5, 1.0, 4.6, 1.9, 1.6, 0.0, 0, 0, 0.8]]
    tracks, _ = step(parked, [0, 1])
    assert len(tracks) == 2


def test_memory_that_is_not_kept_leaves_the_entries_as_they_are():
    """At 10 Hz with a memory entry every half second, ids stay, and new things get theirs between two entries."""
    times = [0.1 * number for number in range(30)]
    things = {"car": Thing(line(0, 5, 12)), "late": Thing(line(9, 9, -8), is_seen=lambda time: time > 1.05)}
    world = World(things, world_T_ref=curve, noise=0.05).run(times, lambda index: index % 5 == 0)
    assert (world.switches(), world.found()) == (0, True)
    before = TrackerState.fresh(CONFIG)
    _, state = track(detections([box(0, 0.9)], [0]), None, before, STILL, 0.5, CONFIG)
    assert state.entry_ids_P.tolist() == before.entry_ids_P.tolist() == [-1] * CONFIG.num_propagated
    assert (len(state.tracks), len(before.tracks)) == (1, 0)


def test_fewer_admitted_than_propagated_push_older_entries_back():
    config = replace(CONFIG, num_propagated=4)
    found = detections([box(0, 0.9), box(9, 0.8), box(18, 0.7)], [0, 1, 2])
    _, state = track(found, [1, 0], TrackerState.fresh(config), STILL, 0.0, config)
    assert state.entry_ids_P.tolist() == [2, 1, -1, -1]
    _, state = track(found, [config.num_learned, 5], state, STILL, 0.0, config)
    assert state.entry_ids_P.tolist() == [2, -1, 2, 1]


def test_a_chain_that_jumps_loses_its_id():
    _, state = step([box(0, 0.9)], [0], admitted=[0])
    tracks, _ = track(detections([box(15, 0.9)], [CONFIG.num_learned]), None, state, STILL, 0.5, CONFIG)
    assert tracks.ids_T.tolist() == [2]


def test_scores_decide_who_is_born_and_who_goes_on():
    config = replace(CONFIG, birth_score=0.25, keep_score=0.15)
    assert len(step([box(0, 0.2)], [0], config=config)[0]) == 0
    _, state = step([box(0, 0.9)], [0], config=config)
    known, later = track(detections([box(0, 0.2)], [0]), None, state, STILL, 0.5, config)
    assert known.scores_T == pytest.approx([0.2])
    assert len(track(detections([box(0, 0.1)], [0]), None, later, STILL, 0.5, config)[0]) == 0


def test_a_short_doubt_about_the_class_changes_neither_id_nor_class():
    doubted = Thing(line(0, 5, 8), label=lambda time: 1 if time == 2.0 else 0)
    world = World({"car": doubted}).run(HALF_SECONDS)
    assert world.switches() == 0
    assert {int(tracks.labels_T[0]) for tracks in world.tracks} == {0}


def test_velocity_and_heading_turn_with_the_vehicle():
    _, state = step([box(10, 0.9, velocity=(4, 0))], [0])
    turned = make_transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3])
    _, state = track(detections([], []), None, state, turned, 0.5, CONFIG)
    assert state.tracks.boxes_T7[0].tolist() == pytest.approx([1, 14, 4, 4.6, 1.9, 1.6, np.pi / 2])
    assert state.tracks.velocities_T2[0].tolist() == pytest.approx([0, 4])
    assert (state.tracks.unseen_T[0], state.tracks.age_T[0]) == (0.5, 0.5)


def test_a_track_that_is_out_of_sight_is_not_reported_even_if_no_time_passed():
    _, state = step([box(0, 0.9)], [0])
    tracks, state = track(detections([], []), None, state, STILL, 0.0, CONFIG)
    assert (len(tracks), len(state.tracks)) == (0, 1)


def test_ids_can_go_on_after_a_reset():
    _, state = step([box(0, 0.9)], [0])
    anew = TrackerState.fresh(CONFIG, state.next_id)
    assert track(detections([box(0, 0.9)], [0]), None, anew, STILL, 0.0, CONFIG)[0].ids_T.tolist() == [2]


# --------------------------------------------------------------------------------------------- what holds for any input

coordinate = st.floats(-30, 30, width=32)
row = st.tuples(
    coordinate, coordinate, st.floats(0.25, 6, width=32), coordinate, st.floats(0, 1, width=32), st.integers(0, 2)
)
frames = st.lists(
    st.tuples(st.lists(row, max_size=12), st.permutations(range(16)), st.booleans(), st.floats(0, 1.5)),
    min_size=1,
    max_size=8,
)


def random_detections(rows, queries):
    """Queries may stand behind two classes, as the decoder's do."""
    boxes = [[x, y, 0.0, size, size, 1.5, 0.1, speed, -speed, score] for x, y, size, speed, score, _ in rows]
    labels = [(rows[index - index % 2][-1] + index % 2) % 3 for index in range(len(rows))]
    return detections(boxes, [queries[index // 2] for index in range(len(rows))], labels)


@given(frames)
@settings(max_examples=40)
def test_invariants(script):
    state, born, dead = TrackerState.fresh(CONFIG), 1, set()
    for rows, queries, admits, dt in script:
        found = random_detections(rows, queries)
        shuffled = found.select(torch.randperm(len(found), generator=torch.Generator().manual_seed(1)))
        admitted = queries[: CONFIG.num_propagated] if admits else None
        tracks, after = track(found, admitted, state, STILL, dt, CONFIG)
        again, same = track(shuffled, admitted, state, STILL, dt, CONFIG)
        for name in vars(tracks):  # the order of detections does not matter, and nothing was changed in place
            np.testing.assert_array_equal(getattr(tracks, name), getattr(again, name))
        np.testing.assert_array_equal(after.entry_ids_P, same.entry_ids_P)
        ids, alive = tracks.ids_T.tolist(), set(after.tracks.ids_T.tolist())
        assert len(ids) == len(set(ids)) == len(set(tracks.queries_T.tolist()))
        assert set(ids) <= alive and not alive & dead
        assert {number for number in alive if number >= born} == set(range(born, after.next_id))
        assert set(after.entry_ids_P.tolist()) <= alive | {-1}
        if not admits:
            assert set(after.entry_ids_P.tolist()) <= set(state.entry_ids_P.tolist()) | {-1}
        dead |= set(state.tracks.ids_T.tolist()) - alive
        state, born = after, after.next_id


# --------------------------------------------------------------------------------------------- with the detector itself


def test_admitted_queries_enter_the_memory_and_come_back_as_propagated_ones_in_this_order():
    config = tiny_config()
    detector = lively_detector(config).requires_grad_(False)
    predictions, memory = detector.step(make_frame(config, batch=2), detector.fresh_memory(2))
    admitted_BK = admitted_queries(predictions, config.num_admitted)
    assert admitted_BK.shape == (2, config.num_admitted)
    for element, admitted_K in enumerate(admitted_BK):
        entries = memory.embedding_BMC[element, : config.num_admitted]
        torch.testing.assert_close(entries, predictions.embedding_BQC[element, admitted_K], rtol=0, atol=0)
    propagated = detector.temporal(memory).reference_BQ3[:, config.num_learned :]
    low_3, high_3 = torch.tensor(config.detection_range).chunk(2)
    first = predictions.centre_BQ3.take_along_dim(admitted_BK[:, : config.num_propagated, None], dim=1)
    torch.testing.assert_close(propagated * (high_3 - low_3) + low_3, first)


def test_the_detectors_own_predictions_can_be_tracked():
    model = tiny_config()
    detector, config = lively_detector(model).requires_grad_(False), TrackerConfig.for_model(model, birth_score=0.1)
    predictions, _ = detector.step(make_frame(model), detector.fresh_memory())
    found, admitted_K = decode_detections(predictions, model)[0], admitted_queries(predictions, model.num_admitted)[0]
    tracks, state = track(found, admitted_K, TrackerState.fresh(config), STILL, 0.0, config)
    assert len(tracks) > 3
    by_query = dict(zip(tracks.queries_T.tolist(), tracks.ids_T.tolist(), strict=True))
    expected = [by_query.get(int(query)) for query in admitted_K[: model.num_propagated]]
    pairs = [(got, want) for got, want in zip(state.entry_ids_P.tolist(), expected, strict=True) if want is not None]
    assert pairs
    assert all(got == want for got, want in pairs)


def box(x, score, velocity=(0.0, 0.0)):
    return [x, 0.0, 1.0, 4.6, 1.9, 1.6, 0.0, *velocity, score]


def detections(rows, queries, labels=None) -> Detections:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 10)
    labels = torch.tensor(labels or [0] * len(rows), dtype=torch.int64)
    return Detections(table[:, :7], table[:, 7:9], table[:, 9], labels, torch.tensor(queries, dtype=torch.int64))


def step(rows, queries, admitted=None, config=CONFIG):
    """Return the first frame's tracks and the state after it."""
    return track(detections(rows, queries), admitted, TrackerState.fresh(config), STILL, 0.0, config)
