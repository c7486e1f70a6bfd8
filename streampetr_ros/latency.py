"""How long each stage took lately, and how old the output was. Knows nothing of ROS."""

import threading
from collections import deque
from collections.abc import Mapping

import numpy as np

# In the order in which a set goes through them. Of an image: `receive`, from its stamp to its callback, and `decode`,
# which is decoding, undistorting and resizing. Of a set: `wait`, from its last image's arrival until it is worked on,
# `encode`, whether ahead or not, `step`, which is geometry, queries, decoder and tracks, and `publish`. `age` goes from
# the stamp of what is published to when it is.
STAGES = ("receive", "decode", "wait", "encode", "step", "publish", "age")
LATENCY = "latency"  # the part of /diagnostics that tells it
MEDIAN, HIGH = "median, ms", "95 %, ms"
_RECENT_SECONDS = 5.0
_MOST_KEPT = 1000  # of a stage
_OTHER_CLOCK = 3600.0  # stamps this far from the present are of a recording, and tell nothing


class Latencies:
    """Keeps how long stages took; may be used from any thread. Times are seconds, `now` is of a steady clock."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[float, float]]] = {stage: deque(maxlen=_MOST_KEPT) for stage in STAGES}
        self._lock = threading.Lock()

    def note(self, now: float, **seconds: float) -> None:
        """Note how long stages took."""
        with self._lock:
            for stage, value in seconds.items():
                if abs(value) < _OTHER_CLOCK:
                    self._kept[stage].append((now, value))

    def recent(self, now: float, window: float = _RECENT_SECONDS) -> dict[str, list[float]]:
        """Return what was noted of each stage within the last seconds; a stage of which nothing was is left out."""
        with self._lock:
            found = {stage: [s for at, s in kept if now - at <= window] for stage, kept in self._kept.items()}
        return {stage: seconds for stage, seconds in found.items() if seconds}

    def facts(self, now: float) -> dict[str, float]:
        """Return median and 95th percentile of each stage, under names that say the unit."""
        values = {}
        for stage, seconds in self.recent(now).items():
            middle, high = 1000 * np.percentile(seconds, (50, 95))
            values |= {f"{stage}, {MEDIAN}": float(middle), f"{stage}, {HIGH}": float(high)}
        return values


def latency_line(values: Mapping[str, str]) -> str:
    """Return what `Latencies.facts` says, as texts, in one line: the medians."""
    known = {stage: values.get(f"{stage}, {MEDIAN}") for stage in STAGES}
    parts = [f"{stage} {float(value):.0f}" for stage, value in known.items() if value is not None]
    return f"ms: {'  '.join(parts)}" if parts else ""
