"""How much work a frame is, so that times can be compared with what a machine can do at most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from streampetr_core.attention import MultiheadAttention
from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.runtime.stages import Encoder, LastLayerDecoder, decoder_arguments


@dataclass(frozen=True)
class Work:
    """What a frame takes that wastes nothing: geometry and learned queries kept, the last layer's branches only."""

    encoder_gflop: float  # a multiplication with an addition is two
    decoder_gflop: float
    others_gflop: float  # queries, proposals and branches, which stay in float32
    giganumbers: float  # that layers read and write: weights, inputs and outputs of each by itself


@torch.no_grad()
def work_of_a_frame(checkpoint: Checkpoint, frame: Frame) -> Work:
    """Count it, on the CPU."""
    detector = checkpoint.detector().eval()
    for module in detector.modules():
        if isinstance(module, MultiheadAttention):
            module.backend = "explicit"  # PyTorch doesn't count its fused attention on CPUs
    traffic = _Traffic(detector)
    memory = detector.fresh_memory(len(frame.dt_B))
    features_NChw, encoder = _counted(lambda: Encoder(detector)(frame.images_BN3HW.flatten(0, 1)))
    features_BNChw = features_NChw.unflatten(0, frame.images_BN3HW.shape[:2])
    prepared, before = _counted(lambda: detector.prepare(features_BNChw, frame, memory, detector.queries.learned()))
    arguments = decoder_arguments(features_BNChw, detector.geometry(frame), prepared.queries)
    hidden_BQC, decoder = _counted(lambda: LastLayerDecoder(detector)(*arguments))
    _, after = _counted(lambda: detector.conclude(hidden_BQC[None], prepared))
    return Work(encoder, decoder, before + after, traffic.numbers / 1e9)


def _counted(call: Callable[[], Any]) -> tuple[Any, float]:
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops() / 1e9


class _Traffic:
    """Counts the numbers that convolutions and linear layers read and write."""

    def __init__(self, model: nn.Module) -> None:
        self.numbers = 0
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.numbers += inputs[0].numel() + output.numel() + sum(x.numel() for x in module.parameters())
