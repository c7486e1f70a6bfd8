"""Info files of the synthetic world and of one real keyframe, judged by nuscenes-devkit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from nuscenes.scripts.export_2d_annotations_as_json import post_process_coords
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility, transform_matrix, view_points
from pyquaternion import Quaternion

from streampetr_core.errors import StreampetrError
from tests.training import golden
from tests.training.worlds import write_small_world
from training.commands import prepare as prepare_command
from training.data.infos import CAMERAS, CLASSES_2D
from training.data.infos_file import load_infos
from training.data.prepare import prepare, read_split
from training.data.tables import open_tables, splits_of
from training.synth import WorldOptions, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "world"
    return write_small_world(root, samples=3, width=352, height=198)


@pytest.fixture(scope="module", params=["synthetic", "real"])
def case(request, world):
    """nuscenes-devkit's tables and our keyframes of one root."""
    if request.param == "real" and not golden.KEYFRAME.is_dir():
        pytest.skip("the real keyframe is not on this machine")
    root, version = (world, "v1.0-synth") if request.param == "synthetic" else (golden.KEYFRAME, "v1.0-mini")
    tables = NuScenes(version, str(root), verbose=False)
    return tables, read_split(tables, "all", [scene["name"] for scene in tables.scene])


def samples_of(case):
    tables, infos = case
    return [(tables, tables.get("sample", keyframe.token), keyframe) for keyframe in infos]


def test_every_sample_comes_once_scene_after_scene_in_time(case):
    tables, infos = case
    assert sorted(infos.tokens) == sorted(sample["token"] for sample in tables.sample)
    for before, after in zip(infos, list(infos)[1:], strict=False):
        assert after.previous == (before.token if before.scene == after.scene else "")
        assert after.starts_sequence == (before.scene != after.scene)
        assert before.following == (after.token if before.scene == after.scene else "")


def test_poses_and_paths_are_those_of_the_tables(case):
    for tables, sample, keyframe in samples_of(case):
        lidar = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
        rows = (
            tables.get("ego_pose", lidar["ego_pose_token"]),
            tables.get("calibrated_sensor", lidar["calibrated_sensor_token"]),
        )
        world_T_base, base_T_ref = (transform_matrix(row["translation"], Quaternion(row["rotation"])) for row in rows)
        np.testing.assert_allclose(keyframe.world_T_ref, world_T_base @ base_T_ref, atol=1e-9)
        assert keyframe.timestamp == sample["timestamp"]
        for name, camera in zip(CAMERAS, keyframe.cameras, strict=True):
            row = tables.get("sample_data", sample["data"][name])
            assert (camera.path, camera.timestamp) == (row["filename"], row["timestamp"])


def test_boxes_are_those_of_the_devkit(case):
    for tables, sample, keyframe in samples_of(case):
        _, boxes, _ = tables.get_sample_data(sample["data"]["LIDAR_TOP"])
        assert len(keyframe.objects) == len(boxes) > 0
        for index, box in enumerate(boxes):
            expected = [*box.center, *box.wlh[[1, 0, 2]], box.orientation.yaw_pitch_roll[0]]
            np.testing.assert_allclose(keyframe.objects.boxes_G7[index], expected, atol=1e-9)
            row = tables.get("sample_annotation", box.token)
            points = row["num_lidar_pts"] + row["num_radar_pts"]
            assert keyframe.objects.valid_G[index] == (points > 0)
            assert keyframe.objects.names[index] == category_to_detection_name(box.name)


def test_velocities_are_those_of_the_devkit_turned_into_ref(case):
    for tables, sample, keyframe in samples_of(case):
        ours = keyframe.objects.velocities_G2
        velocities = np.array([tables.box_velocity(token) for token in sample["anns"]])
        np.testing.assert_array_equal(np.isnan(ours[:, 0]), np.isnan(velocities[:, 0]))
        velocities[:, 2] = 0
        np.testing.assert_allclose(ours, (velocities @ keyframe.world_T_ref[:3, :3])[:, :2], atol=1e-9)


def official_2d_objects(tables, token):
    """2D objects of one image as the devkit's own export makes them, hull by hull."""
    path, boxes, intrinsics = tables.get_sample_data(token, box_vis_level=BoxVisibility.NONE)
    row = tables.get("sample_data", token)
    found = []
    for box in boxes:
        name = category_to_detection_name(box.name)
        corners = box.corners()
        corners = view_points(corners[:, corners[2] > 0], intrinsics, normalize=True)[:2].T
        if name is None or box.center[2] <= 0 or len(corners) < 3:
            continue
        bounds = post_process_coords(corners.tolist(), (row["width"], row["height"]))
        if bounds is not None and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) >= 1:
            centre = intrinsics @ box.center
            found.append([*bounds, CLASSES_2D.index(name), *(centre[:2] / centre[2]), box.center[2]])
    return np.array(found).reshape(-1, 8)


