"""VoVNetV2-99 with effective squeeze-excitation; feature maps of stride 16 and 32.

Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020 (one-shot aggregation with eSE).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONVS_PER_BLOCK = 5
_STAGES = (  # convolution channels, output channels, blocks
    (128, 256, 1),
    (160, 512, 3),
    (192, 768, 9),
    (224, 1024, 3),
)


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return F.relu(self.norm(self.conv(x)))


class SqueezeExcitation(nn.Module):
    """Effective squeeze-excitation: channels are scaled by a hard sigmoid of their global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return x * F.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


class AggregationBlock(nn.Module):
    """One-shot aggregation: the input and the outputs of five convolutions are concatenated and mixed once."""

    def __init__(self, in_channels: int, conv_channels: int, out_channels: int, has_shortcut: bool) -> None:
        super().__init__()
        inputs = (in_channels, *[conv_channels] * (_CONVS_PER_BLOCK - 1))
        self.layers = nn.ModuleList(ConvNormRelu(channels, conv_channels, 3) for channels in inputs)
        self.concat = ConvNormRelu(in_channels + _CONVS_PER_BLOCK * conv_channels, out_channels, 1)
        self.ese = SqueezeExcitation(out_channels)
        self.has_shortcut = has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        out = self.ese(self.concat(torch.cat(outputs, dim=1)))
        return out + x if self.has_shortcut else out


class VoVNet(nn.Module):
    """V2-99: a stem of three convolutions and four stages; stages 3 to 5 halve the size by max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNormRelu(3, 64, 3, 2), ConvNormRelu(64, 64, 3), ConvNormRelu(64, 128, 3, 2))
        in_widths = (128, *(out_channels for _, out_channels, _ in _STAGES))
        self.stage2, self.stage3, self.stage4, self.stage5 = (
            _stage(in_channels, *stage) for in_channels, stage in zip(in_widths, _STAGES, strict=False)
        )
        self.out_channels = in_widths[3:]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 3, H, W) to features of stride 16 (768 channels) and of stride 32 (1024 channels)."""
        x = self.stage2(self.stem(images))
        x = self.stage3(_halve(x))
        stride16 = self.stage4(_halve(x))
        return stride16, self.stage5(_halve(stride16))


def _stage(in_channels: int, conv_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    first = AggregationBlock(in_channels, conv_channels, out_channels, has_shortcut=False)
    rest = [AggregationBlock(out_channels, conv_channels, out_channels, has_shortcut=True) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
