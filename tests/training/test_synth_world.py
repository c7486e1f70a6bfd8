"""Synthetic worlds on disk: the tables, judged by nuscenes-devkit, and what happens when writing goes wrong."""

import argparse
import fcntl
import filecmp
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.splits import get_scenes_of_split

from streampetr_core.errors import StreampetrError
from tests.training.synth_truth import NOT_TRACKED, detection_metrics, tracking_metrics
from training.commands import synth
from training.synth import WorldOptions, write_world
from training.synth.observe import take_picture
from training.synth.scene import make_scene
from training.synth.sizes import CLASSES
from training.synth.write import MANIFEST

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = WorldOptions(scenes=2, val_scenes=1, samples=3, seed=6, width=176, height=99, sweeps=True, lidar=True)
ARGUMENTS = "--scenes 2 --val-scenes 1 --samples 3 --seed 6 --size 176x99 --sweeps --lidar".split()
TINY = WorldOptions(scenes=1, samples=2, seed=1, width=128, height=72)
FAMILY_OF = {"scene-0001": "train", "scene-0002": "val"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "world"
    assert write_world(folder, OPTIONS, jobs=2)
    return folder


@pytest.fixture(scope="module")
def nusc(root):
    return NuScenes(OPTIONS.version, str(root), verbose=False)


@pytest.fixture(scope="module")
def scenes(root):
    size, extra = (OPTIONS.width, OPTIONS.height), json.loads((root / MANIFEST).read_text())["extra"]
    return {
        name: make_scene(OPTIONS.seed, family, 0, OPTIONS.duration, size, name, extra=extra.get(name))
        for name, family in FAMILY_OF.items()
    }


def samples_of(nusc, scene):
    return [sample for sample in nusc.sample if sample["scene_token"] == scene["token"]]


def chain(nusc, table, first):
    """The records from `first` on, after checking that every link back mirrors the link forward."""
    records = [nusc.get(table, first)]
    assert records[0]["prev"] == ""
    while records[-1]["next"]:
        records.append(nusc.get(table, records[-1]["next"]))
        assert records[-1]["prev"] == records[-2]["token"]
    return records


def object_of(annotation, boxes):
    """The number of the object whose box (O, 7) in world is the annotation's."""
    distances = np.linalg.norm(boxes[:, :3] - annotation["translation"], axis=1)
    assert distances.min() < 1e-6
    return int(distances.argmin())


def boxes_in_world(scene, time):
    boxes = scene.boxes(time)
    boxes[:, :3] = boxes[:, :3] @ scene.world_T_site[:3, :3].T + scene.world_T_site[:3, 3]
    return boxes


def assert_equal_bytes(one, two):
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    _, different, unreadable = filecmp.cmpfiles(one, two, names, shallow=False)
    assert (different, unreadable) == ([], [])


def run_command(out, *arguments, **options):
    command = [sys.executable, "-m", "streampetr_core.cli", "synth", out, *arguments]
    return subprocess.Popen([str(word) for word in command], cwd=REPOSITORY, stderr=subprocess.PIPE, **options)


def test_one_and_two_processes_write_the_same_bytes_even_after_a_kill(root, tmp_path):
    """A run with two processes is killed in its midst, and gone on with by one: it equals the world of two."""
    out = tmp_path / "world"
    process = run_command(out, *ARGUMENTS, "--jobs", 2)
    partial, deadline = tmp_path / "world.partial", time.monotonic() + 120
    while len(list(partial.glob("sweeps/*/*"))) < 40 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None and not out.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert partial.is_dir() and not (partial / OPTIONS.version).exists()
    left_over = partial / "parts" / "scene-0001.tmp"
    left_over.mkdir(exist_ok=True)
    (left_over / "sample.rows").write_text("half")
    assert write_world(out, OPTIONS, jobs=1)
    assert_equal_bytes(root, out)
    assert not partial.exists()


def test_chains_are_whole_and_in_order(nusc):
    for scene in nusc.scene:
        samples = chain(nusc, "sample", scene["first_sample_token"])
        assert len(samples) == OPTIONS.samples == scene["nbr_samples"]
        assert samples[-1]["token"] == scene["last_sample_token"]
        assert np.all(np.diff([sample["timestamp"] for sample in samples]) == 500_000)
        for first in samples[0]["data"].values():
            records = chain(nusc, "sample_data", first)
            assert len(records) == (OPTIONS.samples - 1) * 6 + 1
            assert np.allclose(np.diff([record["timestamp"] for record in records]), 1e6 / 12, atol=1)
            assert [record["is_key_frame"] for record in records] == [i % 6 == 0 for i in range(len(records))]
        order = [sample["token"] for sample in samples]
        for instance in nusc.instance:
            annotations = chain(nusc, "sample_annotation", instance["first_annotation_token"])
            assert annotations[-1]["token"] == instance["last_annotation_token"]
            assert len(annotations) == instance["nbr_annotations"]
            if annotations[0]["sample_token"] in order:
                where = order.index(annotations[0]["sample_token"])
                assert [a["sample_token"] for a in annotations] == order[where : where + len(annotations)]


def test_files_are_where_the_tables_say(nusc, root):
    for data in nusc.sample_data:
        assert data["filename"].startswith("samples/" if data["is_key_frame"] else "sweeps/")
        if data["fileformat"] == "jpg":
            assert cv2.imread(str(root / data["filename"])).shape == (data["height"], data["width"], 3)
        else:
            assert np.fromfile(root / data["filename"], np.float32).reshape(-1, 5).shape[0] > 1000


def test_every_sensor_has_its_own_time_and_pose(nusc):
    moving = nusc.sample[-2]
    records = [nusc.get("sample_data", token) for token in moving["data"].values()]
    poses = [nusc.get("ego_pose", record["ego_pose_token"]) for record in records]
    assert len({pose["timestamp"] for pose in poses}) == len(records) == 7
    assert len({tuple(pose["rotation"]) for pose in poses}) == len(records)
    cameras = sorted((r["timestamp"], r["channel"]) for r in records if r["channel"] != "LIDAR_TOP")
    order = ["FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_RIGHT", "BACK", "BACK_LEFT"]
    assert [channel for _, channel in cameras] == [f"CAM_{name}" for name in order]
    assert nusc.get("sample_data", moving["data"]["LIDAR_TOP"])["timestamp"] == moving["timestamp"]
    assert max(np.abs(pose["translation"][:2]).max() for pose in poses) > 200


def test_pictures_are_taken_at_their_own_exposure_time(nusc, root, scenes):
    """Each stored picture is what the camera sees at its time stamp, and at no other time of the turn."""
    checked = 0
    for name, scene in scenes.items():
        row = next(row for row in nusc.scene if row["name"] == name)
        sample = samples_of(nusc, row)[2]
        for camera in scene.rig.cameras:
            data = nusc.get("sample_data", sample["data"][camera.channel])
            stored = cv2.cvtColor(cv2.imread(str(root / data["filename"])), cv2.COLOR_BGR2RGB).astype(np.float64)
            here = (data["timestamp"] - scene.start) * 1e-6
            assert here == pytest.approx(1.0 + camera.exposure, abs=1e-6)

            def difference(at, camera=camera, scene=scene, stored=stored):
                return np.abs(take_picture(scene, camera, at).image - stored).mean()

            own, later = difference(here), difference(here + 0.04)
            assert own < 5.0
            if later > 1.15 * own:
                checked += 1
    assert checked >= 3, "too little moves to tell the times apart"


def test_velocities_of_the_devkit_are_the_true_ones(nusc, scenes):
    speeds = []
    for row in nusc.scene:
        scene = scenes[row["name"]]
        truth, boxes = scene.velocities(0.5) @ scene.world_T_site[:2, :2].T, boxes_in_world(scene, 0.5)
        for token in samples_of(nusc, row)[1]["anns"]:
            number = object_of(nusc.get("sample_annotation", token), boxes)
            velocity = nusc.box_velocity(token)[:2]
            # The devkit takes the mean over a second; meanwhile one may brake.
            np.testing.assert_allclose(velocity, truth[number], atol=1.6)
            speeds.append((np.hypot(*velocity), np.hypot(*(velocity - truth[number]))))
    speeds = np.array(speeds)
    assert speeds[:, 0].min() == 0 and speeds[:, 0].max() > 5
    assert np.median(speeds[speeds[:, 0] > 1, 1]) < 0.15


def test_boxes_of_sweeps_are_interpolated(nusc, scenes):
    for row in nusc.scene:
        scene = scenes[row["name"]]
        sweep = nusc.get("sample_data", samples_of(nusc, row)[1]["data"]["CAM_BACK"])
        sweep = nusc.get("sample_data", nusc.get("sample_data", sweep["next"])["next"])
        assert not sweep["is_key_frame"]
        boxes = boxes_in_world(scene, (sweep["timestamp"] - scene.start) * 1e-6)
        # What comes into range with the next keyframe has nothing before it to start from.
        known = [box for box in nusc.get_boxes(sweep["token"]) if nusc.get("sample_annotation", box.token)["prev"]]
        assert len(known) > 20
        for box in known:
            assert np.linalg.norm(boxes[:, :3] - box.center, axis=1).min() < 0.2


def test_points_lie_in_the_boxes_that_count_them(nusc):
    counted, on_objects = [], 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3]
        for box in boxes:
            local = (points - box.center) @ box.orientation.rotation_matrix
            width, length, height = box.wlh
            half = np.array([length, width, height]) / 2
            inside = np.all(np.abs(local) <= half + 0.01, axis=1)
            at_foot = inside & (local[:, 2] < 0.03 - half[2])  # the ground that the box stands on counts for none
            annotation = nusc.get("sample_annotation", box.token)
            assert inside.sum() - at_foot.sum() <= annotation["num_lidar_pts"] <= inside.sum()
            counted.append(annotation["num_lidar_pts"])
            on_objects += annotation["num_lidar_pts"]
    assert min(counted) == 0 and max(counted) > 100 and on_objects > 1000


