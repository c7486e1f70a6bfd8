"""OpenVINO as an engine, for CPUs: fp32, bf16, or an int8 image encoder with a bf16 decoder.

The stages are converted from PyTorch once and kept (see `engine_files`), or read from an exported folder. The number of
cameras and of scenes is free in both.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.position import Geometry
from streampetr_core.queries import Queries
from streampetr_core.runtime.devices import require_cpu
from streampetr_core.runtime.engine_files import (
    DECODER,
    ENCODER,
    ENCODER_INT8,
    cached_engines,
    engine_file,
    given_engines,
)
from streampetr_core.runtime.openvino_temporal import TEMPORAL, UPDATE, OpenVinoTemporal, convert_temporal
from streampetr_core.runtime.stages import Encoder, LastLayerDecoder, decoder_arguments, example_arguments

PRECISIONS = ("fp32", "bf16", "int8")


class OpenVinoEngine:
    """Both stages compiled by OpenVINO for this CPU, with as many threads as PyTorch has."""

    dtype = torch.float32
    encodes_singly = True

    def __init__(self, checkpoint: Checkpoint, precision: str, device: torch.device, engines: Path | None) -> None:
        openvino = require_openvino()
        require_cpu(device, "openvino")
        core = shared_core()
        decoder_precision = _check_precision(core, precision)
        self.arithmetic = torch.bfloat16 if decoder_precision == "bf16" else torch.float32
        tool = f"openvino-{openvino.get_version()[:9]}"
        engines, suffix = given_engines(engines, checkpoint, precision), "onnx"
        if engines is None:
            suffix = "xml"
            engines = cached_engines(checkpoint, tool, lambda folder: convert(checkpoint, folder))
        self.device = device
        self.description = f"OpenVINO {precision} on {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
        encoder = ENCODER_INT8 if precision == "int8" else ENCODER
        self._encoder = _compile(core, engine_file(engines, f"{encoder}.{suffix}"), decoder_precision)
        decoder = engine_file(engines, f"{DECODER}.{suffix}")
        self._decoder = _AnyShapes(
            _compile(core, decoder, decoder_precision), core.read_model(decoder), decoder_precision
        )
        around = cached_engines(
            checkpoint, f"{tool}-temporal", lambda folder: convert_temporal(checkpoint, folder, openvino)
        )
        self.temporal = OpenVinoTemporal(
            bool(checkpoint.config.num_proposals),
            (core.read_model(around / f"{TEMPORAL}.xml"), core.read_model(around / f"{UPDATE}.xml")),
            # They are too small to be shared out: a second thread saves a millisecond and takes two.
            lambda model, inputs: _compile_for_shapes(model, inputs, settings("f32", threads=1)),
        )

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to float32 features (N, C, h, w)."""
        return self._encoder((images_N3HW,))[0]

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C)."""
        return self._decoder(decoder_arguments(features_BNChw, geometry, queries))


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


def convert(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both stages in float32 as OpenVINO's IR files into `folder`; takes seconds."""
    openvino = require_openvino()
    detector = checkpoint.detector().requires_grad_(False)
    images, decoder_inputs = example_arguments(detector)
    size = images.shape[1:]
    with torch.no_grad():
        encoder = openvino.convert_model(
            Encoder(detector).eval(), example_input=images, input=openvino.PartialShape([-1, *size])
        )
        decoder = openvino.convert_model(LastLayerDecoder(detector).eval(), example_input=decoder_inputs)
    openvino.save_model(encoder, folder / f"{ENCODER}.xml", compress_to_fp16=False)
    openvino.save_model(decoder, folder / f"{DECODER}.xml", compress_to_fp16=False)


class Compiled:
    """A compiled model as a function of tensors.

    OpenVINO's own way of calling one spends a tenth of a millisecond on finding out what the inputs are.
    """

    def __init__(self, model: Any) -> None:
        self._tensor = require_openvino().Tensor
        self._request, self._num_results = model.create_infer_request(), len(model.outputs)

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the results, in order."""
        arrays = [x.contiguous().numpy() for x in tensors]
        for index, array in enumerate(arrays):
            self._request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        self._request.infer()
        # Copies: the next inference overwrites results.
        results = (self._request.get_output_tensor(index) for index in range(self._num_results))
        return [torch.from_numpy(result.data.copy()) for result in results]


def _check_precision(core: Any, precision: str) -> str:
    """Return OpenVINO's name of the type for everything that is not quantised."""
    if precision not in PRECISIONS:
        raise StreampetrError(f"OpenVINO runs {', '.join(PRECISIONS)} here, not precision '{precision}'")
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise StreampetrError("precision 'bf16': this CPU has no instructions for it; use fp32 or int8")
    return "f32" if precision == "fp32" or not has_bf16 else "bf16"


def _compile(core: Any, path: Path, precision: str) -> Compiled:
    try:
        return Compiled(core.compile_model(str(path), "CPU", settings(precision)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StreampetrError(f"{path}: OpenVINO cannot load it ({reason}); delete it or export it again") from error


class _AnyShapes:
    """A compiled model for any shapes, and one for the largest that have come, all cameras': a tenth faster."""

    def __init__(self, for_all: Compiled, model: Any, precision: str) -> None:
        self._for_all, self._model, self._precision = for_all, model, precision
        self._for_largest, self._largest = None, [torch.Size()]

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        shapes = [tensor.shape for tensor in tensors]
        if shapes[0] > self._largest[0]:
            self._for_largest = _compile_for_shapes(self._model, tensors, settings(self._precision))
            self._largest = shapes
        return (self._for_largest if shapes == self._largest else self._for_all)(tensors)[0]


def _compile_for_shapes(model: Any, inputs: Sequence[Tensor], config: dict[str, Any]) -> Compiled:
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
