"""A model small enough for a test of a second, and scenes for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.detector import Detector
from streampetr_core.frame import Frame
from training.losses.aux_head import AuxHead
from training.losses.config import LossConfig
from training.losses.forward import TrainingModel
from training.truth import CameraTruth, Truth

CONFIG = ModelConfig(
    name="tiny",
    backbone="resnet18",
    input_height=64,
    input_width=96,
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(1.0, 1.0, 1.0),
    channel_order="rgb",
    num_learned=12,
    num_propagated=4,
    memory_length=8,
    num_admitted=4,
    channels=32,
    num_layers=2,
    num_heads=4,
    ffn_channels=64,
    position_hidden_channels=32,
    dropout=0.0,
)


def model(loss: LossConfig | None = None, seed: int = 0, **keywords) -> TrainingModel:
    """Return an untrained model; `keywords` go to `TrainingModel`."""
    torch.manual_seed(seed)
    return TrainingModel(Detector(CONFIG), AuxHead(CONFIG), loss or LossConfig(), **keywords)


def frame(samples: int = 2, cameras: int = 3, seed: int = 0, present_BN: Tensor | None = None) -> Frame:
    """Return a frame of noise; the cameras look along x of ref and turn about z one after the other."""
    random = torch.Generator().manual_seed(seed)
    intrinsics = torch.tensor([[60.0, 0.0, 48.0], [0.0, 60.0, 32.0], [0.0, 0.0, 1.0]])
    matrices = []
    for angle in torch.arange(cameras) * (2 * torch.pi / cameras):
        cos, sin = angle.cos(), angle.sin()
        img_P_ref = torch.eye(4)
        img_P_ref[:3, :3] = intrinsics @ torch.stack(
            [torch.stack([sin, -cos, 0 * cos]), torch.tensor([0.0, 0.0, -1.0]), torch.stack([cos, sin, 0 * cos])]
        )
        matrices.append(img_P_ref)
    return Frame(
        torch.randn(samples, cameras, 3, CONFIG.input_height, CONFIG.input_width, generator=random),
        intrinsics.expand(samples, cameras, 3, 3),
        torch.stack(matrices).expand(samples, cameras, 4, 4),
        torch.eye(4).expand(samples, 4, 4),
        torch.full((samples,), 0.5),
        torch.zeros(samples, dtype=torch.bool),
        present_BN,
    )


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
