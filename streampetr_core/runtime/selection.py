"""Opening a runtime: the back-end that is asked for, or the best that is there, with the reason."""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.base import Engine, EngineRuntime
from streampetr_core.runtime.cuda_graph import CudaGraphEngine
from streampetr_core.runtime.devices import choose_device
from streampetr_core.runtime.onnx_engine import OnnxEngine
from streampetr_core.runtime.openvino_engine import OpenVinoEngine
from streampetr_core.runtime.reference import TorchRuntime
from streampetr_core.runtime.torch_engine import TorchEngine

BACKENDS = ("auto", "torch", "torch_compile", "cuda_graph", "openvino", "onnxruntime")
REFERENCE = "reference"  # what evaluation and parity run; not a back-end to be fast with
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
# What `auto` tries, best first; the reason is what the user is told. ONNX Runtime is asked for by name: on CPUs it is
# slower than OpenVINO, on GPUs its tensors pass through the host.
_BEST_ON = {
    "cuda": (("cuda_graph", "fastest on an NVIDIA GPU"), ("torch", "runs on every GPU")),
    "cpu": (("openvino", "fastest on a CPU"), ("torch", "runs on every CPU")),
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuntimeOptions:
    """Which back-end runs a checkpoint, and how."""

    backend: str = "auto"  # one of BACKENDS, or REFERENCE
    precision: str = "fp32"  # one of PRECISIONS; int8: int8 image encoder, bf16 decoder where the CPU has it
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    engines: Path | None = None  # a folder that `streampetr export` wrote; None: converted when needed, and kept


def open_runtime(checkpoint: Checkpoint, options: RuntimeOptions | None = None) -> EngineRuntime | TorchRuntime:
    """Open a runtime; its `description` says which back-end runs and, for "auto", why.

    With "auto" a back-end that cannot run here is passed over with a warning in the log.

    Raises:
        StreampetrError: the back-end is not installed, cannot run in this precision or on this device, or the exported
            engines are missing, damaged or made from another checkpoint.
    """
    options = options or RuntimeOptions()
    _check_choice("runtime", options.backend, (*BACKENDS, REFERENCE))
    _check_choice("precision", options.precision, PRECISIONS)
    if options.backend == REFERENCE:
        _check_choice(f"precision of runtime '{REFERENCE}'", options.precision, PRECISIONS[:1])
        return TorchRuntime(checkpoint, options.device)
    device = choose_device(options.device)
    if options.backend != "auto":
        return EngineRuntime(checkpoint, _open_engine(options.backend, checkpoint, options, device))
    passed_over = []
    for backend, reason in _BEST_ON[device.type]:
        try:
            runtime = EngineRuntime(checkpoint, _open_engine(backend, checkpoint, options, device))
        except StreampetrError as error:
            passed_over.append(str(error))
            continue
        for problem in passed_over:
            _logger.warning("auto: %s", problem)
        runtime.description += f" (auto: {reason}{' of those that are left' if passed_over else ''})"
        return runtime
    raise StreampetrError(f"no runtime can run precision '{options.precision}' here: {'; '.join(passed_over)}")


def installed_backends() -> list[str]:
    """Return the back-ends that may run on this machine, "auto" left out."""
    needs = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
    found = [name for name in BACKENDS[1:] if name not in needs or find_spec(needs[name]) is not None]
    return found if torch.cuda.is_available() else [name for name in found if name != "cuda_graph"]


def _open_engine(backend: str, checkpoint: Checkpoint, options: RuntimeOptions, device: torch.device) -> Engine:
    if backend == "openvino":
        return OpenVinoEngine(checkpoint, options.precision, device, options.engines)
    if backend == "onnxruntime":
        return OnnxEngine(checkpoint, options.precision, device, options.engines)
    try:
        detector = checkpoint.detector().requires_grad_(False)
        if backend == "cuda_graph":
            return CudaGraphEngine(detector, options.precision, device)
        return TorchEngine(detector, options.precision, device, compiled=backend == "torch_compile")
    except torch.cuda.OutOfMemoryError as error:
        raise StreampetrError(f"{device}: not enough memory for the model ({error}); free it, or use cpu") from error


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise StreampetrError(f"no {what} '{value}'; there are {', '.join(choices)}")
