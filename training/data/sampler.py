"""Which sample comes when: endless, the same for any number of GPUs, and able to go on from any step.

The global batch has a fixed number of slots. What a slot shows at a step depends on the seed, the slot and the step
alone; ranks and gradient accumulation only decide who computes it. So the whole state of a sampler is one number, the
next step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_core.errors import StreampetrError


@dataclass(frozen=True)
class Request:
    """One sample that is asked for: the frame's index and what its random draws follow from."""

    index: int
    seed: tuple[int, ...]  # of numpy.random.SeedSequence


@dataclass(frozen=True)
class Share:
    """Which slots of the global batch one process computes: rank by rank, each in `accumulation` micro-batches."""

    global_batch: int
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        """Check that the slots can be shared evenly."""
        if self.global_batch % (self.world_size * self.accumulation):
            raise StreampetrError(
                f"a global batch of {self.global_batch} cannot be shared evenly by {self.world_size} processes with "
                f"{self.accumulation} micro-batches each; change the batch, the processes or the accumulation"
            )

    def micro_batches(self) -> list[range]:
        """Return the slots of each micro-batch."""
        size = self.global_batch // (self.world_size * self.accumulation)
        first = self.rank * size * self.accumulation
        return [range(first + size * number, first + size * (number + 1)) for number in range(self.accumulation)]


class StreamingSampler:
    """Every slot walks through one sequence frame by frame, then takes the next one.

    The sequences come in an endless row of shuffles; slot j takes number j, j + global batch, ... of it. This is the
    published InfiniteGroupEachSampleInBatchSampler, batch for batch.
    """

    def __init__(self, sequence_F: ArrayLike, share: Share, seed: int, first_step: int = 0) -> None:
        """Begin at `first_step`; `sequence_F` numbers each frame's sequence (see `sequence_ids`).

        Raises:
            StreampetrError: fewer sequences than slots.
        """
        sequence_F = np.asarray(sequence_F)
        starts = np.flatnonzero(np.diff(sequence_F, prepend=-1))
        ends = [*starts[1:], len(sequence_F)]
        self._sequences = [range(start, end) for start, end in zip(starts, ends, strict=True)]
        self._share, self._seed, self._step = share, seed, first_step
        if len(self._sequences) < share.global_batch:
            raise StreampetrError(
                f"{len(self._sequences)} sequences are too few for a global batch of {share.global_batch}: each slot "
                "walks through one of its own; cut scenes into more pieces (sequence_pieces), or lower the batch"
            )

    def __iter__(self) -> Iterator[list[Request]]:
        """Yield the micro-batches of step after step, without end."""
        micro_batches = self._share.micro_batches()
        walks = {slot: self._walk(slot) for slots in micro_batches for slot in slots}
        step = self._step
        while True:
            for slots in micro_batches:
                yield [Request(next(walks[slot]), (self._seed, step, slot)) for slot in slots]
            step += 1

    def _walk(self, slot: int) -> Iterator[int]:
        """Yield the frames of one slot from the first step on."""
        left_out = self._step
        for number in islice(shuffles(len(self._sequences), self._seed), slot, None, self._share.global_batch):
            frames = self._sequences[number]
            yield from frames[left_out:]
            left_out = max(0, left_out - len(frames))


class ShuffledSampler:
    """Every slot takes frames from an endless row of shuffles of all frames: for sliding windows and single frames."""

    def __init__(self, num_frames: int, share: Share, seed: int, first_step: int = 0, block: int = 0) -> None:
        """Begin at `first_step`; see `shuffles` for `block`. Raises StreampetrError for fewer frames than slots."""
        self._num_frames, self._share, self._seed, self._step = num_frames, share, seed, first_step
        self._block = block
        if num_frames < share.global_batch:
            raise StreampetrError(f"{num_frames} frames are too few for a global batch of {share.global_batch}")

    def __iter__(self) -> Iterator[list[Request]]:
        """Yield the micro-batches of step after step, without end."""
        size = self._share.global_batch
        row = islice(shuffles(self._num_frames, self._seed, self._block), self._step * size, None)
        step = self._step
        while True:
            frames = list(islice(row, size))
            for slots in self._share.micro_batches():
                yield [Request(frames[slot], (self._seed, step, slot)) for slot in slots]
            step += 1


def shuffles(count: int, seed: int, block: int = 0) -> Iterator[int]:
    """Yield 0 .. count - 1 in random order, then again in another one, without end.

    With `block`, only numbers of one block of so many are mixed, and the blocks come in order.
    """
    generator = torch.Generator()
    generator.manual_seed(seed)
    while True:
        for start in range(0, count, block or count):
            size = min(block or count, count - start)
            yield from (start + torch.randperm(size, generator=generator)).tolist()