def test_2d_objects_are_those_of_the_devkit(case):
    for tables, sample, keyframe in samples_of(case):
        for name, camera in zip(CAMERAS, keyframe.cameras, strict=True):
            objects = camera.objects
            ours = np.column_stack([objects.boxes_G4, objects.labels_G, objects.centres_G2, objects.depths_G])
            np.testing.assert_allclose(ours, official_2d_objects(tables, sample["data"][name]), rtol=1e-5, atol=1e-3)


def test_a_point_travels_through_the_cameras_own_exposure_time(case):
    """ref_T_cam is the official chain: camera, vehicle at exposure, world, vehicle at the keyframe, LiDAR."""
    for tables, sample, keyframe in samples_of(case):
        for name, camera in zip(CAMERAS, keyframe.cameras, strict=True):
            box = Box([1.0, 2.0, 30.0], [1, 1, 1], Quaternion())
            row = tables.get("sample_data", sample["data"][name])
            for table, token in (("calibrated_sensor", "calibrated_sensor_token"), ("ego_pose", "ego_pose_token")):
                step = tables.get(table, row[token])
                box.rotate(Quaternion(step["rotation"]))
                box.translate(np.array(step["translation"]))
            in_world = (camera.ref_T_cam @ [1, 2, 30, 1]) @ keyframe.world_T_ref.T
            np.testing.assert_allclose(in_world[:3], box.center, atol=1e-8)


def test_files_come_for_every_split(world, tmp_path, capsys):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    splits = {"one": ["scene-0002"], "both": ["scene-0001", "scene-0002"], "none": []}
    (copy / "v1.0-synth" / "splits.json").write_text(json.dumps(splits))
    golden.run_command(prepare_command, "--dataroot", copy, "--version", "v1.0-synth")
    assert "infos_v1.0-synth_one.npz: 3 samples of 1 scenes" in capsys.readouterr().out
    names = ["infos_v1.0-synth_both.npz", "infos_v1.0-synth_one.npz"]
    assert sorted(path.name for path in (copy / "infos").iterdir()) == names
    one, both = load_infos(copy / "infos" / names[1]), load_infos(copy / "infos" / names[0])
    assert (len(one), len(both), one.header.split) == (3, 6, "one")
    assert one.tokens == both.tokens[3:]


def test_a_test_set_has_no_annotations(world, tmp_path):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    for table in ("sample_annotation", "instance"):
        (copy / "v1.0-synth" / f"{table}.json").write_text("[]")
    (path,) = prepare(copy, "v1.0-synth", tmp_path / "out")
    infos = load_infos(path)
    assert not infos.header.annotated
    assert len(infos) == 6
    assert len(infos[0].objects) == len(infos[0].cameras[0].objects) == 0


def test_official_versions_have_official_splits_and_sweeps_are_left_out(tmp_path):
    root = tmp_path / "mini"
    write_world(root, WorldOptions(scenes=1, samples=2, width=64, height=36, sweeps=True, version="v1.0-mini"))
    (path,) = prepare(root, "v1.0-mini", tmp_path)
    assert path.name == "infos_v1.0-mini_mini_val.npz"
    infos = load_infos(path)
    assert len(infos) == 2
    assert all(name.startswith("samples/") for name in infos.image_paths())
    assert set(splits_of(open_tables(root, "v1.0-mini"))) == {"mini_train", "mini_val"}


@pytest.mark.skipif(not golden.KEYFRAME.is_dir(), reason="the real keyframe is not on this machine")
def test_the_real_keyframe_has_68_objects(tmp_path):
    (path,) = prepare(golden.KEYFRAME, "v1.0-mini", tmp_path)
    (keyframe,) = load_infos(path)
    assert len(keyframe.objects) == 68
    assert np.isnan(keyframe.objects.velocities_G2).all()
    assert [len(camera.objects) for camera in keyframe.cameras] == [47, 18, 2, 10, 2, 5]


def edit(root, table, change):
    path = root / "v1.0-synth" / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def unlink(column):
    return lambda rows: rows[0].update({column: "nowhere"})


