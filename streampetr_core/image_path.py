"""The image path: the JPEGs of one instant to the network's input, in threads, into a tensor that is used again.

Three ways, by name. `exact` gives the very pixels of the published pipeline. `fast` differs from it by a grey level in
fewer than one byte in a hundred. `reduced` also lets the JPEG decoder leave out what the resize would throw away: it
decodes at a half, a quarter or an eighth of the size where the network's input is still smaller than that. On street
scenes of 1600x900 that differs from `exact` by 0.6 grey levels in the mean, 3 in the 99th percentile and 15 at most.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError
from streampetr_core.jpeg import begins_as_jpeg, is_cut_off
from streampetr_core.preprocess import ResizeCrop, normalise, plan_resize, resize_crop_exact, resize_crop_fast

PATHS = ("exact", "fast", "reduced")
_REDUCTIONS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class ImagePath:
    """Turns encoded or decoded images into input tensors; the returned tensor is overwritten by the next call."""

    def __init__(self, config: ModelConfig, path: str = "fast", threads: int = 2) -> None:
        if path not in PATHS:
            raise StreampetrError(f"no image path '{path}'; there are {', '.join(PATHS)}")
        self._config, self._path = config, path
        self._resize = resize_crop_exact if path == "exact" else resize_crop_fast
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="streampetr images")
        self._tables = _normalisation_tables(config)
        self._buffer_N3HW = torch.empty(0)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def from_encoded(self, images: Sequence[bytes], names: Sequence[str]) -> tuple[Tensor, list[ResizeCrop]]:
        """Decode, resize, crop and normalise N images; return float32 (N, 3, H, W) and how each was resized.

        Raises:
            StreampetrError: data that is no image or is cut off; the message has its name.
        """
        return self._run(images, lambda data, name: self._decode(data, name), names)

    def from_pixels(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[ResizeCrop]]:
        """Resize, crop and normalise N images (height, width, 3) of blue, green, red bytes; as `from_encoded`."""
        return self._run(images, lambda image, _: (image, self._plan(image)), [""] * len(images))

    def _run(self, images: Sequence, decode: Callable, names: Sequence[str]) -> tuple[Tensor, list[ResizeCrop]]:
        size = (len(images), 3, self._config.input_height, self._config.input_width)
        if self._buffer_N3HW.shape != size:
            self._buffer_N3HW = torch.empty(size)
        planes = self._buffer_N3HW.numpy()

        def one(index: int) -> ResizeCrop:
            pixels, plan = decode(images[index], names[index])
            height, width = pixels.shape[:2]
            reduction = plan.source_width // width
            small = replace(plan, source_width=width, source_height=height, scale=plan.scale * reduction)
            self._normalise_into(self._resize(pixels, small), planes[index])
            return plan

        return self._buffer_N3HW, list(self._pool.map(one, range(len(images))))

    def _decode(self, data: bytes, name: str) -> tuple[NDArray[np.uint8], ResizeCrop]:
        """Return pixels, of a reduced size where the path and the scale allow it, and the plan for the whole image."""
        array = np.frombuffer(data, np.uint8)
        if is_cut_off(data):
            raise StreampetrError(f"{name}: JPEG of {len(data)} bytes is cut off; check the camera driver or the file")
        plan, flag = None, cv2.IMREAD_COLOR
        if self._path == "reduced" and begins_as_jpeg(data):
            plan = plan_resize(*_size_in_header(data, name), self._config)
            flag = _reduction_flag(plan)
        pixels = cv2.imdecode(array, flag) if len(data) else None
        if pixels is None:
            raise StreampetrError(f"{name}: {len(data)} bytes are no image; check the camera driver or the file")
        return pixels, plan or self._plan(pixels)

    def _plan(self, image_HW3: NDArray[np.uint8]) -> ResizeCrop:
        return plan_resize(image_HW3.shape[1], image_HW3.shape[0], self._config)

    def _normalise_into(self, image_HW3: NDArray[np.uint8], planes_3HW: NDArray[np.float32]) -> None:
        # PyTorch's resize leaves whole planes behind, Pillow's pixels.
        is_planar = image_HW3.strides[1] == 1
        planes = [image_HW3[..., channel] for channel in range(3)] if is_planar else cv2.split(image_HW3)
        if self._config.channel_order == "rgb":
            planes = planes[::-1]
        for plane, table, out in zip(planes, self._tables, planes_3HW, strict=True):
            cv2.LUT(plane, table, dst=out)


def _normalisation_tables(config: ModelConfig) -> list[NDArray[np.float32]]:
    """Return, by channel of the network's order, what each of the 256 bytes becomes: what `normalise` makes of it."""
    greys_1L13 = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(-1, -1, -1, 3)
    return [np.ascontiguousarray(table.reshape(1, 256)) for table in normalise(greys_1L13, config)[0].numpy()]


def _size_in_header(data: bytes, name: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as header:
            return header.size
    except (UnidentifiedImageError, OSError) as error:
        raise StreampetrError(f"{name}: {len(data)} bytes are no image; check the camera driver or the file") from error


def _reduction_flag(plan: ResizeCrop) -> int:
    """Return OpenCV's flag for the strongest reduction that leaves more pixels than the resize keeps."""
    for factor, flag in _REDUCTIONS.items():
        divides = plan.source_width % factor == 0 and plan.source_height % factor == 0
        if divides and plan.scale * factor <= 1:
            return flag
    return cv2.IMREAD_COLOR
