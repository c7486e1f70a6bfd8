"""ONNX Runtime as an engine: any CPU, and NVIDIA GPUs through its CUDA or TensorRT provider where that is installed.

The stages are exported from PyTorch once and kept (see `engine_files`), or read from an exported folder.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.position import Geometry
from streampetr_core.queries import Queries
from streampetr_core.runtime.engine_files import (
    DECODER,
    ENCODER,
    ENCODER_INT8,
    cached_engines,
    engine_file,
    given_engines,
)
from streampetr_core.runtime.onnx_export import export_runtime_stages, require_exporter
from streampetr_core.runtime.stages import decoder_arguments

PRECISIONS = ("fp32", "int8")
_GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")


class OnnxEngine:
    """Both stages in ONNX Runtime; tensors pass through the host."""

    dtype = arithmetic = torch.float32
    encodes_singly = False  # not measured
    temporal = None

    def __init__(self, checkpoint: Checkpoint, precision: str, device: torch.device, engines: Path | None) -> None:
        onnxruntime = require_onnxruntime()
        if precision not in PRECISIONS:
            raise StreampetrError(f"ONNX Runtime runs {', '.join(PRECISIONS)} here, not precision '{precision}'")
        providers = _providers(onnxruntime, device)
        engines = given_engines(engines, checkpoint, precision)
        if engines is None:
            require_exporter("runtime 'onnxruntime'")
            engines = cached_engines(
                checkpoint, f"onnx-torch{torch.__version__}", lambda folder: export_runtime_stages(checkpoint, folder)
            )
        self.device = torch.device("cpu")  # of the tensors; where the kernels run, the provider decides
        self.description = f"ONNX Runtime {precision} by {providers[0].removesuffix('ExecutionProvider')}"
        encoder = ENCODER_INT8 if precision == "int8" else ENCODER
        self._encoder = _open(onnxruntime, engine_file(engines, f"{encoder}.onnx"), providers)
        self._decoder = _open(onnxruntime, engine_file(engines, f"{DECODER}.onnx"), providers)

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to float32 features (N, C, h, w)."""
        return _infer(self._encoder, (images_N3HW,))

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C)."""
        return _infer(self._decoder, decoder_arguments(features_BNChw, geometry, queries))


def require_onnxruntime() -> Any:
    """Return the package; raises StreampetrError with the remedy where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise StreampetrError(
            f"runtime 'onnxruntime' is not installed ({error}); pip install 'streampetr_ros[runtime]'"
        ) from error
    return onnxruntime


def _providers(onnxruntime: Any, device: torch.device) -> list[str]:
    """Return the execution providers, best first, that serve the device."""
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    found = [name for name in _GPU_PROVIDERS if name in onnxruntime.get_available_providers()]
    if not found:
        raise StreampetrError(
            f"this ONNX Runtime has no provider for '{device}'; install onnxruntime-gpu, or use device cpu"
        )
    return [*found, "CPUExecutionProvider"]


def _open(onnxruntime: Any, path: Path, providers: list[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between two calls would take the cores from everything else in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise StreampetrError(f"{path}: ONNX Runtime cannot load it ({reason}); export it again") from error


def _infer(session: Any, tensors: tuple[Tensor, ...]) -> Tensor:
    names = [node.name for node in session.get_inputs()]
    feed = {name: x.contiguous().numpy() for name, x in zip(names, tensors, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])
