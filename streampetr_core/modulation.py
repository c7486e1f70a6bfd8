"""Motion-aware layer normalisation: a norm whose scale and shift follow from a condition (paper section 3.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-5


class ModulatedLayerNorm(nn.Module):
    """gamma(condition) * LayerNorm(x) + beta(condition); starts as a plain layer norm."""

    def __init__(self, condition_channels: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(condition_channels, channels)
        self.gamma = nn.Linear(channels, channels)
        self.beta = nn.Linear(channels, channels)
        for linear, bias in ((self.gamma, 1.0), (self.beta, 0.0)):
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, bias)

    def scale_and_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Map conditions (..., condition_channels) to gamma and beta, each (..., channels)."""
        hidden = F.relu(self.reduce(condition))
        return self.gamma(hidden), self.beta(hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise `x` (..., channels) under `condition` (..., condition_channels)."""
        return modulate(x, *self.scale_and_shift(condition))


def modulate(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalise the last axis of `x`, then scale by `gamma` and shift by `beta`."""
    return gamma * F.layer_norm(x, x.shape[-1:], eps=_EPSILON) + beta
