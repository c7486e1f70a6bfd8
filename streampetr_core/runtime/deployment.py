"""The whole forward as three modules of plain tensors, for those who deploy without this package (docs/export.md).

`Encoder` (see `stages`) maps images to features, `GeometryStage` the calibration to three tensors of every token,
`HeadStage` everything else: memory and motion in, predictions and the next memory out. Metric arithmetic is float32 in
any precision, nothing is float64: what needs it, inverse matrices and relative motion, is the host's.
"""

import torch
from torch import Tensor, nn

from streampetr_core.detector import Detector
from streampetr_core.memory import Memory
from streampetr_core.runtime.stages import LastLayerDecoder, lean_decoder
from streampetr_core.runtime.temporal import NUM_DECODED, TemporalStage, UpdateStage, packed

MEMORY_NAMES = ("embedding", "centre", "velocity", "age", "ref_T_obs")  # and "known", of a model with proposals
PREDICTION_NAMES = ("class_logits", "boxes")


class GeometryStage(nn.Module):
    """Calibration to geometry; runs when the calibration changes."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.position = detector.position
        self.size = detector.config.feature_size

    def forward(self, ref_P_img: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map inverse projections (1, N, 4, 4) and camera matrices (1, N, 3, 3) to position, gamma, beta (1, T, C)."""
        geometry = self.position.embed_rays(ref_P_img, intrinsics, *self.size)
        return geometry.position_BTC, geometry.gamma_BTC, geometry.beta_BTC


class HeadStage(nn.Module):
    """Features, geometry, memory and motion of one scene to predictions and the next memory."""

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        super().__init__()
        self.before, self.after = TemporalStage(detector), UpdateStage(detector)
        self.decoder: LastLayerDecoder = lean_decoder(detector).to(dtype)
        self.dtype = dtype

    def forward(
        self,
        features: Tensor,
        position: Tensor,
        gamma: Tensor,
        beta: Tensor,
        embedding: Tensor,
        centre: Tensor,
        velocity: Tensor,
        age: Tensor,
        ref_T_obs: Tensor,
        ref_T_prev: Tensor,
        dt: Tensor,
        is_first: Tensor,
        ref_P_img: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return class logits, boxes and the tensors of the next memory; `is_first` (1,) is 0 or 1.

        A model with proposals needs the inverse projections (1, N, 4, 4) too, and its memory has a sixth tensor.
        """
        known = centre[..., :0] if known is None else known
        memory = Memory(embedding, centre, velocity, age, ref_T_obs, known)
        seen = features[None].float()
        tensors = packed(self.before.prepare((ref_T_prev, dt, is_first), memory, seen, ref_P_img))
        decoded, others = tensors[:NUM_DECODED], tensors[NUM_DECODED:]
        typed = (x.to(self.dtype) for x in (features[None], position, gamma, beta, *decoded))
        class_logits, boxes, *after = self.after(self.decoder(*typed).float(), *others)
        return class_logits[-1], boxes[-1], *after
