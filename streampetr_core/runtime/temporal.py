"""What surrounds the decoder, as one interface: `prepare` before it and `conclude` after it, in float32.

Both are small, but of many steps, so that eager PyTorch spends more time between its kernels than in them. Engines may
compile them as modules of plain tensors, `TemporalStage` and `UpdateStage`; `EagerTemporal` is the detector's own code.
B scenes, N cameras, Q queries, C channels, h and w feature map size.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from streampetr_core.detector import Detector, Prepared, update
from streampetr_core.following import Expected
from streampetr_core.following import unpacked as known_from
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.queries import Queries

_LEARNED_NAMES = ("learned_content", "learned_position", "learned_reference")
NUM_DECODED = 4  # tensors of `packed` that the decoder takes
_NUM_QUERY_TENSORS = 6
_NUM_MEMORY_TENSORS = 5  # one more of a model that follows objects
_NUM_STEPPED = 3  # tensors of motion


class Temporal(Protocol):
    """The two stages around the decoder."""

    def prepare(self, features_BNChw: Tensor | None, frame: Frame, memory: Memory) -> Prepared:
        """Carry the memory into the frame and build its queries; only models with proposals need features.

        Features of cameras that are not present may be anything.
        """
        ...

    def conclude(self, hidden_BQC: Tensor, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return predictions, and the memory after the frame, from the decoder's output."""
        ...


class EagerTemporal:
    """The detector's own code, for any number of scenes."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        with torch.inference_mode():
            self._learned = detector.queries.learned()

    def prepare(self, features_BNChw: Tensor | None, frame: Frame, memory: Memory) -> Prepared:
        """Carry the memory into the frame and build its queries."""
        return self._detector.prepare(features_BNChw, frame, memory, self._learned)

    def conclude(self, hidden_BQC: Tensor, prepared: Prepared) -> tuple[Predictions, Memory]:
        """Return predictions, and the memory after the frame, from the decoder's output."""
        return self._detector.conclude(hidden_BQC[None], prepared)


class TemporalStage(nn.Module):
    """`prepare` of one scene."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.queries, self.proposals = detector.queries, detector.proposals
        for name, value in zip(_LEARNED_NAMES, self.queries.learned(), strict=True):
            self.register_buffer(name, value)

    def prepare(
        self,
        motion: Sequence[Tensor],
        memory: Memory,
        features_BNChw: Tensor | None = None,
        ref_P_img_BN44: Tensor | None = None,
        present_BN: Tensor | None = None,
    ) -> Prepared:
        """Do it; `motion` is `ref_T_prev` (1, 4, 4), `dt` (1,) and `is_first` (1,), which is 0 or 1."""
        ref_T_prev, dt, is_first = motion
        memory = self.queries.fresh_memory(1).where(is_first > 0.5, memory.advance(ref_T_prev, dt))
        proposals = None
        if self.proposals is not None:
            proposals = self.proposals(features_BNChw, ref_P_img_BN44, memory, present_BN)
        learned = (self.learned_content, self.learned_position, self.learned_reference)
        return Prepared.of(self.queries(memory, learned=learned, proposals=proposals), memory, proposals)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map motion, memory and, of a model with proposals, features and cameras to what `packed` returns."""
        motion, others = tensors[:_NUM_STEPPED], tensors[_NUM_STEPPED:]
        count = _NUM_MEMORY_TENSORS + (self.proposals is not None)
        return packed(self.prepare(motion, _memory(others[:count]), *others[count:]))


class UpdateStage(nn.Module):
    """`conclude` of one scene."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.heads, self.proposals, self.num_admitted = detector.heads, detector.proposals, detector.config.num_admitted

    def forward(self, hidden_BQC: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the decoder's output, and what `packed` returns but for its first four, to those of `concluded`."""
        unneeded = [hidden_BQC[..., :0]] * NUM_DECODED
        prepared = unpacked((*unneeded, *tensors))
        predictions = self.heads(hidden_BQC[None], prepared.queries.reference_BQ3, prepared.queries.prior_BQO)
        predictions, memory = update(self.proposals, predictions, prepared, self.num_admitted)
        return predictions.class_logits, predictions.boxes, *memory_tensors(memory)


def packed(prepared: Prepared) -> tuple[Tensor, ...]:
    """Return all tensors, those that the decoder takes in front."""
    queries, expected = prepared.queries, prepared.expected
    tensors = [
        *(queries.content_BQC, queries.position_BQC, queries.memory_BMC, queries.memory_position_BMC),
        *(queries.reference_BQ3, queries.prior_BQO),
        *memory_tensors(prepared.memory),
    ]
    if expected is not None:
        tensors += [expected.still_BR3, expected.moved_BR3, expected.known.packed(), expected.error_BR22]
        tensors += [expected.exists_BR1, prepared.found_BR1]
    return tuple(tensors)


def unpacked(tensors: Sequence[Tensor]) -> Prepared:
    """Undo `packed`."""
    content, position, memory_content, memory_position, reference, prior = tensors[:_NUM_QUERY_TENSORS]
    queries = Queries(content, position, reference, memory_content, memory_position, prior)
    others = tensors[_NUM_QUERY_TENSORS:]
    if len(others) == _NUM_MEMORY_TENSORS:
        return Prepared(queries, _memory(others), None, None)
    count = _NUM_MEMORY_TENSORS + 1
    still, moved, known, error, exists, found = others[count:]
    return Prepared(queries, _memory(others[:count]), Expected(still, moved, known_from(known), error, exists), found)


def concluded(tensors: Sequence[Tensor], hidden_BQC: Tensor) -> tuple[Predictions, Memory]:
    """Return what the tensors of `UpdateStage` say."""
    class_logits, boxes, *memory = tensors
    return Predictions(class_logits, boxes, hidden_BQC), _memory(memory)


def memory_tensors(memory: Memory) -> list[Tensor]:
    """Return what a memory holds; one that knows nothing more of objects has no tensor for it."""
    return [value for value in vars(memory).values() if value.shape[-1]]


def _memory(tensors: Sequence[Tensor]) -> Memory:
    known = tensors[1][..., :0] if len(tensors) == _NUM_MEMORY_TENSORS else tensors[-1]
    return Memory(*tensors[:_NUM_MEMORY_TENSORS], known)
