"""The auxiliary 2D head: trains the image features to see objects; the detector at work does without it.

Focal-PETR (arXiv 2212.05505). Its weights stand under `aux_head.` in checkpoints, under their official names.
I images, h and w feature map size, T = h w tokens of an image (row by row), S classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.position import inverse_sigmoid
from training.losses.functions import corners_to_centre

NORM_GROUPS = 32
_PRIOR_PROBABILITY = 0.01  # what an untrained class branch should answer (arXiv 1708.02002, section 4.1)


@dataclass(frozen=True)
class AuxPredictions:
    """One object hypothesis for each token; lengths are fractions of the image's width and height."""

    class_logits_ITS: Tensor
    boxes_IT4: Tensor  # centre x, y, width, height
    centres_IT2: Tensor  # projected 3D centres
    centreness_Ihw: Tensor  # logits of a heatmap of projected 3D centres


class AuxHead(nn.Module):
    """Two small branches on the image features: what is there, and where."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.shared_cls, self.shared_reg = (
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(NORM_GROUPS, channels), nn.ReLU())
            for _ in range(2)
        )
        self.cls = nn.Conv2d(channels, len(config.class_names), 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        self.ltrb = nn.Conv2d(channels, 4, 1)
        self.center2d = nn.Conv2d(channels, 2, 1)
        for branch in (self.cls, self.centerness):
            start_as_background(branch)

    def forward(self, features_IChw: Tensor) -> AuxPredictions:
        """Predict from the feature maps of I images."""
        what, where = self.shared_cls(features_IChw), self.shared_reg(features_IChw)
        location_T2 = _cell_centres(*features_IChw.shape[-2:], features_IChw.device)
        sides_IT4 = _tokens(self.ltrb(where)).sigmoid()
        corners_IT4 = torch.cat([location_T2 - sides_IT4[..., :2], location_T2 + sides_IT4[..., 2:]], dim=-1)
        return AuxPredictions(
            _tokens(self.cls(what)),
            corners_to_centre(corners_IT4.clamp(0.0, 1.0)),
            (inverse_sigmoid(location_T2) + _tokens(self.center2d(where))).sigmoid(),
            self.centerness(what)[:, 0],
        )


def start_as_background(branch: nn.Conv2d) -> None:
    """Let a branch of class logits answer 'nothing' nearly everywhere at first."""
    nn.init.constant_(branch.bias, -math.log((1 - _PRIOR_PROBABILITY) / _PRIOR_PROBABILITY))


def _tokens(maps_IChw: Tensor) -> Tensor:
    return maps_IChw.flatten(2).transpose(1, 2)


def _cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return (T, 2): x and y of the centre of every cell, as fractions of the map's size."""
    y, x = ((torch.arange(size, device=device) + 0.5) / size for size in (height, width))
    y_grid, x_grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x_grid, y_grid], dim=-1).flatten(0, 1)