def test_what_cannot_be_seen_has_no_points_and_the_lowest_visibility(nusc):
    annotations = nusc.sample_annotation
    assert {row["visibility_token"] for row in annotations} == {"1", "2", "3", "4"}
    hidden = [row for row in annotations if row["num_lidar_pts"] == 0]
    assert 0.05 < len(hidden) / len(annotations) < 0.9
    near = [row["num_lidar_pts"] for row in annotations if row["visibility_token"] == "4"]
    assert np.mean(np.array(near) > 0) > 0.6


@pytest.mark.parametrize("split", ["synth_train", "synth_val"])
def test_the_truth_as_prediction_is_perfect(nusc, split, tmp_path):
    metrics, truth = detection_metrics(nusc, split, tmp_path)
    present = {box.detection_name for token in truth.sample_tokens for box in truth[token]}
    assert present == set(CLASSES), "the quota"
    assert metrics.mean_ap == pytest.approx(1.0)
    assert metrics.nd_score == pytest.approx(1.0)
    tracking = tracking_metrics(nusc, split, tmp_path)
    assert tracking.compute_metric("amota") == pytest.approx(1.0)
    assert set(tracking.label_metrics["amota"]) == set(CLASSES) - set(NOT_TRACKED)


def test_splits(nusc, tmp_path):
    assert get_scenes_of_split("synth_train", nusc) == ["scene-0001"]
    assert get_scenes_of_split("synth_val", nusc) == ["scene-0002"]
    write_world(tmp_path / "mini", WorldOptions(scenes=3, samples=3, width=96, height=54, version="v1.0-mini"))
    mini = NuScenes("v1.0-mini", str(tmp_path / "mini"), verbose=False)
    names = {scene["name"] for scene in mini.scene}
    assert names & set(get_scenes_of_split("mini_val", mini)) == {"scene-0103", "scene-0916"}
    assert len(names & set(get_scenes_of_split("mini_train", mini))) == 1
    assert {data["is_key_frame"] for data in mini.sample_data} == {True}
    metrics, _ = detection_metrics(mini, "mini_val", tmp_path)
    assert metrics.mean_ap == pytest.approx(1.0) and metrics.nd_score == pytest.approx(1.0)


