"""Writing a folder of engines from a checkpoint, as ONNX files: for this package's runtimes and for everyone else.

See docs/export.md for the files and the layouts of their inputs and outputs.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.deployment import MEMORY_NAMES, PREDICTION_NAMES, GeometryStage, HeadStage
from streampetr_core.runtime.engine_files import write_manifest
from streampetr_core.runtime.onnx_export import (
    GEOMETRY_NAMES,
    export_runtime_stages,
    free_sizes,
    require_exporter,
    write_onnx,
)
from streampetr_core.runtime.quantise import quantise_encoder, require_quantiser
from streampetr_core.runtime.stages import example_arguments
from streampetr_core.runtime.torch_engine import DTYPES

PRECISIONS = tuple(DTYPES)
HEAD, GEOMETRY = "head", "geometry"
_MOTION_NAMES = ("ref_T_prev", "dt", "is_first")


@dataclass(frozen=True)
class ExportOptions:
    """What is written."""

    precision: str = "fp32"  # type of the encoder's and the decoder's arithmetic: fp32, fp16 or bf16
    calibration: Tensor | None = None  # normalised images (N, 3, H, W); given: also an int8 image encoder


def export(checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> list[Path]:
    """Write the stages into `folder` and return the files; shows a progress bar.

    Raises:
        StreampetrError: a package that is needed is not installed, or the folder cannot be written.
    """
    require_exporter("`streampetr export`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StreampetrError(f"{folder}: cannot be made: {error}") from error
    dtype = DTYPES[options.precision]
    steps = {
        "image encoder and decoder": lambda: export_runtime_stages(checkpoint, folder, dtype),
        "geometry": lambda: export_geometry(checkpoint, folder),
        "head": lambda: export_head(checkpoint, folder, dtype),
    }
    if options.calibration is not None:
        require_quantiser()
        steps["int8 image encoder"] = lambda: quantise_encoder(folder, options.calibration)
    with tqdm(steps.items(), desc="export", unit="step", disable=None) as bar:
        for name, step in bar:
            bar.set_postfix_str(name)
            step()
    entries = {"precision": options.precision}
    if options.calibration is not None:
        entries["calibration_images"] = len(options.calibration)
    write_manifest(folder, checkpoint, **entries)
    return sorted(folder.iterdir())


def export_head(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    """Write `head.onnx`, whose decoder computes in `dtype`."""
    detector = checkpoint.detector().requires_grad_(False)
    _, (features, *tensors) = example_arguments(detector, batch=1)
    cameras, tokens = free_sizes(checkpoint.config)
    head = HeadStage(detector, dtype)
    *memory, known = vars(detector.fresh_memory()).values()
    motion = (torch.eye(4)[None], torch.full((1,), 0.5), torch.zeros(1))
    inputs = {
        "features": features[0].to(dtype),
        **dict(zip(GEOMETRY_NAMES, tensors, strict=False)),
        **dict(zip(MEMORY_NAMES, memory, strict=True)),
        **dict(zip(_MOTION_NAMES, motion, strict=True)),
    }
    free = {"features": {0: cameras}, **{name: {1: tokens} for name in GEOMETRY_NAMES}}
    outputs = [*PREDICTION_NAMES, *(f"next_{name}" for name in MEMORY_NAMES)]
    if checkpoint.config.num_proposals:
        inputs["ref_P_img"], free["ref_P_img"] = torch.eye(4).expand(1, len(features[0]), 4, 4).clone(), {1: cameras}
        inputs["known"] = known
        outputs.append("next_known")
    write_onnx(
        head,
        tuple(inputs.values()),
        list(inputs),
        outputs,
        folder / f"{HEAD}.onnx",
        free,
    )


def export_geometry(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `geometry.onnx`."""
    cameras, _ = free_sizes(checkpoint.config)
    matrices = (torch.eye(4).expand(1, 2, 4, 4).clone(), torch.eye(3).expand(1, 2, 3, 3).clone())
    write_onnx(
        GeometryStage(checkpoint.detector().requires_grad_(False)),
        matrices,
        ["ref_P_img", "intrinsics"],
        list(GEOMETRY_NAMES),
        folder / f"{GEOMETRY}.onnx",
        {"ref_P_img": {1: cameras}, "intrinsics": {1: cameras}},
    )
