"""Running a checkpoint: one interface, `Runtime.step(frame, memory)`, for whatever executes the heavy stages."""

from typing import Protocol

import torch

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory


class Runtime(Protocol):
    """What the node and the evaluation need of a back-end."""

    config: ModelConfig

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        ...

    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; see `Detector.step`."""
        ...


class TorchRuntime:
    """PyTorch, eager, float32, on the CPU or one GPU."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.config = checkpoint.config
        self.device = _choose_device(device)
        self._detector = checkpoint.detector().requires_grad_(False).to(self.device)

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        return self._detector.fresh_memory()

    @torch.inference_mode()
    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; the frame may live on any device, the results live on the runtime's."""
        return self._detector.step(frame.to(self.device), memory)


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise StreampetrError(f"device '{name}' is none that PyTorch knows; use auto, cpu or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StreampetrError(f"device '{name}' was asked for, but PyTorch finds no CUDA GPU; use auto or cpu")
    return device
