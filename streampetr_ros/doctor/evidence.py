"""What was seen of a rig, live or in a bag, as values. Times are nanoseconds; knows no node and no bag."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Offer:
    """What a publisher promises."""

    reliable: bool
    latched: bool  # transient local: who subscribes late gets the last message too


@dataclass
class Topic:
    """A topic that is there: its types, what its publishers promise, and how many messages were counted."""

    msgtypes: set[str] = field(default_factory=set)
    offers: set[Offer] = field(default_factory=set)
    count: int | None = None  # None: it was not listened to


@dataclass(frozen=True)
class Shot:
    """An image that was kept: grey and small, for comparison with the next."""

    stamp: int
    frame: str
    grey: NDArray[np.uint8]
    scale: float  # its width as a part of the image's


@dataclass
class Camera:
    """What came from one camera, in the order of arrival."""

    stamps: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    frames: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) of the images looked into
    faults: Counter[str] = field(default_factory=Counter)  # images that cannot be used, by what is wrong
    infos: list[Any] = field(default_factory=list)  # CameraInfo, each that differs from the one before
    pairs: list[tuple[Shot, Shot]] = field(default_factory=list)
    picture: NDArray[np.uint8] | None = None  # the last image looked into: blue, green, red


@dataclass
class Link:
    """One edge of the tf tree, from a parent frame to its child."""

    static: bool
    stamps: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    invalid: int = 0  # transforms that are not finite, or whose quaternion is not of length 1


@dataclass
class Evidence:
    """All that was seen."""

    source: str  # a bag's path, or what was listened to
    topics: dict[str, Topic] = field(default_factory=dict)
    cameras: dict[str, Camera] = field(default_factory=dict)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)  # (parent, child)

    @property
    def frames(self) -> set[str]:
        """Names of all frames of the tf tree."""
        return {frame for link in self.links for frame in link}
