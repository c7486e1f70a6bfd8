"""The buffer that programs use: lookups that may wait, and a history that follows the clock of a node."""

import time as wall_time
import weakref
from collections.abc import Callable
from functools import partial

from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from tf2_ros.buffer_core import BufferCore
from tf2_ros.exceptions import TransformException

_POLL_SECONDS = 0.02
_AT_ONCE = Duration()


class Buffer(BufferCore):
    """Transforms of the last `cache_time` (10 s unless told), filled by a TransformListener or by hand.

    Args:
        cache_time: how long before the latest transform of a frame its history reaches.
        node: with it, the buffer empties itself when the node's clock jumps back or changes its source.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        super().__init__(cache_time)
        if node is not None:
            threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
            on_jump = partial(_tell_of_jump, weakref.ref(self))
            handle = node.get_clock().create_jump_callback(threshold, post_callback=on_jump)
            # The clock knows a handle by its address alone, and goes on calling there when the handle is gone.
            weakref.finalize(self, handle.unregister).atexit = False

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = _AT_ONCE,
    ) -> TransformStamped:
        """Return target_T_source at `time` (Time(): the latest common one), waiting up to `timeout` for it.

        Raises:
            TransformException: one of its kinds, when there is no such transform in time.
        """
        if timeout.nanoseconds > 0:
            self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = _AT_ONCE,
    ) -> TransformStamped:
        """Return target at `target_time` _T_ source at `source_time`; `fixed_frame` did not move between the two.

        Raises:
            TransformException: one of its kinds, when there is no such transform in time.
        """
        if timeout.nanoseconds > 0:
            self.can_transform_full(target_frame, target_time, source_frame, source_time, fixed_frame, timeout)
        return self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = _AT_ONCE,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Tell whether `lookup_transform` would answer; with `return_debug_tuple` also why not."""
        answer = _wait(lambda: self.lookup_transform_core(target_frame, source_frame, time), timeout)
        return answer if return_debug_tuple else answer[0]

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = _AT_ONCE,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Tell whether `lookup_transform_full` would answer; with `return_debug_tuple` also why not."""
        answer = _wait(
            lambda: self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame),
            timeout,
        )
        return answer if return_debug_tuple else answer[0]

    def _on_time_jump(self, jump: TimeJump) -> None:
        self._logger.warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()


def _tell_of_jump(buffer: weakref.ref[Buffer], jump: TimeJump) -> None:
    if (alive := buffer()) is not None:
        alive._on_time_jump(jump)


def _wait(lookup: Callable[[], TransformStamped], timeout: Duration) -> tuple[bool, str]:
    """Try a lookup until it answers or the timeout, of wall time, is over; return whether, and the last error."""
    deadline = wall_time.monotonic() + timeout.nanoseconds / 1e9
    while True:
        try:
            lookup()
        except TransformException as error:
            if wall_time.monotonic() >= deadline:
                return False, str(error)
        else:
            return True, ""
        wall_time.sleep(_POLL_SECONDS)