def test_names_and_families_of_scenes():
    specs = WorldOptions(scenes=10).specs()
    assert [spec.family for spec in specs] == ["train"] * 8 + ["val"] * 2
    assert [spec.index for spec in specs] == [*range(8), 0, 1]
    assert [spec.family for spec in WorldOptions(scenes=3, val_scenes=0).specs()] == ["train"] * 3


def test_a_quota_is_met_by_more_of_the_class(tmp_path):
    root = tmp_path / "world"
    write_world(root, WorldOptions(scenes=1, samples=2, width=96, height=54, seed=5, quota=(("bus", 7),)))
    nusc = NuScenes("v1.0-synth", str(root), verbose=False)
    _, truth = detection_metrics(nusc, "synth_val", tmp_path)
    names = [box.detection_name for token in truth.sample_tokens for box in truth[token]]
    assert set(names) == set(CLASSES) and names.count("bus") >= 7
    assert json.loads((root / MANIFEST).read_text())["extra"]["scene-0001"]["bus"] > 0
    with pytest.raises(StreampetrError, match=r"--quota bus=900: \d+ too few in the val scenes"):
        write_world(tmp_path / "none", WorldOptions(samples=2, width=64, height=36, quota=(("bus", 900),)))
    assert not (tmp_path / "none").exists()


