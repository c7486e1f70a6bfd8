"""From the memory to queries: what the decoder starts from in one frame.

B batch, Q queries (learned first, then proposals if there are any, then P propagated), D extra queries of training, M
memory entries, C channels, O class logits and box code.
Paper sections 3.2 and 3.3.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.following import number_known
from streampetr_core.heads import BOX_CODE_SIZE
from streampetr_core.memory import Memory
from streampetr_core.modulation import ModulatedLayerNorm
from streampetr_core.proposals import Proposals

_SINE_CHANNELS_PER_AXIS = 128
_TEMPERATURE = 10000.0
_MOTION_FREQUENCIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_MOTION_VALUES = 2 + 1 + 12  # velocity, age, upper three rows of the pose
_MOTION_CHANNELS = _MOTION_VALUES * 2 * len(_MOTION_FREQUENCIES)


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from: Q queries and the memory entries that serve as keys only."""

    content_BQC: Tensor
    position_BQC: Tensor
    reference_BQ3: Tensor  # normalised to the detection range; propagated ones may lie outside [0, 1]
    memory_BMC: Tensor  # M here: the entries that did not become queries
    memory_position_BMC: Tensor
    prior_BQO: Tensor  # what is known of the queries beforehand, see `Heads`; zero where no image token speaks


