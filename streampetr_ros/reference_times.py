"""The instants that sets of images belong to, where a sensor tells them. Knows nothing of ROS; times in ns."""

import bisect
import threading

_MOST_KEPT = 4096


class ReferenceTimes:
    """Stamps of a sensor, such as the LiDAR that triggers the cameras; may be used from several threads."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._lock = threading.Lock()

    def add(self, stamp_ns: int) -> None:
        """Take a stamp, in any order; the oldest are forgotten when there are too many."""
        with self._lock:
            bisect.insort(self._stamps, stamp_ns)
            del self._stamps[:-_MOST_KEPT]

    def clear(self) -> None:
        """Forget all stamps."""
        with self._lock:
            self._stamps.clear()

    def nearest(self, exposure_ns: int, limit_ns: int) -> int | None:
        """Return the stamp nearest to an exposure, at most `limit_ns` away; None where there is none."""
        with self._lock:
            index = bisect.bisect_left(self._stamps, exposure_ns)
            near = self._stamps[max(0, index - 1) : index + 1]
        best = min(near, key=lambda stamp_ns: abs(stamp_ns - exposure_ns), default=None)
        return best if best is not None and abs(best - exposure_ns) <= limit_ns else None

    def reaches(self, exposure_ns: int) -> bool:
        """Say whether a stamp at or after an exposure is known, so that none that comes later is nearer."""
        with self._lock:
            return bool(self._stamps) and self._stamps[-1] >= exposure_ns
