"""OpenVINO for what surrounds the decoder: compiled in float32, for one scene and the shapes that come.

These depend on the number of cameras, if at all. OpenVINO needs twice the time for shapes that it works out anew.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.detector import Detector, Prepared
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.position import invert_projections
from streampetr_core.runtime.openvino_models import Compiled, compile_for, require_openvino, settings, shared_core
from streampetr_core.runtime.temporal import (
    NUM_DECODED,
    TemporalStage,
    UpdateStage,
    concluded,
    memory_tensors,
    packed,
    unpacked,
)

TEMPORAL, UPDATE = "temporal", "update"
_EXAMPLE_CAMERAS = 2

# They are too small to be shared out: a second thread saves a millisecond and takes two.
_THREADS = 1


class OpenVinoTemporal:
    """`Temporal` by two compiled models."""

    def __init__(self, folder: Path, has_proposals: bool) -> None:
        """Take a folder that `convert_temporal` wrote."""
        self._has_proposals = has_proposals
        self._models = {name: shared_core().read_model(folder / f"{name}.xml") for name in (TEMPORAL, UPDATE)}
        self._compiled: dict[tuple, Compiled] = {}

    def prepare(self, features_BNChw: Tensor | None, frame: Frame, memory: Memory) -> Prepared:
        """Carry the memory into the frame and build its queries."""
        inputs = [frame.ref_T_prev_B44.float(), frame.dt_B.float(), frame.is_first_B.float(), *memory_tensors(memory)]
        if self._has_proposals:
            present_BN = frame.present_BN
            if present_BN is None:
                present_BN = torch.ones(frame.img_P_ref_BN44.shape[:2], dtype=torch.bool)
            inputs += [features_BNChw, invert_projections(frame.img_P_ref_BN44), present_BN]
        return unpacked(self._run(TEMPORAL, inputs))

    def conclude(self, hidden_BQC: Tensor, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return predictions, and the memory after the frame, from the decoder's output."""
        return concluded(self._run(UPDATE, [hidden_BQC, *packed(prepared)[NUM_DECODED:]]), hidden_BQC)

    def _run(self, name: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        key = (name, *(x.shape for x in inputs))
        if key not in self._compiled:
            self._compiled[key] = compile_for(self._models[name], inputs, settings("f32", _THREADS))
        return self._compiled[key](inputs)


def convert_temporal(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both stages as OpenVINO's IR files into `folder`; takes seconds."""
    openvino = require_openvino()
    detector = checkpoint.detector().requires_grad_(False).eval()
    inputs = _example_inputs(detector)
    before, after = TemporalStage(detector), UpdateStage(detector)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of sizes that are meant to be fixed
        outputs = before(*inputs)
        hidden = torch.zeros_like(outputs[0])
        for name, stage, example in ((TEMPORAL, before, inputs), (UPDATE, after, (hidden, *outputs[NUM_DECODED:]))):
            model = openvino.convert_model(stage, example_input=tuple(example))
            openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)


def _example_inputs(detector: Detector) -> tuple[Tensor, ...]:
    config = detector.config
    inputs = [torch.eye(4)[None], torch.full((1,), 0.5), torch.zeros(1), *memory_tensors(detector.fresh_memory())]
    if config.num_proposals:
        features = torch.zeros(1, _EXAMPLE_CAMERAS, config.channels, *config.feature_size)
        inputs += [features, torch.eye(4).expand(1, _EXAMPLE_CAMERAS, 4, 4).clone()]
        inputs.append(torch.ones(1, _EXAMPLE_CAMERAS, dtype=torch.bool))
    return tuple(inputs)
