"""What the OpenVINO engine and its stages share: the one core of a process, and models as functions of tensors."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streampetr_core.errors import StreampetrError


def require_openvino() -> Any:
    """Return the package; raises StreampetrError with the remedy where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise StreampetrError(
            f"runtime 'openvino' is not installed ({error}); pip install 'streampetr_ros[runtime]'"
        ) from error
    return openvino


@cache
def shared_core() -> Any:
    """Return OpenVINO's core, of which a process must not have two.

    Its CPU plugin gives the thread that starts it a signal stack. When the earlier of two goes, the stack that the
    later one will put back is freed, and the next signal, of a child process that ended for one, is a segmentation
    fault.
    """
    return require_openvino().Core()


class Compiled:
    """A compiled model as a function of tensors.

    OpenVINO's own way of calling one spends a tenth of a millisecond on finding out what the inputs are.
    """

    def __init__(self, model: Any) -> None:
        self._tensor = require_openvino().Tensor
        self.request, self._num_results = model.create_infer_request(), len(model.outputs)

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the results, in order."""
        arrays = [x.contiguous().numpy() for x in tensors]
        for index, array in enumerate(arrays):
            self.request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        self.request.infer()
        # Copies: the next inference overwrites results.
        results = (self.request.get_output_tensor(index) for index in range(self._num_results))
        return [torch.from_numpy(result.data.copy()) for result in results]


def compile_file(path: Path, precision: str) -> Compiled:
    """Compile a file for inputs of any shapes.

    Raises:
        StreampetrError: the file is damaged.
    """
    try:
        return Compiled(shared_core().compile_model(str(path), "CPU", settings(precision)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StreampetrError(f"{path}: OpenVINO cannot load it ({reason}); delete it or export it again") from error


def compile_for(model: Any, inputs: Sequence[Tensor], config: dict[str, Any]) -> Compiled:
    """Compile a model as read for inputs of these shapes."""
    model.reshape({node: list(tensor.shape) for node, tensor in zip(model.inputs, inputs, strict=True)})
    return Compiled(shared_core().compile_model(model, "CPU", config))


def settings(precision: str, threads: int | None = None) -> dict[str, Any]:
    """Return how models are compiled; `precision` is OpenVINO's name of a type. Threads: None for PyTorch's number."""
    import openvino.properties as properties
    import openvino.properties.hint as hint

    return {
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: precision,
        properties.inference_num_threads: threads or torch.get_num_threads(),
    }
