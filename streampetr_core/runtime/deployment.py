"""The whole forward as three modules of plain tensors, for those who deploy without this package (docs/export.md).

`Encoder` (see `stages`) maps images to features, `GeometryStage` the calibration to three tensors of every token,
`HeadStage` everything else: memory and motion in, predictions and the next memory out. Metric arithmetic is float32 in
any precision, nothing is float64: what needs it, inverse matrices and relative motion, is the host's.
"""

import torch
from torch import Tensor, nn

from streampetr_core.detector import Detector
from streampetr_core.heads import admitted_queries
from streampetr_core.memory import Memory
from streampetr_core.runtime.stages import LastLayerDecoder, lean_decoder

MEMORY_NAMES = ("embedding", "centre", "velocity", "age", "ref_T_obs")  # and "known", of a model with proposals
PREDICTION_NAMES = ("class_logits", "boxes")
_LEARNED_NAMES = ("learned_content", "learned_position", "learned_reference")


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
        self.queries, self.heads, self.proposals = detector.queries, detector.heads, detector.proposals
        self.decoder: LastLayerDecoder = lean_decoder(detector).to(dtype)
        self.dtype, self.num_admitted = dtype, detector.config.num_admitted
        for name, value in zip(_LEARNED_NAMES, self.queries.learned(), strict=True):
            self.register_buffer(name, value)

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
        carried = Memory(embedding, centre, velocity, age, ref_T_obs, known).advance(ref_T_prev, dt)
        memory = self.queries.fresh_memory(1).where(is_first > 0.5, carried)
        learned = (self.learned_content, self.learned_position, self.learned_reference)
        proposals = None if self.proposals is None else self.proposals(features[None].float(), ref_P_img, memory)
        queries = self.queries(memory, learned=learned, proposals=proposals)
        typed = (
            features[None],
            *(position, gamma, beta),
            *(queries.content_BQC, queries.position_BQC, queries.memory_BMC, queries.memory_position_BMC),
        )
        hidden = self.decoder(*(x.to(self.dtype) for x in typed)).float()
        predictions = self.heads(hidden[None], queries.reference_BQ3, queries.prior_BQO)
        known = predictions.centre_BQ3[..., :0]
        if proposals is not None:
            predictions, known = self.proposals.follow(predictions, proposals.recognised)
        # Of one scene; OpenVINO's reader rejects the gather that a batch would need.
        best_K = admitted_queries(predictions, self.num_admitted)[0]
        seen = (predictions.embedding_BQC, predictions.centre_BQ3, predictions.velocity_BQ2, known)
        after = memory.admit(*(x.index_select(1, best_K) for x in seen))
        kept = [value for value in vars(after).values() if value.shape[-1]]
        return predictions.class_logits[-1], predictions.boxes[-1], *kept
