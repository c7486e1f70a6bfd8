"""From a sampler to batches: worker processes, and who of them makes which sample."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray
from torch.utils.data import DataLoader

from streampetr_core.errors import StreampetrError
from training.data.batch import Batch, Sample, collate
from training.data.sampler import Request

Window = tuple[Sample, ...]
_RENDERED_AHEAD = 16  # samples of each worker


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
    told = _Told(data)
    if not data.is_rendered:
        batches = DataLoader(told, batch_sampler=sampler, collate_fn=_collated, num_workers=workers, pin_memory=pin)
        yield from map(_raised, batches)
        return
    size = len(next(iter(sampler)))
    waiting: list[Window] = []
    in_turn = _InTurn(sampler)
    # A new scene takes as long as many samples: some must be ready when it comes.
    ahead = _RENDERED_AHEAD if workers else None
    windows = DataLoader(
        told, batch_size=None, sampler=in_turn, collate_fn=_unchanged, num_workers=workers, prefetch_factor=ahead
    )
    for window in map(_raised, windows):
        waiting.append(window)
        if len(waiting) == size:
            yield collate(waiting)
            waiting = []


@dataclass(frozen=True)
class _Told:
    """Data whose errors are returned: raised in a worker process, PyTorch would bury them in its own traceback."""

    data: Data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, request: Request) -> "Window | StreampetrError":
        try:
            return self.data[request]
        except StreampetrError as error:
            return error


def _collated(windows: list["Window | StreampetrError"]) -> "tuple[Batch, ...] | StreampetrError":
    return next((window for window in windows if isinstance(window, StreampetrError)), None) or collate(windows)


def _raised(item: Any) -> Any:
    if isinstance(item, StreampetrError):
        raise item
    return item


def _unchanged(window: Window) -> Window:
    return window