def sine_embedding(values: Tensor, channels: int) -> Tensor:
    """Embed `values` (...) as (..., channels): sine and cosine in turn, of wavelengths growing from 1 to 10000."""
    index = torch.arange(channels // 2, dtype=torch.float32, device=values.device)
    phase = (values * (2 * math.pi))[..., None] / _TEMPERATURE ** (2 * index / channels)
    # Added up, each where the other is zero: OpenVINO takes three times as long to stack them.
    even = 1.0 - torch.arange(2, dtype=torch.float32, device=values.device)
    return (phase.sin()[..., None] * even + phase.cos()[..., None] * (1.0 - even)).flatten(-2)


def point_embedding(points: Tensor) -> Tensor:
    """Embed normalised points (..., 3) as (..., 384), in the published order of axes: y, x, z."""
    return sine_embedding(points[..., [1, 0, 2]], _SINE_CHANNELS_PER_AXIS).flatten(-2)


def motion_embedding(velocity: Tensor, age: Tensor, ref_T_obs: Tensor) -> Tensor:
    """Embed how an entry (..., 2), (..., 1), (..., 4, 4) moved since it was observed as (..., 180)."""
    motion = torch.cat([velocity, age, ref_T_obs[..., :3, :].flatten(-2)], dim=-1)
    waves = [
        wave for frequency in _MOTION_FREQUENCIES for wave in ((motion * frequency).sin(), (motion * frequency).cos())
    ]
    return torch.cat(waves, dim=-1)


class QueryBuilder(nn.Module):
    """Learned reference points, their embedding, and the alignment of remembered objects to the present."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.num_propagated = config.num_propagated
        self.placed = config.placed_queries
        self.prior_size = len(config.class_names) + BOX_CODE_SIZE
        self.memory_length = config.memory_length
        self.num_known = number_known(len(config.class_names)) if config.num_proposals else 0
        self.reference_points = nn.Parameter(torch.rand(config.num_learned - config.num_proposals, 3))
        self.register_buffer("start_points", torch.rand(config.num_propagated, 3))
        self.embedding = nn.Sequential(
            nn.Linear(3 * _SINE_CHANNELS_PER_AXIS, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        self.time_embedding = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.position_alignment = ModulatedLayerNorm(_MOTION_CHANNELS, channels)
        self.content_alignment = ModulatedLayerNorm(_MOTION_CHANNELS, channels)
        low, high = torch.tensor(config.detection_range).chunk(2)
        self.register_buffer("range_low_3", low, persistent=False)
        self.register_buffer("range_size_3", high - low, persistent=False)

    def fresh_memory(self, batch: int) -> Memory:
        """Return the memory of B scenes that just begin."""
        centres_P3 = self.start_points * self.range_size_3 + self.range_low_3
        return Memory.fresh(centres_P3, batch, self.memory_length, self.time_embedding[0].in_features, self.num_known)

    def learned(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return content, position and reference of the learned queries; they depend on the weights alone."""
        return self._new(self.reference_points)

    def forward(
        self,
        memory: Memory,
        extra_reference_BD3: Tensor | None = None,
        learned: tuple[Tensor, Tensor, Tensor] | None = None,
        proposals: Proposals | None = None,
    ) -> Queries:
        """Build the queries of one frame from a memory that was carried into its reference frame.

        Queries at D extra normalised reference points, if there are any, stand in front of the learned ones. Whoever
        keeps the weights still may compute `learned` once and pass it in. Proposals stand behind the learned ones.
        """
        batch = len(memory.centre_BM3)
        parts = [tuple(x.expand(batch, -1, -1) for x in (self.learned() if learned is None else learned))]
        if extra_reference_BD3 is not None:
            parts.insert(0, self._new(extra_reference_BD3))
        if proposals is not None:
            content_BPC, position_BPC, reference_BP3 = self._new(proposals.reference_BP3)
            parts.append((content_BPC + proposals.content_BPC, position_BPC, reference_BP3))
        centre_BM3 = memory.centre_BM3
        if proposals is not None:
            centre_BM3 = torch.cat([proposals.recognised.centre_BR3, centre_BM3[:, self.num_propagated :]], dim=1)
        reference_BM3 = (centre_BM3 - self.range_low_3) / self.range_size_3
        content_BMC, position_BMC = self._align(
            memory.embedding_BMC,
            self.embedding(point_embedding(reference_BM3)),
            motion_embedding(memory.velocity_BM2, memory.age_BM1, memory.ref_T_obs_BM44),
            memory.age_BM1,
        )
        propagated, remembered = slice(None, self.num_propagated), slice(self.num_propagated, None)
        content_BPC, position_BPC = content_BMC[:, propagated], position_BMC[:, propagated]
        content_BPC = content_BPC + position_BPC if self.placed else content_BPC
        if proposals is not None:
            content_BPC = content_BPC + proposals.recognised.content_BRC
        parts.append((content_BPC, position_BPC, reference_BM3[:, propagated]))
        content_BQC, position_BQC, reference_BQ3 = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        num_queries = content_BQC.shape[1]
        if proposals is None:
            prior_BQO = content_BQC.new_zeros(batch, num_queries, self.prior_size)
        else:
            known_BQO = torch.cat([proposals.prior_BPO, proposals.recognised.prior_BRO], dim=1)
            prior_BQO = F.pad(known_BQO, (0, 0, num_queries - known_BQO.shape[1], 0))
        return Queries(
            content_BQC,
            position_BQC,
            reference_BQ3,
            content_BMC[:, remembered],
            position_BMC[:, remembered],
            prior_BQO,
        )

    def _new(self, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return content, position and reference of queries (..., 3) that see the present: no motion, age zero."""
        age = reference.new_zeros(*reference.shape[:-1], 1)
        here = torch.eye(4, device=reference.device).expand(*reference.shape[:-1], 4, 4)
        position = self.embedding(point_embedding(reference))
        motion = motion_embedding(torch.zeros_like(reference[..., :2]), age, here)
        content, aligned = self._align(torch.zeros_like(position), position, motion, age)
        return content + aligned if self.placed else content, aligned, reference

    def _align(self, content: Tensor, position: Tensor, motion: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Align content and position (..., C) by embedded motion (..., 180) and age (..., 1)."""
        age_embedding = sine_embedding(age[..., 0], self.time_embedding[0].in_features)
        position = self.position_alignment(position, motion) + self.time_embedding(age_embedding)
        return self.content_alignment(content, motion), position
