"""Grouping images of several cameras into sets. Knows nothing of ROS: stamps are integers, images are whatever."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOST_WAITING = 16  # images of one camera that wait for the others; more means that a camera is dead


@dataclass(frozen=True)
class ImageSet:
    """One image of each camera, exposed close together; stamps in nanoseconds."""

    stamps: dict[str, int]
    images: dict[str, Any]

    @property
    def newest_stamp(self) -> int:
        """Stamp of the last exposure of the set."""
        return max(self.stamps.values())


class Grouping:
    """Matches the oldest waiting image of each camera; those that fit together within `max_spread` ns become a set.

    Images of one camera may come late with respect to other cameras, as long as they come in order.
    """

    def __init__(self, cameras: Sequence[str], max_spread: int) -> None:
        self.drops: Counter[str] = Counter()  # number of images by the reason for which they were dropped
        self._max_spread = max_spread
        self._waiting: dict[str, deque[tuple[int, Any]]] = {camera: deque() for camera in cameras}
        self._newest: dict[str, int] = {}

    def add(self, camera: str, stamp: int, image: Any) -> list[ImageSet]:
        """Take an image; return the sets that it completes."""
        if stamp <= self._newest.get(camera, stamp - 1):
            self.drops["not newer than the image before it"] += 1
            return []
        self._newest[camera] = stamp
        waiting = self._waiting[camera]
        waiting.append((stamp, image))
        if len(waiting) > _MOST_WAITING:
            waiting.popleft()
            self.drops["waited too long for the other cameras"] += 1
        return self._release()

    def spread(self) -> int:
        """Nanoseconds between the newest images of the cameras that have sent one."""
        return max(self._newest.values()) - min(self._newest.values()) if self._newest else 0

    def clear(self) -> None:
        """Forget the waiting images and what is new."""
        for waiting in self._waiting.values():
            self.drops["waited when time went back"] += len(waiting)
            waiting.clear()
        self._newest.clear()

    def _release(self) -> list[ImageSet]:
        sets = []
        while all(self._waiting.values()):
            heads = {camera: waiting[0] for camera, waiting in self._waiting.items()}
            stamps = {camera: stamp for camera, (stamp, _) in heads.items()}
            if max(stamps.values()) - min(stamps.values()) <= self._max_spread:
                sets.append(ImageSet(stamps, {camera: image for camera, (_, image) in heads.items()}))
                for waiting in self._waiting.values():
                    waiting.popleft()
            else:  # every later image of the other cameras is even further away from the oldest one
                self._waiting[min(stamps, key=stamps.get)].popleft()
                self.drops["another camera has no image of this time"] += 1
        return sets
