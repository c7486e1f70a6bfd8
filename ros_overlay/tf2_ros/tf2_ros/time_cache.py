"""The history of one frame: where it was in its parent. Stamps are integer nanoseconds; 0 asks for the latest."""

from bisect import bisect_left
from typing import NamedTuple

from tf2_ros.exceptions import ExtrapolationException
from tf2_ros.rigid import Rigid, interpolate


class Sample(NamedTuple):
    """Where a frame is: the name of its parent, and `parent_T_frame`."""

    parent: str
    parent_T_frame: Rigid


class TimeCache:
    """Samples of a moving frame in order of time, no older than `cache_time` nanoseconds before the latest."""

    def __init__(self, cache_time: int) -> None:
        self._cache_time = cache_time
        self._stamps: list[int] = []
        self._samples: list[Sample] = []

    def insert(self, stamp: int, sample: Sample) -> bool:
        """Store a sample, also out of order; one of the same stamp is replaced. False when it is too old to keep."""
        stamps, samples = self._stamps, self._samples
        if stamps and stamp < stamps[-1] - self._cache_time:
            return False
        at = len(stamps) if not stamps or stamp > stamps[-1] else bisect_left(stamps, stamp)
        if at < len(stamps) and stamps[at] == stamp:
            samples[at] = sample
        else:
            stamps.insert(at, stamp)
            samples.insert(at, sample)
        expired = bisect_left(stamps, stamps[-1] - self._cache_time)
        del stamps[:expired], samples[:expired]
        return True

    def latest(self) -> tuple[int, str] | None:
        """Return the latest stamp and the parent at that time; None when there is nothing."""
        return (self._stamps[-1], self._samples[-1].parent) if self._stamps else None

    def at(self, stamp: int) -> Sample:
        """Return the sample at a time, interpolated; raises ExtrapolationException outside the history."""
        stamps, samples = self._stamps, self._samples
        if not stamps:
            raise ExtrapolationException("Unable to lookup transform, cache is empty")
        if stamp == 0 or stamp == stamps[-1]:
            return samples[-1]
        if not stamps[0] <= stamp < stamps[-1]:
            raise ExtrapolationException(self._outside(stamp))
        after = bisect_left(stamps, stamp)
        if stamps[after] == stamp:
            return samples[after]
        older, newer = samples[after - 1], samples[after]
        # A frame that changed its parent stays where it was until it is seen in the new one.
        if older.parent != newer.parent:
            return older
        ratio = (stamp - stamps[after - 1]) / (stamps[after] - stamps[after - 1])
        return Sample(older.parent, interpolate(older.parent_T_frame, newer.parent_T_frame, ratio))

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()
        self._samples.clear()

    def _outside(self, stamp: int) -> str:
        first, last = self._stamps[0], self._stamps[-1]
        if first == last:
            return (
                f"Lookup would require extrapolation at time {_seconds(stamp)}, "
                f"but only time {_seconds(last)} is in the buffer"
            )
        way, end, edge = ("future", "latest", last) if stamp > last else ("past", "earliest", first)
        return (
            f"Lookup would require extrapolation into the {way}.  Requested time {_seconds(stamp)} "
            f"but the {end} data is at time {_seconds(edge)}"
        )


class StaticCache:
    """A frame that never moves: its last sample holds for all time, and outlives `clear`."""

    def __init__(self) -> None:
        self._sample: Sample | None = None

    def insert(self, stamp: int, sample: Sample) -> bool:
        """Replace the sample; the stamp means nothing."""
        self._sample = sample
        return True

    def latest(self) -> tuple[int, str] | None:
        """Return stamp 0, which limits no common time, and the parent."""
        return (0, self._sample.parent) if self._sample else None

    def at(self, stamp: int) -> Sample:
        """Return the sample."""
        return self._sample

    def clear(self) -> None:
        """Keep the sample: static transforms are sent once only."""


def _seconds(stamp: int) -> str:
    return f"{stamp / 1e9:.6f}"