def test_a_world_without_lidar_has_no_scans_but_counts(tmp_path):
    write_world(tmp_path / "world", TINY)
    nusc = NuScenes(TINY.version, str(tmp_path / "world"), verbose=False)
    assert not list((tmp_path / "world").rglob("*.bin"))
    assert max(row["num_lidar_pts"] for row in nusc.sample_annotation) > 50
    names = {category_to_detection_name(row["category_name"]) for row in nusc.sample_annotation}
    assert names == set(CLASSES)


def test_a_world_that_is_there_is_kept(root):
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert write_world(root, OPTIONS) is False
    assert before == sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    with pytest.raises(StreampetrError, match=r"other options: .*samples 3 \(wanted: 5\), seed 6 \(wanted: 99\)"):
        write_world(root, WorldOptions(scenes=2, samples=5, seed=99))
    with pytest.raises(StreampetrError, match=r"version v1.0-synth \(wanted: v1.0-mini\)"):
        write_world(root, WorldOptions(scenes=2, version="v1.0-mini"))


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StreampetrError, match="not empty"):
        write_world(tmp_path, TINY)
    in_the_way = tmp_path / "world.partial"
    in_the_way.mkdir()
    (in_the_way / "thesis.tex").touch()
    with pytest.raises(StreampetrError, match=r"world\.partial"):
        write_world(tmp_path / "world", TINY)
    assert (in_the_way / "thesis.tex").exists() and (tmp_path / "precious.txt").read_text() == "mine"


def test_an_unfinished_world_of_other_options_is_not_gone_on_with(tmp_path):
    write_world(tmp_path / "world", TINY)
    (tmp_path / "world").rename(tmp_path / "world.partial")
    with pytest.raises(StreampetrError, match=r"world\.partial holds .* seed 1 \(wanted: 2\)"):
        write_world(tmp_path / "world", WorldOptions(scenes=1, samples=2, seed=2, width=128, height=72))


def test_two_runs_at_once_are_refused(tmp_path):
    write_world(tmp_path / "world", TINY)
    (tmp_path / "world").rename(tmp_path / "world.partial")
    with (tmp_path / "world.partial" / MANIFEST).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StreampetrError, match="being written by another run"):
            write_world(tmp_path / "world", TINY)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StreampetrError, match="cannot write .*file"):
        write_world(tmp_path / "file" / "world", TINY)
    with pytest.raises(StreampetrError, match="is a file"):
        write_world(tmp_path / "file", TINY)


@pytest.mark.parametrize("limit", [2000, 15_000])  # a picture has some 4 kB, the table of annotations more than 20 kB
def test_a_full_disk_is_told_and_leaves_no_world(tmp_path, limit):
    """A limit on the size of files stands in for a disk that is full."""
    out, (soft, hard) = tmp_path / "world", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StreampetrError, match="cannot write .*world.partial/.*: File too large; make room"):
            write_world(out, TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.exists()
    write_world(out, TINY)
    write_world(tmp_path / "other", TINY)
    assert_equal_bytes(tmp_path / "other", out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "704"),
        ("--size", "0x396"),
        ("--size", "99999x396"),
        ("--samples", "1"),
        ("--samples", "121"),
        ("--scenes", "0"),
        ("--seed", "-1"),
        ("--jobs", "0"),
        ("--val-scenes", "2"),
        ("--version", "v1.0-mini", "--val-scenes", "1"),
        ("--version", "v1.0-trainval"),
        ("--version", "v1.0-mini", "--scenes", "11"),
        ("--quota", "tram=3"),
        ("--quota", "bus"),
    ],
)
def test_bad_arguments_end_in_one_line_and_write_nothing(tmp_path, arguments):
    with pytest.raises(StreampetrError) as error:
        command(tmp_path / "world", *arguments)
    assert "\n" not in str(error.value) and arguments[-2] in str(error.value) and arguments[-1] in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(tmp_path, capsys):
    arguments = (tmp_path / "world", "--samples", "2", "--size", "128x72", "--seed", "1", "--quota", "car=2")
    command(*arguments)
    assert "wrote" in capsys.readouterr().out
    command(*arguments)
    assert "already there" in capsys.readouterr().out
    assert json.loads((tmp_path / "world" / MANIFEST).read_text())["quota"] == [["car", 2]]


def command(*arguments):
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    synth.run(parser.parse_args([str(argument) for argument in arguments]))