def drop_camera(rows):
    rows.remove(next(row for row in rows if "CAM_BACK/" in row["filename"] and row["is_key_frame"]))


BAD_TABLES = {
    "dangling sample": ("sample_annotation", unlink("sample_token"), "sample_token points to sample 'nowhere'"),
    "dangling pose": ("sample_data", unlink("ego_pose_token"), "points to ego_pose 'nowhere'"),
    "dangling calibration": ("sample_data", unlink("calibrated_sensor_token"), "calibrated_sensor 'nowhere'"),
    "dangling category": ("instance", unlink("category_token"), "instance '.*category_token points to category"),
    "dangling keyframe": ("sample", unlink("next"), "sample '.*' points to sample 'nowhere'"),
    "dangling neighbour": ("sample_annotation", unlink("next"), "sample_annotation '.*' or a neighbour .*'nowhere'"),
    "missing camera": ("sample_data", drop_camera, "has no keyframe of CAM_BACK"),
    "no intrinsics": (
        "calibrated_sensor",
        lambda rows: [row.update(camera_intrinsic=[]) for row in rows],
        "no 3x3 camera_intrinsic",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_named(world, tmp_path, name):
    table, change, message = BAD_TABLES[name]
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    edit(copy, table, change)
    with pytest.raises(StreampetrError, match=rf"v1\.0-synth: .*{message}"):
        prepare(copy, "v1.0-synth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_roots_are_named(world, tmp_path):
    with pytest.raises(StreampetrError, match=r"no nuScenes tables of version 'v1\.0-x' here; there are: v1\.0-synth"):
        prepare(world, "v1.0-x", tmp_path)
    with pytest.raises(StreampetrError, match="no <version>/scene.json below it"):
        prepare(tmp_path, "v1.0-mini", tmp_path)
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    splits = copy / "v1.0-synth" / "splits.json"
    for content, message in (
        ('{"val": ["scene-0009"]}', "split 'val' names scenes without a row: scene-0009"),
        ('{"val": "scene-0001"}', "must map each split's name to a list"),
        ("{", "not readable as JSON"),
        ('{"val": []}', "none of its scenes belongs to a split"),
    ):
        splits.write_text(content)
        with pytest.raises(StreampetrError, match=message):
            prepare(copy, "v1.0-synth", tmp_path / "out")
    splits.unlink()
    with pytest.raises(StreampetrError, match=r"splits\.json: no such file.*must name its splits"):
        prepare(copy, "v1.0-synth", tmp_path / "out")
    (copy / "v1.0-synth" / "sensor.json").unlink()
    with pytest.raises(StreampetrError, match=r"sensor\.json is missing"):
        prepare(copy, "v1.0-synth", tmp_path / "out")


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["header"])) | changes
    np.savez(path, **(arrays | {"header": np.array(json.dumps(header))}))


def test_bad_info_files_are_named(world, tmp_path):
    (path,) = prepare(world, "v1.0-synth", tmp_path)
    original = path.read_bytes()
    with pytest.raises(StreampetrError, match=r"no such info file; make it with `streampetr prepare`"):
        load_infos(tmp_path / "none.npz")
    rewrite(path, classes_2d=CLASSES_2D[::-1])
    with pytest.raises(StreampetrError, match=r"2D classes are in the order barrier, traffic_cone"):
        load_infos(path)
    path.write_bytes(original)
    rewrite(path, format="streampetr infos 0")
    with pytest.raises(StreampetrError, match=r"another version of streampetr; run `streampetr prepare` again"):
        load_infos(path)
    for content in (original[: len(original) // 2], b"", b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(StreampetrError, match=r"infos_v1\.0-synth_everything\.npz: not a readable info file"):
            load_infos(path)
    np.savez(path, header=np.array(json.dumps({"format": "streampetr infos 1", "version": "", "split": "",
                                               "annotated": True})))  # fmt: skip
    with pytest.raises(StreampetrError, match="lacks token, previous"):
        load_infos(path)
    np.savez(path, header=np.array([Path()], dtype=object))
    with pytest.raises(StreampetrError, match="not a readable info file"):
        load_infos(path)


def test_keyframes_can_be_counted_from_the_end(case):
    _, infos = case
    last = len(infos) - 1
    assert infos[-1].token == infos[last].token == infos.tokens[-1]
    np.testing.assert_array_equal(infos[-1].objects.boxes_G7, infos[last].objects.boxes_G7)
    assert len(infos[-1].cameras[0].objects) == len(infos[last].cameras[0].objects)
    with pytest.raises(IndexError):
        infos[last + 1]
