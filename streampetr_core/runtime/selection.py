"""Opening a runtime: the back-end that is asked for, or the best that is there, with the reason."""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
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
_CAMERAS = 6
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
        return _open(options.backend, checkpoint, options, device)
    passed_over = []
    for backend, reason in _BEST_ON[device.type]:
        try:
            runtime = _open(backend, checkpoint, options, device)
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


def try_out(runtime: EngineRuntime) -> None:
    """Run one blank frame of six cameras, so that what a GPU lacks shows now.

    Raises:
        StreampetrError: out of memory, or a kernel that this GPU or driver cannot run.
    """
    config = runtime.config
    blank = Frame(
        images_BN3HW=torch.zeros(1, _CAMERAS, 3, config.input_height, config.input_width),
        intrinsics_BN33=torch.eye(3).expand(1, _CAMERAS, 3, 3),
        img_P_ref_BN44=torch.eye(4).expand(1, _CAMERAS, 4, 4),
        ref_T_prev_B44=torch.eye(4)[None],
        dt_B=torch.zeros(1),
        is_first_B=torch.ones(1, dtype=torch.bool),
    )
    try:
        runtime.step(blank, runtime.fresh_memory())
    except torch.cuda.OutOfMemoryError as error:
        raise StreampetrError(
            f"{runtime.description}: not enough GPU memory ({_first_line(error)}); end other programs there, use a "
            "smaller model, or device cpu"
        ) from error
    except RuntimeError as error:
        raise StreampetrError(f"{runtime.description}: cannot run here ({_first_line(error)})") from error


def _open(backend: str, checkpoint: Checkpoint, options: RuntimeOptions, device: torch.device) -> EngineRuntime:
    try:
        runtime = EngineRuntime(checkpoint, _engine(backend, checkpoint, options, device))
    except torch.cuda.OutOfMemoryError as error:
        raise StreampetrError(f"{device}: not enough memory for the model ({_first_line(error)})") from error
    if runtime.device.type == "cuda":
        try_out(runtime)
    return runtime


def _engine(backend: str, checkpoint: Checkpoint, options: RuntimeOptions, device: torch.device) -> Engine:
    if backend == "openvino":
        return OpenVinoEngine(checkpoint, options.precision, device, options.engines)
    if backend == "onnxruntime":
        return OnnxEngine(checkpoint, options.precision, device, options.engines)
    detector = checkpoint.detector().requires_grad_(False)
    if backend == "cuda_graph":
        return CudaGraphEngine(detector, options.precision, device)
    return TorchEngine(detector, options.precision, device, compiled=backend == "torch_compile")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise StreampetrError(f"no {what} '{value}'; there are {', '.join(choices)}")
