import argparse
import filecmp
import json

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.splits import get_scenes_of_split
from pyquaternion import Quaternion

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import box_corners
from training.commands import synth
from training.synth import WorldOptions, write_world
from training.synth.render import render
from training.synth.scene import SIZES, SceneDescription, SceneObject, Trajectory, make_rig, make_scene

OPTIONS = WorldOptions(scenes=1, samples=4, seed=3, width=176, height=99, sweeps=True)
NAME, DURATION = "scene-0001", 1.5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "world"
    assert write_world(folder, OPTIONS)
    return folder


@pytest.fixture(scope="module")
def nusc(root):
    return NuScenes(OPTIONS.version, str(root), verbose=False)


@pytest.fixture(scope="module")
def scene():
    return make_scene(OPTIONS.seed, NAME, DURATION, (OPTIONS.width, OPTIONS.height))


def chain(nusc, table, first):
    """The records from `first` on, after checking that every link back mirrors the link forward."""
    records = [nusc.get(table, first)]
    assert records[0]["prev"] == ""
    while records[-1]["next"]:
        records.append(nusc.get(table, records[-1]["next"]))
        assert records[-1]["prev"] == records[-2]["token"]
    return records


def first_data(nusc, channel):
    data = nusc.get("sample_data", nusc.get("sample", nusc.scene[0]["first_sample_token"])["data"][channel])
    while data["prev"]:
        data = nusc.get("sample_data", data["prev"])
    return data["token"]


def test_the_same_options_give_the_same_bytes(root, tmp_path):
    write_world(tmp_path / "again", OPTIONS)
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    _, different, unreadable = filecmp.cmpfiles(root, tmp_path / "again", names, shallow=False)
    assert (different, unreadable) == ([], [])


def test_another_seed_gives_another_world(root, tmp_path):
    other = WorldOptions(scenes=1, samples=2, seed=4, width=64, height=36)
    write_world(tmp_path / "other", other)
    tables = [folder / "v1.0-synth" / "sample_annotation.json" for folder in (root, tmp_path / "other")]
    boxes = [json.loads(table.read_text())[0] for table in tables]
    assert boxes[0]["token"] != boxes[1]["token"]
    assert boxes[0]["translation"] != boxes[1]["translation"]


def test_chains_are_whole_and_in_order(nusc):
    samples = chain(nusc, "sample", nusc.scene[0]["first_sample_token"])
    assert len(samples) == OPTIONS.samples == nusc.scene[0]["nbr_samples"]
    assert samples[-1]["token"] == nusc.scene[0]["last_sample_token"]
    assert np.all(np.diff([sample["timestamp"] for sample in samples]) == 500_000)
    for channel in samples[0]["data"]:
        records = chain(nusc, "sample_data", first_data(nusc, channel))
        assert len(records) == (OPTIONS.samples - 1) * 6 + 1
        assert np.allclose(np.diff([record["timestamp"] for record in records]), 1e6 / 12, atol=1)
        assert [record["is_key_frame"] for record in records] == [i % 6 == 0 for i in range(len(records))]
    for instance in nusc.instance:
        annotations = chain(nusc, "sample_annotation", instance["first_annotation_token"])
        assert [a["sample_token"] for a in annotations] == [sample["token"] for sample in samples]
        assert annotations[-1]["token"] == instance["last_annotation_token"]


def test_files_are_where_the_tables_say(nusc, root):
    for data in nusc.sample_data:
        assert data["filename"].startswith("samples/" if data["is_key_frame"] else "sweeps/")
        if data["fileformat"] == "jpg":
            assert cv2.imread(str(root / data["filename"])).shape == (data["height"], data["width"], 3)
        else:
            assert np.fromfile(root / data["filename"], np.float32).reshape(-1, 5).shape[0] > 0


