"""Keeping transforms of another time from tf, until images of that time come."""

from collections import deque
from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped

_FAR_AHEAD_NS = 60_000_000_000
_MOST_HELD = 1000
_PATIENCE = 1.0  # seconds for which images of their time may come


class TransformGate:
    """Holds transforms that are far ahead of the images.

    One wrong stamp would keep all others out: what is older than the latest by more than its memory, tf takes for
    useless. But when the clock jumps, tf may jump before the images, and nothing of that may be lost. Times are seconds
    of a steady clock.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, float] | None = None  # stamp of the newest set, and when it came
        self._held: deque[tuple[float, TransformStamped]] = deque(maxlen=_MOST_HELD)

    def admit(self, transforms: Iterable[TransformStamped], now: float) -> list[TransformStamped]:
        """Return those that tf may have; hold the others."""
        admitted = []
        for transform in transforms:
            if self._ahead(transform, now) > _FAR_AHEAD_NS:
                self._held.append((now, transform))
            else:
                admitted.append(transform)
        return admitted

    def images_came(self, stamp_ns: int, now: float) -> tuple[list[TransformStamped], str | None]:
        """Note a set; return what may go to tf now, and what is wrong with those for which no images came."""
        self._newest = stamp_ns, now
        held, self._held = list(self._held), deque(maxlen=_MOST_HELD)
        admitted = self.admit((transform for _, transform in held), now)
        ahead = [entry for entry in held if self._ahead(entry[1], now) > _FAR_AHEAD_NS]
        self._held = deque((entry for entry in ahead if now - entry[0] <= _PATIENCE), _MOST_HELD)
        fault = None
        if len(self._held) < len(ahead):
            transform = ahead[0][1]
            names = f"from '{transform.child_frame_id}' to '{transform.header.frame_id}'"
            fault = f"the transform {names} is {self._ahead(transform, now) / 1e9:.0f} s ahead of the images"
        return admitted, fault

    def jumped(self) -> None:
        """Forget what time it is."""
        self._newest = None

    def _ahead(self, transform: TransformStamped, now: float) -> int:
        if self._newest is None:
            return 0
        stamp_ns, came = self._newest
        stamp = transform.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec - stamp_ns - int((now - came) * 1e9)
