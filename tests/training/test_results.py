"""Results files against the recorded official one, and metrics with the truth as predictions."""

import json
import pickle

import numpy as np
import pytest
import torch

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.decode import Detections
from streampetr_core.errors import StreampetrError
from streampetr_core.nuscenes_results import CLASS_RANGE
from tests.training import golden
from tests.training.test_official_pickle import official_infos
from tests.training.worlds import SPLIT, VERSION, write_small_world
from training.commands import track as track_command
from training.data.infos_file import load_infos
from training.data.prepare import prepare
from training.data.tables import open_tables
from training.evaluation.detection import detection_table, evaluate_detections
from training.evaluation.results import (
    META,
    attribute_of,
    evaluation_config,
    frame_results,
    read_results,
    write_json,
    write_results,
)
from training.evaluation.tracking_eval import evaluate_tracks, tracking_table

GOLDEN = golden.load_json("nusc_format")
KEYS = [
    "sample_token", "translation", "size", "rotation", "velocity",
    "detection_name", "detection_score", "attribute_name",
]  # fmt: skip


def detections(boxes_D9, scores, labels):
    boxes = torch.as_tensor(boxes_D9, dtype=torch.float32).reshape(-1, 9)
    labels = torch.as_tensor(labels, dtype=torch.int64)
    return Detections(boxes[:, :7], boxes[:, 7:], torch.as_tensor(scores, dtype=torch.float32), labels, labels)


@pytest.fixture(scope="module")
def official_keyframes(tmp_path_factory):
    path = tmp_path_factory.mktemp("pkl") / "nuscenes2d_temporal_infos_val.pkl"
    path.write_bytes(pickle.dumps(official_infos()))
    return {keyframe.token: keyframe for keyframe in load_infos(path)}


@pytest.mark.parametrize("given", GOLDEN["detections_lidar_frame"], ids=lambda given: given["token"])
def test_entries_are_the_official_ones(official_keyframes, given):
    boxes = golden.gravity_boxes(np.array(given["boxes_3d"], np.float32))
    found = detections(boxes, given["scores_3d"], given["labels_3d"])
    ours = frame_results(found, official_keyframes[given["token"]], GOLDEN["class_names"])
    official = GOLDEN["expected"]["results"][given["token"]]
    assert [list(entry) for entry in ours] == [KEYS] * len(official) == [list(entry) for entry in official]
    for entry, expected in zip(ours, official, strict=True):
        for key in KEYS:
            if isinstance(expected[key], list):
                assert all(type(number) is float for number in entry[key])
                assert entry[key] == pytest.approx(expected[key], abs=1e-6)
            else:
                assert entry[key] == expected[key]


def test_limits_are_the_official_ones():
    assert CLASS_RANGE == evaluation_config().class_range == GOLDEN["class_range"]


def test_the_file_is_laid_out_as_the_official_one(tmp_path):
    write_results(tmp_path / "out" / "results_nusc.json", GOLDEN["expected"]["results"])
    text = (tmp_path / "out" / "results_nusc.json").read_text()
    assert text == json.dumps(GOLDEN["expected"])
    assert read_results(tmp_path / "out" / "results_nusc.json") == GOLDEN["expected"]["results"]


def test_no_detection_makes_no_entry(official_keyframes):
    keyframe = next(iter(official_keyframes.values()))
    assert frame_results(detections([], [], []), keyframe, NUSCENES_CLASSES) == []


@pytest.mark.parametrize(
    ("name", "standing", "moving"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("barrier", "", ""),
    ],
)
def test_attributes_follow_the_speed(name, standing, moving):
    assert (attribute_of(name, [0.1, 0.1]), attribute_of(name, [0.0, -0.3])) == (standing, moving)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluation") / "world"
    write_small_world(root, samples=3, seed=1, width=64, height=36)
    (path,) = prepare(root, VERSION, root)
    return root, path


def truth_as_results(infos, scores=(0.9, 0.9)):
    """Every box that nuScenes evaluates, as a detection."""
    results = {}
    for keyframe in infos:
        objects = keyframe.objects
        boxes = np.hstack([objects.boxes_G7, objects.velocities_G2])[objects.valid_G]
        labels = [NUSCENES_CLASSES.index(name) for name in objects.names]
        found = detections(boxes, np.linspace(*scores, len(boxes)), np.array(labels)[objects.valid_G])
        results[keyframe.token] = frame_results(found, keyframe, NUSCENES_CLASSES)
    return results


def test_the_truth_is_a_perfect_detection(world, tmp_path):
    root, path = world
    write_results(tmp_path / "results.json", truth_as_results(load_infos(path)))
    summary = evaluate_detections(tmp_path / "results.json", open_tables(root, VERSION), SPLIT, tmp_path)
    assert summary["mean_ap"] == pytest.approx(1.0)
    errors = summary["tp_errors"]
    assert max(errors[name] for name in ("trans_err", "scale_err", "orient_err", "vel_err")) < 1e-3
    assert errors["attr_err"] < 0.3  # attributes are guessed from the speed
    assert json.loads((tmp_path / "metrics_summary.json").read_text())["meta"] == META
    table = detection_table(summary).splitlines()
    assert table[0].split() == ["class", "AP", "ATE", "ASE", "AOE", "AVE", "AAE"]
    assert len(table) == 13
    assert next(line for line in table if line.startswith("traffic_cone")).split()[-3:] == ["-", "-", "-"]
    assert table[-1] == f"mAP 1.0000  NDS {summary['nd_score']:.4f}"