def test_every_sensor_has_its_own_time_and_pose(nusc):
    sample = nusc.sample[1]
    records = [nusc.get("sample_data", token) for token in sample["data"].values()]
    poses = [nusc.get("ego_pose", record["ego_pose_token"]) for record in records]
    assert len({pose["timestamp"] for pose in poses}) == len(records) == 7
    assert len({tuple(pose["translation"]) for pose in poses}) == len(records)
    cameras = sorted((r["timestamp"], r["channel"]) for r in records if r["channel"] != "LIDAR_TOP")
    order = ["FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_RIGHT", "BACK", "BACK_LEFT"]
    assert [channel for _, channel in cameras] == [f"CAM_{name}" for name in order]
    assert nusc.get("sample_data", sample["data"]["LIDAR_TOP"])["timestamp"] == sample["timestamp"]


def test_all_classes_are_there_and_do_not_touch(scene):
    assert {item.kind for item in scene.objects} == set(SIZES)
    ego = np.array([*scene.ego.position(0.0), 4.6, 1.9, 1.7, scene.ego.yaw(0.0)])
    ego[:2] += 1.4 * np.array([np.cos(ego[6]), np.sin(ego[6])])  # base is at the rear axle
    for time in (0.0, DURATION):
        boxes = [item.box(time) for item in scene.objects] + ([ego] if time == 0 else [])
        footprints = box_corners(boxes)[:, :4, :2]
        footprints = (footprints - footprints[0, 0]).astype(np.float32)
        for i, first in enumerate(footprints):
            for second in footprints[i + 1 :]:
                assert cv2.intersectConvexConvex(first, second)[0] == pytest.approx(0, abs=1e-3)


def test_velocities_of_the_devkit_are_the_true_ones(nusc, scene):
    by_instance = dict(zip((row["token"] for row in nusc.instance), scene.objects, strict=True))
    sample = nusc.sample[1]
    speeds = []
    for token in sample["anns"]:
        item = by_instance[nusc.get("sample_annotation", token)["instance_token"]]
        np.testing.assert_allclose(nusc.box_velocity(token), item.trajectory.velocity(0.5), atol=0.01)
        speeds.append(np.linalg.norm(item.trajectory.velocity(0.5)))
    assert min(speeds) == 0 and max(speeds) > 5


def test_boxes_of_sweeps_are_interpolated(nusc, scene):
    sweep = nusc.get("sample_data", nusc.get("sample", nusc.sample[1]["token"])["data"]["CAM_BACK"])
    sweep = nusc.get("sample_data", nusc.get("sample_data", sweep["next"])["next"])
    assert not sweep["is_key_frame"]
    time = (sweep["timestamp"] - scene.start) * 1e-6
    by_instance = dict(zip((row["token"] for row in nusc.instance), scene.objects, strict=True))
    for box in nusc.get_boxes(sweep["token"]):
        item = by_instance[nusc.get("sample_annotation", box.token)["instance_token"]]
        np.testing.assert_allclose(box.center, item.box(time)[:3], atol=0.03)


@pytest.mark.parametrize("channel", ["CAM_FRONT", "CAM_BACK", "CAM_BACK_LEFT"])
def test_boxes_of_the_tables_lie_on_what_is_painted(nusc, scene, channel):
    """Each object's painted pixels must fill the rectangle around its projected box, as the devkit projects it."""
    data = nusc.get("sample_data", nusc.sample[1]["data"][channel])
    pose = nusc.get("ego_pose", data["ego_pose_token"])
    mount = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    camera = next(camera for camera in scene.rig.cameras if camera.channel == channel)
    ids = render(scene, camera, 0.5 + camera.exposure).ids
    index_of = {row["token"]: index for index, row in enumerate(nusc.instance)}
    checked = 0
    for token in nusc.sample[1]["anns"]:
        annotation = nusc.get("sample_annotation", token)
        box = nusc.get_box(token)
        box.translate(camera.exposure * nusc.box_velocity(token))
        for record in (pose, mount):
            box.translate(-np.array(record["translation"]))
            box.rotate(Quaternion(record["rotation"]).inverse)
        corners = np.array(mount["camera_intrinsic"]) @ box.corners()
        if corners[2].min() < 1:
            continue
        u, v = corners[:2] / corners[2]
        rows, columns = np.nonzero(ids == index_of[annotation["instance_token"]])
        if len(rows) == 0:
            continue
        assert u.min() - 1 <= columns.min() and columns.max() <= u.max() + 1
        assert v.min() - 1 <= rows.min() and rows.max() <= v.max() + 1
        whole = u.min() > 0 and u.max() < data["width"] and v.min() > 0 and v.max() < data["height"]
        if whole and annotation["visibility_token"] == "4" and len(rows) > 40:
            checked += 1
            seen = (np.ptp(columns) + 1, np.ptp(rows) + 1)
            np.testing.assert_allclose(seen, (np.ptp(u), np.ptp(v)), atol=2.5, rtol=0.12)
    assert checked > 0


