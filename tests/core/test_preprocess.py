"""Preprocessing: bit-equal to the official pipeline, and a fast path whose deviation is bounded."""

import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streampetr_core.config import load_config
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import projection
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_exact, resize_crop_fast
from tests.core import golden
from tests.core.models import tiny_config
from tests.data.golden import inputs

CASES = {"test_r50": "r50_704_428q", "test_vov": "v2_99_800_900q"}
SOURCE_SIZE = (1600, 900)


def recorded(case: str) -> dict:
    return json.loads((golden.COMMITTED / "pipeline_test.json").read_text())[case]


def crc(array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


# ------------------------------------------------------------------------------------------- the official pipeline


@pytest.mark.parametrize(("case", "model"), CASES.items())
def test_pixels_are_bit_equal_to_the_official_pipeline(case, model):
    config, expected = load_config(model), recorded(case)
    plan = plan_resize(*SOURCE_SIZE, config)
    left, top, right, bottom = expected["crop"]
    assert plan.scale == expected["resize"]
    assert [plan.resized_width, plan.resized_height] == expected["resize_dims"]
    assert (plan.left, plan.top, plan.left + plan.width, plan.top + plan.height) == (left, top, right, bottom)
    images = np.stack([resize_crop_exact(inputs.raw_image(camera), plan) for camera in range(6)])
    assert [crc(image) for image in images] == expected["uint8_crc32"]
    normalised = normalise(torch.from_numpy(images), config)
    assert normalised.shape == (6, 3, config.input_height, config.input_width)
    assert [crc(image) for image in normalised.permute(0, 2, 3, 1).numpy()] == expected["norm_crc32_float32"]


@pytest.mark.parametrize(("case", "model"), CASES.items())
def test_matrices_are_those_of_the_official_pipeline(case, model):
    plan = plan_resize(*SOURCE_SIZE, load_config(model))
    with np.load(golden.COMMITTED / "pipeline_test.npz") as arrays:
        source_K, cam_T_ref = arrays["input_intrinsics"][:, :3, :3], arrays["input_extrinsics"]
        intrinsics, img_P_ref = arrays[f"{case}_ida_intrinsics"], arrays[f"{case}_ida_lidar2img"]
        formatted = arrays[f"{case}_fmt_lidar2img"]
    ours = plan.input_T_source @ source_K
    np.testing.assert_allclose(ours, intrinsics[:, :3, :3], rtol=1e-7, atol=0)  # theirs has float32 factors
    projections = np.stack([projection(K, T) for K, T in zip(ours, cam_T_ref, strict=True)])
    np.testing.assert_allclose(projections, img_P_ref, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(projections.astype(np.float32), formatted, rtol=1e-6, atol=1e-4)


# --------------------------------------------------------------------------------------------------- the fast path


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def natural(width: int, height: int) -> np.ndarray:
    """Return an image whose amplitudes fall with spatial frequency, as those of photographs do."""
    spectrum = np.fft.rfft2(np.random.default_rng(1).normal(size=(height, width, 3)), axes=(0, 1))
    vertical, horizontal = np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None]
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = np.inf
    image = np.fft.irfft2(spectrum / frequency, s=(height, width), axes=(0, 1))
    return (image / image.std() * 50 + 120).clip(0, 255).astype(np.uint8)


def extreme(width: int, height: int) -> np.ndarray:
    """Return an image of nothing but black and white, the hardest case for a filter."""
    return np.where(noise(width, height) > 127, 255, 0).astype(np.uint8)


def check_fast_path(image: np.ndarray, plan, most_differing: float):
    exact, fast = resize_crop_exact(image, plan), resize_crop_fast(image, plan)
    assert fast.shape == exact.shape == (plan.height, plan.width, 3)
    assert fast.dtype == exact.dtype == np.uint8
    difference = np.abs(exact.astype(int) - fast)
    assert difference.max() <= (1 if plan.scale <= 0.7 else 2)
    assert (difference > 0).mean() <= most_differing


SIZES = {
    "nuScenes": (1600, 900),
    "full HD": (1920, 1080),
    "4:3": (1280, 960),
    "VGA": (640, 480),
    "odd": (1601, 903),
    "odd, common factors": (1605, 945),
    "prime": (1409, 797),
    "rounds to 879 of 880": (1600, 582),
    "a row too small": (1602, 257),
    "enlarged": (320, 180),
    "much enlarged": (100, 80),
    "hardly changed": (353, 129),
    "unchanged": (352, 128),
}


@pytest.mark.parametrize("model", ["r50_704_428q", "v2_99_800_900q", "small_352_256q"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("picture", [noise, natural])
def test_the_fast_path_stays_close_to_the_exact_one(picture, size, model):
    plan = plan_resize(*size, load_config(model))
    check_fast_path(picture(*size), plan, most_differing=0.01)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_fast_path_stays_close_on_black_and_white(size):
    check_fast_path(extreme(*size), plan_resize(*size, load_config("r50_704_428q")), most_differing=0.02)


@settings(max_examples=150)
@given(st.integers(24, 500), st.integers(24, 400), st.sampled_from([(32, 64), (96, 96), (128, 352)]))
def test_the_fast_path_stays_close_for_any_size(width, height, target):
    config = tiny_config(input_height=target[0], input_width=target[1])
    check_fast_path(noise(width, height), plan_resize(width, height, config), most_differing=0.02)


def too_small_plans():
    """Return plans of which rounding makes the resized image a pixel smaller than the network's input."""
    plans = []
    for model in ("r50_704_428q", "small_352_256q"):
        config = load_config(model)
        for width in range(300, 1700):
            plans.append(plan_resize(width, width // 2, config))
            plans.append(plan_resize(width, width // 4, config))
    return [plan for plan in plans if plan.resized_width < plan.width or plan.resized_height < plan.height]


def test_a_resized_image_that_is_a_pixel_too_small_is_padded_as_published():
    plans = too_small_plans()
    assert {plan.resized_width < plan.width for plan in plans} == {True, False}
    for plan in plans[:: max(1, len(plans) // 40)]:
        image = noise(plan.source_width, plan.source_height)
        exact = resize_crop_exact(image, plan)
        check_fast_path(image, plan, most_differing=0.02)
        assert (exact[:, -1] == 0).all() or (exact[0] == 0).all()


# ------------------------------------------------------------------------------------------------------- the rest


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_plan_fills_the_input_and_keeps_the_bottom_and_the_middle(width, height):
    config = load_config("r50_704_428q")
    plan = plan_resize(width, height, config)
    assert (plan.width, plan.height) == (704, 256)
    assert plan.resized_width >= 703 and plan.resized_height >= 255
    assert plan.top + plan.height == plan.resized_height
    left, right = plan.left, plan.resized_width - plan.left - plan.width
    assert right - left in (-1, 0, 1)
    corner = plan.input_T_source @ [width, height, 1]
    assert corner[0] == pytest.approx(plan.resized_width - plan.left, abs=1)
    assert corner[1] == pytest.approx(plan.height, abs=1)


@pytest.mark.parametrize("resize_crop", [resize_crop_exact, resize_crop_fast])
def test_the_result_may_be_written_to_and_shares_nothing_with_the_source(resize_crop):
    config = load_config("small_352_256q")
    image = noise(352, 128)
    before = image.copy()
    resize_crop(image, plan_resize(352, 128, config))[:] = 0
    np.testing.assert_array_equal(image, before)


def test_views_of_larger_images_are_taken_as_they_are():
    image = noise(700, 300)[20:, 30:][:, ::-1]
    plan = plan_resize(670, 280, load_config("small_352_256q"))
    copy = np.ascontiguousarray(image)
    np.testing.assert_array_equal(resize_crop_fast(image, plan), resize_crop_fast(copy, plan))
    np.testing.assert_array_equal(resize_crop_exact(image, plan), resize_crop_exact(copy, plan))


@pytest.mark.parametrize("resize_crop", [resize_crop_exact, resize_crop_fast])
@pytest.mark.parametrize(
    "image", [noise(10, 20), noise(20, 10).astype(np.float32), noise(20, 10)[..., 0], np.zeros((10, 20, 4), np.uint8)]
)
def test_another_image_than_planned_is_refused(resize_crop, image):
    plan = plan_resize(20, 10, load_config("small_352_256q"))
    with pytest.raises(StreampetrError, match=r"came where \(10, 20, 3\) uint8 was planned"):
        resize_crop(image, plan)


@pytest.mark.parametrize("size", [(0, 100), (100, 0), (-1, 5)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(StreampetrError, match="cannot be resized"):
        plan_resize(*size, load_config("small_352_256q"))


def test_normalise_follows_the_channel_order_of_the_model():
    images = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    images[..., 0] = 255  # blue
    values = {"pixel_mean": (10.0, 20.0, 30.0), "pixel_std": (1.0, 2.0, 4.0)}
    rgb, bgr = (normalise(images, tiny_config(channel_order=order, **values))[0, :, 0, 0] for order in ("rgb", "bgr"))
    assert rgb.tolist() == [-10.0, -10.0, (255 - 30) / 4]
    assert bgr.tolist() == [255 - 10.0, -10.0, -7.5]
