"""The reference: the detector as it stands, in eager float32. Every back-end is compared with it."""

import torch

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.runtime.devices import choose_device


class TorchRuntime:
    """PyTorch, eager, float32, nothing folded or cached, on the CPU or one GPU; any batch."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.config = checkpoint.config
        self.device = choose_device(device)
        self.description = f"reference fp32 on {self.device}"
        self._detector = checkpoint.detector().requires_grad_(False).to(self.device)

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        return self._detector.fresh_memory()

    @torch.inference_mode()
    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; the frame may live on any device, the results live on the runtime's."""
        return self._detector.step(frame.to(self.device), memory)
