"""The image path alone: six JPEGs of 1600x900 in memory to the network's input tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from streampetr_core.benchmarks.scene import noise_images
from streampetr_core.benchmarks.timing import time_in_turn
from streampetr_core.config import ModelConfig
from streampetr_core.image_path import PATHS, ImageSetPath
from streampetr_core.preprocess import plan_resize

OFFICIAL = "official-style"
_WIDTH, _HEIGHT, _CAMERAS, _QUALITY = 1600, 900, 6, 90
_MEAN, _CONTRAST = 110.0, 20.0  # grey levels


def bench_images(config: ModelConfig, rounds: int, threads: int = 2) -> dict[str, Any]:
    """Return times of every way, ratios to the official style and differences to it in grey levels."""
    images = street_like_jpegs()
    names = [f"camera {number}" for number in range(len(images))]
    calls: dict[str, Callable[[], object]] = {OFFICIAL: lambda: _official_style(images, config)}
    calls |= {name: _caller(ImageSetPath(config, name, threads), images, names) for name in PATHS}
    expected = calls[OFFICIAL]()
    std_3 = torch.tensor(config.pixel_std).view(3, 1, 1)
    differences = {name: ((call() - expected) * std_3).abs() for name, call in calls.items()}
    times = time_in_turn(calls, rounds)
    yardstick = times[OFFICIAL].summary()
    rows = {}
    for name, own in times.items():
        summary = own.summary()
        ratios = {
            f"{clock}_ratio": round(yardstick[f"{clock}_ms"] / summary[f"{clock}_ms"], 2) for clock in ("cpu", "wall")
        }
        errors = {
            "max_error_levels": round(float(differences[name].max()), 3),
            "mean_error_levels": round(float(differences[name].mean()), 4),
        }
        rows[name] = {**summary, **ratios, **errors}
    return {
        "timed": f"{_CAMERAS} JPEGs of {_WIDTH}x{_HEIGHT} in memory to a normalised float32 tensor; noise images",
        "input": f"{config.input_width}x{config.input_height}",
        "kilobytes": round(sum(map(len, images)) / 1000 / len(images), 1),
        "threads_of_ours": threads,
        "variants": rows,
    }


def _caller(path: ImageSetPath, images: Sequence[bytes], names: Sequence[str]) -> Callable[[], Tensor]:
    return lambda: path.from_encoded(images, names)[0]


def _official_style(images: Sequence[bytes], config: ModelConfig) -> Tensor:
    """Do what the official pipeline does, image by image: decode, to float and back, resize, crop, normalise."""
    mean, std = (np.array(values, np.float64).reshape(1, -1) for values in (config.pixel_mean, config.pixel_std))
    planes = []
    for data in images:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(np.float32)
        plan = plan_resize(pixels.shape[1], pixels.shape[0], config)
        resized = Image.fromarray(np.uint8(pixels)).resize(
            (plan.resized_width, plan.resized_height), Image.Resampling.BICUBIC
        )
        kept = np.array(resized.crop((plan.left, plan.top, plan.left + plan.width, plan.top + plan.height)), np.float32)
        kept = cv2.cvtColor(kept, cv2.COLOR_BGR2RGB) if config.channel_order == "rgb" else kept
        cv2.subtract(kept, mean, kept)
        cv2.multiply(kept, 1 / std, kept)
        planes.append(kept.transpose(2, 0, 1))
    return torch.from_numpy(np.ascontiguousarray(np.stack(planes)))


def street_like_jpegs() -> list[bytes]:
    """Return JPEGs of noise whose size is that of street scenes: about 140 kilobytes."""
    generator = torch.Generator().manual_seed(0)
    smooth = noise_images((_CAMERAS, 3, _HEIGHT // 16, _WIDTH // 16), generator)
    images = (_MEAN + _CONTRAST * smooth).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [_encode(cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)) for image in images]


def _encode(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
