"""Images on their way from a message to the network: decoded in threads as they come, encoded one by one in between.

Callbacks only enqueue. Work is done ahead while the worker keeps up; when sets wait for it, images that come then are
left alone until their set is taken, so a set that is dropped has cost little, and nothing more once it is dropped.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from sensor_msgs.msg import CompressedImage, Image
from torch import Tensor

from streampetr_core.errors import StreampetrError
from streampetr_core.image_path import ImagePath, Pixels
from streampetr_core.preprocess import plan_resize
from streampetr_ros.calibration import CameraModel
from streampetr_ros.images import decode_raw
from streampetr_ros.intake import check_announced_size, check_size

_MOST_THREADS = 4  # six JPEGs of 1600x900 take one thread some 30 ms


@dataclass(eq=False)
class PendingImage:
    """An image that came, and what has become of it."""

    camera: str
    message: Image | CompressedImage
    received: float  # of a steady clock, s
    model: CameraModel | None = None  # with which it is being prepared
    pixels: Future[Pixels] | None = None  # of the network's size
    features_1Chw: Tensor | None = None
    encode_seconds: float = 0.0
    is_over: bool = field(default=False)  # dropped or used: nothing more is done for it


class Preparation:
    """Prepares images; `encode_next` and `finish` are called by the thread that runs the network, all else by any."""

    def __init__(
        self,
        path: ImagePath,
        topics: dict[str, str],
        encode: Callable[[list[Pixels]], Tensor] | None,
        on_ready: Callable[[], None],
        on_decoded: Callable[[float], None],
    ) -> None:
        """Take how images are prepared.

        Args:
            path: makes them fit for the network.
            topics: of each camera, for messages.
            encode: maps images to features; None: they are encoded with their set.
            on_ready: is told that `encode_next` has something to do.
            on_decoded: is told how many seconds decoding and resizing took.
        """
        self.encoded_in_vain = 0
        self._path, self._topics, self._encode = path, topics, encode
        self._on_ready, self._on_decoded = on_ready, on_decoded
        threads = min(len(topics), os.cpu_count() or 1, _MOST_THREADS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="streampetr images")
        self._to_encode: deque[PendingImage] = deque()
        self._lock = threading.Lock()

    def begin(self, image: PendingImage, model: CameraModel, ahead: bool = False) -> None:
        """Let an image be decoded, and with `ahead` encoded, with this calibration, unless that is under way."""
        with self._lock:
            if image.is_over or image.model is model:
                return
            image.model, image.features_1Chw = model, None
            image.pixels = self._pool.submit(self._prepare, image.message, self._topics[image.camera], model)
            if ahead and self._encode is not None:
                self._to_encode.append(image)
        if ahead and self._encode is not None:
            image.pixels.add_done_callback(lambda _: self._on_ready())

    def encode_next(self) -> bool:
        """Encode the oldest image that is decoded; return False if there is none."""
        image = self._take_next()
        if image is None:
            return False
        self._encode_one(image)
        return True

    def finish(self, image: PendingImage, model: CameraModel) -> None:
        """Wait until an image is ready for its set: decoded and, where images are encoded one by one, encoded.

        Raises:
            StreampetrError: the image is unusable.
        """
        self.begin(image, model)
        try:
            image.pixels.result()
        except CancelledError as error:
            raise StreampetrError(f"{image.camera}: the node was stopped before the image was decoded") from error
        if self._encode is not None and image.features_1Chw is None:
            self._encode_one(image)

    def release(self, image: PendingImage, used: bool) -> None:
        """Let go of an image that was used, or is dropped."""
        with self._lock:
            if image.is_over:
                return
            image.is_over = True
            if image.pixels is not None:
                image.pixels.cancel()
            self.encoded_in_vain += not used and image.features_1Chw is not None

    def close(self) -> None:
        """End the threads; what has not begun is left undone."""
        self._pool.shutdown(cancel_futures=True)

    def _encode_one(self, image: PendingImage) -> None:
        began = time.perf_counter()
        features_1Chw = self._encode([image.pixels.result()])
        with self._lock:
            image.features_1Chw = features_1Chw
            image.encode_seconds = time.perf_counter() - began
            self.encoded_in_vain += image.is_over

    def _take_next(self) -> PendingImage | None:
        """Return the oldest image that is decoded, and forget those that are of no use any more."""
        found = None
        with self._lock:
            waiting, self._to_encode = self._to_encode, deque()
            for image in waiting:
                if image.is_over or _has_failed(image.pixels):
                    continue
                if found is None and image.pixels.done():
                    found = image
                else:
                    self._to_encode.append(image)
        return found

    def _prepare(self, message: Image | CompressedImage, topic: str, model: CameraModel) -> Pixels:
        began = time.perf_counter()
        if isinstance(message, Image):
            pixels = decode_raw(message, topic)
            size = pixels.shape[1], pixels.shape[0]
        else:
            check_announced_size(message, topic, model)
            pixels, size = self._path.decode(message.data, topic)
        check_size(size, model, topic)
        plan = plan_resize(model.width, model.height, self._path.config)
        small = self._path.shrink(pixels, plan, model.distortion)
        self._on_decoded(time.perf_counter() - began)
        return small


def _has_failed(pixels: Future[Pixels]) -> bool:
    return pixels.done() and (pixels.cancelled() or pixels.exception() is not None)
