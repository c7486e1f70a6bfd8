"""CPFPN: a feature pyramid of two levels of which the detector uses the finer one."""

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Fuses features of stride 16 and 32 into one map of stride 16; no norm, no activation."""

    def __init__(self, in_channels: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.lateral_stride16 = nn.Conv2d(in_channels[0], channels, 1)
        self.lateral_stride32 = nn.Conv2d(in_channels[1], channels, 1)
        self.output = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.lateral_stride16, self.lateral_stride32, self.output):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, stride16: Tensor, stride32: Tensor) -> Tensor:
        """Map backbone features of both strides to (N, channels, H / 16, W / 16)."""
        fine = self.lateral_stride16(stride16)
        coarse = F.interpolate(self.lateral_stride32(stride32), size=fine.shape[-2:], mode="nearest")
        return self.output(fine + coarse)
