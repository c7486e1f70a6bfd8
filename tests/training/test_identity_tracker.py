"""The identity-propagation tracker on keyframes and results files; the truth as detections must give whole tracks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nuscenes.eval.detection.utils import category_to_detection_name

from streampetr_core.decode import Detections
from streampetr_core.geometry import invert_transform, quaternion_from_yaw, transform_points
from streampetr_core.tracking import TrackerConfig
from tests.core.models import tiny_config
from training.data.infos import Keyframe, Objects3D, Pose
from training.data.source import open_split
from training.data.tables import open_tables
from training.evaluation.greedy_tracker import TRACKED_CLASSES, TrackedFrame, frames_of
from training.evaluation.identity_tracker import Identities, KeyframeTracker, track_results
from training.evaluation.results import META, frame_tracks, write_json
from training.evaluation.tracking_eval import evaluate_tracks
from training.synth import WorldOptions, write_world

MODEL = tiny_config(num_learned=40, num_propagated=16, num_admitted=16, memory_length=48)
NO_OBJECTS = Objects3D(np.zeros((0, 7)), np.zeros((0, 2)), (), *(np.zeros(0, np.int64) for _ in range(3)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("identity") / "world"
    write_world(root, WorldOptions(scenes=2, val_scenes=2, samples=8, seed=1, width=64, height=36))
    return root, open_tables(root, "v1.0-synth"), open_split(root)[0]


def truth(tables, is_seen=lambda row: True):
    """Every annotation of a tracked class as a detection, and whose it is."""
    results, instances = {sample["token"]: [] for sample in tables.sample}, {}
    for row in tables.sample_annotation:
        name = category_to_detection_name(row["category_name"])
        if name in TRACKED_CLASSES and is_seen(row):
            instances[row["sample_token"], tuple(row["translation"])] = row["instance_token"]
            results[row["sample_token"]].append(
                {key: row[key] for key in ("sample_token", "translation", "size", "rotation")}
                | {"velocity": np.nan_to_num(tables.box_velocity(row["token"])[:2]).tolist()}
                | {"detection_name": name, "detection_score": 0.9, "attribute_name": ""}
            )
    return results, instances


def test_the_devkit_finds_our_tracks_of_the_truth_as_good_as_the_true_ones(world, tmp_path):
    """From their first sight to their last: the devkit, too, fills the gaps in the tracks that it compares with."""
    _, tables, infos = world
    spans: dict[str, list[int]] = {}
    for row in tables.sample_annotation:
        if row["num_lidar_pts"]:
            spans.setdefault(row["instance_token"], []).append(time_of(tables, row))

    def is_seen(row):
        span = spans.get(row["instance_token"], [0])
        return min(span) <= time_of(tables, row) <= max(span)

    results, instances = truth(tables, is_seen)
    ours = track_results(frames_of(infos), results, 0.25)
    true_ids = {
        token: [e | {"tracking_id": instances[token, tuple(e["translation"])]} for e in entries]
        for token, entries in ours.items()
    }
    summaries = []
    for name, tracks in (("ours", ours), ("true", true_ids)):
        write_json(tmp_path / name, {"meta": META, "results": tracks})
        summaries.append(evaluate_tracks(tmp_path / name, tables, "synth_val", tmp_path / "metrics"))
    for metric in ("amota", "amotp", "ids", "frag", "tp", "fp", "fn"):
        assert summaries[0][metric] == summaries[1][metric]
    assert summaries[0]["ids"] == 0
    assert summaries[0]["amota"] > 0.95


def time_of(tables, annotation):
    return tables.get("sample", annotation["sample_token"])["timestamp"]


@pytest.mark.parametrize("is_seen", [lambda row: True, lambda row: row["num_lidar_pts"]], ids=["all", "visible"])
def test_an_id_changes_only_after_a_long_absence(world, is_seen):
    _, tables, infos = world
    results, instances = truth(tables, is_seen)
    tracks = track_results(frames_of(infos), results, 0.25)
    assert {token: len(entries) for token, entries in tracks.items()} == {t: len(e) for t, e in results.items()}
    last: dict[str, tuple[float, str]] = {}
    for frame in frames_of(infos):
        for entry in tracks[frame.token]:
            instance = instances[frame.token, tuple(entry["translation"])]
            time, number = last.get(instance, (frame.time, entry["tracking_id"]))
            assert entry["tracking_id"] == number or frame.time - time > TrackerConfig(0, 0, 1).max_unseen
            last[instance] = (frame.time, entry["tracking_id"])


def test_far_from_the_origin_of_the_world_nothing_changes(world):
    _, tables, infos = world
    results, _ = truth(tables)
    far = {
        token: [entry | {"translation": (np.array(entry["translation"]) + [4e5, 5e6, 0]).tolist()} for entry in entries]
        for token, entries in results.items()
    }
    here, there = (track_results(frames_of(infos), given, 0.25) for given in (results, far))
    ids = [[[entry["tracking_id"] for entry in entries] for entries in found.values()] for found in (here, there)]
    assert ids[0] == ids[1]


CAR = {
    "sample_token": "", "translation": [0.0, 0.0, 1.0], "size": [2.0, 4.0, 1.5], "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.0, 0.0], "detection_name": "car", "detection_score": 0.9,
}  # fmt: skip


def test_ids_begin_anew_with_every_scene():
    frames = [TrackedFrame("a", 0.0, True), TrackedFrame("b", 0.5, False), TrackedFrame("c", 0.5, True)]
    found = track_results(frames, {"a": [CAR], "b": [CAR, CAR | {"detection_name": "barrier"}], "c": [CAR]}, 0.25)
    assert [[entry["tracking_id"] for entry in found[token]] for token in "abc"] == [["1"], ["1"], ["1"]]


@pytest.mark.parametrize(
    ("query", "admitted", "ids"), [(4, [2, 0], ["1", "1"]), (5, [2, 0], ["1", "2"]), (4, None, "12")]
)
def test_queries_beside_a_results_file_carry_ids_on(query, admitted, ids):
    """The class changes for good, which distance alone would not follow; a query's weaker class is no track."""
    frames = [TrackedFrame("a", 0.0, True), TrackedFrame("b", 0.5, False)]
    bus, weak = CAR | {"detection_name": "bus"}, CAR | {"detection_name": "truck", "detection_score": 0.3}
    detections = {"a": [CAR | {"detection_name": "barrier"}, CAR, weak], "b": [bus, weak]}
    queries = {"a": [3, 2, 2], "b": [query, query]}
    known = {} if admitted is None else dict.fromkeys("ab", admitted)
    found = track_results(frames, detections, 0.25, Identities(4, 4, queries, known))
    assert [entry["tracking_id"] for token in "ab" for entry in found[token]] == list(ids)


