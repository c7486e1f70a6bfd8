"""Sequences: runs of keyframes through which the memory is carried on.

A sequence is a scene, or a piece of one: cutting scenes lets training meet their frames in more mixed company.
F frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sequence_ids(starts_scene_F: ArrayLike, pieces: int | str) -> NDArray[np.int64]:
    """Number the sequences 0, 1, ... and return the number of every frame's.

    Args:
        starts_scene_F: bool, which frames begin a scene; the first one always does.
        pieces: into how many pieces of the same length every scene is cut (the last one may be shorter, and a short
            scene may have fewer), or 'all' to make every frame a sequence.
    """
    starts_F = np.array(starts_scene_F, dtype=bool)
    if len(starts_F):
        starts_F[0] = True
    if pieces == "all":
        return np.arange(len(starts_F))
    ends = [*np.flatnonzero(starts_F)[1:], len(starts_F)]
    for start, end in zip(np.flatnonzero(starts_F), ends, strict=True):
        length = -(-(end - start) // int(pieces))
        starts_F[start:end:length] = True
    return np.cumsum(starts_F) - 1


def split_among_ranks(sequence_F: Sequence[int] | NDArray, world_size: int) -> list[NDArray[np.int64]]:
    """Return, for every rank, the frames that it evaluates, in order; no sequence is cut and every frame comes once.

    Sequences stay in order; each goes to the rank in whose even share of the frames its middle lies.
    """
    sequence_F = np.asarray(sequence_F)
    _, index_F, lengths = np.unique(sequence_F, return_inverse=True, return_counts=True)
    middles = np.cumsum(lengths) - lengths / 2
    ranks = np.minimum((middles * world_size / max(len(sequence_F), 1)).astype(int), world_size - 1)
    return [np.flatnonzero(ranks[index_F] == rank) for rank in range(world_size)]
