"""OpenVINO as an engine, for CPUs: fp32, bf16, or an int8 image encoder with a bf16 decoder.

The stages are converted from PyTorch once and kept (see `engine_files`), or read from an exported folder. The number of
cameras and of scenes is free in both.
"""

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
from streampetr_core.runtime.openvino_models import compile_file, compile_for, require_openvino, settings, shared_core
from streampetr_core.runtime.openvino_temporal import OpenVinoTemporal, convert_temporal
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
        self._encoder = compile_file(engine_file(engines, f"{encoder}.{suffix}"), decoder_precision)
        self._decoder = _AnyShapes(engine_file(engines, f"{DECODER}.{suffix}"), decoder_precision)
        around = cached_engines(checkpoint, f"{tool}-temporal", lambda folder: convert_temporal(checkpoint, folder))
        self.temporal = OpenVinoTemporal(around, bool(checkpoint.config.num_proposals))

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to float32 features (N, C, h, w)."""
        return self._encoder((images_N3HW,))[0]

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C)."""
        return self._decoder(decoder_arguments(features_BNChw, geometry, queries))


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


def _check_precision(core: Any, precision: str) -> str:
    """Return OpenVINO's name of the type for everything that is not quantised."""
    if precision not in PRECISIONS:
        raise StreampetrError(f"OpenVINO runs {', '.join(PRECISIONS)} here, not precision '{precision}'")
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise StreampetrError("precision 'bf16': this CPU has no instructions for it; use fp32 or int8")
    return "f32" if precision == "fp32" or not has_bf16 else "bf16"


class _AnyShapes:
    """A compiled model for any shapes, and one for the largest that have come, all cameras': a tenth faster."""

    def __init__(self, path: Path, precision: str) -> None:
        self._for_all = compile_file(path, precision)
        self._model, self._precision = shared_core().read_model(path), precision
        self._for_largest, self._largest = None, [torch.Size()]

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        shapes = [tensor.shape for tensor in tensors]
        if shapes[0] > self._largest[0]:
            self._for_largest = compile_for(self._model, tensors, settings(self._precision))
            self._largest = shapes
        return (self._for_largest if shapes == self._largest else self._for_all)(tensors)[0]
