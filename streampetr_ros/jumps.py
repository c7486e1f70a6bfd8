"""Telling a jump of the clock from a camera whose stamps are wrong. Knows nothing of ROS."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FAR_NS = 1_000_000_000  # a stamp this far from the newest one is of another time
_RECENT_IMAGES = 3  # for each camera: who sent any of these is alive
_MOST_HELD = 2  # images of one camera that wait for a jump to be confirmed


@dataclass(frozen=True)
class Arrival:
    """An image: whose it is, when it was exposed (ns) and when it came (seconds of any clock)."""

    camera: str
    stamp: int
    image: Any
    time: float


@dataclass(frozen=True)
class Admission:
    """What became of an image, and of those that were held before it."""

    admitted: tuple[Arrival, ...] = ()
    refused: tuple[Arrival, ...] = ()
    jump: int | None = None  # ns by which the time of all images has jumped, before those that are admitted


class JumpGuard:
    """Holds images of another time back until more than half of the living cameras are there.

    So a rig that pauses, or a bag that starts anew, loses no image, and one camera with a wrong clock, or one wrong
    stamp, does not carry the others away.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self._newest: int | None = None
        self._held: list[Arrival] = []
        self._senders: deque[str] = deque(maxlen=_RECENT_IMAGES * len(cameras))

    @property
    def held(self) -> tuple[Arrival, ...]:
        """Images that wait."""
        return tuple(self._held)

    def admit(self, arrival: Arrival) -> Admission:
        """Judge an image."""
        self._senders.append(arrival.camera)
        if self._newest is None or abs(arrival.stamp - self._newest) <= FAR_NS:
            self._newest = max(arrival.stamp, self._newest or arrival.stamp)
            return Admission(admitted=(arrival,))
        near = [held for held in self._held if abs(held.stamp - arrival.stamp) <= FAR_NS] + [arrival]
        mine = [held for held in near if held.camera == arrival.camera]
        too_many = mine[:-_MOST_HELD]
        refused = tuple(held for held in self._held if held not in near) + tuple(too_many)
        self._held = [held for held in near if held not in too_many]
        if 2 * len({held.camera for held in self._held}) <= len(set(self._senders)):
            return Admission(refused=refused)
        newest = max(held.stamp for held in self._held)
        jump, self._newest = newest - self._newest, newest
        admitted, self._held = tuple(self._held), []
        return Admission(admitted, refused, jump)
