"""Print how far every back-end is from the official code: python -m tests.core.backend_table

Golden frames of the R50 detector, at 128x352 and at 256x704, each begun from the official memory or from a fresh one,
so that errors can neither add up nor hide. Compared are the class probabilities and boxes of all queries, one by one.
The weights follow from a rule and were not trained, and int8 is calibrated on the frames themselves: this shows how
back-ends compute. What they cost in accuracy, `streampetr test --runtime` says.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from numpy.typing import NDArray

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.memory import Memory
from streampetr_core.runtime import RuntimeOptions, open_runtime
from streampetr_core.runtime.export import ExportOptions, export
from tests.core import golden
from tests.core.engines import checkpoint_of

_ON_CPU = (
    *("torch:fp32", "torch:bf16", "openvino:fp32", "openvino:bf16", "openvino:int8"),
    *("onnxruntime:fp32", "onnxruntime:int8"),
)
_ON_GPU = ("torch:fp32", "torch:bf16", "torch:fp16", "cuda_graph:fp32", "cuda_graph:bf16", "cuda_graph:fp16")
_SIZES = (("428q_small_seq", "428q_small_drop"), ("428q_full",))
_CENTRE, _VELOCITY = slice(0, 3), slice(8, 10)

Case = tuple[Frame, Memory | None, dict[str, NDArray]]  # input, memory (None: fresh), truth


def main() -> None:
    """Compare, print the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("| back-end | input | frames | probability: largest, mean | centre, m | velocity, m/s |")
    print("|---|---|---|---|---|---|")
    for names in _SIZES:
        checkpoint, cases = _checkpoint(names[0]), [case for name in names for case in _cases(name)]
        with TemporaryDirectory() as folder:
            engines = _engines(checkpoint, cases, Path(folder)) if device == "cpu" else None
            for variant in _ON_GPU if device == "cuda" else _ON_CPU:
                backend, _, precision = variant.partition(":")
                options = RuntimeOptions(backend, precision, device, engines if precision == "int8" else None)
                try:
                    _print_row(variant, checkpoint, options, cases)
                except StreampetrError as error:
                    print(f"{variant}: not run: {error}", file=sys.stderr)


def _checkpoint(name: str) -> Checkpoint:
    sequence = golden.SEQUENCES[name]
    detector = golden.golden_detector(sequence.layout)
    return checkpoint_of(detector, replace(detector.config, input_height=sequence.height, input_width=sequence.width))


def _cases(name: str) -> Iterator[Case]:
    """Yield the frames that begin a scene, and those whose official memory of the frame before is recorded in full."""
    sequence = golden.SEQUENCES[name]
    frames = golden.official_frames(sequence.file, golden.folders()[-1])
    detector = golden.golden_detector(sequence.layout)
    for previous, official in zip([None, *frames], frames, strict=False):
        frame = golden.frame_from_official(official, previous, sequence)
        if frame.is_first_B.item():
            yield frame, None, official
        elif golden.holds_whole_memory(previous, detector):
            yield frame, golden.memory_from_official(previous, detector.config.memory_length), official


def _engines(checkpoint: Checkpoint, cases: list[Case], folder: Path) -> Path | None:
    if find_spec("nncf") is None or find_spec("onnxscript") is None:
        return None
    export(checkpoint, folder, ExportOptions(calibration=torch.cat([frame.images_BN3HW[0] for frame, *_ in cases])))
    return folder


def _print_row(variant: str, checkpoint: Checkpoint, options: RuntimeOptions, cases: list[Case]) -> None:
    runtime, errors = open_runtime(checkpoint, options), {"probability": [], "centre": [], "velocity": []}
    for frame, memory, official in cases:
        predictions, _ = runtime.step(frame, runtime.fresh_memory() if memory is None else memory)
        logits_BQS = torch.from_numpy(official["all_cls_scores"][-1])
        boxes_BQ10 = torch.from_numpy(official["all_bbox_preds"][-1])
        ours_BQ10 = predictions.boxes[-1].cpu()
        errors["probability"].append(predictions.class_logits[-1].cpu().sigmoid() - logits_BQS.sigmoid())
        errors["centre"].append((ours_BQ10 - boxes_BQ10)[..., _CENTRE].norm(dim=-1))
        errors["velocity"].append((ours_BQ10 - boxes_BQ10)[..., _VELOCITY].norm(dim=-1))
    found = [torch.cat([x.abs().flatten() for x in values]) for values in errors.values()]
    cells = " | ".join(f"{x.max():.2g}, {x.mean():.2g}" for x in found)
    config = checkpoint.config
    print(f"| {variant} | {config.input_height}x{config.input_width} | {len(cases)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
