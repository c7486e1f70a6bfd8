"""What `streampetr visualize` draws, on a small synthetic world; the devkit says where things are."""

import argparse
import json
import shutil

import cv2
import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import view_points
from pyquaternion import Quaternion

from streampetr_core.drawing import class_colour
from streampetr_core.errors import StreampetrError
from training.commands import visualize
from training.data.tables import open_tables
from training.pictures.compose import compose
from training.pictures.results import read_results
from training.pictures.samples import Selection, sample_views
from training.synth import WorldOptions, write_world

VERSION, SAMPLES = "v1.0-mini", 3
WIDTH, HEIGHT = 640, 360
TOP = 34  # of the tiles, below the banner
TILES = {"CAM_FRONT_LEFT": (0, 0), "CAM_FRONT": (1, 0), "CAM_FRONT_RIGHT": (2, 0)}
TILES |= {"CAM_BACK_LEFT": (0, 1), "CAM_BACK": (0, 2), "CAM_BACK_RIGHT": (2, 1)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "world"
    write_world(folder, WorldOptions(scenes=2, samples=SAMPLES, seed=5, width=320, height=180, version=VERSION))
    return folder


@pytest.fixture(scope="module")
def tables(root):
    return NuScenes(VERSION, str(root), verbose=False)


def row_of(tables, token, kind, **changes):
    """Return an annotation as a row of a result file."""
    annotation = tables.get("sample_annotation", token)
    name = category_to_detection_name(annotation["category_name"])
    row = {key: annotation[key] for key in ("sample_token", "translation", "size", "rotation")}
    row |= {"velocity": tables.box_velocity(token)[:2].tolist(), f"{kind}_name": name, f"{kind}_score": 0.9}
    row |= {"tracking_id": annotation["instance_token"]} if kind == "tracking" else {"attribute_name": ""}
    return row | changes


def write_results(path, rows):
    path.write_text(json.dumps({"meta": {"use_camera": True}, "results": rows}))
    return path


@pytest.fixture(scope="module")
def truth_files(tables, tmp_path_factory):
    """Return result files of either kind that repeat the truth."""
    folder = tmp_path_factory.mktemp("results")
    files = {}
    for kind in ("detection", "tracking"):
        rows = {s["token"]: [row_of(tables, token, kind) for token in s["anns"]] for s in tables.sample}
        files[kind] = write_results(folder / f"{kind}.json", rows)
    return files


def views_of(tables, path, **selection):
    return sample_views(tables, read_results(path), Selection(**selection))


def tile_of(picture, channel):
    column, row = TILES[channel]
    left, top = column * WIDTH, TOP + row * HEIGHT
    return picture[top : top + HEIGHT, left : left + WIDTH]


def from_above(picture):
    return picture[TOP + HEIGHT :, WIDTH : 2 * WIDTH]


def has_colour(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def pixels_of(tables, sample, annotation, channel):
    """Return by the devkit the corners (2, 8) of a box in a tile, or None if they are not all well in front."""
    _, boxes, intrinsics = tables.get_sample_data(
        sample["data"][channel], box_vis_level=0, selected_anntokens=[annotation]
    )
    if not boxes or boxes[0].corners()[2].min() < 1:
        return None
    return view_points(boxes[0].corners(), np.array(intrinsics), normalize=True)[:2] * WIDTH / 320


def pixel_from_above(tables, sample, translation):
    """Return column and row of a place in the world, 53 metres to half the view's width."""
    data = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
    pose = tables.get("ego_pose", data["ego_pose_token"])
    x, y, _ = Quaternion(pose["rotation"]).inverse.rotate(np.array(translation) - pose["translation"])
    scale = WIDTH / (2 * 53.0)
    return round(WIDTH / 2 - scale * y), round(HEIGHT - scale * x)


def seen_annotation(tables, sample, channel):
    """Return the annotation that is largest in a camera's image, among those that lie all in it, and its pixels."""
    seen = {}
    for token in sample["anns"]:
        pixels = pixels_of(tables, sample, token, channel)
        if pixels is not None and pixels.min() > 25 and (pixels.max(axis=1) < (630, 350)).all():
            seen[token] = pixels
    return max(seen.items(), key=lambda item: np.ptp(item[1], axis=1).min())


@pytest.mark.parametrize("channel", ["CAM_FRONT", "CAM_BACK"])
def test_a_box_is_drawn_where_the_camera_sees_the_object(tables, tmp_path, channel):
    sample = tables.sample[1]
    token, pixels = seen_annotation(tables, sample, channel)
    row = row_of(tables, token, "detection")
    path = write_results(tmp_path / "one.json", {sample["token"]: [row]})
    ((view,),) = views_of(tables, path, with_truth=False)
    colour = class_colour(row["detection_name"])
    rows, columns = np.nonzero(has_colour(tile_of(compose(view), channel), colour))
    drawn = np.array([columns.min(), columns.max(), rows.max()])
    expected = np.array([pixels[0].min(), pixels[0].max(), pixels[1].max()])
    assert drawn == pytest.approx(expected, abs=2.5)
    assert pixels[1].min() - 16 < rows.min() < pixels[1].min() - 5  # the label stands above


def test_each_camera_has_its_own_ego_pose(tables, truth_files):
    (view, *_), _ = views_of(tables, truth_files["detection"])
    sample = tables.get("sample", view.moment.token)
    assert [camera.name for camera in view.cameras] == list(TILES)[:3] + ["CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"]
    for camera in view.cameras:
        for token in sample["anns"]:
            pixels = pixels_of(tables, sample, token, camera.name)
            if pixels is not None:
                corners = tables.get_box(token).corners()
                projected = camera.img_P_world @ np.vstack([corners, np.ones(8)])
                assert projected[:2] / projected[2] * 2 == pytest.approx(pixels, abs=1e-3)


def test_from_above_boxes_stand_where_they_are(tables, tmp_path):
    sample = tables.sample[1]
    token, _ = seen_annotation(tables, sample, "CAM_FRONT")
    row = row_of(tables, token, "detection", size=[4.0, 4.0, 2.0], velocity=[0, 0])
    ((view,),) = views_of(tables, write_results(tmp_path / "one.json", {sample["token"]: [row]}), with_truth=False)
    column, line = pixel_from_above(tables, sample, row["translation"])
    picture = from_above(compose(view))
    inside = picture[line - 5 : line + 6, column - 5 : column + 6].reshape(-1, 3)
    faint = 0.55 * np.array(class_colour(row["detection_name"])) + 0.45 * 32
    assert np.median(inside, axis=0) == pytest.approx(faint, abs=2)


def test_truth_is_white_and_can_be_left_out(tables, truth_files):
    nothing = {"lowest_score": 2.0}
    ((with_truth, *_), _) = views_of(tables, truth_files["detection"], **nothing)
    ((without, *_), _) = views_of(tables, truth_files["detection"], with_truth=False, **nothing)
    one, other = compose(with_truth), compose(without)
    sample = tables.get("sample", with_truth.moment.token)
    token, pixels = seen_annotation(tables, sample, "CAM_FRONT")
    assert tables.get("sample_annotation", token)["num_lidar_pts"] > 0
    changed = (tile_of(one, "CAM_FRONT") != tile_of(other, "CAM_FRONT")).any(axis=-1)
    white = (tile_of(one, "CAM_FRONT") > 200).all(axis=-1) & changed
    (left, top), (right, bottom) = pixels.min(1).round().astype(int), pixels.max(1).round().astype(int)
    assert white[bottom - 2 : bottom + 3, left - 2 : right + 3].any() and white[top - 2 : top + 3].any()
    assert without.truth is None and (from_above(one) != from_above(other)).any()


def test_truth_without_points_is_grey_from_above_and_not_in_the_cameras(tables, truth_files):
    ((bare, *_), _) = views_of(tables, truth_files["detection"], lowest_score=2.0, with_truth=False)
    bare = compose(bare)
    for has_points, grey in ((True, 255), (False, 135)):
        ((view, *_), _) = views_of(tables, truth_files["detection"], lowest_score=2.0)
        view.truth.has_points_D[:] = has_points
        picture = compose(view)
        assert (tile_of(picture, "CAM_FRONT") != tile_of(bare, "CAM_FRONT")).any() == has_points
        changed = (from_above(picture) != from_above(bare)).any(axis=-1)
        drawn = from_above(picture)[changed]
        # Lines are smoothed: where one crosses the background's own marks, a pixel may be a little brighter.
        assert (drawn == grey).all(axis=-1).any() and drawn.max() <= grey + 20


def test_the_threshold_and_the_order_of_scores(tables, tmp_path):
    sample = tables.sample[0]
    scores = [0.2, 0.9, 0.25, 0.5]
    rows = [row_of(tables, sample["anns"][0], "detection", detection_score=score) for score in scores]
    path = write_results(tmp_path / "scores.json", {sample["token"]: rows})
    ((view,),) = views_of(tables, path)
    assert view.found.boxes.scores_D.tolist() == [0.9, 0.5, 0.25]
    assert (view.found.total, view.found.trails) == (4, ())


def test_tracks_show_their_ids_and_where_they_were(tables, tmp_path):
    samples = [s for s in tables.sample if s["scene_token"] == tables.scene[0]["token"]]
    token, pixels = seen_annotation(tables, samples[0], "CAM_FRONT")
    row = row_of(tables, token, "tracking", velocity=[0, 0])
    pictures = {}
    for track in ("7", "42"):
        moved = np.array(row["translation"])
        rows = {}
        for number, sample in enumerate(samples):  # eight metres a sample to the world's x
            translation = (moved + [8 * number, 0, 0]).tolist()
            rows[sample["token"]] = [row | {"translation": translation, "tracking_id": track}]
        views = views_of(tables, write_results(tmp_path / f"{track}.json", rows), with_truth=False)[0]
        assert [len(view.found.trails[0]) for view in views] == [1, 2, 3]
        pictures[track] = compose(views[0])
    changed = (tile_of(pictures["7"], "CAM_FRONT") != tile_of(pictures["42"], "CAM_FRONT")).any(axis=-1)
    lines, columns = np.nonzero(changed)
    assert len(lines) and lines.max() < pixels[1].min() + 2  # the label alone, above the box
    assert abs(columns.mean() - pixels[0].mean()) < 20
    column, line = pixel_from_above(tables, samples[2], moved)
    beginning = from_above(compose(views[2]))[line - 1 : line + 2, column - 1 : column + 2]
    assert has_colour(beginning, class_colour(row["tracking_name"])).any()


def run(*arguments):
    parser = argparse.ArgumentParser()
    visualize.add_arguments(parser)
    visualize.run(parser.parse_args([str(argument) for argument in arguments]))


def test_pictures_and_videos_of_every_scene(root, tables, truth_files, tmp_path, capsys):
    run(truth_files["tracking"], "--dataroot", root, "--out", tmp_path / "out", "--video", "--fps", 5, "--jobs", 2)
    assert "wrote 6 pictures and 2 MP4 of tracking results" in capsys.readouterr().out
    for scene in tables.scene:
        pictures = sorted((tmp_path / "out" / scene["name"]).glob("*.png"))
        tokens = [sample["token"] for sample in tables.sample if sample["scene_token"] == scene["token"]]
        assert [path.stem for path in pictures] == [f"{index:04d}_{token}" for index, token in enumerate(tokens)]
        video = cv2.VideoCapture(str(tmp_path / "out" / f"{scene['name']}.mp4"))
        assert video.get(cv2.CAP_PROP_FPS) == 5
        for path in pictures:
            read, frame = video.read()
            assert read and frame.shape == (TOP + 3 * HEIGHT, 3 * WIDTH, 3)
            assert np.abs(frame.astype(int) - cv2.imread(str(path))).mean() < 8
        assert not video.read()[0]


def test_only_what_was_asked_for(root, tables, truth_files, tmp_path):
    scene, token = tables.scene[1]["name"], tables.scene[1]["last_sample_token"]
    arguments = [truth_files["detection"], "--dataroot", root, "--version", VERSION, "--jobs", 1, "--out", tmp_path]
    run(*arguments, "--scene", scene, "--tokens", token)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")] == [f"{scene}/0002_{token}.png"]


def test_tables_without_annotations_show_results_alone(root, truth_files, tmp_path, capsys):
    bare = tmp_path / "world"
    shutil.copytree(root, bare)
    for table in ("sample_annotation", "instance"):
        (bare / VERSION / f"{table}.json").write_text("[]")
    token = next(iter(json.loads(truth_files["detection"].read_text())["results"]))
    run(truth_files["detection"], "--dataroot", bare, "--tokens", token, "--jobs", 1, "--out", tmp_path / "out")
    assert "no annotations: the pictures show results without the truth" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scene", "scene-9999"], "scene-9999: not in .*; there are: scene-0103, scene-0916"),
        (["--tokens", "abc"], "--tokens abc: not in"),
        (["--version", "v1.0-trainval"], "no nuScenes tables of version 'v1.0-trainval' here; there are: v1.0-mini"),
        (["--jobs", "0"], "--jobs 0"),
        (["--fps", "0"], "--fps 0"),
        (["--out", "/dev/null/pictures"], "--out /dev/null.*cannot be written"),
    ],
)
def test_unfitting_arguments_are_named(root, truth_files, arguments, message):
    with pytest.raises(StreampetrError, match=message):
        run(truth_files["detection"], "--dataroot", root, *arguments)


