"""StreamPETR on one page: `step(frame, memory) -> (predictions, memory)`, pure and batchable.

The forward is four stages with static shapes. Only `encode` and `decode` are heavy; `geometry` follows from the
calibration alone, `prepare` and `conclude` are small and stay in float32.
L layers, B batch, N cameras, T image tokens, Q queries, K admitted queries, C channels, h and w feature map size.
Paper: "Exploring Object-Centric Temporal Modeling for Efficient Multi-View 3D Object Detection", arXiv 2303.11926.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_core.backbones.resnet import resnet18, resnet18_half, resnet50
from streampetr_core.backbones.vovnet import VoVNet
from streampetr_core.config import ModelConfig
from streampetr_core.decoder import Decoder
from streampetr_core.following import Expected
from streampetr_core.frame import Frame
from streampetr_core.heads import Heads, Predictions, admitted_queries, rows
from streampetr_core.memory import Memory
from streampetr_core.neck import FeaturePyramid
from streampetr_core.position import Geometry, PositionEncoder, invert_projections
from streampetr_core.proposals import ProposalBuilder, Proposals
from streampetr_core.queries import Queries, QueryBuilder

_BACKBONES = {
    "resnet18": resnet18,
    "resnet18_half": resnet18_half,
    "resnet50": resnet50,
    "vovnet99": VoVNet,
}


@dataclass(frozen=True)
class Prepared:
    """A frame that is to be decoded, and what has to be remembered of it meanwhile."""

    queries: Queries
    memory: Memory  # carried into the frame
    expected: Expected | None  # of a model with proposals: of the remembered objects that became queries ...
    found_BR1: Tensor | None  # ... and which of them a token speaks of

    @staticmethod
    def of(queries: Queries, memory: Memory, proposals: Proposals | None) -> "Prepared":
        """Gather them."""
        if proposals is None:
            return Prepared(queries, memory, None, None)
        return Prepared(queries, memory, proposals.recognised.expected, proposals.recognised.found_BR1)


class Detector(nn.Module):
    """Six cameras (or any other number) and the vehicle's motion in, 3D boxes out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _BACKBONES[config.backbone]()
        self.neck = FeaturePyramid(self.backbone.out_channels, config.channels)
        self.position = PositionEncoder(config)
        self.queries = QueryBuilder(config)
        self.proposals = ProposalBuilder(config) if config.num_proposals else None
        self.decoder = Decoder(config)
        self.heads = Heads(config)

    def fresh_memory(self, batch: int = 1) -> Memory:
        """Return the memory of B scenes that just begin."""
        return self.queries.fresh_memory(batch)

    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame. Neither argument changes; whoever calls keeps the returned memory, or does not.

        `memory` is expressed in the frame that `frame.ref_T_prev_B44` maps from. The returned memory is expressed in
        this frame and holds the K best queries of this frame in front.
        """
        return self.detect(self.encode(frame.images_BN3HW), frame, memory)

    def detect(self, features_BNChw: Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Do what `step` does once the images are encoded; those of the frame are not looked at."""
        size = features_BNChw.shape[-2:]
        geometry = self.position.geometry(frame.img_P_ref_BN44, frame.intrinsics_BN33, *size)
        prepared = self.prepare(features_BNChw, frame, memory)
        hidden_LBQC = self.decode(features_BNChw, geometry, prepared.queries, frame.present_BN)
        return self.conclude(hidden_LBQC, prepared)

    def geometry(self, frame: Frame) -> Geometry:
        """Embed where every image token looks; depends on the calibration alone."""
        height, width = (size // self.config.feature_stride for size in frame.images_BN3HW.shape[-2:])
        return self.position.geometry(frame.img_P_ref_BN44, frame.intrinsics_BN33, height, width)

    def encode(self, images_BN3HW: Tensor) -> Tensor:
        """Map images to features (B, N, C, h, w); cameras are independent of each other."""
        features = self.neck(*self.backbone(images_BN3HW.flatten(0, 1)))
        return features.unflatten(0, images_BN3HW.shape[:2])

    def prepare(
        self,
        features_BNChw: Tensor | None,
        frame: Frame,
        memory: Memory,
        learned: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Prepared:
        """Carry the memory into the frame and build the queries; only a model with proposals looks at features.

        Whoever keeps the weights still may compute `QueryBuilder.learned` once and pass it in.
        """
        memory = self.carry(frame, memory)
        proposals = self.propose(features_BNChw, frame, memory)
        return Prepared.of(self.queries(memory, learned=learned, proposals=proposals), memory, proposals)

    def carry(self, frame: Frame, memory: Memory) -> Memory:
        """Carry the memory into the reference frame of `frame`; where a scene starts, begin anew."""
        fresh = self.fresh_memory(len(frame.dt_B))
        return fresh.where(frame.is_first_B, memory.advance(frame.ref_T_prev_B44, frame.dt_B))

    def propose(self, features_BNChw: Tensor, frame: Frame, memory: Memory) -> Proposals | None:
        """Return what image tokens see, of the carried memory and beside it; None for a model without proposals."""
        if self.proposals is None:
            return None
        return self.proposals(features_BNChw, invert_projections(frame.img_P_ref_BN44), memory, frame.present_BN)

    def temporal(
        self, memory: Memory, extra_reference_BD3: Tensor | None = None, proposals: Proposals | None = None
    ) -> Queries:
        """Build the queries from the carried memory and proposals; training may put D extra ones in front."""
        return self.queries(memory, extra_reference_BD3, proposals=proposals)

    def decode(
        self,
        features_BNChw: Tensor,
        geometry: Geometry,
        queries: Queries,
        present_BN: Tensor | None = None,
        query_allowed: Tensor | None = None,
    ) -> Tensor:
        """Return the normed outputs of all decoder layers, (L, B, Q, C).

        Tokens of absent cameras are left out. `query_allowed` is True where a query may look at queries and memory,
        see `Decoder.forward`; None: everywhere.
        """
        token_allowed = None
        if present_BN is not None:
            num_tokens = features_BNChw.shape[-2] * features_BNChw.shape[-1]
            token_allowed = present_BN.repeat_interleave(num_tokens, dim=1)[:, None, None]
            # Attention ignores a masked token only as long as its value is finite.
            features_BNChw = torch.where(present_BN[..., None, None, None], features_BNChw, 0.0)
        tokens_BTC, token_position_BTC = self.position(features_BNChw, geometry)
        return self.decoder(
            queries.content_BQC,
            queries.position_BQC,
            queries.memory_BMC,
            queries.memory_position_BMC,
            tokens_BTC,
            token_position_BTC,
            query_allowed,
            token_allowed,
        )

    def conclude(self, hidden_LBQC: Tensor, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return what is known after a frame, and the memory, from the decoder's outputs."""
        predictions = self.heads(hidden_LBQC, prepared.queries.reference_BQ3, prepared.queries.prior_BQO)
        return self.update(predictions, prepared)

    def update(self, predictions: Predictions, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return what is known after a frame, and the memory, from what its decoder says; see `update`."""
        return update(self.proposals, predictions, prepared, self.config.num_admitted)


def update(
    proposals: ProposalBuilder | None, predictions: Predictions, prepared: Prepared, num_admitted: int
) -> tuple[Predictions, Memory]:
    """Return what is known after a frame, and the carried memory with the K best queries of it.

    A model with proposals follows objects, so what the decoder says of this frame is not the last word.
    """
    known_BQV = predictions.centre_BQ3[..., :0]
    if proposals is not None:
        predictions, known_BQV = proposals.follow(predictions, prepared.expected, prepared.found_BR1)
    best_BK = admitted_queries(predictions, num_admitted)
    seen = (predictions.embedding_BQC, predictions.centre_BQ3, predictions.velocity_BQ2, known_BQV)
    return predictions, prepared.memory.admit(*(rows(x, best_BK) for x in seen))