def keyframe(time, x):
    """The vehicle at x, turned to the left by `time` radians."""
    pose = Pose(np.array([x, 0.0, 0.0]), quaternion_from_yaw(time))
    lidar = Pose(np.array([0.9, 0.0, 1.8]), quaternion_from_yaw(-np.pi / 2))
    return Keyframe(f"at {time}", "", "", "scene", time == 0, int(1e15 + time * 1e6), lidar, pose, (), NO_OBJECTS)


def detection(frame, centre, label, query, score=0.9):
    """A car that stands in the world, seen from a keyframe."""
    in_ref = transform_points(invert_transform(frame.world_T_ref), centre)
    return Detections(
        torch.tensor([[*in_ref, 4.6, 1.9, 1.6, 0.3]]).float(),
        torch.zeros(1, 2),
        torch.tensor([score]),
        torch.tensor([label]),
        torch.tensor([query]),
    )


def test_keyframes_bring_their_own_motion_and_results_lie_in_the_world():
    tracker, ids = KeyframeTracker(MODEL), []
    for time, x in ((0.0, 0.0), (0.5, 10.0), (1.0, 20.0)):
        frame = keyframe(time, x)
        tracks = tracker.step(detection(frame, [15.0, 3.0, 1.0], 0, 5), None, frame)
        (entry,) = frame_tracks(tracks, frame, MODEL.class_names)
        assert entry["translation"] == pytest.approx([15.0, 3.0, 1.0], abs=1e-4)
        assert (entry["sample_token"], entry["size"]) == (frame.token, pytest.approx([1.9, 4.6, 1.6]))
        ids.append((entry["tracking_id"], entry["tracking_name"]))
    assert ids == [("1", "car")] * 3
    assert entry["tracking_score"] == pytest.approx(0.9)


def test_queries_that_were_admitted_carry_ids_on_in_keyframes_too():
    """The class changes for good, which distance alone would not follow."""
    first, second = keyframe(0.0, 0.0), keyframe(0.5, 0.0)
    car, truck = detection(first, [15.0, 3.0, 1.0], 0, 7), detection(second, [15.0, 3.0, 1.0], 1, MODEL.num_learned)
    admitted_K = torch.tensor([7, *range(8, 23)])

    def ids_with_query(query):
        tracker = KeyframeTracker(MODEL)
        before = tracker.step(car, admitted_K, first)
        after = tracker.step(replace(truck, queries_D=torch.tensor([query])), admitted_K, second)
        return before.ids_T.tolist() + after.ids_T.tolist()

    assert ids_with_query(MODEL.num_learned) == [1, 1]
    assert ids_with_query(3) == [1, 2]


def test_classes_that_nuscenes_does_not_track_and_a_new_scene():
    tracker, frame = KeyframeTracker(MODEL), keyframe(0.0, 0.0)
    barrier = MODEL.class_names.index("barrier")
    assert len(tracker.step(detection(frame, [5.0, 0, 0], barrier, 0), None, frame)) == 0
    for _ in range(2):
        tracks = tracker.step(detection(frame, [5.0, 0, 0], 0, 0), None, frame)
        assert tracks.ids_T.tolist() == [1]
