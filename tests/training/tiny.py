"""A model small enough for a test of a second, and scenes for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from streampetr_core.frame import Frame
from tests.core.models import lively_detector, make_frame, tiny_config
from training.losses.aux_head import AuxHead
from training.losses.config import LossConfig
from training.losses.forward import TrainingModel
from training.truth import CameraTruth, Truth

CONFIG = tiny_config(input_height=64, input_width=96, dropout=0.0)


def model(loss: LossConfig | None = None, seed: int = 0, **keywords) -> TrainingModel:
    """Return a model with random weights; `keywords` go to `TrainingModel`."""
    detector = lively_detector(CONFIG, seed)
    torch.manual_seed(seed)
    return TrainingModel(detector, AuxHead(CONFIG), loss or LossConfig(), **keywords)


def frame(samples: int = 2, cameras: int = 3, seed: int = 0, present_BN: Tensor | None = None) -> Frame:
    """Return a frame of noise, half a second after the one before."""
    continued = {"dt_B": torch.full((samples,), 0.5), "is_first_B": torch.zeros(samples, dtype=torch.bool)}
    return make_frame(CONFIG, cameras, samples, seed, present_BN=present_BN, **continued)


def truth(num_objects: int, cameras: int = 3, seed: int = 0) -> Truth:
    """Return a sample with objects around the vehicle, of which each camera shows the first two."""
    random = torch.Generator().manual_seed(seed)
    centres = (torch.rand(num_objects, 3, generator=random) - 0.5) * torch.tensor([60.0, 60.0, 2.0])
    sizes = 1.0 + 3.0 * torch.rand(num_objects, 3, generator=random)
    rest = torch.randn(num_objects, 3, generator=random)
    labels = torch.randint(len(CONFIG.class_names), (num_objects,), generator=random)
    return Truth(torch.cat([centres, sizes, rest], dim=1), labels, (camera_truth(min(num_objects, 2), seed),) * cameras)


def camera_truth(num_objects: int, seed: int = 0) -> CameraTruth:
    """Return objects in an image."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(num_objects, 2, generator=random) * torch.tensor([60.0, 40.0]) + 15.0
    labels = torch.randint(len(CONFIG.class_names), (num_objects,), generator=random)
    return CameraTruth(torch.cat([centres - 12.0, centres + 9.0], dim=1), labels, centres, torch.ones(num_objects))


def gradients(model: TrainingModel) -> dict[str, Tensor | None]:
    """Return the gradients of everything that learns."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def truths(*num_objects: int, cameras: int = 3) -> Sequence[Truth]:
    """Return samples with so many objects each."""
    return [truth(count, cameras, seed) for seed, count in enumerate(num_objects)]