def test_the_truth_is_a_perfect_track(world, tmp_path):
    root, _ = world
    tables = open_tables(root, VERSION)
    results = {sample["token"]: [] for sample in tables.sample}
    for row in tables.sample_annotation:
        name = row["category_name"]
        names = {"vehicle.car": "car", "human.pedestrian.adult": "pedestrian", "vehicle.truck": "truck"}
        if name in names and row["num_lidar_pts"]:
            results[row["sample_token"]].append(
                {key: row[key] for key in ("sample_token", "translation", "size", "rotation")}
                | {"velocity": tables.box_velocity(row["token"])[:2].tolist(), "tracking_id": row["instance_token"]}
                | {"tracking_name": names[name], "tracking_score": 0.9}
            )
    write_json(tmp_path / "tracks.json", {"meta": META, "results": results})
    summary = evaluate_tracks(tmp_path / "tracks.json", tables, SPLIT, tmp_path / "metrics")
    labels = summary["label_metrics"]
    assert [labels["amota"][name] for name in ("car", "pedestrian", "truck")] == pytest.approx([1.0] * 3)
    assert tracking_table(summary).splitlines()[0].split()[:2] == ["class", "AMOTA"]
    assert (tmp_path / "metrics" / "metrics_details.json").is_file()


@pytest.mark.parametrize("method", track_command.METHODS)
def test_the_command_tracks_and_evaluates(world, tmp_path, capsys, method):
    root, path = world
    write_results(tmp_path / "results_nusc.json", truth_as_results(load_infos(path)))
    arguments = ("--infos", path, "--dataroot", root, "--evaluate", "--method", method)
    golden.run_command(track_command, tmp_path / "results_nusc.json", *arguments)
    tracks = read_results(tmp_path / "tracking_result.json")
    assert set(tracks) == set(load_infos(path).tokens)
    cars = [entry for entries in tracks.values() for entry in entries if entry["tracking_name"] == "car"]
    assert len({entry["tracking_id"] for entry in cars}) < len(cars)
    assert "AMOTA" in capsys.readouterr().out


def test_a_lower_limit_of_age_and_score_is_honoured(world, tmp_path):
    _, path = world
    write_results(tmp_path / "results_nusc.json", truth_as_results(load_infos(path), (0.3, 0.9)))
    counts = []
    for score in (0.25, 0.6):
        golden.run_command(
            track_command, tmp_path / "results_nusc.json", "--infos", path, "--min-score", score, "--max-age", 1
        )
        tracks = read_results(tmp_path / "tracking_result.json").values()
        counts.append(sum(map(len, tracks)))
        assert all(entry["tracking_score"] >= score for entries in tracks for entry in entries)
    assert counts[0] > counts[1] > 0


def test_results_of_something_else_are_named(world, tmp_path):
    root, path = world
    tables = open_tables(root, VERSION)
    results = truth_as_results(load_infos(path))
    file = tmp_path / "results.json"
    removed = dict(list(results.items())[1:])
    write_results(file, removed | {"elsewhere": []})
    with pytest.raises(StreampetrError, match=r"split 'everything'.*1 of 6 are missing, 1 are of elsewhere"):
        evaluate_detections(file, tables, SPLIT, tmp_path)
    with pytest.raises(StreampetrError, match=r"lacks 1 of the 6 samples of .*such as"):
        golden.run_command(track_command, file, "--infos", path)
    with pytest.raises(StreampetrError, match="no split 'val'; there are: everything"):
        evaluate_detections(file, tables, "val", tmp_path)
    with pytest.raises(StreampetrError, match="--evaluate needs --dataroot"):
        golden.run_command(track_command, file, "--infos", path, "--evaluate")


def test_results_that_the_devkit_refuses_are_named(world, tmp_path):
    root, path = world
    results = truth_as_results(load_infos(path))
    next(iter(results.values()))[0]["detection_name"] = "tram"
    write_results(tmp_path / "results.json", results)
    with pytest.raises(StreampetrError, match=r"results\.json: nuscenes-devkit refuses these results: .*tram"):
        evaluate_detections(tmp_path / "results.json", open_tables(root, VERSION), SPLIT, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"results": []}', "\x00"])
def test_files_that_are_no_results_are_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(StreampetrError, match=r"results\.json: no nuScenes results file"):
        read_results(path)
    with pytest.raises(StreampetrError, match=r"none\.json: cannot be read"):
        read_results(tmp_path / "none.json")


def test_a_test_set_cannot_be_evaluated(world, tmp_path):
    root, path = world
    tables = open_tables(root, VERSION)
    tables.sample_annotation = []
    with pytest.raises(StreampetrError, match="no annotations to evaluate against; submit"):
        evaluate_detections(path, tables, SPLIT, tmp_path)
