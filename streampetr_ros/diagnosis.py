"""Why the node publishes, or does not: counters and times in, named states with remedies out. Knows nothing of ROS."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from statistics import median

from streampetr_core.errors import StreampetrError
from streampetr_ros.synchroniser import FAR, INCOMPLETE, LATE, Drop

SILENT_SECONDS = 1.0  # without an image of a camera, or without a set
_MISSED_INTERVALS = 2.5  # of a camera that is slower than that
_RECENT_SECONDS = 2.0  # what happened within this time is the present state
NO_INFO, BAD_INFO = "no CameraInfo", "unusable CameraInfo"
_RATE_IMAGES = 20  # of a camera, to tell its rate by
_RECENT_DROPS = 100
_MANY = 0.5  # part of a camera's images


class Level(IntEnum):
    """How bad a state is; the values of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class State:
    """One thing that is the case, and what to do about it."""

    name: str
    level: Level
    text: str
    remedy: str
    subject: str = ""  # the camera, where it is about one

    def __str__(self) -> str:
        text = self.text if self.text.startswith(self.name) else f"{self.name}: {self.text}"
        return f"{text}; {self.remedy}" if self.remedy else text


@dataclass(frozen=True)
class Surroundings:
    """What others know at the time of a report."""

    missing_infos: Mapping[str, str] = field(default_factory=dict)  # camera: topic on which no CameraInfo came
    publishers: Sequence[State] = ()  # of whom nothing can be heard
    rhythm_known: bool = True
    smallest_set: int = 1


