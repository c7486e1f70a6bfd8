"""What the benchmarks are fed: image-like noise, a ring of six cameras, and a vehicle that drives on."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.frame import Frame
from streampetr_core.geometry import make_transform, projection

_FOCAL_LENGTH = 0.79  # of the image width: the nuScenes cameras' 1266 of 1600 pixels
_SPEED, _INTERVAL = 8.0, 0.5  # m/s, s


def noise_images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return images (..., H, W) of noise with as much detail at every scale, standard deviation 1."""
    height, width = shape[-2:]
    total, channels = torch.zeros(1, math.prod(shape[:-2]), height, width), math.prod(shape[:-2])
    for cell in (1, 4, 16, 64):
        small = torch.randn(1, channels, -(-height // cell), -(-width // cell), generator=generator)
        total += F.interpolate(small, size=(height, width), mode="bilinear")
    return (total / total.std()).reshape(shape)


def frames(config: ModelConfig, count: int, batch: int = 1, cameras: int = 6) -> list[Frame]:
    """Return consecutive frames of `batch` scenes; all but the first expect the memory of the one before."""
    generator = torch.Generator().manual_seed(0)
    intrinsics, projections = _ring(config, cameras)
    motion = torch.from_numpy(make_transform([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, -_SPEED * _INTERVAL, 0])).float()
    size = (config.input_height, config.input_width)
    return [
        Frame(
            images_BN3HW=noise_images((batch, cameras, 3, *size), generator),
            intrinsics_BN33=intrinsics.expand(batch, -1, -1, -1),
            img_P_ref_BN44=projections.expand(batch, -1, -1, -1),
            ref_T_prev_B44=motion.expand(batch, 4, 4),
            dt_B=torch.full((batch,), _INTERVAL),
            is_first_B=torch.full((batch,), number == 0),
        )
        for number in range(count)
    ]


def moved(frame: Frame, metres: float) -> Frame:
    """Return a frame whose cameras all look from elsewhere, as exposure-time geometry has it on a moving vehicle."""
    shift = torch.eye(4, dtype=frame.img_P_ref_BN44.dtype)
    shift[0, 3] = metres
    return replace(frame, img_P_ref_BN44=frame.img_P_ref_BN44 @ shift)


def _ring(config: ModelConfig, cameras: int) -> tuple[Tensor, Tensor]:
    """Return intrinsics (N, 3, 3) and img_P_ref (N, 4, 4) of cameras that look around in a ring."""
    focal = _FOCAL_LENGTH * config.input_width
    K = torch.tensor([[focal, 0, config.input_width / 2], [0, focal, config.input_height / 2], [0, 0, 1]])
    projections = []
    for camera in range(cameras):
        yaw = 2 * math.pi * camera / cameras
        c, s = math.cos(yaw), math.sin(yaw)
        # Optical frame (x right, y down, z forward) of a camera that looks along `yaw` in ref (z up), a metre out.
        cam_T_ref = make_transform([[s, -c, 0], [0, 0, -1], [c, s, 0]], [0, -0.3, -1])
        projections.append(torch.from_numpy(projection(K.numpy(), cam_T_ref)))
    return K.expand(cameras, 3, 3), torch.stack(projections)
