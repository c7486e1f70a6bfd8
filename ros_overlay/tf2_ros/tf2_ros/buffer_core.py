"""The tree of frames and the lookups in it, without clocks and waiting. Stamps are integer nanoseconds."""

import math
import threading
from collections.abc import Container

from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.time import Time
from std_msgs.msg import Header

from tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
)
from tf2_ros.rigid import IDENTITY, Rigid, compose, inverse, normalized
from tf2_ros.time_cache import Sample, StaticCache, TimeCache

DEFAULT_CACHE_TIME = Duration(seconds=10)
# How far the squared length of a quaternion may be from 1 before its transform is dropped.
_LENGTH_TOLERANCE = 1e-2
_SECOND = 1_000_000_000


class BufferCore:
    """Stores transforms and answers lookups; every method may be called from any thread."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._cache_time = (cache_time or DEFAULT_CACHE_TIME).nanoseconds
        self._lock = threading.Lock()
        self._caches: dict[str, TimeCache | StaticCache] = {}
        self._frames: set[str] = set()
        self._logger = get_logger("tf2_buffer")

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store where a moving frame was at the time of its header; what makes no sense is dropped and logged."""
        self._store(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store where a frame is for all time; what makes no sense is dropped and logged."""
        self._store(transform, authority, static=True)

    def clear(self) -> None:
        """Forget the history of all moving frames. Static transforms stay, and so do the names of frames."""
        with self._lock:
            for cache in self._caches.values():
                cache.clear()

    def lookup_transform_core(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        """Return target_T_source at a time (0: the latest common one) at once; raises a TransformException."""
        with self._lock:
            stamp, target_T_source = self._lookup(target_frame, source_frame, time.nanoseconds)
        return _message(stamp, target_frame, source_frame, target_T_source)

    def lookup_transform_full_core(
        self, target_frame: str, target_time: Time, source_frame: str, source_time: Time, fixed_frame: str
    ) -> TransformStamped:
        """Return target (at its time) _T_ source (at its time), by way of a frame that did not move between the two."""
        with self._lock:
            self._check_known(target_frame, "target_frame")
            self._check_known(source_frame, "source_frame")
            self._check_known(fixed_frame, "fixed_frame")
            _, fixed_T_source = self._lookup(fixed_frame, source_frame, source_time.nanoseconds)
            stamp, target_T_fixed = self._lookup(target_frame, fixed_frame, target_time.nanoseconds)
        return _message(stamp, target_frame, source_frame, compose(target_T_fixed, fixed_T_source))

    def _store(self, transform: TransformStamped, authority: str, static: bool) -> None:
        parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
        translation, rotation = transform.transform.translation, transform.transform.rotation
        vector = (translation.x, translation.y, translation.z)
        quaternion = (rotation.x, rotation.y, rotation.z, rotation.w)
        fault = _fault(parent, child, vector, quaternion)
        if fault:
            self._logger.error(fault.format(child=child, authority=authority))
            return
        sample = Sample(parent, Rigid(vector, normalized(quaternion)))
        stamp = transform.header.stamp.sec * _SECOND + transform.header.stamp.nanosec
        with self._lock:
            cache = self._caches.get(child)
            # A frame is of the kind that was sent last.
            if cache is None or isinstance(cache, StaticCache) != static:
                cache = self._caches[child] = StaticCache() if static else TimeCache(self._cache_time)
            self._frames.update((parent, child))
            kept = cache.insert(stamp, sample)
        if not kept:
            self._logger.warning(
                f"TF_OLD_DATA ignoring data from the past for frame {child} at time {stamp / 1e9:.6f} "
                f"according to authority {authority}"
            )

    def _check_known(self, frame: str, argument: str) -> None:
        passed = f"passed to lookupTransform argument {argument}"
        if not frame:
            raise InvalidArgumentException(f"Invalid argument {passed} in tf2 frame_ids cannot be empty")
        if frame.startswith("/"):
            raise InvalidArgumentException(
                f"Invalid argument \"{frame}\" {passed} in tf2 frame_ids cannot start with a '/'"
            )
        if frame not in self._frames:
            raise LookupException(f'"{frame}" {passed} does not exist. ')

    def _lookup(self, target: str, source: str, stamp: int) -> tuple[int, Rigid]:
        """Return the stamp that the answer holds for, and target_T_source."""
        self._check_known(target, "target_frame")
        self._check_known(source, "source_frame")
        if target == source:
            latest = self._caches[target].latest() if target in self._caches else None
            return (stamp or (latest[0] if latest else 0)), IDENTITY
        if stamp == 0:
            stamp = self._latest_common_stamp(target, source)
        return stamp, self._walk(target, source, stamp)

    def _walk(self, target: str, source: str, stamp: int) -> Rigid:
        """Return target_T_source: up from the source as far as it goes, then up from the target to meet that path."""
        outside: ExtrapolationException | None = None
        frame, frame_T_source = source, IDENTITY
        path = {source: IDENTITY}
        while frame != target and frame in self._caches:
            try:
                sample = self._caches[frame].at(stamp)
            except ExtrapolationException as error:
                # The target may still meet the path below this frame.
                outside = error
                break
            frame, frame_T_source = sample.parent, compose(sample.parent_T_frame, frame_T_source)
            _check_new(frame, path)
            path[frame] = frame_T_source
        frame, frame_T_target = target, IDENTITY
        seen = set()
        while frame not in path:
            try:
                cache = self._caches[frame]
                sample = cache.at(stamp)
            except KeyError:
                raise _outside_or_unconnected(outside, target, source) from None
            except ExtrapolationException as error:
                raise _outside_or_unconnected(error, target, source) from None
            _check_new(frame, seen)
            seen.add(frame)
            frame, frame_T_target = sample.parent, compose(sample.parent_T_frame, frame_T_target)
        return compose(inverse(frame_T_target), path[frame])

    def _latest_common_stamp(self, target: str, source: str) -> int:
        """Return the latest time at which every moving link between two frames is known; 0 when none moves."""
        up_from_source = self._latest_upwards(source)
        up_from_target = self._latest_upwards(target)
        for frame, stamp in up_from_target.items():
            if frame in up_from_source:
                common = min(stamp, up_from_source[frame])
                return 0 if common == math.inf else int(common)
        raise _outside_or_unconnected(None, target, source)

    def _latest_upwards(self, frame: str) -> dict[str, float]:
        """Return each frame from this one up to the root, with the least of the latest stamps on the way to it."""
        stamp = math.inf
        upwards = {frame: stamp}
        while frame in self._caches and (latest := self._caches[frame].latest()):
            if latest[0]:
                stamp = min(stamp, latest[0])
            frame = latest[1]
            _check_new(frame, upwards)
            upwards[frame] = stamp
        return upwards


def _fault(parent: str, child: str, vector: tuple[float, ...], quaternion: tuple[float, ...]) -> str | None:
    """Return why a transform makes no sense, with {child} and {authority} to fill in; None when it does."""
    if child == parent:
        return (
            'TF_SELF_TRANSFORM: Ignoring transform from authority "{authority}" '
            'with frame_id and child_frame_id "{child}" because they are the same'
        )
    if not child:
        return 'TF_NO_CHILD_FRAME_ID: Ignoring transform from authority "{authority}" because child_frame_id not set'
    if not parent:
        return (
            'TF_NO_FRAME_ID: Ignoring transform with child_frame_id "{child}" '
            'from authority "{authority}" because frame_id not set'
        )
    ignoring = 'Ignoring transform for child_frame_id "{child}" from authority "{authority}" because of'
    if any(math.isnan(value) for value in (*vector, *quaternion)):
        return f"TF_NAN_INPUT: {ignoring} a nan value in the transform {vector} {quaternion}"
    # Written so that infinity is a fault too.
    if not abs(sum(value * value for value in quaternion) - 1.0) <= _LENGTH_TOLERANCE:
        return f"TF_DENORMALIZED_QUATERNION: {ignoring} an invalid quaternion in the transform {quaternion}"
    return None


def _check_new(frame: str, visited: Container[str]) -> None:
    if frame in visited:
        raise LookupException("The tf tree is invalid because it contains a loop.")


def _outside_or_unconnected(
    outside: ExtrapolationException | None, target: str, source: str
) -> ExtrapolationException | ConnectivityException:
    if outside is not None:
        return ExtrapolationException(f"{outside}, when looking up transform from frame [{source}] to frame [{target}]")
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same tree."
        "Tf has two or more unconnected trees."
    )


def _message(stamp: int, target: str, source: str, target_T_source: Rigid) -> TransformStamped:
    (tx, ty, tz), (qx, qy, qz, qw) = target_T_source
    sec, nanosec = divmod(stamp, _SECOND)
    return TransformStamped(
        header=Header(stamp=TimeMessage(sec=sec, nanosec=nanosec), frame_id=target),
        child_frame_id=source,
        transform=Transform(
            translation=Vector3(x=tx, y=ty, z=tz),
            rotation=Quaternion(x=qx, y=qy, z=qz, w=qw),
        ),
    )
