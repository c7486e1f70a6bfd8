"""What happens in a synthetic scene, without pictures: layout, traffic, motion, sizes, seeds."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from streampetr_core.geometry import box_corners
from training.synth.paths import from_curvature, through
from training.synth.rig import CHANNELS, make_rig
from training.synth.scene import FAMILIES, KINDS, kind_of, make_scene
from training.synth.sizes import CLASSES, STATISTICS, draw_size
from training.synth.stage import EGO_CENTRE, EGO_SIZE, first_touch
from training.synth.traffic import Driver, Lane, Signals, make_route, simulate

SIZE = (64, 36)


def scene_of(seed, kind=None, family="train", index=0, duration=19.5, **options):
    return make_scene(seed, family, index, duration, SIZE, kind=kind, **options)


def footprints(scene, time):
    """The outlines of all objects and, last, of the ego vehicle."""
    pose = scene.ego.pose(time)
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    middle = pose[:2, 3] + EGO_CENTRE * np.array([np.cos(yaw), np.sin(yaw)])
    boxes = np.concatenate([scene.boxes(time), [[*middle, 0.8, *EGO_SIZE, yaw]]])
    return shapely.polygons(box_corners(boxes)[:, :4, :2])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.sampled_from(FAMILIES))
def test_nothing_ever_overlaps(seed, kind, family):
    scene = scene_of(seed, kind, family)
    # Between the steps of the simulation, too.
    for time in np.arange(-0.55, 19.95, 0.85):
        outlines = footprints(scene, time)
        first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        once = first < second
        shared = shapely.area(shapely.intersection(outlines[first[once]], outlines[second[once]]))
        names = [*(item.kind for item in scene.objects), "ego"]
        pairs = [(names[a], names[b]) for a, b in zip(first[once], second[once], strict=True)]
        assert not len(shared) or shared.max() < 1e-6, f"{pairs[int(shared.argmax())]} at {time} s"


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_is_near_the_way_in_every_kind_of_scene(kind):
    scene = scene_of(1, kind)
    near = np.hypot(*np.moveaxis(scene.tracks[:, :, :2] - scene.ego.positions[:, :2], -1, 0)).min(axis=1) < 40
    assert {item.kind for item, is_near in zip(scene.objects, near, strict=True) if is_near} == set(CLASSES)
    assert scene.backdrop.structures


@pytest.mark.parametrize("kind", KINDS)
def test_velocities_and_attributes_are_those_of_the_motion(kind):
    scene = scene_of(3, kind)
    for time in (0.0, 7.3, 19.5):
        before, after = scene.places(time - 0.02), scene.places(time + 0.02)
        velocities, attributes = scene.velocities(time), scene.attributes(time)
        np.testing.assert_allclose(velocities, (after - before)[:, :2] / 0.04, atol=0.4)
        for item, velocity, attribute in zip(scene.objects, velocities, attributes, strict=True):
            moves = np.hypot(*velocity) > 0.2
            assert not (moves and item.parked)
            if item.kind == "pedestrian":
                assert attribute == ("pedestrian.moving" if moves else "pedestrian.standing")
            elif item.kind in ("bicycle", "motorcycle"):
                assert attribute == ("cycle.with_rider" if item.with_rider else "cycle.without_rider")
                assert item.with_rider or not moves, "a cycle without a rider stands"
            elif item.kind in ("barrier", "traffic_cone"):
                assert attribute == "" and not moves
            else:
                standing = "vehicle.parked" if item.parked else "vehicle.stopped"
                assert attribute == ("vehicle.moving" if moves else standing)


def test_vehicles_drive_where_they_look_at_speeds_of_a_town():
    for seed, kind in enumerate(KINDS):
        scene = scene_of(seed, kind)
        velocities, yaw = scene.velocities(10.0), scene.places(10.0)[:, 2]
        speeds = np.hypot(*velocities.T)
        assert speeds.max() < 20
        fast = speeds > 2.0
        heading = np.arctan2(velocities[:, 1], velocities[:, 0])
        difference = np.abs((heading - yaw + np.pi) % (2 * np.pi) - np.pi)[fast]
        assert difference.max(initial=0) < np.deg2rad(15)


def test_ego_vehicles_turn_stop_and_nod():
    scenes = [scene_of(seed, kind) for seed in range(3) for kind in KINDS]
    speeds = [np.hypot(*np.diff(scene.ego.positions[:, :2], axis=0).T) / 0.1 for scene in scenes]
    assert any((speed < 0.05).any() for speed in speeds), "none stops"
    assert all(speed.max() > 2 for speed in speeds), "one never drives"
    assert max(np.ptp(speed) for speed in speeds) > 5
    turned = [np.ptp(scene.ego.angles[:, 0]) for scene in scenes]
    assert max(turned) > 1.2 and np.median(turned) < 0.5
    pitch = np.concatenate([scene.ego.angles[:, 1] for scene in scenes])
    assert 0.008 < np.abs(pitch).max() < 0.05
    acceleration = np.concatenate([np.gradient(np.append(speed, speed[-1]), 0.1) for speed in speeds])
    assert np.corrcoef(pitch, acceleration)[0, 1] < -0.5, "the nose goes down when the car brakes"


def test_crossings_have_turning_and_oncoming_traffic():
    """Over some crossings, vehicles leave to all four directions relative to where they came from."""
    turns = []
    for seed in range(6):
        scene = scene_of(seed, "crossing")
        moving = np.array([item.kind in ("car", "truck", "bus", "motorcycle") for item in scene.objects])
        way = np.hypot(*(scene.tracks[:, -1] - scene.tracks[:, 0])[:, :2].T) > 15
        turns += (scene.tracks[:, -1, 2] - scene.tracks[:, 0, 2])[moving & way].tolist()
    turns = np.array(turns)
    assert (turns > 1.0).any() and (turns < -1.0).any() and (np.abs(turns) < 0.1).any()


def test_trailers_follow_trucks_at_their_own_yaw():
    seen = 0
    for seed in range(12):
        scene = scene_of(seed, "curve")
        for item, track in zip(scene.objects, scene.tracks, strict=True):
            way = np.hypot(*(track[-1] - track[0])[:2])
            if item.kind != "trailer" or way < 20:
                continue
            trucks = [t for i, t in zip(scene.objects, scene.tracks, strict=True) if i.kind == "truck"]
            gaps = [np.hypot(*(truck - track)[:, :2].T) for truck in trucks]
            assert any(np.ptp(gap) < 1.0 for gap in gaps), "no truck draws it"
            towing = trucks[int(np.argmin([np.ptp(gap) for gap in gaps]))]
            seen += np.abs(towing[:, 2] - track[:, 2]).max() > 0.02
    assert seen > 0, "no trailer bends"


def test_a_follower_stops_behind_a_halting_leader_and_drives_on():
    lanes = [Lane(from_curvature([(0, 0), (400, 0)], (0, 0), 0))]
    route = make_route(lanes, (0,))
    drivers = [Driver(route, 60, 10, 10, halts=((120.0, 6.0),)), Driver(route, 30, 4.5, 14)]
    s, v = simulate(lanes, Signals(), drivers, 400)
    assert (s[0] - 5 - s[1] - 2.25).min() > 0.5
    assert (v[0] < 0.05).sum() >= 55 and v[0, -1] > 8
    assert s[0][v[0] < 0.05].max() + 5 == pytest.approx(120, abs=1.5)


def test_nobody_passes_a_red_signal():
    path = from_curvature([(0, 0), (300, 0)], (0, 0), 0)
    lanes = [Lane(path.between(0, 100)), Lane(path.between(100, 110), "crossing"), Lane(path.between(110, 300))]
    route = make_route(lanes, (0, 1, 2))
    # Red for the 4 s of the warm-up and 10 s more.
    signals = Signals(((frozenset(), 14.0), (frozenset({"crossing"}), 100.0)), frozenset({1}))
    s, v = simulate(lanes, signals, [Driver(route, 20, 4, 10)], 300)
    front = s[0] + 2
    assert front[:105].max() < 100.5 and v[0, 100] < 0.5 and front[-1] > 150


def test_cones_of_a_path_and_of_its_neighbour():
    path = from_curvature([(0, 0), (20, 0.05), (60, 0.05)], (3, 4), 0.3)
    point, heading = path.at(30.0, 2.5)
    s, d = path.nearest(point)
    assert (s[0], d[0]) == pytest.approx((30.0, 2.5), abs=0.05)
    assert path.beside(2.5).length < path.length < path.beside(-2.5).length
    back = path.backwards()
    np.testing.assert_allclose(back.at(back.length - 30.0)[0], path.at(30.0)[0], atol=1e-6)
    assert np.cos(back.at(back.length - 30.0)[1] - heading) == pytest.approx(-1)
    beyond, _ = path.at(path.length + 10)
    assert np.hypot(*(beyond - path.points[-1])) == pytest.approx(10)
    np.testing.assert_allclose(through(path.points).headings, path.headings, atol=0.02)


@given(st.floats(-3, 3), st.floats(-8, 8), st.floats(-8, 8), st.floats(0, 6.3))
def test_touching_agrees_with_shapely(turn, x, y, yaw):
    boxes = np.array([[0, 0, 0, 4.0, 2.0, 1, yaw], [x, y, 0, 3.0, 1.0, 1, turn]])
    one, two = shapely.polygons(box_corners(boxes)[:, :4, :2])
    track, other = boxes[:1, [0, 1, 6]], boxes[1:, [0, 1, 6]]
    distance = shapely.distance(one, two)
    area = shapely.area(shapely.intersection(one, two))
    if area > 1e-6 or distance > 1e-6:
        assert (first_touch(track, (4.0, 2.0), other[None], [(3.0, 1.0)]) == 0) == (area > 0)


@pytest.mark.parametrize("kind", CLASSES)
def test_sizes_have_the_published_means(kind):
    rng = np.random.default_rng(0)
    sizes = np.array([draw_size(rng, kind, with_rider=bool(i % 2)) for i in range(4000)])
    for values, (mean, spread) in zip(sizes.T, STATISTICS[kind], strict=True):
        assert abs(values.mean() - mean) < 0.35 * spread
        assert values.std() < 1.1 * spread


def test_a_scene_is_a_function_of_its_seed_and_validation_has_its_own():
    first, again, other, val = scene_of(5), scene_of(5), scene_of(6), scene_of(5, family="val")
    np.testing.assert_array_equal(first.tracks, again.tracks)
    assert first.objects == again.objects and first.backdrop.light == again.backdrop.light
    for different in (other, val, scene_of(5, index=1)):
        assert first.objects != different.objects and first.backdrop.light != different.backdrop.light
        assert not np.array_equal(first.world_T_site, different.world_T_site)
    assert first.start != val.start


def test_six_scenes_in_a_row_are_of_six_kinds():
    for family in FAMILIES:
        assert {kind_of(7, family, index) for index in range(12, 18)} == set(KINDS)


def test_some_scenes_keep_to_the_left():
    sides = {scene_of(seed, "straight").backdrop.mirrored for seed in range(8)}
    assert sides == {True, False}


def test_rigs_differ_by_scene_within_what_a_workshop_leaves():
    nominal, rigs = make_rig(SIZE), [scene_of(seed, duration=1.0).rig for seed in range(6)]
    for rig in rigs:
        for camera, ideal in zip(rig.cameras, nominal.cameras, strict=True):
            shift = np.abs(camera.base_T_cam[:3, 3] - ideal.base_T_cam[:3, 3]).max()
            cosine = (np.trace(camera.base_T_cam[:3, :3].T @ ideal.base_T_cam[:3, :3]) - 1) / 2
            turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            assert 0 < shift < 0.05 and 0 < turned < 1.2
    assert len({rig.cameras[0].intrinsics[0, 0] for rig in rigs}) == len(rigs)
    assert [camera.channel for camera in nominal.cameras] == list(CHANNELS)


def test_wide_pictures_are_cut_at_the_top_and_pixels_stay_square():
    whole, cut = make_rig((704, 396)).cameras[0], make_rig((704, 256)).cameras[0]
    assert cut.intrinsics[0, 0] == cut.intrinsics[1, 1] == whole.intrinsics[0, 0]
    assert whole.intrinsics[1, 2] - cut.intrinsics[1, 2] == pytest.approx(140)


def test_more_of_a_class_can_be_asked_for():
    counts = [
        sum(item.kind == "bus" for item in scene_of(2, "curve", extra=extra).objects) for extra in ({}, {"bus": 5})
    ]
    assert counts[1] >= counts[0] + 3


def test_a_scene_of_no_or_too_much_time_is_refused():
    for duration in (0.0, 61.0):
        with pytest.raises(ValueError, match="at most 60"):
            scene_of(0, duration=duration)
    with pytest.raises(ValueError, match="outside the scene"):
        scene_of(0, duration=1.0).places(5.0)
