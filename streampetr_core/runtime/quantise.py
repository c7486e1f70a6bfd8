"""int8 for the image encoder, by post-training quantisation: NNCF watches activations on calibration images.

The result is ONNX with quantise-dequantise pairs, which OpenVINO, ONNX Runtime and TensorRT all turn into int8 kernels.
The decoder stays as it is: attention over metric positions does not survive eight bits.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_exact
from streampetr_core.runtime.engine_files import ENCODER, ENCODER_INT8

_SUFFIXES = (".jpg", ".jpeg", ".png")


def require_quantiser() -> None:
    """Raise StreampetrError with the remedy where NNCF is not installed."""
    if find_spec("nncf") is None:
        raise StreampetrError("int8 needs nncf; pip install 'streampetr_ros[quantise]'")


def calibration_images(root: Path, config: ModelConfig, count: int) -> Tensor:
    """Return `count` normalised images (N, 3, H, W), evenly drawn from a folder; shows a progress bar.

    In a data set of the nuScenes format the images of key frames are taken, else every image below `root`.

    Raises:
        StreampetrError: the folder has no images, or one of them is damaged.
    """
    folder = root / "samples" if (root / "samples").is_dir() else root
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise StreampetrError(
            f"{root}: no images (.jpg, .png) to calibrate with; give a data set of the nuScenes format"
        )
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    bar = tqdm(chosen, desc="calibration images", unit="image", disable=None)
    return torch.cat([_read(path, config) for path in bar])


def quantise_encoder(folder: Path, images_N3HW: Tensor) -> None:
    """Write `encoder_int8.onnx` beside `encoder.onnx`."""
    require_quantiser()
    # NNCF's notes and bars are about its own workings.
    os.environ.setdefault("NNCF_DISABLE_TELEMETRY", "1")
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    model = onnx.load(folder / f"{ENCODER}.onnx")
    name = model.graph.input[0].name
    dataset = nncf.Dataset([{name: image[None].numpy()} for image in images_N3HW])
    quantised = nncf.quantize(model, dataset, subset_size=len(images_N3HW))
    onnx.save(quantised, folder / f"{ENCODER_INT8}.onnx")


def _read(path: Path, config: ModelConfig) -> Tensor:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise StreampetrError(f"{path}: a damaged image; remove it or unpack it again")
    pixels = resize_crop_exact(image, plan_resize(image.shape[1], image.shape[0], config))
    return normalise(torch.from_numpy(pixels)[None], config)
