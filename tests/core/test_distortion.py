import cv2
import numpy as np
import pytest

from streampetr_core.distortion import Distortion
from streampetr_core.preprocess import ResizeCrop, plan_resize, resize_crop_exact, resize_crop_fast
from tests.core.models import tiny_config

K = np.array([[620.0, 0, 404], [0, 630.0, 221], [0, 0, 1]])
WIDTH, HEIGHT = 800, 450
LENSES = {
    "plumb_bob": ([-0.3, 0.1, 0.001, -0.002, 0.0], False),
    "rational_polynomial": ([-0.3, 0.1, 0.0, 0.0, 0.01, 0.02, 0.0, 0.0], False),
    "equidistant": ([-0.1, 0.02, 0.0, 0.0], True),
}
INNER = np.s_[20:-20, 20:-20]  # where every lens sees something


def _plan(width: int, height: int) -> ResizeCrop:
    return plan_resize(WIDTH, HEIGHT, tiny_config(input_width=width, input_height=height))


def _texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) of a fine pattern in the plane one metre ahead."""
    u, v = 620 * x, 620 * y
    waves = [
        np.sin(u / 7 + 2 * np.sin(v / 40)) + np.sin(v / 11),
        2 * np.sin((u + v) / 9),
        2 * np.sin(np.hypot(u, v) / 6),
    ]
    return 127.5 + 60 * np.stack(waves, -1)


def _picture(lens: tuple[list[float], bool] | None, samples: int = 3) -> np.ndarray:
    """Return what a camera sees of the texture, each pixel the mean over its area."""
    total = np.zeros((HEIGHT, WIDTH, 3))
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    for dy in steps:
        for dx in steps:
            points = np.stack(np.meshgrid(np.arange(WIDTH) + dx, np.arange(HEIGHT) + dy), -1).reshape(-1, 1, 2)
            rays = _undistorted(points, lens).reshape(HEIGHT, WIDTH, 2)
            total += _texture(rays[..., 0], rays[..., 1])
    return np.clip(total / samples**2 + 0.5, 0, 255).astype(np.uint8)


def _undistorted(points: np.ndarray, lens: tuple[list[float], bool] | None) -> np.ndarray:
    """Return the rays (x, y at z = 1) of pixels (M, 1, 2)."""
    coefficients, fisheye = lens or ([0.0] * 4, False)
    if fisheye:
        return cv2.fisheye.undistortPoints(points, K, np.array(coefficients))
    exactly = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
    return cv2.undistortPointsIter(points, K, np.array(coefficients), None, None, exactly)


@pytest.mark.parametrize("name", LENSES)
def test_one_remap_shows_what_undistortion_and_resize_show(name: str):
    """Measured against a pinhole camera's picture of the same scene, and against the two passes."""
    distorted, ideal = _picture(LENSES[name]), _picture(None)
    coefficients, fisheye = LENSES[name]
    distortion = Distortion(K, np.array(coefficients), (WIDTH, HEIGHT), fisheye)
    # Scales 0.44, 0.24 and 0.8: a grid twice, three times, and as fine as the input.
    for width, height in ((352, 128), (192, 96), (640, 256)):
        plan = _plan(width, height)
        one = distortion.resize_crop(distorted, plan).astype(int)
        two = resize_crop_fast(distortion.undistort(distorted), plan).astype(int)
        truth = resize_crop_exact(ideal, plan).astype(int)
        difference = np.abs(one - two)[INNER]
        assert one.shape == (height, width, 3)
        assert difference.mean() < 0.4
        assert np.percentile(difference, 99) <= 2
        assert np.abs(one - truth)[INNER].mean() < np.abs(two - truth)[INNER].mean() + 0.1


def test_the_lens_matters_and_black_is_where_it_saw_nothing():
    distortion = Distortion(K, np.array([0.3, 0.1, 0.0, 0.0]), (WIDTH, HEIGHT), False)
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    plan = _plan(352, 128)
    for image in (distortion.undistort(white), distortion.resize_crop(white, plan)):
        assert image[image.shape[0] // 2, image.shape[1] // 2].tolist() == [255] * 3
        assert image[-1, 0].tolist() == [0] * 3


def test_tables_are_made_once_for_each_plan():
    distortion = Distortion(K, np.array([-0.3, 0.1, 0.0, 0.0]), (WIDTH, HEIGHT), False)
    image = _picture(None, samples=1)
    small, large = _plan(352, 128), _plan(640, 256)
    first = distortion.resize_crop(image, small)
    assert distortion.resize_crop(image, large).shape == (256, 640, 3)
    tables = dict(distortion._tables)
    assert np.array_equal(distortion.resize_crop(image, small), first)
    assert all(distortion._tables[plan, 1] is tables[plan, 1] for plan in (small, large))
