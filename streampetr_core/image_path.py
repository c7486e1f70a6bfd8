"""The image path: from a JPEG, or from pixels, to the network's input, in as few passes as there can be.

Three ways, by name. `exact` gives the very pixels of the published pipeline. `fast` differs from it by a grey level in
fewer than one byte in a hundred. `reduced` also lets the JPEG decoder leave out what the resize would throw away: it
decodes at a half, a quarter or an eighth of the size where the network's input is at most half as large as that, else
at half the size where the input is smaller than that. On street scenes of 1600x900 an input of 352x128 differs from
that of `exact` by 0.3 grey levels in the mean, one of 704x256 by 0.6; 1 and 3 in the 99th percentile, 4 and 15 at most.

Distorted images are straightened on the way: in the one remap of `Distortion.resize_crop`, or with `exact` at full size
before the published resize, which is what a pipeline gives that rectifies its images first.
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
from streampetr_core.distortion import Distortion
from streampetr_core.errors import StreampetrError
from streampetr_core.jpeg import begins_as_jpeg, decode_image, no_image
from streampetr_core.preprocess import ResizeCrop, normalise, plan_resize, resize_crop_exact, resize_crop_fast

PATHS = ("exact", "fast", "reduced")
_FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
_LEFT_TO_RESIZE = 0.5  # a reduced image that is shrunk to this or less differs from the whole one's by little

Pixels = NDArray[np.uint8]  # (height, width, 3): blue, green, red


class ImagePath:
    """One way to make images fit for the network; its methods may be called from many threads at once."""

    def __init__(self, config: ModelConfig, path: str = "fast") -> None:
        if path not in PATHS:
            raise StreampetrError(f"no image path '{path}'; there are {', '.join(PATHS)}")
        self.config = config
        self._path = path
        self._resize = resize_crop_exact if path == "exact" else resize_crop_fast
        self._tables = _normalisation_tables(config)

    def decode(self, data: bytes | NDArray, name: str) -> tuple[Pixels, tuple[int, int]]:
        """Decode an image; return its pixels, fewer where the path and the scale allow it, and its width and height.

        Raises:
            StreampetrError: data that is no image or is truncated; the message begins with `name`.
        """
        if self._path == "reduced" and begins_as_jpeg(data):
            size = _size_in_header(data, name)
            factor = _reduction(plan_resize(*size, self.config))
            pixels = decode_image(data, name, _FLAGS[factor])
            if (factor * pixels.shape[1], factor * pixels.shape[0]) == size:
                return pixels, size
        pixels = decode_image(data, name)  # for `reduced`: of an image that its EXIF tag turns
        return pixels, (pixels.shape[1], pixels.shape[0])

    def shrink(self, pixels: Pixels, plan: ResizeCrop, distortion: Distortion | None = None) -> Pixels:
        """Undistort, resize and crop to the network's input (height, width, 3); `pixels` may be those of `decode`."""
        if distortion is not None and self._path != "exact":
            return distortion.resize_crop(pixels, plan)
        if distortion is not None:
            pixels = distortion.undistort(pixels)
        height, width = pixels.shape[:2]
        reduction = plan.source_width // width if self._path == "reduced" else 1
        if reduction > 1:
            plan = replace(plan, source_width=width, source_height=height, scale=plan.scale * reduction)
        return self._resize(pixels, plan)

    def normalise_into(self, image_HW3: Pixels, planes_3HW: NDArray[np.float32]) -> None:
        """Write an image of the network's size as its float32 input (3, H, W)."""
        # PyTorch's resize leaves whole planes behind, Pillow's pixels.
        is_planar = image_HW3.strides[1] == 1
        planes = [image_HW3[..., channel] for channel in range(3)] if is_planar else cv2.split(image_HW3)
        if self.config.channel_order == "rgb":
            planes = planes[::-1]
        for plane, table, out in zip(planes, self._tables, planes_3HW, strict=True):
            cv2.LUT(plane, table, dst=out)


class InputBuffer:
    """The network's input tensor, which is used again."""

    def __init__(self, path: ImagePath) -> None:
        self._path = path
        self._images_N3HW = torch.empty(0)

    def tensor(self, count: int) -> Tensor:
        """Return float32 (N, 3, H, W) for `count` images, with anything in it; the last one is overwritten."""
        config = self._path.config
        size = (count, 3, config.input_height, config.input_width)
        if self._images_N3HW.shape != size:
            self._images_N3HW = torch.empty(size)
        return self._images_N3HW

    def fill(self, images: Sequence[Pixels]) -> Tensor:
        """Return N images of the network's size, normalised: float32 (N, 3, H, W), overwritten by the next call."""
        images_N3HW = self.tensor(len(images))
        for image, planes in zip(images, images_N3HW.numpy(), strict=True):
            self._path.normalise_into(image, planes)
        return images_N3HW


class ImageSetPath:
    """An image path for the images of one instant together, in threads; the tensor is overwritten by the next call."""

    def __init__(self, config: ModelConfig, path: str = "fast", threads: int = 2) -> None:
        self._path = ImagePath(config, path)
        self._buffer = InputBuffer(self._path)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="streampetr images")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def from_encoded(self, images: Sequence[bytes], names: Sequence[str]) -> tuple[Tensor, list[ResizeCrop]]:
        """Decode, resize, crop and normalise N images; return float32 (N, 3, H, W) and how each was resized.

        Raises:
            StreampetrError: data that is no image or is truncated; the message has its name.
        """
        return self._run(lambda index: self._path.decode(images[index], names[index]), len(images))

    def from_pixels(self, images: Sequence[Pixels]) -> tuple[Tensor, list[ResizeCrop]]:
        """Resize, crop and normalise N images (height, width, 3) of blue, green, red bytes; as `from_encoded`."""
        return self._run(lambda index: (images[index], images[index].shape[1::-1]), len(images))

    def _run(
        self, read: Callable[[int], tuple[Pixels, tuple[int, int]]], count: int
    ) -> tuple[Tensor, list[ResizeCrop]]:
        images_N3HW = self._buffer.tensor(count)
        planes = images_N3HW.numpy()

        def one(index: int) -> ResizeCrop:
            pixels, size = read(index)
            plan = plan_resize(*size, self._path.config)
            self._path.normalise_into(self._path.shrink(pixels, plan), planes[index])
            return plan

        return images_N3HW, list(self._pool.map(one, range(count)))


def _normalisation_tables(config: ModelConfig) -> list[NDArray[np.float32]]:
    """Return, by channel of the network's order, what each of the 256 bytes becomes: what `normalise` makes of it."""
    greys_1L13 = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(-1, -1, -1, 3)
    return [np.ascontiguousarray(table.reshape(1, 256)) for table in normalise(greys_1L13, config)[0].numpy()]


def _size_in_header(data: bytes | NDArray, name: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as header:
            return header.size
    except (UnidentifiedImageError, OSError) as error:
        raise no_image(name, len(data)) from error


def _reduction(plan: ResizeCrop) -> int:
    """Return the strongest reduction of the JPEG decoder that leaves twice the pixels that the resize keeps a side.

    Where none does, it is the one that leaves more than are kept: half the size, or the whole.
    """
    for most in (_LEFT_TO_RESIZE, 1.0):
        for factor in (8, 4, 2):
            divides = plan.source_width % factor == 0 and plan.source_height % factor == 0
            if divides and plan.scale * factor <= most:
                return factor
    return 1