def test_a_sample_without_results_is_named(root, tables, tmp_path):
    sample, other = tables.sample[:2]
    path = write_results(tmp_path / "one.json", {sample["token"]: [row_of(tables, sample["anns"][0], "detection")]})
    with pytest.raises(StreampetrError, match=f"--tokens {other['token']}: .*has no result for it"):
        run(path, "--dataroot", root, "--tokens", other["token"])
    with pytest.raises(StreampetrError, match=f"has no sample of {tables.scene[1]['name']}"):
        run(path, "--dataroot", root, "--scene", tables.scene[1]["name"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no nuScenes result file"),
        ('{"results": {"a": []}}', "holds no box"),
        ('{"results": {"a": [{"name": "car"}]}}', "neither detection_name nor tracking_name"),
    ],
)
def test_files_that_are_no_results_are_refused(root, tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(StreampetrError, match=message):
        run(tmp_path / "results.json", "--dataroot", root)
    with pytest.raises(StreampetrError, match="absent.json: cannot be read"):
        run(tmp_path / "absent.json", "--dataroot", root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, "cannot be read"),
        ({"size": [1, 2]}, "cannot be read"),
        ({"translation": [0, float("nan"), 0]}, "translation is not finite"),
        ({"rotation": [0, 0, 0, 0]}, "is no rotation"),
        ({"detection_score": "high"}, "cannot be read"),
        ({"tracking_name": "car", "detection_name": None}, None),
    ],
)
def test_broken_boxes_are_named_by_file_and_sample(root, tables, tmp_path, changes, message):
    sample = tables.sample[0]
    row = row_of(tables, sample["anns"][0], "detection", **changes)
    if message is None:
        del row["detection_name"]
        message = "without 'tracking_score'"
    path = write_results(tmp_path / "broken.json", {sample["token"]: [row]})
    with pytest.raises(StreampetrError, match=f"broken.json: sample {sample['token']} has a box.*{message}"):
        run(path, "--dataroot", root)


