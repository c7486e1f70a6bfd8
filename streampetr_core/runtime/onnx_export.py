"""From the stages to ONNX files, with free numbers of cameras; used by the ONNX back-end and by `export`."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.engine_files import DECODER, ENCODER
from streampetr_core.runtime.stages import Encoder, LastLayerDecoder, example_arguments

OPSET = 18
GEOMETRY_NAMES = ("position", "gamma", "beta")
QUERY_NAMES = ("query_content", "query_position", "memory_content", "memory_position")


def require_exporter(who: str) -> None:
    """Raise StreampetrError with the remedy where what writes ONNX files is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise StreampetrError(
            f"{who} needs {' and '.join(missing)}; pip install 'streampetr_ros[runtime]', or give exported engines"
        )


def export_runtime_stages(checkpoint: Checkpoint, folder: Path) -> None:
    """Write image encoder and decoder in float32 into `folder`; takes seconds."""
    detector = checkpoint.detector().requires_grad_(False)
    images, decoder_inputs = example_arguments(detector)
    write_onnx(
        Encoder(detector), (images,), ["images"], ["features"], folder / f"{ENCODER}.onnx", {"images": {0: "cameras"}}
    )
    names = ["features", *GEOMETRY_NAMES, *QUERY_NAMES]
    free = {"features": {1: "cameras"}, **{name: {1: "tokens"} for name in GEOMETRY_NAMES}}
    write_onnx(LastLayerDecoder(detector), decoder_inputs, names, ["hidden"], folder / f"{DECODER}.onnx", free)


def write_onnx(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
    free_sizes: dict[str, dict[int, str]],
) -> None:
    """Write a module as one ONNX file; `free_sizes` names, by input and axis, the sizes that may vary."""
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis in free_sizes.get(name, {})} or None for name in input_names
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=shapes,
            verbose=False,
        )
        program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about its own workings from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
