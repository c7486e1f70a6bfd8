"""Is every transform there that the node will look up, at the times at which it will?"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise

import numpy as np
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array
from streampetr_ros.doctor.evidence import Evidence, Link
from streampetr_ros.doctor.findings import Finding, error, ok, warning
from streampetr_ros.parameters import Parameters
from streampetr_ros.transforms import Transforms, matrix_from_transform

_SECOND = 1_000_000_000
_MOST_LOOKUPS = 300  # for each camera
_EDGES = 0.1  # part of a recording's images that may lie before the first transform or after the last
_SLOWEST = 9.0  # Hz
_LONG_GAP, _LONGEST_GAP = 0.35, 2.0  # seconds
_LAG = 0.1  # seconds


class Tree:
    """The tf tree as the node will see it."""

    def __init__(self, buffer: Buffer, expected: Parameters) -> None:
        self._buffer = buffer
        self._expected = expected
        self.at_times = Transforms(buffer, expected.base_frame, expected.reference_frame, expected.fixed_frame)

    def latest(self, target: str, source: str) -> Array:
        """Return the latest `target_T_source`; raises StreampetrError with tf's own words."""
        try:
            return matrix_from_transform(self._buffer.lookup_transform(target, source, Time()).transform)
        except (TransformException, ValueError) as fault:
            raise StreampetrError(str(fault)) from fault

    def world_T_base(self, stamp_ns: int) -> Array:
        """Return the pose of the vehicle in the fixed frame; raises StreampetrError."""
        base = Transforms(self._buffer, "", self._expected.base_frame, self._expected.fixed_frame)
        return base.world_T_ref(stamp_ns)


def camera_frame(seen: Evidence, name: str) -> str | None:
    """Return the frame that most images of a camera name; None where there are none."""
    frames = seen.cameras[name].frames
    return frames.most_common(1)[0][0] if frames else None


def check_frames(expected: Parameters, seen: Evidence, tree: Tree) -> Iterator[Finding]:
    """Check the tree itself, its moving links, and the look-ups for images."""
    yield from _links(seen)
    sources = {expected.reference_frame: "reference_frame"}
    sources |= {frame: name for name in seen.cameras if (frame := camera_frame(seen, name))}
    wanted = [(expected.base_frame, source) for source in sources] + [(expected.fixed_frame, expected.base_frame)]
    whole = True
    for target, source in wanted:
        try:
            tree.latest(target, source)
        except StreampetrError as fault:
            whole = False
            yield _missing(target, source, str(fault), seen)
    if whole:
        yield ok("transforms", "", f"'{expected.fixed_frame}' -> '{expected.base_frame}' -> {len(sources)} frames")
        yield from _moving(expected, seen)
        for name in seen.cameras:
            yield from _at_images(name, seen, tree)


def _links(seen: Evidence) -> Iterator[Finding]:
    parents = Counter(child for _, child in seen.links)
    for child, number in parents.items():
        if number > 1:
            found = " and ".join(f"'{parent}'" for parent, other in seen.links if other == child)
            yield error("two parents", child, "one parent frame", found, "stop one of the two publishers")
    for (parent, child), link in seen.links.items():
        if link.invalid:
            found = f"{link.invalid} of {link.invalid + len(link.stamps)} transforms"
            remedy = f"mend the publisher of '{parent}' -> '{child}'; tf ignores such transforms"
            yield error("invalid transform", child, "finite numbers and a quaternion of length 1", found, remedy)


def _missing(target: str, source: str, fault: str, seen: Evidence) -> Finding:
    unknown = [frame for frame in (target, source) if frame not in seen.frames]
    near = [match for frame in unknown for match in get_close_matches(frame, sorted(seen.frames), 3)]
    if near:
        remedy = f"did you mean {' or '.join(near)}? Then name it in the node's parameters, or in the images' frame_id"
    else:
        known = ", ".join(sorted(seen.frames)) or "none"
        remedy = f"publish '{source}' in the tree of '{target}'; frames are: {known}"
    return error("no transform", source, f"a transform from '{source}' to '{target}'", fault, remedy)


def _chain(seen: Evidence, child: str, ancestor: str) -> list[tuple[str, str]]:
    """Return the links from a frame up to another one."""
    parents = {child: parent for parent, child in seen.links}
    chain = []
    while child != ancestor and child in parents and len(chain) < len(parents):
        chain.append((parents[child], child))
        child = parents[child]
    return chain


