"""Image files to input images: read, resize, crop, flip, turn; blue, green, red bytes throughout."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streampetr_core.errors import StreampetrError
from streampetr_core.jpeg import decode_image
from streampetr_core.preprocess import RESIZERS
from training.data.augment import ImageAugmentation

Pixels = NDArray[np.uint8]
Decoded = TypeVar("Decoded")


def read_image(path: Path) -> Pixels:
    """Return an image file as (H, W, 3) bytes: blue, green, red; see `read_decoded`."""
    return read_decoded(path, decode_image)


def read_decoded(path: Path, decode: Callable[[bytes, str], Decoded]) -> Decoded:
    """Return what `decode` makes of an image file, given its content and name.

    Raises:
        StreampetrError: no such file, no image, or a JPEG that is cut off, which OpenCV would fill with grey.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StreampetrError(
            f"{path}: the image cannot be read ({error.strerror}); check dataroot, or unpack the images again"
        ) from error
    try:
        return decode(content, str(path))
    except StreampetrError as error:
        raise StreampetrError(f"{path}: a damaged image ({len(content)} bytes); unpack or download it again") from error


def augment_image(image_HW3: Pixels, augmentation: ImageAugmentation, path: str = "fast") -> Pixels:
    """Return the network's input image (height, width, 3); `path` is one of `preprocess.RESIZERS`."""
    kept = RESIZERS[path](image_HW3, augmentation.plan)
    if augmentation.flip:
        kept = kept[:, ::-1]
    if augmentation.rotation:
        kept = np.asarray(Image.fromarray(np.ascontiguousarray(kept)).rotate(augmentation.rotation))
    return np.ascontiguousarray(kept)


def check_images_exist(dataroot: Path, paths: Iterable[str]) -> None:
    """Raise StreampetrError that names the first missing image and counts the rest; lists folders, opens no file."""
    present: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in present:
            place = dataroot / folder
            present[folder] = {entry.name for entry in place.iterdir()} if place.is_dir() else set()
        if name not in present[folder]:
            missing.append(path)
    if missing:
        raise StreampetrError(
            f"{dataroot / missing[0]}: no such image, and {len(missing) - 1} more are missing; check dataroot, or "
            "unpack all parts of the data set"
        )