def standing(kind, x, y, yaw=0.0):
    times = np.array([-1.0, 1.0])
    trajectory = Trajectory(times, np.tile([x, y, 0.0], (2, 1)), np.tile([yaw, 0.0, 0.0], (2, 1)))
    return SceneObject(kind, SIZES[kind], trajectory, moving=False, colour=(200, 0, 0))


def ids_in_front(*objects):
    """What CAM_FRONT of a car at the origin, facing along x, sees of `objects` on an empty plain."""
    ego = standing("car", 0.0, 0.0).trajectory
    scene = SceneDescription("scene-0001", 0, make_rig((352, 198)), ego, objects, structures=(), ground=())
    return render(scene, scene.rig.cameras[0], 0.0).ids


@pytest.mark.parametrize(
    "front, behind",
    [
        (standing("car", 12, 0), standing("car", 20, 0)),
        (standing("bus", 14, 4), standing("pedestrian", 13, 6.5)),  # the centre of what is behind is the nearer one
        (standing("barrier", 9, -3, 1.0), standing("traffic_cone", 13, -4.2)),
    ],
)
def test_what_is_in_front_hides_what_is_behind(front, behind):
    alone = np.count_nonzero(ids_in_front(behind) == 0)
    first, second = ids_in_front(front, behind), ids_in_front(behind, front)
    np.testing.assert_array_equal(first == 0, second == 1)
    np.testing.assert_array_equal(first == 0, ids_in_front(front) == 0)
    assert np.count_nonzero(first == 1) < 0.5 * alone


def test_an_object_that_reaches_behind_the_camera_is_cut_off():
    ids = ids_in_front(standing("bus", 5, 3.2))
    assert (ids[:, 0] == 0).sum() > 50 and (ids[:, 176:] == -1).all()


def test_points_lie_in_the_boxes_that_count_them(nusc, root):
    sample = nusc.sample[1]
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3]
    counted = 0
    for box in boxes:
        local = (points - box.center) @ box.orientation.rotation_matrix
        width, length, height = box.wlh
        inside = np.all(np.abs(local) <= np.array([length, width, height]) / 2 + 1e-3, axis=1).sum()
        annotation = nusc.get("sample_annotation", box.token)
        assert inside == annotation["num_lidar_pts"]
        counted += inside
    assert counted == len(points) > 0
    counts = [nusc.get("sample_annotation", token)["num_lidar_pts"] for token in sample["anns"]]
    assert min(counts) == 0, "an object that no camera sees has no points"


