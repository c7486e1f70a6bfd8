"""From the stages to ONNX files, with free numbers of cameras; used by the ONNX back-end and by `export`."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.config import ModelConfig
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.engine_files import DECODER, ENCODER
from streampetr_core.runtime.stages import Encoder, LastLayerDecoder, example_arguments

OPSET = 18
_MOST_CAMERAS, _MOST_SCENES = 64, 64
GEOMETRY_NAMES = ("position", "gamma", "beta")
QUERY_NAMES = ("query_content", "query_position", "memory_content", "memory_position")


def require_exporter(who: str) -> None:
    """Raise StreampetrError with the remedy where what writes ONNX files is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise StreampetrError(
            f"{who} needs {' and '.join(missing)}; pip install 'streampetr_ros[runtime]', or give exported engines"
        )


def export_runtime_stages(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write image encoder and decoder, whose inputs and outputs are all of type `dtype`; takes seconds."""
    export_encoder(checkpoint, folder, dtype)
    export_decoder(checkpoint, folder, dtype)


def export_encoder(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `encoder.onnx`."""
    detector = checkpoint.detector().requires_grad_(False).to(dtype)
    images, _ = example_arguments(detector)
    cameras, _ = free_sizes(checkpoint.config)
    path = folder / f"{ENCODER}.onnx"
    write_onnx(Encoder(detector), (images.to(dtype),), ["images"], ["features"], path, {"images": {0: cameras}})


def export_decoder(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `decoder.onnx`."""
    detector = checkpoint.detector().requires_grad_(False).to(dtype)
    _, inputs = example_arguments(detector)
    names = ["features", *GEOMETRY_NAMES, *QUERY_NAMES]
    cameras, tokens = free_sizes(checkpoint.config)
    scenes = Dim("scenes", min=1, max=_MOST_SCENES)
    free = {
        "features": {0: scenes, 1: cameras},
        **{name: {0: scenes, 1: tokens} for name in GEOMETRY_NAMES},
        **{name: {0: scenes} for name in QUERY_NAMES},
    }
    arguments = tuple(x.to(dtype) for x in inputs)
    write_onnx(LastLayerDecoder(detector), arguments, names, ["hidden"], folder / f"{DECODER}.onnx", free)


def free_sizes(config: ModelConfig) -> tuple[Dim, Dim]:
    """Return the number of cameras and that of their tokens, as sizes that may vary."""
    cameras = Dim("cameras", min=1, max=_MOST_CAMERAS)
    height, width = config.feature_size
    return cameras, height * width * cameras


def write_onnx(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
    free: dict[str, dict[int, Dim]],
) -> None:
    """Write a module as one ONNX file; `free` names, by input and axis, the sizes that may vary."""
    shapes = tuple(free.get(name) for name in input_names)
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
