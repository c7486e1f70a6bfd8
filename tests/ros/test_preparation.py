"""Images between message and network: decoded once, encoded when they may be, let go when they are dropped."""

import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from streampetr_core.errors import StreampetrError
from streampetr_core.image_path import ImagePath
from streampetr_core.preprocess import plan_resize
from streampetr_ros.calibration import CameraModel, camera_model
from streampetr_ros.preparation import PendingImage, Preparation
from tests.ros.rig import HEIGHT, TINY, WIDTH, K, jpeg, picture, spin_until

TOPICS = {"left": "/left/image", "right": "/right/image"}
PATH = ImagePath(TINY, "fast")


def _model(d: tuple[float, ...] = (), width: int = WIDTH) -> CameraModel:
    info = CameraInfo(width=width, height=HEIGHT, distortion_model="plumb_bob", k=K.flatten().tolist(), d=list(d))
    return camera_model(info, "/info")


MODEL = _model()


class Counted:
    """A preparation whose encoder returns the mean of an image, and what it was called with."""

    def __init__(self, singly: bool = True) -> None:
        self.encoded: list[float] = []
        self.ready = self.decoded = 0
        encode = self._encode if singly else None
        self.preparation = Preparation(PATH, TOPICS, encode, self._on_ready, self._on_decoded)

    def _encode(self, images: list[np.ndarray]) -> torch.Tensor:
        self.encoded.append(float(images[0].mean()))
        return torch.full((1, 1, 1, 1), self.encoded[-1], dtype=torch.float64)

    def _on_ready(self) -> None:
        self.ready += 1

    def _on_decoded(self, seconds: float) -> None:
        self.decoded += 1


@pytest.fixture
def counted() -> Iterator[Counted]:
    counted = Counted()
    yield counted
    counted.preparation.close()


def _image(seed: int = 0, camera: str = "left", keep: float = 1.0) -> PendingImage:
    message, data = CompressedImage(format="jpeg"), jpeg(picture(seed))
    message.data = array.array("B", data[: int(keep * len(data))])
    return PendingImage(camera, message, 0.0)


def _expected(model: CameraModel = MODEL, seed: int = 0) -> np.ndarray:
    pixels, _ = PATH.decode(jpeg(picture(seed)), "expected")
    return PATH.shrink(pixels, plan_resize(WIDTH, HEIGHT, TINY), model.distortion)


def _wait(image: PendingImage) -> None:
    assert spin_until(image.pixels.done)


def test_an_image_is_decoded_and_encoded_ahead_and_only_once(counted: Counted):
    preparation, image = counted.preparation, _image()
    assert not preparation.encode_next()
    preparation.begin(image, MODEL, ahead=True)
    preparation.begin(image, MODEL)
    assert spin_until(lambda: counted.ready == 1)
    assert preparation.encode_next() and not preparation.encode_next()
    preparation.finish(image, MODEL)
    assert np.array_equal(image.pixels.result(), _expected())
    assert counted.encoded == [float(_expected().mean())] == [float(image.features_1Chw)]
    assert counted.decoded == 1 and image.encode_seconds > 0
    preparation.release(image, used=True)
    assert preparation.encoded_in_vain == 0


def test_what_was_not_done_ahead_is_done_with_the_set(counted: Counted):
    image = _image()
    counted.preparation.finish(image, MODEL)
    assert np.array_equal(image.pixels.result(), _expected()) and len(counted.encoded) == 1


def test_images_that_are_encoded_with_their_set_are_only_decoded():
    counted, image = Counted(singly=False), _image()
    counted.preparation.begin(image, MODEL, ahead=True)
    _wait(image)
    assert not counted.preparation.encode_next()
    counted.preparation.finish(image, MODEL)
    assert image.features_1Chw is None
    counted.preparation.close()


def test_a_dropped_image_costs_nothing_more_and_is_counted_where_it_was_encoded(counted: Counted):
    preparation = counted.preparation
    encoded, decoded, untouched = _image(0), _image(1), _image(2)
    for image in (encoded, decoded):
        preparation.begin(image, MODEL, ahead=True)
        _wait(image)
    assert preparation.encode_next()
    for image in (encoded, decoded, untouched):
        preparation.release(image, used=False)
        preparation.release(image, used=False)
    preparation.begin(untouched, MODEL, ahead=True)
    assert untouched.pixels is None
    assert not preparation.encode_next()
    assert preparation.encoded_in_vain == 1 and len(counted.encoded) == 1 and counted.decoded == 2


def test_an_image_that_is_dropped_while_it_is_encoded_is_counted():
    image = _image()

    def encode(images: list[np.ndarray]) -> torch.Tensor:
        with ThreadPoolExecutor(1) as other:
            other.submit(preparation.release, image, False).result()
        return torch.zeros(1, 1, 1, 1)

    preparation = Preparation(PATH, TOPICS, encode, lambda: None, lambda seconds: None)
    preparation.begin(image, MODEL, ahead=True)
    _wait(image)
    assert preparation.encode_next()
    assert preparation.encoded_in_vain == 1
    preparation.close()


def test_a_calibration_that_came_in_between_is_used(counted: Counted):
    image, bent = _image(), _model(d=(-0.3, 0.1, 0.0, 0.0))
    counted.preparation.begin(image, MODEL, ahead=True)
    _wait(image)
    assert counted.preparation.encode_next()
    counted.preparation.finish(image, bent)
    assert np.array_equal(image.pixels.result(), _expected(bent))
    assert float(image.features_1Chw) == float(_expected(bent).mean()) != float(_expected().mean())


def test_a_bad_image_holds_nothing_up_and_is_named(counted: Counted):
    bad, small, good = _image(keep=0.5), _image(1, "right"), _image(2)
    counted.preparation.begin(bad, MODEL, ahead=True)
    counted.preparation.begin(small, _model(width=2 * WIDTH), ahead=True)
    counted.preparation.begin(good, MODEL, ahead=True)
    for image in (bad, small, good):
        _wait(image)
    assert counted.preparation.encode_next() and not counted.preparation.encode_next()
    assert good.features_1Chw is not None
    with pytest.raises(StreampetrError, match="^/left/image: JPEG of .* is truncated"):
        counted.preparation.finish(bad, MODEL)
    with pytest.raises(StreampetrError, match="^/right/image: image is 160x120, but its CameraInfo says 320x120"):
        counted.preparation.finish(small, small.model)


def test_raw_images_take_the_same_way(counted: Counted):
    message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
    message.data = array.array("B", picture(0).tobytes())
    image = PendingImage("left", message, 0.0)
    counted.preparation.finish(image, MODEL)
    assert np.array_equal(image.pixels.result(), PATH.shrink(picture(0), plan_resize(WIDTH, HEIGHT, TINY)))


def test_after_the_end_nothing_is_waited_for():
    preparation = Counted().preparation
    image = _image()
    preparation.begin(image, MODEL)
    image.pixels.cancel()
    preparation.close()
    if image.pixels.cancelled():
        with pytest.raises(StreampetrError, match="left: the node was stopped before the image was decoded"):
            preparation.finish(image, MODEL)
