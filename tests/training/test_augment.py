"""Augmentation against the official pipeline's recorded draws, images, matrices and boxes."""

import zlib

import numpy as np
import pytest
import torch

from streampetr_core.config import load_config
from streampetr_core.geometry import invert_transform, projection
from streampetr_core.preprocess import normalise
from tests.data.golden import inputs
from tests.training import golden
from training.data.augment import AugmentationConfig, augment_boxes, augment_objects, draw_augmentation, no_augmentation
from training.data.dataset import make_sample, training_boxes
from training.data.images import augment_image
from training.data.infos import Camera, Keyframe, Objects2D, Objects3D, Pose

CASES = golden.load_json("pipeline")["cases"]
ARRAYS = golden.load_arrays("pipeline")
TRAIN = [name for name, case in CASES.items() if case["train"]]
CAMERAS = range(6)


def model_of(name):
    return load_config("v2_99_800_900q" if "vov" in name else "r50_704_428q")


def drawn(name):
    """Our draw of a case, from the seed that was set before the official one."""
    case = CASES[name]
    if not case["train"]:
        return no_augmentation(1600, 900, model_of(name))
    config = AugmentationConfig(scale_limits=case["resize_lim"], translation_std=case["translation_std"])
    return draw_augmentation(np.random.RandomState(case["seed"]), 1600, 900, model_of(name), config)


def objects_of(camera, prefix="input"):
    arrays = (ARRAYS[f"{prefix}_cam{camera}_{key}"] for key in ("gt_bboxes", "gt_labels", "centers2d", "depths"))
    return Objects2D(*arrays)


def keyframe():
    """The golden input as a keyframe; its pose lies in base_T_ref."""
    pose = ARRAYS["input_ego_pose"].astype(np.float64)
    boxes = golden.gravity_boxes(ARRAYS["input_gt_bboxes_3d"])
    names = tuple(inputs_name(label) for label in ARRAYS["input_gt_labels_3d"])
    count = len(boxes)
    return Keyframe(
        token="sample", previous="", following="", scene="scene", starts_sequence=True, timestamp=1_000_000,
        base_T_ref=Pose(np.zeros(3), np.array([1.0, 0, 0, 0])),
        world_T_base=_FixedPose(pose),
        cameras=tuple(
            Camera(
                path="", timestamp=0, intrinsics=ARRAYS["input_intrinsics"][index, :3, :3],
                ref_T_cam=invert_transform(ARRAYS["input_extrinsics"][index]), objects=objects_of(index),
            )
            for index in CAMERAS
        ),
        objects=Objects3D(
            boxes[:, :7], boxes[:, 7:], names, np.ones(count, int), np.zeros(count, int), np.ones(count, bool)
        ),
    )  # fmt: skip


class _FixedPose:
    def __init__(self, matrix):
        self.matrix = matrix


def inputs_name(label):
    return model_of("r50").class_names[label] if label >= 0 else "animal"


@pytest.fixture(scope="module")
def raw_images():
    return [inputs.raw_image(index) for index in CAMERAS]


@pytest.mark.parametrize("name", CASES)
def test_draws_are_the_official_ones(name):
    case, augmentation = CASES[name], drawn(name)
    plan = augmentation.image.plan
    assert (plan.scale, augmentation.image.flip) == (case["resize"], case["flip"])
    assert [plan.resized_width, plan.resized_height] == case["resize_dims"]
    assert [plan.left, plan.top, plan.left + plan.width, plan.top + plan.height] == case["crop"]
    assert augmentation.image.rotation == case["rotate"]
    if case["train"]:
        scene = augmentation.scene
        assert (scene.yaw, scene.zoom) == (case["rot_angle"], case["scale_ratio"])
        assert scene.translation == pytest.approx(case["translation"], abs=1e-7)  # official: float32


@pytest.mark.parametrize("name", CASES)
def test_images_are_the_official_ones_bit_for_bit(name, raw_images):
    case, augmentation, model = CASES[name], drawn(name).image, model_of(name)
    images = [augment_image(image, augmentation, "exact") for image in raw_images]
    assert [zlib.crc32(image.tobytes()) for image in images] == case["uint8_crc32"]
    normalised = normalise(torch.from_numpy(np.stack(images)), model).permute(0, 2, 3, 1).contiguous().numpy()
    assert [zlib.crc32(image.tobytes()) for image in normalised] == case["norm_crc32_float32"]


@pytest.mark.parametrize("name", CASES)
def test_fast_images_are_within_two_grey_levels(name, raw_images):
    augmentation = drawn(name).image
    for image in raw_images[:2]:
        exact, fast = (augment_image(image, augmentation, path).astype(int) for path in ("exact", "fast"))
        difference = np.abs(exact - fast)
        assert difference.max() <= 2
        assert difference.mean() < 0.02


