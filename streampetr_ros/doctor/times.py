"""Rates, stamps and the rhythm of the cameras. Knows nothing of ROS; times in nanoseconds."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import numpy as np

from streampetr_ros.doctor.evidence import Camera, Evidence
from streampetr_ros.doctor.findings import Finding, error, ok, warning
from streampetr_ros.parameters import Parameters
from streampetr_ros.rhythm import learn_rhythm
from streampetr_ros.synchroniser import Synchroniser

_SECOND = 1_000_000_000
_SLOWEST, _FASTEST = 1.9, 31.0  # Hz
_MOST_LOST = 0.05  # part of a camera's images
_MOST_DISORDERED = 0.02  # part of a camera's images
_SAME_RATE = 0.15  # part by which rates may differ
_FAR_NS = _SECOND  # the synchroniser leaves out a camera whose stamps are this far from the others'
_APART_NS = _SECOND // 4
_OTHER_CLOCK_NS = 10 * _SECOND
_FUTURE_NS = 20_000_000
_SLOW_NS = _SECOND // 2
_RHYTHM_IMAGES = 60  # the last ones of each camera, from which the rhythm is told
_FEWEST_WHOLE = 0.9  # part of the rotations that should have all cameras


def check_times(expected: Parameters, seen: Evidence) -> Iterator[Finding]:
    """Check the stamps of all cameras that sent images."""
    alive = {name: camera for name, camera in seen.cameras.items() if camera.stamps}
    for name, camera in alive.items():
        yield from _stamps(name, camera)
        yield from _rate(name, camera)
    if not alive:
        return
    yield from _rates(alive)
    yield from _apart(alive)
    yield from _clock(alive)
    if len(alive) > 1:
        yield from _rhythm(alive)
    yield from _sets(expected, alive)


def _stamps(name: str, camera: Camera) -> Iterator[Finding]:
    stamps, total = camera.stamps, len(camera.stamps)
    remedy = "let the driver stamp each image with the time of its exposure"
    zero = stamps.count(0)
    if zero:
        yield error("zero stamps", name, "the time of exposure in header.stamp", f"{zero} of {total} are zero", remedy)
        return
    repeated = total - len(set(stamps))
    if repeated:
        found = f"{repeated} of {total} images repeat a stamp"
        yield warning(
            "duplicate stamps", name, "another stamp for each image", found, remedy + "; or stop a second one"
        )
    back = [a - b for a, b in pairwise(stamps) if b < a]
    if back:
        found = f"{len(back)} of {total} images are older than the one before, by up to {max(back) / _SECOND:.3f} s"
        serious = len(back) > _MOST_DISORDERED * total or max(back) > _FAR_NS
        judge = error if serious else warning
        cause = "look for two publishers of the topic, a clock that was set back, or a bag that was looped"
        yield judge("stamps go back", name, "each stamp later than the one before", found, cause)
    if not repeated and not back:
        yield ok("stamps", name, f"{total} stamps, each later than the one before")


def _interval(camera: Camera) -> float | None:
    """Return the median time between two exposures; None for fewer than two."""
    gaps = [b - a for a, b in pairwise(sorted(set(camera.stamps)))]
    return median(gaps) if gaps else None


def _rate(name: str, camera: Camera) -> Iterator[Finding]:
    interval = _interval(camera)
    if interval is None:
        yield warning("rate", name, "several images", f"{len(camera.stamps)}", "record or listen for longer")
        return
    rate = _SECOND / interval
    if _SLOWEST <= rate <= _FASTEST:
        yield ok("rate", name, f"{rate:.1f} Hz")
    else:
        found = f"{rate:.2f} Hz"
        yield warning("rate", name, "2 to 20 Hz", found, "set the camera's rate; the network sees no more with others")
    due = 1 + sum(max(1, round((b - a) / interval)) for a, b in pairwise(sorted(set(camera.stamps))))
    lost = 1 - len(set(camera.stamps)) / due
    if lost > _MOST_LOST:
        remedy = "look for lost messages: use compressed images, reliable transport or larger socket buffers"
        yield warning("lost images", name, "no gaps", f"{100 * lost:.0f} % of {due} images are missing", remedy)


def _rates(cameras: dict[str, Camera]) -> Iterator[Finding]:
    intervals = {name: _interval(camera) for name, camera in cameras.items()}
    known = {name: interval for name, interval in intervals.items() if interval}
    if len(known) < 2:
        return
    usual = median(known.values())
    odd = {}
    for name, interval in known.items():
        ratio = interval / usual
        if min(abs(ratio - same) / same for same in (0.5, 1.0, 2.0)) > _SAME_RATE:
            odd[name] = _SECOND / interval
    if odd:
        found = (
            ", ".join(f"{name} {rate:.1f} Hz" for name, rate in odd.items()) + f"; usual is {_SECOND / usual:.1f} Hz"
        )
        yield error("rates differ", "", "one rate for all cameras, or half of it", found, "bring them to one rate")


def _apart(cameras: dict[str, Camera]) -> Iterator[Finding]:
    """Compare the clocks of cameras by how far their stamps are from the arrival of the images."""
    offsets = {name: _offset(camera) for name, camera in cameras.items()}
    usual = median(offsets.values())
    is_apart = False
    for name, offset in offsets.items():
        apart = offset - usual
        if abs(apart) < _APART_NS or 0 in cameras[name].stamps:
            continue
        is_apart = True
        side = "ahead of" if apart > 0 else "behind"
        found = f"its stamps lie {abs(apart) / _SECOND:.3f} s {side} those of the others that come at the same time"
        judge = error if abs(apart) > _FAR_NS else warning
        yield judge("stamps apart", name, "the clock of the other cameras", found, "fix this camera's clock")
    if not is_apart:
        yield ok("clocks agree", "", f"stamps of all cameras lie within {_APART_NS / _SECOND:g} s of each other")


def _offset(camera: Camera) -> float:
    """Return how far the stamps are ahead of the arrival."""
    return median(stamp - arrival for stamp, arrival in zip(camera.stamps, camera.arrivals, strict=True))


def _clock(cameras: dict[str, Camera]) -> Iterator[Finding]:
    """Compare stamps with the clock of who received the images."""
    ages = [a - s for c in cameras.values() for s, a in zip(c.stamps, c.arrivals, strict=True)]
    middle, high = np.percentile(ages, [50, 95]) / _SECOND
    told = f"images arrive {middle:.3f} s after their stamps (95 %: {high:.3f} s)"
    if abs(middle) > _OTHER_CLOCK_NS / _SECOND:
        expected = "stamps of the time at which the images were received"
        remedy = "if it is a replay, use sim time (/clock); else synchronise the clocks (chrony, PTP)"
        yield warning("other clock", "", expected, told, remedy)
    elif middle < -_FUTURE_NS / _SECOND:
        yield error("stamps in the future", "", "images arrive after their stamps", told, "synchronise the clocks")
    elif middle > _SLOW_NS / _SECOND:
        remedy = "find out where images wait: exposure, driver, encoding, network"
        yield warning("latency", "", f"less than {_SLOW_NS / _SECOND:g} s", told, remedy)
    else:
        yield ok("latency", "", told)


def _rhythm(cameras: dict[str, Camera]) -> Iterator[Finding]:
    rhythm = learn_rhythm({name: camera.stamps[-_RHYTHM_IMAGES:] for name, camera in cameras.items()})
    expected = "all cameras at fixed places within a rotation"
    remedy = "trigger the cameras together, or one after the other, at one rate"
    if rhythm is None:
        yield warning("rhythm", "", expected, "none can be told from these stamps", remedy + "; or record for longer")
        return
    strangers = [name for name in cameras if name not in rhythm.offsets]
    first = min(rhythm.offsets.values())
    offsets = ", ".join(f"{n} {(o - first) / 1e6:.0f}" for n, o in sorted(rhythm.offsets.items(), key=lambda x: x[1]))
    told = f"exposures after the first, ms: {offsets}; deviation {rhythm.deviation / 1e6:.1f} ms"
    if strangers:
        yield warning("rhythm", ", ".join(strangers), expected, f"not these cameras; {told}", remedy)
    else:
        yield ok("rhythm", "", told)


def _sets(expected: Parameters, cameras: dict[str, Camera]) -> Iterator[Finding]:
    """Let the node's own synchroniser group the images, as they came."""
    synchroniser = Synchroniser(expected.cameras, expected.smallest_set, expected.max_wait)
    events = sorted((a, n, s) for n, c in cameras.items() for s, a in zip(c.stamps, c.arrivals, strict=True))
    steps = [synchroniser.add(name, stamp, None, arrival / _SECOND) for arrival, name, stamp in events]
    end = events[-1][0] / _SECOND
    steps += [synchroniser.poll(end + wait) for wait in (expected.max_wait, 10.0)]
    sets = [each for step in steps for each in step.sets]
    whole = sum(len(each.images) == len(expected.cameras) for each in sets)
    drops: Counter[str] = synchroniser.drops
    dropped = "".join(f"; {count} images dropped: {reason}" for reason, count in drops.items())
    told = (
        f"{len(sets)} sets of {len(events)} images, {whole} of them with all {len(expected.cameras)} cameras{dropped}"
    )
    remedy = "mend what is said of stamps and rates"
    if not sets:
        yield error("sets", "", f"sets of {expected.smallest_set} or more cameras", told, remedy)
    elif whole < _FEWEST_WHOLE * len(sets):
        yield warning("sets", "", "all cameras in nearly every set", told, remedy)
    else:
        yield ok("sets", "", told)