@dataclass
class _Camera:
    topic: str
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_IMAGES))
    stamp: int = 0
    count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)  # images of sets that could not be used, and bad messages
    drops: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_RECENT_DROPS))

    def is_silent(self, now: float) -> bool:
        return not self.times or now - self.times[-1] > max(SILENT_SECONDS, _MISSED_INTERVALS * self.interval)

    @property
    def interval(self) -> float:
        """Mean time between the last images; 0 for less than two."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1) if len(self.times) > 1 else 0.0

    def rate(self, now: float) -> float:
        """Images per second, over the last ones; none for a camera that fell silent."""
        return 0.0 if self.is_silent(now) or not self.interval else 1 / self.interval

    def facts(self, now: float) -> dict[str, object]:
        age = now - self.times[-1] if self.times else None
        facts = {"topic": self.topic, "images": self.count, "rate, Hz": self.rate(now), "last image ago, s": age}
        facts |= {f"dropped: {reason}": count for reason, count in self.dropped.items()}
        return facts | {f"unusable: {name}": count for name, count in self.faults.items()}

    def recent_drops(self, now: float, *kinds: str) -> int:
        return sum(now - at < _RECENT_SECONDS and kind in kinds for at, kind in self.drops)


class Monitor:
    """Counts what happens to images and sets; may be called from any thread. Times are seconds of a steady clock."""

    def __init__(self, topics: Mapping[str, str], now: float) -> None:
        """Take the image topic of each camera."""
        self.set_drops: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()  # that are no camera's own
        self.released = self.published = 0  # sets
        self.in_sets = 0  # images
        self._lock = threading.Lock()
        self._started = now
        self._cameras = {camera: _Camera(topic) for camera, topic in topics.items()}
        self._set_times: deque[float] = deque(maxlen=_RATE_IMAGES)
        self._work_seconds = 0.0
        self._overruns: deque[float] = deque(maxlen=_RECENT_DROPS)
        self._faults: dict[tuple[str, str], tuple[float, str]] = {}
        self._published_at = self._seen_at = now
        self._best = self._threshold = 0.0

    def image(self, camera: str, stamp: int, now: float) -> None:
        """Note that an image came."""
        with self._lock:
            entry = self._cameras[camera]
            entry.times.append(now)
            entry.stamp, entry.count = stamp, entry.count + 1

    def unusable_image(self, camera: str, reason: str, now: float) -> None:
        """Note an image that came and is dropped at once."""
        with self._lock:
            self._cameras[camera].times.append(now)
            self._cameras[camera].count += 1
        self.dropped([Drop(camera, 0, reason)], now)

    def dropped(self, drops: Sequence[Drop], now: float) -> None:
        """Note images that are in no set."""
        with self._lock:
            for drop in drops:
                self._cameras[drop.camera].drops.append((now, drop.reason))
                self._cameras[drop.camera].dropped[drop.reason] += 1

    @property
    def image_drops(self) -> Counter[str]:
        """Images that are in no set, by reason."""
        with self._lock:
            return sum((camera.dropped for camera in self._cameras.values()), Counter())

    def set_released(self, images: int, now: float) -> None:
        """Note a set of so many images, before anything is done with it."""
        with self._lock:
            self._set_times.append(now)
            self.released += 1
            self.in_sets += images

    def set_dropped(self, reason: str, now: float, overrun: bool = False) -> None:
        """Note a set that came to nothing; `overrun` if it was for want of time."""
        with self._lock:
            self.set_drops[reason] += 1
            if overrun:
                self._overruns.append(now)

    def set_published(self, seconds: float, best: float, threshold: float, now: float) -> None:
        """Note a published set: how long it took, and its best score."""
        with self._lock:
            self.published += 1
            self._published_at, self._work_seconds = now, seconds
            self._best, self._threshold = best, threshold
            if best >= threshold:
                self._seen_at = now

    def fault(self, name: str, camera: str, text: str, now: float) -> None:
        """Note what is wrong with a camera, or with all (`camera` is empty)."""
        with self._lock:
            self._faults[name, camera] = now, text
            (self._cameras[camera].faults if camera else self.faults)[name] += 1

    @contextmanager
    def watching(self, name: str, camera: str = "") -> Iterator[None]:
        """Note a StreampetrError that passes as a fault of this name."""
        try:
            yield
        except StreampetrError as error:
            self.fault(name, camera, str(error), time.monotonic())
            raise

    def states(self, now: float, around: Surroundings) -> list[State]:
        """Return what is the case, worst first."""
        with self._lock:
            found = [
                *around.publishers,
                *self._silences(now),
                *self._calibrations(now, around),
                *self._stamps(now),
                *self._recent_faults(now),
                *self._incomplete(now, around),
                *self._overrun(now),
                *self._unsure(now),
            ]
        distinct = {(state.name, state.subject): state for state in reversed(found)}  # the first of each
        return sorted(reversed(distinct.values()), key=lambda state: -state.level)

    def cameras(self, now: float) -> dict[str, dict[str, object]]:
        """Return what is known of the images of each camera, under names that say the unit."""
        with self._lock:
            return {name: camera.facts(now) for name, camera in self._cameras.items()}

    def _silences(self, now: float) -> Iterator[State]:
        if now - self._started <= SILENT_SECONDS:
            return
        remedy = "check the camera, its topic, 'transport' and 'reliability'"
        for name, camera in self._cameras.items():
            if camera.is_silent(now):
                since = f"for {now - camera.times[-1]:.1f} s" if camera.times else "yet"
                level = Level.ERROR if self._no_sets(now) else Level.WARN
                yield State("no images", level, f"none on {camera.topic} {since}", remedy, name)

    def _calibrations(self, now: float, around: Surroundings) -> Iterator[State]:
        for name, topic in around.missing_infos.items():
            if not self._cameras[name].is_silent(now):
                remedy = "start the camera's driver or fix 'camera_info_topic'"
                yield State(NO_INFO, Level.ERROR, f"none on {topic} yet", remedy, name)

    def _stamps(self, now: float) -> Iterator[State]:
        alive = [camera for camera in self._cameras.values() if not camera.is_silent(now)]
        for name, camera in self._cameras.items():
            others = [other.stamp for other in alive if other is not camera]
            images = sum(now - at < _RECENT_SECONDS for at in camera.times)
            misfits = camera.recent_drops(now, FAR, LATE)
            if others and not camera.is_silent(now) and misfits > max(1, _MANY * images):
                apart = (camera.stamp - median(others)) / 1e6
                side = "ahead of" if apart > 0 else "behind"
                text = f"those of {camera.topic} lie {abs(apart):.0f} ms {side} the others'"
                yield State("stamps apart", Level.ERROR, text, "fix the cameras' clocks or raise 'max_wait'", name)

    def _recent_faults(self, now: float) -> Iterator[State]:
        for (name, camera), (at, text) in self._faults.items():
            if now - at < _RECENT_SECONDS:
                text, _, remedy = text.partition("; ")
                yield State(name, Level.ERROR, text, remedy, camera)

    def _incomplete(self, now: float, around: Surroundings) -> Iterator[State]:
        alive = [name for name, camera in self._cameras.items() if not camera.is_silent(now)]
        if not alive or not self._no_sets(now):
            return
        if not around.rhythm_known:
            text = "too few images yet to tell rotations apart"
            yield State("learning the rhythm", Level.WARN, text, "if it lasts, bring the cameras to one rate")
        elif any(self._cameras[name].recent_drops(now, INCOMPLETE) for name in alive):
            rates = ", ".join(f"{name} {self._cameras[name].rate(now):.1f} Hz" for name in alive)
            text = f"no rotation has images of {around.smallest_set} cameras ({rates})"
            remedy = "bring the cameras to one rate, or lower 'min_cameras'"
            yield State("incomplete sets", Level.ERROR, text, remedy)

    def _overrun(self, now: float) -> Iterator[State]:
        late = sum(now - at < _RECENT_SECONDS for at in self._overruns)
        if late:
            intervals = [b - a for a, b in zip(self._set_times, list(self._set_times)[1:], strict=False)]
            every = f", one comes every {1e3 * median(intervals):.0f} ms" if intervals else ""
            text = f"{late} sets dropped in {_RECENT_SECONDS:g} s; a set takes {1e3 * self._work_seconds:.0f} ms{every}"
            yield State("over budget", Level.WARN, text, "use a smaller model, a faster device or slower cameras")

    def _unsure(self, now: float) -> Iterator[State]:
        since = self._published_at - self._seen_at
        if now - self._published_at < _RECENT_SECONDS and since > SILENT_SECONDS:
            text = f"the best is {self._best:.2f}, 'score_threshold' is {self._threshold:.2f}"
            remedy = "nothing may be there; else lower the threshold, and check calibration and weights"
            yield State("all scores below threshold", Level.OK, text, remedy)

    def _no_sets(self, now: float) -> bool:
        return now - (self._set_times[-1] if self._set_times else self._started) > SILENT_SECONDS
