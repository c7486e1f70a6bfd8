"""Recordings for the rerun viewer, read back by rerun itself, with the truth in the place of the node's output."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from streampetr_core.drawing import class_colour
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import box_corners, invert_transform, rotation_from_quaternion, transform_points
from streampetr_ros.bag.from_nuscenes import write_bag
from streampetr_ros.bag.moments import BagScenery
from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
from streampetr_ros.bag.published import read_published, read_topics
from streampetr_ros.bag.video import LAYOUT, PictureOptions
from streampetr_ros.commands import bag as bag_command
from tests.ros.test_bag_to_results import root, run, write_truth  # noqa: F401

rerun_dataframe = pytest.importorskip(
    "rerun.dataframe", reason="rerun is not installed: make viz", exc_type=ImportError
)
BASE = "/odom/base_link"


@pytest.fixture(scope="module")
def bags(root, tmp_path_factory) -> tuple[Path, Path]:  # noqa: F811
    folder = tmp_path_factory.mktemp("viewer")
    scene = read_scene(open_root(root), "scene-0001")
    write_bag(scene, folder / "bag")
    return folder / "bag", write_truth(root, folder / "published")


def rows_of(path: Path) -> tuple[np.ndarray, list[dict]]:
    """Return the stamps in a recording, and what each column holds at each of them."""
    table = rerun_dataframe.load_recording(path).view(index="stamp", contents="/**").select().read_all()
    return table.column("stamp").to_numpy().astype(np.int64), table.to_pylist()


@pytest.fixture(scope="module")
def recorded(bags, tmp_path_factory) -> tuple[np.ndarray, list[dict]]:
    path = tmp_path_factory.mktemp("recording") / "new" / "scene.rrd"
    run(bag_command, "rerun", *bags, "--out", path, "--score", "0", "--max-boxes", "500")
    return rows_of(path)


def test_every_stamp_has_its_cameras_with_the_bytes_of_the_bag(bags, recorded):
    stamps, rows = recorded
    assert stamps.tolist() == sorted(read_published(bags[1]).tracks)
    for camera in LAYOUT:
        in_bag = {bytes(image.data) for image in read_topics(bags[0], {f"/{camera}/image_raw/compressed": ""})[""]}
        shown = [bytes(row[f"{BASE}/{camera}:Blob"][0]) for row in rows]
        assert len(set(shown)) == len(rows) and in_bag.issuperset(shown)


def test_boxes_ids_and_colours_are_those_that_were_published(bags, recorded):
    tracks = read_published(bags[1]).tracks
    for stamp, row in zip(*recorded, strict=True):
        found = tracks[stamp]
        order = np.argsort(-found.scores_D, kind="stable")
        assert np.allclose(row[f"{BASE}/objects:PoseTranslation3D"], found.boxes_D7[order, :3], atol=1e-4)
        assert np.allclose(row[f"{BASE}/objects:HalfSize3D"], found.boxes_D7[order, 3:6] / 2, atol=1e-5)
        assert row[f"{BASE}/objects:Text"] == [found.ids_D[index] for index in order]
        for index, (x, y, z, w) in zip(order, row[f"{BASE}/objects:PoseRotationQuat"], strict=True):
            yaw = found.boxes_D7[index, 6]
            heading = rotation_from_quaternion((w, x, y, z))[:2, 0]
            assert np.allclose(heading, [np.cos(yaw), np.sin(yaw)], atol=1e-5)
        blue, green, red = class_colour(found.names_D[order[0]])
        assert row[f"{BASE}/objects:Color"][0] == red << 24 | green << 16 | blue << 8 | 255


def test_pinholes_and_poses_project_as_the_pictures_do(bags, recorded):
    tracks = read_published(bags[1]).tracks
    moments = BagScenery(bags[0], LAYOUT).moments(sorted(tracks))
    for moment, row in zip(moments, recorded[1], strict=True):
        corners = box_corners(tracks[moment.stamp_ns].boxes_D7)
        assert np.allclose(pose(row, BASE), moment.odom_T_base, atol=1e-3)
        for camera, shot in moment.shots.items():
            K = np.reshape(row[f"{BASE}/{camera}:PinholeProjection"][0], (3, 3)).T
            in_camera = transform_points(invert_transform(pose(row, f"{BASE}/{camera}")), corners)
            expected = np.c_[corners.reshape(-1, 3), np.ones(corners[..., 0].size)] @ shot.img_P_base.T
            assert np.allclose(in_camera.reshape(-1, 3) @ K.T, expected[:, :3], rtol=1e-4, atol=1e-2)


def pose(row: dict, entity: str) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3] = np.reshape(row[f"{entity}:TransformMat3x3"][0], (3, 3)).T  # column by column
    transform[:3, 3] = row[f"{entity}:Translation3D"][0]
    return transform


def test_trails_grow_and_the_truth_is_there(bags, recorded):
    stamps, rows = recorded
    lengths = [max(len(way) for way in row["/odom/trails:LineStrip3D"]) for row in rows]
    assert lengths == [1, 2, 3, 4]
    moments = BagScenery(bags[0], LAYOUT).moments(stamps.tolist())
    for moment, row in zip(moments, rows, strict=True):
        assert np.allclose(row[f"{BASE}/truth:PoseTranslation3D"], moment.truth[:, :3], atol=1e-4)


def test_between_keyframes_no_truth_is_left_over(bags, tmp_path):
    from streampetr_ros.bag.viewer import write_recording

    tracks = read_published(bags[1]).tracks
    stamp = min(tracks)
    published = {stamp: tracks[stamp], stamp + 50_000_000: tracks[stamp]}
    write_recording(BagScenery(bags[0], LAYOUT), published, tmp_path / "two.rrd", PictureOptions())
    _, (with_truth, without) = rows_of(tmp_path / "two.rrd")
    assert with_truth[f"{BASE}/truth:PoseTranslation3D"] and not without[f"{BASE}/truth:PoseTranslation3D"]


def test_a_camera_that_is_not_in_the_bag_shows_nothing(bags, tmp_path):
    out = tmp_path / "two.rrd"
    run(
        bag_command, "rerun", *bags, "--out", out, "--cameras", "cam_front", "cam_roof", "--no-truth", "--note", "hello"
    )
    _, rows = rows_of(out)
    assert rows[0][f"{BASE}/cam_front:Blob"] and not rows[0].get(f"{BASE}/cam_roof:Blob")
    assert not any(f"{BASE}/truth" in name for name in rows[0])
    image = cv2.imdecode(np.frombuffer(bytes(rows[0][f"{BASE}/cam_front:Blob"][0]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (36, 64, 3)


def test_without_a_display_the_file_is_left_and_said(bags, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    run(bag_command, "rerun", *bags, "--out", tmp_path / "scene.rrd", "--show")
    assert "No display here: copy" in capsys.readouterr().out
    assert (tmp_path / "scene.rrd").stat().st_size > 10_000


def test_a_file_that_cannot_be_written_is_said(bags, tmp_path):
    with pytest.raises(StreampetrError, match="cannot be written .Is a directory.; choose another name or folder"):
        run(bag_command, "rerun", *bags, "--out", tmp_path)
