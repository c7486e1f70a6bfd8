"""Samples rendered on the fly, and that boxes and pixels agree."""

import pickle

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from pyquaternion import Quaternion

from streampetr_core.geometry import box_corners, invert_transform, transform_points
from training.synth import WorldOptions, write_world
from training.synth.observe import observe, take_picture
from training.synth.online import OnlineScenes, render_sample
from training.synth.rig import CHANNELS
from training.synth.scene import KINDS, make_scene
from training.synth.sizes import CLASSES

SIZE, SAMPLES, SEED = (176, 64), 3, 11


@pytest.fixture(scope="module")
def scenes():
    return OnlineScenes(SEED, "val", SIZE, SAMPLES)


def test_a_sample_has_the_shapes_it_promises(scenes):
    scene = scenes.scene(0)
    samples = list(scene)
    assert len(scene) == len(samples) == SAMPLES
    for index, sample in enumerate(samples):
        count = len(sample.objects.boxes)
        assert sample.index == index and sample.scene == samples[0].scene
        assert sample.images.shape == (6, 64, 176, 3) and sample.images.dtype == np.uint8
        assert sample.intrinsics.shape == (6, 3, 3) and sample.cam_T_ref.shape == (6, 4, 4)
        assert sample.objects.boxes.shape == (count, 9) and count > 5
        assert (
            len(sample.objects.class_names)
            == len(sample.objects.instances)
            == count
            == len(set(sample.objects.instances))
        )
        assert sample.objects.visibility.shape == sample.objects.lidar_points.shape == (count,)
        assert sample.timestamp == samples[0].timestamp + 500_000 * index
        assert np.all(
            (sample.camera_timestamps < sample.timestamp) & (sample.camera_timestamps > sample.timestamp - 5e4)
        )


def test_online_and_stored_samples_are_the_same(scenes, tmp_path):
    write_world(tmp_path / "w", WorldOptions(1, SAMPLES, SEED, *SIZE, quota=tuple((kind, 0) for kind in CLASSES)))
    nusc = NuScenes("v1.0-synth", str(tmp_path / "w"), verbose=False)
    for row, sample in zip(nusc.sample, scenes.scene(0), strict=True):
        lidar = nusc.get("sample_data", row["data"]["LIDAR_TOP"])
        _, boxes, _ = nusc.get_sample_data(lidar["token"])
        assert sample.timestamp == row["timestamp"]
        names = [category_to_detection_name(box.name) for box in boxes]
        assert set(names) >= set(sample.objects.class_names)
        centres = np.array([box.center for box in boxes])
        for box, name, points in zip(
            sample.objects.boxes, sample.objects.class_names, sample.objects.lidar_points, strict=True
        ):
            number = int(np.linalg.norm(centres - box[:3], axis=1).argmin())
            found = boxes[number]
            np.testing.assert_allclose(found.center, box[:3], atol=1e-6)
            np.testing.assert_allclose(found.wlh, box[[4, 3, 5]], atol=1e-9)
            ahead = found.orientation.rotation_matrix[:2, 0]
            assert np.hypot(*(ahead - [np.cos(box[6]), np.sin(box[6])])) < 0.01
            assert names[number] == name
            assert nusc.get("sample_annotation", found.token)["num_lidar_pts"] == points
        for number, channel in enumerate(CHANNELS):
            data = nusc.get("sample_data", row["data"][channel])
            picture = cv2.cvtColor(cv2.imread(str(tmp_path / "w" / data["filename"])), cv2.COLOR_BGR2RGB)
            assert np.abs(picture.astype(float) - sample.images[number]).mean() < 5
            assert data["timestamp"] == sample.camera_timestamps[number]
            chain = np.eye(4)
            for record, inverse in ((data, True), (lidar, False)):
                poses = [nusc.get("ego_pose", record["ego_pose_token"])]
                poses.append(nusc.get("calibrated_sensor", record["calibrated_sensor_token"]))
                world_T_sensor = np.eye(4)
                for pose in poses:
                    step = Quaternion(pose["rotation"]).transformation_matrix
                    step[:3, 3] = pose["translation"]
                    world_T_sensor = world_T_sensor @ step
                chain = chain @ (np.linalg.inv(world_T_sensor) if inverse else world_T_sensor)
            np.testing.assert_allclose(chain, sample.cam_T_ref[number], atol=1e-6)
        np.testing.assert_allclose(world_T_sensor, sample.world_T_ref, atol=1e-6)


def test_a_copy_for_another_process_gives_equal_samples(scenes):
    sample, copy = scenes.scene(1)[1], pickle.loads(pickle.dumps(scenes))
    for other in (3, 4, 5):
        copy.scene(other)  # so that the scene is not kept any more
    again = copy.scene(1)[1]
    np.testing.assert_array_equal(again.images, sample.images)
    np.testing.assert_array_equal(again.objects.boxes, sample.objects.boxes)


