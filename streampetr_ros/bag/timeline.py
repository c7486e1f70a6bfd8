"""Which moment of a bag it is, as a plain value: playing, pausing and rates without threads."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timeline:
    """Bag time as a function of a monotonic clock: it was `bag_ns` when the clock showed `wall` seconds."""

    bag_ns: int
    wall: float
    rate: float = 1.0
    paused: bool = False

    def bag_time(self, wall: float) -> int:
        """Return the bag time in ns when the clock shows `wall`."""
        return self.bag_ns if self.paused else self.bag_ns + round((wall - self.wall) * self.rate * 1e9)

    def delay(self, stamp_ns: int, wall: float) -> float:
        """Return the seconds from `wall` until `stamp_ns` is due: zero or less when it is, infinite when paused."""
        return math.inf if self.paused else (stamp_ns - self.bag_time(wall)) / 1e9 / self.rate

    def toggled(self, wall: float) -> "Timeline":
        """Return the timeline paused at this moment, or resumed."""
        return replace(self, bag_ns=self.bag_time(wall), wall=wall, paused=not self.paused)