def test_results_of_other_tables_are_refused(root, tables, tmp_path):
    row = row_of(tables, tables.sample[0]["anns"][0], "detection")
    path = write_results(tmp_path / "other.json", {tables.sample[0]["token"]: [row], "f00": [row]})
    with pytest.raises(StreampetrError, match="1 of its 2 samples, f00 for one, are not in .*--dataroot and --version"):
        run(path, "--dataroot", root)


@pytest.fixture
def broken_root(root, tmp_path):
    shutil.copytree(root, tmp_path / "world")
    return tmp_path / "world"


def test_missing_and_damaged_images_are_named(broken_root, truth_files, tmp_path):
    images = sorted((broken_root / "samples" / "CAM_BACK").glob("*.jpg"))
    content = images[0].read_bytes()
    for jobs, damaged in ((1, b""), (1, content[: len(content) // 2]), (2, content[:100])):
        images[0].write_bytes(damaged)
        with pytest.raises(StreampetrError, match=f"{images[0].name}: a damaged image"):
            run(truth_files["detection"], "--dataroot", broken_root, "--jobs", jobs, "--out", tmp_path / "out")
    images[0].unlink()
    with pytest.raises(StreampetrError, match=rf"{images[0].name}: no such image \(1 of 36 are missing\)"):
        run(truth_files["detection"], "--dataroot", broken_root)


def test_tables_that_cannot_be_loaded_are_named(broken_root, truth_files, tmp_path):
    table = broken_root / VERSION / "ego_pose.json"
    content = json.loads(table.read_text())
    table.write_text(json.dumps(content[1:]))
    with pytest.raises(StreampetrError, match=f"points to '{content[0]['token']}', which does not exist"):
        run(truth_files["detection"], "--dataroot", broken_root)
    table.unlink()
    with pytest.raises(StreampetrError, match="cannot load these tables: ego_pose.json is missing"):
        run(truth_files["detection"], "--dataroot", broken_root)
    with pytest.raises(StreampetrError, match="which --version. there is no <version>/scene.json"):
        run(truth_files["detection"], "--dataroot", tmp_path / "nowhere")


def test_the_only_version_need_not_be_named(broken_root):
    assert open_tables(broken_root, None).version == VERSION
    shutil.copytree(broken_root / VERSION, broken_root / "v1.0-other")
    with pytest.raises(StreampetrError, match="which --version. there are: v1.0-mini, v1.0-other"):
        open_tables(broken_root, None)
