"""OpenVINO for what surrounds the decoder: compiled in float32, for one scene and a number of cameras.

Shapes are fixed when a number of cameras is met: OpenVINO needs twice the time for shapes that it works out anew.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.detector import Detector, Prepared
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.position import invert_projections
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

Function = Callable[[Sequence[Tensor]], list[Tensor]]
Compile = Callable[[Any, Sequence[Tensor]], Function]  # of a model, and tensors of the shapes that it will be given


class OpenVinoTemporal:
    """`Temporal` by two compiled models."""

    def __init__(self, has_proposals: bool, models: tuple[Any, Any], compile_for: Compile) -> None:
        """Take the two models as read, and what compiles them."""
        self._has_proposals = has_proposals
        self._models, self._compile = models, compile_for
        self._compiled: dict[tuple[str, int], Function] = {}

    def prepare(self, features_BNChw: Tensor | None, frame: Frame, memory: Memory) -> Prepared:
        """Carry the memory into the frame and build its queries."""
        inputs = [frame.ref_T_prev_B44.float(), frame.dt_B.float(), frame.is_first_B.float(), *memory_tensors(memory)]
        num_cameras = frame.img_P_ref_BN44.shape[1]
        if self._has_proposals:
            present_BN = frame.present_BN
            everywhere = torch.ones(1, num_cameras, dtype=torch.bool) if present_BN is None else present_BN
            inputs += [features_BNChw, invert_projections(frame.img_P_ref_BN44), everywhere]
        return unpacked(self._run(TEMPORAL, num_cameras, inputs))

    def conclude(self, hidden_BQC: Tensor, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return predictions, and the memory after the frame, from the decoder's output."""
        return concluded(self._run(UPDATE, 0, [hidden_BQC, *packed(prepared)[NUM_DECODED:]]), hidden_BQC)

    def _run(self, name: str, num_cameras: int, inputs: Sequence[Tensor]) -> list[Tensor]:
        key = (name, num_cameras)
        if key not in self._compiled:
            self._compiled[key] = self._compile(self._models[name == UPDATE], inputs)
        return self._compiled[key](inputs)


def convert_temporal(checkpoint: Checkpoint, folder: Path, openvino: Any) -> None:
    """Write both stages as OpenVINO's IR files into `folder`; takes seconds."""
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
