"""When each camera exposes within a rotation of the rig, learnt from the stamps alone. Knows nothing of ROS.

The cameras of a rig expose one after the other, as a LiDAR sweeps past them, or all at one trigger. Seen from the
stamps a rotation has no beginning: at 12 Hz, exposures at 0, 8, 15, 23, 33 and 42 ms could as well begin with the third
camera. The rotation is taken to be the tightest group of one image of each camera. That is the one with the longest
pause before it where the rotations come evenly, and the only one of constant offsets where they do not (nuScenes: 50
and 100 ms). Offsets are kept in time, not as a part of the period, so pauses, losses and other rates change nothing.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, median_low

FEWEST_IMAGES = 3  # of a camera, to tell its offset
_FEWEST_SAMPLES = 2  # of an offset, to believe it
_MARGINS = (
    0.02,
    0.05,
    0.1,
    0.17,
    0.25,
    0.33,
    0.42,
    0.5,
)  # of the spacing: how long before a camera a rotation may begin
_UNSTEADY = 4.0  # a millisecond of deviation weighs like so many of spread
_LEAST_TOLERANCE_NS = 8_000_000
_LEAST_TOLERANCE_PART, _MOST_TOLERANCE_PART = 0.15, 0.3  # of the spacing
_DEVIATIONS = 6.0  # images of one rotation lie within so many mean deviations
_NO_COMMON_RHYTHM = 0.25  # of the spacing: a camera of this mean deviation goes its own way
_CLEARLY_TIGHTER = 0.1  # of the spacing: less is no reason to begin rotations elsewhere
_CROWDED = 0.6  # of the spacing


@dataclass(frozen=True)
class Rhythm:
    """What is known of a rig's rotations; all in nanoseconds."""

    offsets: dict[str, int]  # camera: its exposure after the rotation's origin, which is arbitrary but fixed
    spacing: int  # a short interval between two rotations
    deviation: int  # mean absolute deviation of the stamps from the offsets

    @property
    def tolerance(self) -> int:
        """Images of one rotation agree on its origin to within this."""
        least = min(_LEAST_TOLERANCE_NS, _LEAST_TOLERANCE_PART * self.spacing)
        return int(min(max(least, _DEVIATIONS * self.deviation), _MOST_TOLERANCE_PART * self.spacing))

    @property
    def spread(self) -> int:
        """Time from the first exposure of a rotation to the last."""
        return max(self.offsets.values()) - min(self.offsets.values())

    def is_crowded(self, interval: int) -> bool:
        """Say whether two rotations are closer to each other than this rhythm has them."""
        return interval < _CROWDED * self.spacing

    def renewed(self, newer: "Rhythm") -> tuple["Rhythm", bool]:
        """Take over what was learnt later; also say whether rotations now group the cameras in another way.

        The origin stays where it was. Cameras that the newer rhythm does not know keep their offsets.
        """
        known = [camera for camera in newer.offsets if camera in self.offsets]
        # An actual difference, not a mean of two: cameras whose rotation begins elsewhere differ by a whole interval.
        shift = int(median_low([self.offsets[c] - newer.offsets[c] for c in known])) if known else 0
        offsets = {camera: offset + shift for camera, offset in newer.offsets.items()}
        turns = {c: round((self.offsets[c] - offsets[c]) / max(1, newer.spacing)) for c in known}
        moved = [c for c in known if turns[c]]
        # The same grouping as before, each camera where it is by now; rotations that come unevenly are no help in that.
        there = {c: offsets[c] + turns[c] * newer.spacing for c in moved}
        near = {c: at for c, at in there.items() if abs(at - self.offsets[c]) <= newer.tolerance}
        kept = replace(newer, offsets=offsets | {c: self.offsets[c] for c in moved} | near)
        changed = bool(moved) and kept.spread - newer.spread > _CLEARLY_TIGHTER * newer.spacing
        latest = replace(newer, offsets=offsets) if changed else kept
        return replace(latest, offsets=self.offsets | latest.offsets), changed


def learn_rhythm(stamps: Mapping[str, Sequence[int]]) -> Rhythm | None:
    """Return the rhythm of a few rotations, or None if there are too few of them to tell.

    `stamps` holds the exposure times of each camera in ns, in any order, with gaps where images were lost. A camera
    with fewer than three images, or whose images come at all times of the rotation, is left out.
    """
    ordered = {camera: sorted(times) for camera, times in stamps.items() if len(times) >= FEWEST_IMAGES}
    if not ordered:
        return None
    spacing = _spacing(ordered)
    candidates = [_offsets(ordered, first, int(part * spacing), spacing) for first in ordered for part in _MARGINS]
    samples = min(candidates, key=lambda candidate: (-len(candidate), _looseness(candidate, candidate)))
    if any(_contradicts(candidate, samples, _CLEARLY_TIGHTER * spacing) for candidate in candidates):
        return None
    steady = {c: s for c, s in samples.items() if _deviation(s) <= _NO_COMMON_RHYTHM * spacing}
    if not steady:
        return None
    offsets = {camera: int(median(values)) for camera, values in steady.items()}
    return Rhythm(offsets, spacing, int(fmean(_deviation(values) for values in steady.values())))


def _spacing(stamps: Mapping[str, Sequence[int]]) -> int:
    """Return a short interval between images of one camera; the few shortest may be mistakes of a driver."""
    intervals = sorted(b - a for times in stamps.values() for a, b in zip(times, times[1:], strict=False))
    return intervals[len(intervals) // 10]


def _offsets(stamps: Mapping[str, Sequence[int]], first: str, margin: int, spacing: int) -> dict[str, list[int]]:
    """Return the offsets from camera `first` if every rotation begins `margin` before its image.

    A rotation that would hold two images of one camera is left out: an image of `first` was lost there.
    """
    starts = [time - margin for time in stamps[first]]
    groups: list[dict[str, int] | None] = [{} for _ in starts]
    for camera, times in stamps.items():
        for time in times:
            index = bisect_right(starts, time) - 1
            if index < 0 or (index == len(starts) - 1 and time >= starts[index] + spacing):
                continue
            group = groups[index]
            if group is not None and camera in group:
                groups[index] = None
            elif group is not None:
                group[camera] = time - starts[index] - margin
    samples = {camera: [group[camera] for group in groups if group and camera in group] for camera in stamps}
    return {camera: values for camera, values in samples.items() if len(values) >= _FEWEST_SAMPLES}


def _contradicts(other: Mapping[str, Sequence[int]], best: Mapping[str, Sequence[int]], clearly: float) -> bool:
    """Say whether a way to group the images that leaves out a few cameras, for want of images, is tighter without them.

    Then the best one may owe its place to lost images.
    """
    shared = other.keys() & best.keys()
    if not 1 < len(shared) < len(best) < 2 * len(shared):
        return False
    return _looseness(other, shared) + clearly < _looseness(best, shared)


def _looseness(samples: Mapping[str, Sequence[int]], cameras: Collection[str]) -> float:
    """Return the spread of a way to group the images of some cameras, and as much again for unsteady offsets."""
    if not cameras:
        return 0.0
    offsets = [median(samples[camera]) for camera in cameras]
    return max(offsets) - min(offsets) + _UNSTEADY * fmean(_deviation(samples[camera]) for camera in cameras)


def _deviation(values: Sequence[int]) -> float:
    middle = median(values)
    return fmean(abs(value - middle) for value in values)