@pytest.mark.parametrize("name", CASES)
def test_matrices_are_the_official_ones(name):
    sample = make_sample(keyframe(), torch.zeros(6, 1, 1, 3, dtype=torch.uint8), drawn(name), is_first=True)
    last = "bda" if CASES[name]["train"] else "ida"
    np.testing.assert_allclose(
        sample.intrinsics_N33, ARRAYS[f"{name}_ida_intrinsics"][:, :3, :3].astype(np.float32), rtol=2e-7, atol=1e-4
    )
    np.testing.assert_allclose(sample.img_P_ref_N44, ARRAYS[f"{name}_fmt_lidar2img"], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(sample.world_T_ref_44, ARRAYS[f"{name}_{last}_ego_pose"], rtol=2e-7, atol=1e-5)
    inverse = np.linalg.inv(sample.world_T_ref_44)
    np.testing.assert_allclose(inverse, ARRAYS[f"{name}_{last}_ego_pose_inv"], rtol=1e-6, atol=3e-4)


@pytest.mark.parametrize("name", TRAIN)
def test_boxes_are_the_official_ones(name):
    boxes, labels = training_boxes(keyframe().objects, model_of(name))
    np.testing.assert_array_equal(labels, ARRAYS[f"{name}_range_filtered_labels"])
    expected = golden.gravity_boxes(ARRAYS[f"{name}_range_filtered_boxes"])
    np.testing.assert_allclose(boxes, expected, atol=1e-5)
    changed = augment_boxes(boxes, drawn(name).scene)
    np.testing.assert_allclose(changed, golden.gravity_boxes(ARRAYS[f"{name}_bda_gt_bboxes_3d"]), atol=2e-5)


@pytest.mark.parametrize("name", TRAIN)
@pytest.mark.parametrize("camera", CAMERAS)
def test_2d_objects_are_the_official_ones_in_the_official_order(name, camera):
    ours, official = augment_objects(objects_of(camera), drawn(name).image), objects_of(camera, f"{name}_ida")
    np.testing.assert_array_equal(ours.labels_G, official.labels_G)
    np.testing.assert_array_equal(ours.depths_G, official.depths_G)
    np.testing.assert_array_equal(ours.boxes_G4, official.boxes_G4)
    np.testing.assert_array_equal(ours.centres_G2, official.centres_G2)


def test_boxes_and_projection_change_together():
    """A box corner projects to the same pixel before and after the scene is turned, scaled and shifted."""
    frame, augmentation = keyframe(), drawn("train2")
    boxes, _ = training_boxes(frame.objects, model_of("r50"))
    sample = make_sample(frame, torch.zeros(6, 1, 1, 3, dtype=torch.uint8), augmentation, is_first=True)
    intrinsics = augmentation.image.input_T_source @ frame.cameras[0].intrinsics
    img_P_ref = projection(intrinsics, invert_transform(frame.cameras[0].ref_T_cam))
    before = np.column_stack([boxes[:, :3], np.ones(len(boxes))]) @ img_P_ref.T
    changed = augment_boxes(boxes, augmentation.scene)
    after = np.column_stack([changed[:, :3], np.ones(len(boxes))]) @ sample.img_P_ref_N44[0].numpy().T
    np.testing.assert_allclose(after[:, :2] / after[:, 2:3], before[:, :2] / before[:, 2:3], rtol=1e-4)


def test_a_turned_image_and_its_matrix_agree():
    """A bright spot lands where the matrix says, after resize, crop, mirror and turn together."""
    config = AugmentationConfig(rotation_limits=(20.0, 20.0))
    model = model_of("r50")
    augmentation = draw_augmentation(np.random.RandomState(0), 1600, 900, model, config)
    assert augmentation.image.flip
    image = np.zeros((900, 1600, 3), np.uint8)
    image[600:606, 900:906] = 255
    row, column = np.argwhere(augment_image(image, augmentation.image, "exact")[..., 0] > 100).mean(axis=0) + 0.5
    u, v, _ = augmentation.image.input_T_source @ [903, 603, 1]
    assert (column, row) == pytest.approx((u, v), abs=1.0)


def test_boxes_turn_with_their_image():
    config = AugmentationConfig(rotation_limits=(90.0, 90.0), flip=False, scale_limits=(0.5, 0.5))
    image = draw_augmentation(np.random.RandomState(1), 1600, 900, model_of("r50"), config).image
    plan = image.plan
    # A box of 40 x 20 around the middle of the input image.
    middle = np.array([plan.width / 2 + plan.left, plan.height / 2 + plan.top]) / plan.scale
    box = np.array([[*(middle - [40, 20]), *(middle + [40, 20])]], np.float32)
    objects = Objects2D(box, np.array([3]), middle[None].astype(np.float32), np.array([9.0], np.float32))
    turned = augment_objects(objects, image)
    np.testing.assert_allclose(turned.boxes_G4, [[342, 108, 362, 148]], atol=1e-3)
    np.testing.assert_allclose(turned.centres_G2, [[352, 128]], atol=1e-3)


def test_smaller_sources_are_scaled_in_proportion():
    model = model_of("r50")
    full, small = (
        draw_augmentation(np.random.RandomState(5), width, height, model, AugmentationConfig()).image.plan
        for width, height in ((1600, 900), (800, 450))
    )
    assert small.scale == pytest.approx(2 * full.scale)
    assert (small.resized_width, small.resized_height) == (full.resized_width, full.resized_height)
