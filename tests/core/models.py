"""Small random models and frames for tests of properties."""

import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.detector import Detector
from streampetr_core.frame import Frame
from streampetr_core.geometry import make_transform, projection

# Gains that spread the queries' scores, so that rounding does not change which of them enter the memory.
_GAINS = {"out_proj.weight": 3.0, "cross_attention.in_proj_weight": 2.0, "heads.classes.6.weight": 6.0}


def tiny_config(**changes) -> ModelConfig:
    """Return a configuration as small as the architecture allows."""
    values = {
        "name": "tiny",
        "backbone": "resnet18",
        "input_height": 32,
        "input_width": 64,
        "pixel_mean": (0.0, 0.0, 0.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "channel_order": "rgb",
        "num_learned": 12,
        "num_propagated": 4,
        "memory_length": 15,
        "num_admitted": 6,
        "channels": 32,
        "num_layers": 2,
        "num_heads": 4,
        "ffn_channels": 48,
        "position_hidden_channels": 24,
    }
    return ModelConfig(**{**values, **changes})


@torch.no_grad()
def lively_detector(config: ModelConfig, seed: int = 0) -> Detector:
    """Return a detector whose every weight matters: none is zero, as some of a fresh model are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector(config)
        for name, parameter in detector.named_parameters():
            noise = torch.randn_like(parameter)
            if name.endswith("reference_points"):
                continue
            if parameter.dim() > 1:
                gain = next((value for ending, value in _GAINS.items() if name.endswith(ending)), 1.0)
                parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(1 + 0.1 * noise)
    return detector.eval()


def rig(config: ModelConfig, num_cameras: int) -> tuple[Tensor, Tensor]:
    """Return intrinsics (N, 3, 3) and img_P_ref (N, 4, 4) of cameras that look around in a ring."""
    intrinsics, projections = [], []
    for camera in range(num_cameras):
        yaw = torch.tensor(2 * torch.pi * camera / num_cameras)
        focal = 40.0 + camera
        K = torch.tensor([[focal, 0, config.input_width / 2], [0, focal, config.input_height / 2], [0, 0, 1.0]])
        c, s = float(yaw.cos()), float(yaw.sin())
        # Optical frame (x right, y down, z forward) of a camera that looks along `yaw` in ref (z up).
        cam_T_ref = make_transform([[s, -c, 0], [0, 0, -1], [c, s, 0]], [0.1 * camera, 0.5, -0.3])
        intrinsics.append(K)
        projections.append(torch.from_numpy(projection(K.numpy(), cam_T_ref)).float())
    return torch.stack(intrinsics), torch.stack(projections)


def make_frame(config: ModelConfig, num_cameras: int = 3, batch: int = 1, seed: int = 0, **changes) -> Frame:
    """Return the first frame of a scene (or what `changes` say) with random images."""
    generator = torch.Generator().manual_seed(seed)
    intrinsics, projections = rig(config, num_cameras)
    values = {
        "images_BN3HW": torch.randn(
            batch, num_cameras, 3, config.input_height, config.input_width, generator=generator
        ),
        "intrinsics_BN33": intrinsics.expand(batch, -1, -1, -1),
        "img_P_ref_BN44": projections.expand(batch, -1, -1, -1),
        "ref_T_prev_B44": torch.eye(4).expand(batch, 4, 4),
        "dt_B": torch.zeros(batch),
        "is_first_B": torch.ones(batch, dtype=torch.bool),
    }
    return Frame(**{**values, **changes})
