"""From a sampler to batches: worker processes, and who of them makes which sample."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from numpy.typing import NDArray
from torch.utils.data import DataLoader

from training.data.batch import Batch, Sample, collate
from training.data.sampler import Request

Window = tuple[Sample, ...]


class Data(Protocol):
    """What training takes samples from."""

    sequence_F: NDArray
    is_rendered: bool  # the samples of a scene share costly work, so one worker should make all of them

    def __len__(self) -> int:
        """Return the number of frames."""

    def __getitem__(self, request: Request) -> Window:
        """Return the window of frames that ends with the requested one."""


@dataclass(frozen=True)
class _InTurn:
    """The requests of all micro-batches, one at a time."""

    sampler: Iterable[list[Request]]

    def __iter__(self) -> Iterator[Request]:
        for requests in self.sampler:
            yield from requests


def load(data: Data, sampler: Iterable[list[Request]], workers: int, pin: bool) -> Iterator[tuple[Batch, ...]]:
    """Yield the sampler's micro-batches in its order, each as one batch for every frame of the window.

    Stored samples are made a micro-batch at a time. Rendered ones are made one at a time by the workers in turn: as
    long as the number of workers divides that of slots, each worker stays with its own scenes.
    """
    if not data.is_rendered:
        yield from DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers, pin_memory=pin)
        return
    size = len(next(iter(sampler)))
    waiting: list[Window] = []
    in_turn = _InTurn(sampler)
    for window in DataLoader(data, batch_size=None, sampler=in_turn, collate_fn=_unchanged, num_workers=workers):
        waiting.append(window)
        if len(waiting) == size:
            yield collate(waiting)
            waiting = []


def _unchanged(window: Window) -> Window:
    return window