def _moving(expected: Parameters, seen: Evidence) -> Iterator[Finding]:
    """Check how often the vehicle's pose comes."""
    moving = [edge for edge in _chain(seen, expected.base_frame, expected.fixed_frame) if not seen.links[edge].static]
    if not moving:
        found = "a static transform" if expected.fixed_frame != expected.base_frame else "the same frame"
        remedy = "publish the odometry as a transform; without it, memory and tracks are wrong as soon as it moves"
        yield error("no odometry", expected.base_frame, f"its motion in '{expected.fixed_frame}'", found, remedy)
    for edge in moving:
        yield from _regularity(f"{edge[0]} -> {edge[1]}", seen.links[edge])
        yield from _punctuality(expected, f"{edge[0]} -> {edge[1]}", seen.links[edge], seen)


def _regularity(subject: str, link: Link) -> Iterator[Finding]:
    stamps = sorted(set(link.stamps))
    gaps = [(b - a) / _SECOND for a, b in pairwise(stamps)]
    if not gaps:
        yield warning("transform rate", subject, "many transforms", f"{len(stamps)}", "publish the odometry steadily")
        return
    rate, longest = len(gaps) / sum(gaps), max(gaps)
    told = f"{rate:.0f} Hz, longest gap {longest:.2f} s"
    if longest > _LONG_GAP:
        judge = error if longest > _LONGEST_GAP else warning
        remedy = "publish the odometry without gaps: poses between are interpolated on a straight line"
        yield judge("transform gap", subject, f"no gap above {_LONG_GAP:g} s", told, remedy)
    elif rate < _SLOWEST:
        yield warning("transform rate", subject, "10 Hz or more", told, "publish the odometry more often")
    else:
        yield ok("transform rate", subject, told)


def _punctuality(expected: Parameters, subject: str, link: Link, seen: Evidence) -> Iterator[Finding]:
    """Tell how long images wait for the transform that holds at, or after, their exposure."""
    order = np.argsort(link.stamps, kind="stable")
    stamps = [link.stamps[i] for i in order]
    # When a transform of this stamp or a later one had come.
    known_from = list(accumulate((link.arrivals[i] for i in order[::-1]), min))[::-1]
    waits = []
    for camera in seen.cameras.values():
        for stamp, arrival in zip(camera.stamps, camera.arrivals, strict=True):
            at = bisect_left(stamps, stamp)
            if at < len(stamps):
                waits.append((known_from[at] - arrival) / _SECOND)
    if not waits:
        return
    high = max(0.0, float(np.percentile(waits, 95)))
    told = f"images wait {high:.3f} s for it (95 %)"
    if high > _LAG:
        judge = error if high > expected.transform_wait else warning
        remedy = "publish the odometry sooner, or raise 'transform_wait'"
        yield judge("transform lag", subject, f"transforms within {_LAG:g} s of the images", told, remedy)
    else:
        yield ok("transform lag", subject, told)


def _at_images(name: str, seen: Evidence, tree: Tree) -> Iterator[Finding]:
    """Look the camera's pose up at its exposures, as the node will."""
    frame, stamps = camera_frame(seen, name), _thinned(seen.cameras[name].stamps)
    faults: Counter[str] = Counter()
    for stamp in stamps:
        try:
            tree.at_times.cam_T_ref(frame, stamp, stamp)
        except StreampetrError as fault:
            text = str(fault).partition(": ")[2].partition("; ")[0]
            faults["past" if "into the past" in text else "future" if "into the future" in text else text] += 1
    if not stamps or not faults:
        return
    failed = sum(faults.values())
    cause, number = faults.most_common(1)[0]
    sides = {"past": "older than the oldest transform", "future": "newer than the latest transform"}
    found = f"{failed} of {len(stamps)} look-ups fail; {number} images are {sides[cause]}" if cause in sides else cause
    judge = error if failed > max(1, _EDGES * len(stamps)) else warning
    remedy = "let images and odometry take their stamps from one clock, and start the odometry first"
    yield judge("extrapolation", name, "a transform at each image's stamp", found, remedy)


def _thinned(stamps: Sequence[int]) -> Sequence[int]:
    return stamps[:: max(1, len(stamps) // _MOST_LOOKUPS)]