def test_the_truth_as_prediction_is_perfect(nusc, tmp_path):
    results = {}
    for sample in nusc.sample:
        results[sample["token"]] = []
        for token in sample["anns"]:
            annotation = nusc.get("sample_annotation", token)
            if annotation["num_lidar_pts"] == 0:
                continue
            attributes = [nusc.get("attribute", t)["name"] for t in annotation["attribute_tokens"]]
            entry = {key: annotation[key] for key in ("sample_token", "translation", "size", "rotation")}
            entry["velocity"] = nusc.box_velocity(token)[:2].tolist()
            entry["detection_name"] = category_to_detection_name(annotation["category_name"])
            entry["detection_score"] = 0.9
            entry["attribute_name"] = attributes[0] if attributes else ""
            results[sample["token"]].append(entry)
    meta = dict.fromkeys(("use_camera", "use_lidar", "use_radar", "use_map", "use_external"), False)
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": meta, "results": results}))
    config = config_factory("detection_cvpr_2019")
    judge = DetectionEval(nusc, config, str(path), "synth_val", str(tmp_path / "out"), verbose=False)
    metrics, _ = judge.evaluate()
    present = {box.detection_name for sample in judge.gt_boxes.sample_tokens for box in judge.gt_boxes[sample]}
    assert len(present) >= 8
    precisions = metrics.mean_dist_aps
    assert {name: precisions[name] for name in present} == pytest.approx(dict.fromkeys(present, 1.0))


def test_splits(nusc, tmp_path):
    assert get_scenes_of_split("synth_val", nusc) == [NAME]
    write_world(tmp_path / "mini", WorldOptions(scenes=3, samples=2, width=64, height=36, version="v1.0-mini"))
    mini = NuScenes("v1.0-mini", str(tmp_path / "mini"), verbose=False)
    names = {scene["name"] for scene in mini.scene}
    assert names & set(get_scenes_of_split("mini_val", mini)) == {"scene-0103", "scene-0916"}
    assert len(names & set(get_scenes_of_split("mini_train", mini))) == 1
    assert {data["is_key_frame"] for data in mini.sample_data} == {True}


def test_a_world_that_is_there_is_kept(root):
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert write_world(root, OPTIONS) is False
    assert before == sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    with pytest.raises(StreampetrError, match="other options"):
        write_world(root, WorldOptions(scenes=1, samples=4, seed=99))


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StreampetrError, match="not empty"):
        write_world(tmp_path, OPTIONS)
    in_the_way = tmp_path / "world.partial"
    in_the_way.mkdir()
    with pytest.raises(StreampetrError, match=r"world\.partial"):
        write_world(tmp_path / "world", OPTIONS)
    assert in_the_way.exists() and (tmp_path / "precious.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StreampetrError, match="cannot write .*file"):
        write_world(tmp_path / "file" / "world", OPTIONS)
    with pytest.raises(StreampetrError, match="is a file"):
        write_world(tmp_path / "file", OPTIONS)


def test_an_interrupted_world_is_made_anew(tmp_path):
    options = WorldOptions(scenes=1, samples=2, width=64, height=36)
    write_world(tmp_path / "world", options)
    (tmp_path / "world").rename(tmp_path / "world.partial")
    (tmp_path / "world.partial" / "left_over").touch()
    assert write_world(tmp_path / "world", options)
    assert not (tmp_path / "world" / "left_over").exists() and not (tmp_path / "world.partial").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "704"),
        ("--size", "0x396"),
        ("--size", "99999x396"),
        ("--samples", "1"),
        ("--scenes", "0"),
        ("--seed", "-1"),
        ("--version", "v1.0-trainval"),
        ("--version", "v1.0-mini", "--scenes", "11"),
    ],
)
def test_bad_arguments_end_in_one_line_and_write_nothing(tmp_path, arguments):
    with pytest.raises(StreampetrError) as error:
        command(tmp_path / "world", *arguments)
    assert "\n" not in str(error.value) and arguments[-2] in str(error.value) and arguments[-1] in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(tmp_path, capsys):
    arguments = (tmp_path / "world", "--samples", "2", "--size", "64x36")
    command(*arguments)
    assert "wrote" in capsys.readouterr().out
    command(*arguments)
    assert "already there" in capsys.readouterr().out


def command(*arguments):
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    synth.run(parser.parse_args([str(argument) for argument in arguments]))