def test_no_sample_comes_twice():
    seen = set()
    for seed, split, index in ((0, "train", 0), (0, "train", 1), (0, "val", 0), (1, "train", 0)):
        seen |= {sample.images.tobytes() for sample in OnlineScenes(seed, split, (64, 36), 2).scene(index)}
    assert len(seen) == 4 * 2


def test_samples_are_asked_for_in_any_order(scenes):
    scene = scenes.scene(0)
    last = scene[-1]
    np.testing.assert_array_equal(last.images, scene[SAMPLES - 1].images)
    assert last.index == SAMPLES - 1
    with pytest.raises(IndexError):
        scene[SAMPLES]
    with pytest.raises(IndexError):
        scenes.scene(-1)


@pytest.mark.parametrize("arguments", [(0, "test"), (0, "val", (64, 36), 1), (0, "val", (64, 36), 121)])
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError):
        OnlineScenes(*arguments)


def test_velocities_carry_boxes_from_sample_to_sample():
    scene = make_scene(2, "train", 0, 10.0, (64, 36), kind="straight")
    before, after = (render_sample(scene, index) for index in (6, 7))
    ref_T_world = invert_transform(before.world_T_ref)
    moved = dict(
        zip(
            after.objects.instances,
            transform_points(ref_T_world @ after.world_T_ref, after.objects.boxes[:, :3]),
            strict=True,
        )
    )
    errors = []
    for instance, box in zip(before.objects.instances, before.objects.boxes, strict=True):
        if instance in moved and np.hypot(*box[7:9]) > 1:
            errors.append(np.hypot(*(box[:2] + 0.5 * box[7:9] - moved[instance][:2])))
    assert len(errors) > 3 and np.median(errors) < 0.1 and max(errors) < 0.9


def inside_share(rows, columns, corners, margin=1.0):
    """The share of pixels within the outline of projected corners (8, 2), and `margin` pixels around it."""
    hull = cv2.convexHull(corners.astype(np.float32))
    pixels = zip(columns.tolist(), rows.tolist(), strict=True)
    return np.mean([cv2.pointPolygonTest(hull, (float(u), float(v)), True) >= -margin for u, v in pixels])


def test_projected_boxes_enclose_the_pixels_of_500_objects():
    """Through the truth that is written down: the box at the camera's own time, by the tables' calibration."""
    checked = 0
    for seed, kind in enumerate(KINDS * 2):
        scene = make_scene(seed, "train", seed, 6.0, (352, 198), kind=kind)
        for time in (0.5, 3.0, 5.5):
            checked += _check_pixels(scene, time)
        if checked >= 500:
            return
    raise AssertionError(f"only {checked} objects were seen")


def _check_pixels(scene, time):
    checked = 0
    for channel, picture in observe(scene, time, with_lidar=False).pictures.items():
        camera = scene.rig.cameras[CHANNELS.index(channel)]
        moment = time + camera.exposure
        cam_T_site = invert_transform(scene.ego.pose(moment) @ camera.base_T_cam)
        corners = transform_points(cam_T_site, box_corners(scene.boxes(moment)))
        for ident in picture.visibility.idents[picture.visibility.visible >= 4]:
            points = corners[ident - 1]
            rows, columns = np.nonzero(picture.ids == ident)
            if points[:, 2].min() < 0.3 or not len(rows):
                continue
            image = points @ camera.intrinsics.T
            chosen = slice(None, None, max(len(rows) // 200, 1))
            assert inside_share(rows[chosen], columns[chosen], image[:, :2] / image[:, 2:]) >= 0.99
            checked += 1
    return checked


def test_a_moving_object_is_where_it_is_at_exposure():
    """With boxes at the keyframe's own time instead, fast objects would lie beside their pixels."""
    right, wrong = [], []
    for seed in range(6):
        scene = make_scene(seed, "val", seed, 4.0, (352, 198), kind=("straight", "crossing", "curve")[seed % 3])
        camera = next(camera for camera in scene.rig.cameras if camera.channel == "CAM_FRONT_LEFT")
        for time in np.arange(0.5, 4.0, 0.5):
            picture = take_picture(scene, camera, time + camera.exposure)
            fast = np.flatnonzero(np.hypot(*scene.velocities(time).T) > 6)
            cam_T_site = invert_transform(scene.ego.pose(time + camera.exposure) @ camera.base_T_cam)
            for number in set(fast + 1) & set(picture.visibility.idents.tolist()):
                rows, columns = np.nonzero(picture.ids == number)
                for at, shares in ((time + camera.exposure, right), (time, wrong)):
                    points = transform_points(cam_T_site, box_corners(scene.boxes(at)[number - 1])[0])
                    if len(rows) < 60 or points[:, 2].min() < 0.5:
                        continue
                    image = points @ camera.intrinsics.T
                    shares.append(inside_share(rows[::3], columns[::3], image[:, :2] / image[:, 2:], margin=0.5))
    assert len(right) >= 6 and min(right) >= 0.98
    assert min(wrong) < 0.97 and np.mean(wrong) < np.mean(right) - 0.003
