"""Grouping images into sets of one rotation. Knows nothing of ROS: stamps are integers, images are whatever.

1. A jump of the clock is told from a wrong stamp (`streampetr_ros.jumps`).
2. The first rotations are kept until it is known when each camera exposes within a rotation (`streampetr_ros.rhythm`);
   then they are sorted out like all later ones, so nothing is lost by it.
3. An image, less its camera's offset, gives the origin of its rotation. It joins the rotation whose origin is the same
   within a tolerance that follows the measured deviation, or begins one. In between, it is dropped: two rotations are
   never mixed.
4. Rotations are released in order. The oldest is over when every camera that lives is in it, or has sent a later image
   (after as long as images have been seen to overtake each other), or at its deadline: `max_wait` after the last image
   was due. A camera that was in none of the last rotations is not waited for.
5. A rotation of at least `min_cameras` images becomes a set. Every other image is counted under a reason.
6. What was learnt is renewed all the time. When rotations crowd, since the rig changed, it is learnt from nothing.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streampetr_ros.jumps import Arrival, JumpGuard
from streampetr_ros.rhythm import FEWEST_IMAGES, Rhythm, learn_rhythm

DUPLICATE = "duplicate of an image before it"
FAR = "stamp is far from that of the other cameras"
LATE = "came after its set was released"
SECOND = "second image of its camera in one rotation"
BETWEEN = "between two rotations"
INCOMPLETE = "too few cameras in its rotation"
UNPLACED = "its camera's place in the rotation is not known yet"
JUMPED = "waited when the clock jumped"
ENDED = "waited when the node was stopped"

_PATIENCE = 6  # images of the fastest camera, after which the rhythm is learnt without the missing cameras
_WINDOW, _RENEWAL = 10, 8  # rotations: from how many the rhythm is learnt, and how often
_LONE_SECONDS, _LONE_SPREAD_NS = 2.0, 250_000_000  # when the first images are not followed by others
_MOST_OPEN = 8  # rotations that wait
_DEAD_AFTER = 8  # rotations without a camera
_KEPT_STAMPS = 32  # of each camera, to know duplicates
_CROWDED, _CROWDED_OF = 3, 8  # so many rotations too close to another, of so many
_FORGET_DISORDER = 0.995  # with every image


@dataclass(frozen=True)
class ImageSet:
    """Images of one rotation, one of each camera that is there; stamps in nanoseconds."""

    stamps: dict[str, int]
    images: dict[str, Any]

    @property
    def newest_stamp(self) -> int:
        """Stamp of the last exposure of the set."""
        return max(self.stamps.values())


@dataclass(frozen=True)
class Drop:
    """An image that is in no set, and why."""

    camera: str
    stamp: int
    reason: str
    image: Any = field(default=None, compare=False)


@dataclass
class Step:
    """What one call to the synchroniser brought."""

    sets: list[ImageSet] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for the log: what was learnt or given up
    jump: int | None = None  # ns by which the clock jumped, if it did

    def drop(self, arrival: Arrival, reason: str) -> None:
        """Note an image that goes."""
        self.drops.append(Drop(arrival.camera, arrival.stamp, reason, arrival.image))


@dataclass
class _Rotation:
    """Images that belong together; `origin` is the mean of what they say."""

    origin: int
    deadline: float
    members: dict[str, Arrival]

    def __lt__(self, other: "_Rotation") -> bool:
        return self.origin < other.origin


class Synchroniser:
    """Takes images as they come, and returns sets. See the text above for how."""

    def __init__(self, cameras: Sequence[str], min_cameras: int, max_wait: float) -> None:
        """Take the names of the cameras, the smallest set, and how long (s) to wait for images that are overdue."""
        self.drops: Counter[str] = Counter()  # number of images by reason
        self.relocks = 0
        self._cameras = tuple(cameras)
        self._min_cameras = min_cameras
        self._max_wait = max_wait
        self._jumps = JumpGuard(cameras)
        self._seen = {camera: deque(maxlen=_KEPT_STAMPS) for camera in cameras}
        self._newest: dict[str, tuple[int, float]] = {}  # newest stamp of each camera, and when it came
        # One camera needs no rhythm: every image is a rotation.
        self.rhythm = Rhythm({cameras[0]: 0}, 0, 0) if len(cameras) == 1 else None
        self._window: deque[tuple[str, int]] = deque(maxlen=_WINDOW * len(cameras))
        self._since_renewal = 0
        self._waiting: list[Arrival] = []  # while the rhythm is learnt
        self._open: list[_Rotation] = []  # by origin
        self._closed: _Rotation | None = None  # the last one
        self._absent: Counter[str] = Counter()  # rotations since a camera was in one
        self._crowding: deque[bool] = deque(maxlen=_CROWDED_OF)
        self._disorder = 0.0  # seconds by which images of one camera overtake each other

    def add(self, camera: str, stamp: int, image: Any, now: float) -> Step:
        """Take an image: its exposure `stamp` in ns, and when it came (`now`, s, of the clock that `poll` is given)."""
        step = Step()
        admission = self._jumps.admit(Arrival(camera, stamp, image, now))
        for refused in admission.refused:
            step.drop(refused, FAR)
        step.jump = admission.jump
        if admission.jump is not None and admission.jump < 0:
            self._forget_time(step)
        for arrival in admission.admitted:
            if arrival.stamp in self._seen[arrival.camera]:
                step.drop(arrival, DUPLICATE)
            else:
                self._take(arrival, step)
        return self._finish(step, now)

    def poll(self, now: float) -> Step:
        """Release what has waited long enough."""
        step = Step()
        if self._waiting and now - self._waiting[-1].time >= _LONE_SECONDS:
            self._release_lone_set(step)
        return self._finish(step, now)

    def end(self) -> Step:
        """Drop what waits."""
        step = Step()
        for arrival in [*self._waiting, *self._jumps.held, *(a for r in self._open for a in r.members.values())]:
            step.drop(arrival, ENDED)
        self._waiting, self._open, self._jumps = [], [], JumpGuard(self._cameras)
        self.drops.update(drop.reason for drop in step.drops)
        return step

    def lags(self) -> dict[str, float]:
        """Return by how many seconds the newest stamp of each camera is behind the newest of all."""
        newest = max((stamp for stamp, _ in self._newest.values()), default=0)
        return {camera: (newest - stamp) / 1e9 for camera, (stamp, _) in self._newest.items()}

    @property
    def waiting(self) -> int:
        """Number of images that are neither in a set nor dropped yet."""
        return len(self._waiting) + len(self._jumps.held) + sum(len(rotation.members) for rotation in self._open)

    def _finish(self, step: Step, now: float) -> Step:
        while self._open and self._is_over(self._open[0], now):
            self._close(self._open.pop(0), step)
        self.drops.update(drop.reason for drop in step.drops)
        return step

    def _take(self, arrival: Arrival, step: Step) -> None:
        """Use an image of the present time: learn from it, and put it into its rotation."""
        self._seen[arrival.camera].append(arrival.stamp)
        stamp, time = self._newest.get(arrival.camera, (arrival.stamp, arrival.time))
        self._disorder *= _FORGET_DISORDER
        if arrival.stamp < stamp:
            self._disorder = min(max(self._disorder, arrival.time - time), self._max_wait)
        else:
            self._newest[arrival.camera] = arrival.stamp, arrival.time
        self._window.append((arrival.camera, arrival.stamp))
        if self.rhythm is None:
            self._waiting.append(arrival)
            self._learn(step)
            return
        self._place(arrival, step)
        self._since_renewal += 1
        if self.rhythm is not None and self._since_renewal >= self._renewal_after(arrival.camera):
            self._renew(step)

    def _renewal_after(self, camera: str) -> int:
        """Return after how many images to learn anew, sooner while a camera is unknown."""
        return len(self._cameras) * (_RENEWAL if camera in self.rhythm.offsets else 1)

    def _learnt(self) -> Rhythm | None:
        self._since_renewal = 0
        stamps = {camera: [stamp for c, stamp in self._window if c == camera] for camera in self._cameras}
        return learn_rhythm(stamps)

    def _learn(self, step: Step) -> None:
        """Begin to release sets if the rhythm can be told."""
        counts = Counter(arrival.camera for arrival in self._waiting)
        enough = all(counts[camera] >= FEWEST_IMAGES for camera in self._cameras)
        if not enough and max(counts.values()) < _PATIENCE:
            return
        self.rhythm = self._learnt()
        if self.rhythm is not None:
            step.notes.append(f"rhythm of the cameras learnt: {_describe(self.rhythm)}")
            self._place_waiting(step)
        while len(self._waiting) > _WINDOW * len(self._cameras):
            step.drop(self._waiting.pop(0), UNPLACED)

    def _release_lone_set(self, step: Step) -> None:
        """Take one image of each camera and no more, as in a recording of one instant, for a set."""
        stamps = {arrival.camera: arrival.stamp for arrival in self._waiting}
        is_whole = len(stamps) == len(self._cameras) == len(self._waiting)
        if is_whole and max(stamps.values()) - min(stamps.values()) <= _LONE_SPREAD_NS:
            step.notes.append("one image of each camera and no more: they are taken for one rotation")
            step.sets.append(ImageSet(stamps, {arrival.camera: arrival.image for arrival in self._waiting}))
            self._waiting = []

    def _renew(self, step: Step) -> None:
        """Follow the cameras; where rotations begin elsewhere now, sort those that are open out anew."""
        learnt = self._learnt()
        if learnt is None:
            return
        new_cameras = sorted(set(learnt.offsets) - set(self.rhythm.offsets))
        self.rhythm, changed = self.rhythm.renewed(learnt)
        if new_cameras:
            step.notes.append(f"rhythm of {', '.join(new_cameras)} learnt too: {_describe(self.rhythm)}")
        if changed:
            self._reopen(step, "they have drifted, or were seen too seldom before")
            self._place_waiting(step)

    def _reopen(self, step: Step, cause: str) -> None:
        """Take the images of open rotations out again."""
        self.relocks += 1
        step.notes.append(f"rhythm of the cameras changed: {cause}")
        self._waiting = [arrival for rotation in self._open for arrival in rotation.members.values()]
        self._open = []
        self._crowding.clear()

    def _place_waiting(self, step: Step) -> None:
        if self._closed is not None:  # its origin in terms of the new rhythm, and rather too late than too early
            origins = [self._origin(a) for a in self._closed.members.values() if a.camera in self.rhythm.offsets]
            self._closed.origin = max(origins, default=self._closed.origin)
        waiting, self._waiting = sorted(self._waiting, key=lambda arrival: arrival.stamp), []
        for arrival in waiting:
            if self.rhythm is None:  # it broke down again
                self._waiting.append(arrival)
            else:
                self._place(arrival, step)

    def _origin(self, arrival: Arrival) -> int:
        return arrival.stamp - self.rhythm.offsets[arrival.camera]

    def _place(self, arrival: Arrival, step: Step) -> None:
        """Put an image into its rotation, or drop it."""
        if arrival.camera not in self.rhythm.offsets:
            step.drop(arrival, UNPLACED)
            return
        origin, tolerance = self._origin(arrival), self.rhythm.tolerance
        if self._closed is not None and origin <= self._closed.origin + tolerance:
            if arrival.time <= self._closed.deadline + (origin - self._closed.origin) / 1e9:
                self._absent[arrival.camera] = 0  # it lives and was not waited for
            step.drop(arrival, LATE)
            return
        rotations = self._open if self._closed is None else [self._closed, *self._open]
        nearest = min(rotations, key=lambda rotation: abs(rotation.origin - origin), default=None)
        distance = None if nearest is None else abs(nearest.origin - origin)
        if distance is None or distance > 2 * tolerance:
            self._open_rotation(arrival, origin, distance, step)
        elif distance > tolerance:
            step.drop(arrival, BETWEEN)
        elif arrival.camera in nearest.members:
            step.drop(arrival, SECOND)
        else:
            count = len(nearest.members)
            nearest.origin = (nearest.origin * count + origin) // (count + 1)
            nearest.members[arrival.camera] = arrival

    def _open_rotation(self, arrival: Arrival, origin: int, distance: int | None, step: Step) -> None:
        due = max(self.rhythm.offsets[camera] for camera in self._awaited() | {arrival.camera})
        to_come = (due - self.rhythm.offsets[arrival.camera]) / 1e9
        insort(self._open, _Rotation(origin, arrival.time + to_come + self._max_wait, {arrival.camera: arrival}))
        self._crowding.append(distance is not None and self.rhythm.is_crowded(distance))
        if sum(self._crowding) >= _CROWDED:
            self._reopen(step, "images come at other intervals than were learnt; it is learnt anew")
            kept = {(arrival.camera, arrival.stamp) for arrival in self._waiting}
            self._window = deque((entry for entry in self._window if entry in kept), self._window.maxlen)
            self.rhythm = None

    def _awaited(self) -> set[str]:
        return {camera for camera in self.rhythm.offsets if self._absent[camera] < _DEAD_AFTER}

    def _is_over(self, rotation: _Rotation, now: float) -> bool:
        missing = self._awaited() - set(rotation.members)
        if now >= rotation.deadline or len(self._open) > _MOST_OPEN:
            return True
        return all(self._has_passed(camera, rotation, now) for camera in missing)

    def _has_passed(self, camera: str, rotation: _Rotation, now: float) -> bool:
        """Say whether a camera has sent a later image, and an image that it overtook would be here by now."""
        if camera not in self._newest:
            return False
        stamp, time = self._newest[camera]
        after = stamp - self.rhythm.offsets[camera] - rotation.origin
        return after > self.rhythm.tolerance and now - time >= self._disorder

    def _close(self, rotation: _Rotation, step: Step) -> None:
        for camera in self._cameras:
            self._absent[camera] = 0 if camera in rotation.members else self._absent[camera] + 1
        if len(rotation.members) >= self._min_cameras:
            members = sorted(rotation.members.values(), key=lambda arrival: arrival.stamp)
            step.sets.append(ImageSet({a.camera: a.stamp for a in members}, {a.camera: a.image for a in members}))
        else:
            for arrival in rotation.members.values():
                step.drop(arrival, INCOMPLETE)
        self._closed = _without_images(rotation)

    def _forget_time(self, step: Step) -> None:
        """Begin at an earlier time; what was learnt of the cameras stays."""
        for arrival in self._waiting:
            step.drop(arrival, JUMPED)
        for rotation in self._open:
            self._close(rotation, step)
        self._waiting, self._open, self._closed = [], [], None
        self._window.clear()
        self._newest.clear()
        for stamps in self._seen.values():
            stamps.clear()


def _without_images(rotation: _Rotation) -> _Rotation:
    members = {camera: replace(arrival, image=None) for camera, arrival in rotation.members.items()}
    return _Rotation(rotation.origin, rotation.deadline, members)


def _describe(rhythm: Rhythm) -> str:
    order = sorted(rhythm.offsets, key=rhythm.offsets.get)
    pause = f"at least {rhythm.spacing / 1e6:.0f} ms apart, " if rhythm.spacing else ""
    return f"rotations {pause}exposures within {rhythm.spread / 1e6:.0f} ms, first {order[0]}, last {order[-1]}"
