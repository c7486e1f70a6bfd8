"""Grouping images of several cameras into sets. Knows nothing of ROS: stamps are integers, images are whatever."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ImageSet:
    """One image of each camera, exposed close together; stamps in nanoseconds."""

    stamps: dict[str, int]
    images: dict[str, Any]

    @property
    def newest_stamp(self) -> int:
        """Stamp of the last exposure of the set."""
        return max(self.stamps.values())


@dataclass
class LatestSet:
    """Keeps the newest image of each camera and releases them as soon as they lie within `max_spread` nanoseconds."""

    cameras: Sequence[str]
    max_spread: int
    drops: Counter = field(default_factory=Counter)  # number of images by the reason for which they were dropped
    _stamps: dict[str, int] = field(default_factory=dict)
    _images: dict[str, Any] = field(default_factory=dict)

    def add(self, camera: str, stamp: int, image: Any) -> ImageSet | None:
        """Take an image; return a set if this image completes one."""
        if camera in self._stamps:
            if stamp <= self._stamps[camera]:
                self.drops["older than the image before it"] += 1
                return None
            self.drops["replaced before its set was complete"] += 1
        self._stamps[camera], self._images[camera] = stamp, image
        if len(self._stamps) < len(self.cameras) or self.spread() > self.max_spread:
            return None
        image_set = ImageSet(dict(self._stamps), dict(self._images))
        self.clear()
        return image_set

    def spread(self) -> int:
        """Nanoseconds between the oldest and the newest image that wait for a set."""
        return max(self._stamps.values()) - min(self._stamps.values())

    def missing(self) -> list[str]:
        """Cameras of which no image waits."""
        return [camera for camera in self.cameras if camera not in self._stamps]

    def clear(self) -> None:
        """Forget the waiting images."""
        self._stamps.clear()
        self._images.clear()
