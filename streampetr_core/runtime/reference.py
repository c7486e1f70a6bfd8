"""The reference: the detector as it stands, in eager float32. Every back-end is compared with it."""

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.runtime.devices import choose_device


class TorchRuntime:
    """PyTorch, eager, float32, nothing folded or cached, on the CPU or one GPU; any batch."""

    encodes_singly = False  # the evaluation encodes all cameras at once, and this runtime is there to equal it

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.config = checkpoint.config
        self.device = choose_device(device)
        self.description = f"reference fp32 on {self.device}"
        self._detector = checkpoint.detector().requires_grad_(False).to(self.device)

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        return self._detector.fresh_memory()

    @torch.inference_mode()
    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to features (N, C, h, w)."""
        # In the layout in which `preprocess.normalise` leaves them for the evaluation: another one rounds otherwise.
        images_N3HW = images_N3HW.to(self.device, memory_format=torch.channels_last)
        return self._detector.encode(images_N3HW[None])[0]

    @torch.inference_mode()
    def detect(self, features_NChw: Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame whose cameras have been encoded; see `Runtime.detect`."""
        features_BNChw = features_NChw.new_zeros(*frame.img_P_ref_BN44.shape[:2], *features_NChw.shape[1:])
        present_BN = torch.ones(features_BNChw.shape[:2], dtype=torch.bool)
        features_BNChw[present_BN if frame.present_BN is None else frame.present_BN] = features_NChw
        return self._detector.detect(features_BNChw, frame.to(self.device), memory)

    @torch.inference_mode()
    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; the frame may live on any device, the results live on the runtime's."""
        return self._detector.step(frame.to(self.device), memory)
