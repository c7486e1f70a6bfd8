"""PyTorch as an engine: batch norm folded, channels last where that is faster; eager or compiled."""

import os
import shutil

import torch
from torch import Tensor

from streampetr_core.detector import Detector
from streampetr_core.errors import StreampetrError
from streampetr_core.position import Geometry
from streampetr_core.queries import Queries
from streampetr_core.runtime.stages import decoder_arguments, folded_encoder, lean_decoder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Eager PyTorch on one device, or with `compiled` TorchInductor's kernels, built at the first step."""

    encodes_singly = False  # single images take half as much time again on a CPU, and leave a GPU idle
    temporal = None

    def __init__(self, detector: Detector, precision: str, device: torch.device, compiled: bool = False) -> None:
        self.device, self.dtype = device, torch_dtype(precision, device)
        self.arithmetic = self.dtype
        kind = "torch.compile" if compiled else "torch"
        self.description = f"{kind} {precision} on {device}"
        self._encoder = folded_encoder(detector).to(device, self.dtype, memory_format=torch.channels_last)
        self._decoder = lean_decoder(detector).to(device, self.dtype)
        if compiled:
            _require_compiler(device)
            self._encoder.compile(dynamic=False)
            self._decoder.compile(dynamic=False)

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to features (N, C, h, w) in the engine's type."""
        return self._encoder(images_N3HW.to(self.dtype, memory_format=torch.channels_last))

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C)."""
        return self._decoder(*decoder_arguments(features_BNChw, geometry, queries)).float()


def torch_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type behind a precision; raises StreampetrError where PyTorch would be slow or unable."""
    if precision not in DTYPES:
        raise StreampetrError(f"PyTorch runs {', '.join(DTYPES)} here, not precision '{precision}'")
    if precision == "fp16" and device.type == "cpu":
        raise StreampetrError("precision 'fp16' is many times slower than fp32 on a CPU; use bf16 or fp32")
    return DTYPES[precision]


def _require_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise StreampetrError(f"runtime 'torch_compile' needs a C++ compiler, and there is no {compiler}; install g++")
