"""The time by which images are late. Knows nothing of ROS."""

import time
from collections.abc import Callable

_STANDS_STILL = 1.0  # seconds without a change, after which a clock is taken to have ended


class ArrivalClock:
    """A clock that goes on by the wall where its source stands still, as /clock does when a bag has ended.

    Simulated time delays images by what they were delayed in truth, however fast a bag is played; but the last images
    of a bag would wait for ever for those that never come.
    """

    def __init__(self, source: Callable[[], float], steady: Callable[[], float] = time.monotonic) -> None:
        """Take the clock to follow and one that never stops, both in seconds."""
        self._source, self._steady = source, steady
        self._told, self._since = source(), steady()

    def __call__(self) -> float:
        """Return the time in seconds; it is the source's again as soon as that goes on."""
        told, now = self._source(), self._steady()
        if told != self._told:
            self._told, self._since = told, now
        return told + max(0.0, now - self._since - _STANDS_STILL)
