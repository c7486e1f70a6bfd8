"""The yardstick: a forward in the style of the official code, on the same weights.

Written from the behaviour of the official code, for measurements only. It runs in eager float32 with images in NCHW and
batch norm by itself, softmax attention through PyTorch's standard module with its weights written out (what the
official code does where flash-attn is not), geometry and learned queries in every frame, and the class and box branches
of all layers. Where the official code is wasteful in ways of its own (a 4x4 matrix repeated for every depth of every
token, poses carried in the global frame) it gets our cheaper form: the ratios err on the low side.
"""

import torch
from torch import Tensor, nn

from streampetr_core.attention import MultiheadAttention
from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory


class _WrittenOutAttention(nn.Module):
    """PyTorch's multi-head attention, sequence first, with averaged weights as a by-product; weights are shared."""

    def __init__(self, own: MultiheadAttention, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, own.num_heads)
        self.attention.load_state_dict(own.state_dict())

    def forward(self, query_BQC: Tensor, key_BSC: Tensor, value_BSC: Tensor, allowed: Tensor | None = None) -> Tensor:
        query, key, value = (x.transpose(0, 1) for x in (query_BQC, key_BSC, value_BSC))
        return self.attention(query, key, value)[0].transpose(0, 1)


class OfficialStyle:
    """Runs a checkpoint as the official code would; all cameras must be there."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.config, self.device = checkpoint.config, device
        self.description = f"official-style eager fp32 on {device}"
        detector = checkpoint.detector().requires_grad_(False)
        for layer in detector.decoder.layers:
            layer.self_attention = _WrittenOutAttention(layer.self_attention, self.config.channels)
            layer.cross_attention = _WrittenOutAttention(layer.cross_attention, self.config.channels)
        self._detector = detector.eval().to(device)

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        return self._detector.fresh_memory()

    @torch.no_grad()
    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame."""
        return self._detector.step(frame.to(self.device), memory)
