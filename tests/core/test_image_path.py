"""The image path: what each way promises about its pixels, and what bad data says."""

import cv2
import numpy as np
import pytest
import torch

from streampetr_core.distortion import Distortion
from streampetr_core.errors import StreampetrError
from streampetr_core.image_path import PATHS, ImagePath, ImageSetPath
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_exact
from tests.core.models import tiny_config

COLOURS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}
CONFIG = tiny_config(input_height=64, input_width=192, **COLOURS)
# Largest and mean difference to the exact path, in grey levels, on images of moderate detail.
PROMISES = {"exact": (0.0, 0.0), "fast": (1.01, 0.02), "reduced": (30.0, 2.0)}


def picture(seed, height=225, width=400):
    small = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def exact(images, config=CONFIG):
    pixels = [resize_crop_exact(x, plan_resize(x.shape[1], x.shape[0], config)) for x in images]
    return normalise(torch.from_numpy(np.stack(pixels)), config)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("way", PATHS)
def test_each_way_keeps_its_promise(way, order):
    config = tiny_config(input_height=64, input_width=192, channel_order=order, **COLOURS)
    sources = [picture(seed, 450, 800) for seed in range(3)]
    encoded = [jpeg(x) for x in sources]
    expected = exact([cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_COLOR) for x in encoded], config)
    tensor, plans = ImageSetPath(config, way).from_encoded(encoded, ["a", "b", "c"])
    levels = ((tensor - expected) * torch.tensor(config.pixel_std).view(3, 1, 1)).abs()
    largest, mean = PROMISES[way]
    assert levels.max() <= largest and levels.mean() <= mean
    assert plans == [plan_resize(800, 450, config)] * 3


def test_reduced_decodes_fewer_pixels_where_the_input_is_smaller_still(monkeypatch):
    flags, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: flags.append(flag) or decode(data, flag))
    path = ImageSetPath(CONFIG, "reduced", threads=1)
    # Scales of 0.48, 0.24, 0.12 and 0.06; then a width that two does not divide, and an input that is hardly smaller.
    for width, height in ((400, 226), (800, 452), (1600, 904), (3200, 1808), (401, 226), (200, 112)):
        path.from_encoded([jpeg(picture(0, height, width))], ["a"])
    half, quarter, eighth = cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8
    assert flags == [half, half, quarter, eighth, cv2.IMREAD_COLOR, cv2.IMREAD_COLOR]


def test_what_the_decoder_leaves_out_hardly_shows_where_much_is_left_to_shrink():
    data, path, plan = jpeg(picture(0, 904, 1600)), ImagePath(CONFIG, "reduced"), plan_resize(1600, 904, CONFIG)
    expected = ImagePath(CONFIG, "exact").shrink(cv2.imdecode(np.frombuffer(data, np.uint8), 1), plan).astype(int)
    eighth = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)  # still as large as the input
    ours, coarser = (path.shrink(pixels, plan) for pixels in (path.decode(data, "a")[0], eighth))
    assert 0 < np.abs(ours - expected).mean() < 0.5 * np.abs(coarser - expected).mean()


def test_pixels_that_are_decoded_already_take_the_same_way():
    images = [picture(seed) for seed in range(2)]
    tensor, _ = ImageSetPath(CONFIG, "exact").from_pixels(images)
    assert torch.equal(tensor, exact(images))


def lens(width, height):
    focal = 0.8 * width
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Distortion(K, np.array([-0.3, 0.1, 0.001, -0.002]), (width, height), fisheye=False)


def test_exact_undistorts_at_full_size_before_the_published_resize():
    image, bent, plan = picture(0), lens(400, 225), plan_resize(400, 225, CONFIG)
    expected = resize_crop_exact(bent.undistort(image), plan)
    assert np.array_equal(ImagePath(CONFIG, "exact").shrink(image, plan, bent), expected)
    fast = ImagePath(CONFIG, "fast").shrink(image, plan, bent)
    assert 0 < np.abs(fast.astype(int) - expected).mean() < 1.0


@pytest.mark.parametrize("size", [(400, 226), (800, 452), (1600, 904)])
def test_a_reduced_image_is_undistorted_as_the_whole_one_is(size):
    width, height = size
    image = cv2.resize(picture(0, 226, 400), size, interpolation=cv2.INTER_CUBIC)
    data, bent, plan = jpeg(image), lens(width, height), plan_resize(width, height, CONFIG)
    small, whole = (
        (path.decode(data, "a")[0], path) for path in (ImagePath(CONFIG, "reduced"), ImagePath(CONFIG, "fast"))
    )
    assert small[0].shape[1] < whole[0].shape[1] == width
    ours, expected = (path.shrink(pixels, plan, bent).astype(int) for pixels, path in (small, whole))
    shifted = np.abs(ours[8:-8, 9:-7] - expected[8:-8, 8:-8]).mean()
    assert np.abs(ours - expected)[8:-8, 8:-8].mean() < 0.2 * shifted


def test_the_tensor_is_used_again_and_cameras_may_differ_in_size():
    path = ImageSetPath(CONFIG, "exact")
    first, _ = path.from_pixels([picture(0), picture(1, 450, 800)])
    kept = first.clone()
    second, plans = path.from_pixels([picture(2), picture(3, 450, 800)])
    assert second.data_ptr() == first.data_ptr() and not torch.equal(kept, second)
    assert [plan.source_width for plan in plans] == [400, 800]
    third, _ = path.from_pixels([picture(2)])
    assert third.shape[0] == 1


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("damage", [b"", b"no image", "cut", "head"])
def test_bad_data_is_named(way, damage):
    whole = jpeg(picture(0))
    data = {"cut": whole[: len(whole) // 2], "head": whole[:3] + b"\xff\xd9"}.get(damage, damage)
    with pytest.raises(StreampetrError, match="^cam_front: .*(are no image|is truncated); check the camera driver"):
        ImageSetPath(CONFIG, way).from_encoded([whole, data], ["cam_back", "cam_front"])


def test_an_unknown_way_is_named():
    with pytest.raises(StreampetrError, match="no image path 'quick'; there are exact, fast, reduced"):
        ImageSetPath(CONFIG, "quick")
