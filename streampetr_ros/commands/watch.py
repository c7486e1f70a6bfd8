"""Watch a running detector in the terminal: rates, age of the output, latency by stage, objects with their tracks.

The age of the output is the time from the arrival of a set's newest image to that of its detections; the latencies are
what the detector itself says in /diagnostics, medians of the last five seconds.
Ends with ctrl-c, or when the detector is silent for --idle seconds.

Example:
  streampetr watch --node /front/streampetr --cameras left right
"""

import sys
import time
from argparse import ArgumentParser, Namespace

from streampetr_core.errors import StreampetrError

_CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
_REFRESH = 0.5  # seconds
_PLAIN_REFRESH = 5.0  # where the output is no terminal, and every line stays


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--node", default="/streampetr", help="name of the detector (default: %(default)s)")
    parser.add_argument("--cameras", nargs="+", default=_CAMERAS, metavar="NAME", help="(default: nuScenes' six)")
    parser.add_argument("--wait", type=float, help="longest wait for the first detections, s (default: for ever)")
    parser.add_argument("--idle", type=float, help="end after so long without detections, s")


def run(args: Namespace) -> None:
    """Show what happens until the end; raises StreampetrError when nothing ever came."""
    try:
        import rclpy

        from streampetr_ros.watch import WatchNode, summary, watch_lines
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy with pip") from error
    rclpy.init()
    try:
        node, screen = WatchNode(args.node, args.cameras), _Screen()
        start = time.monotonic()
        while not _is_over(node.watched, start, args):
            rclpy.spin_once(node, timeout_sec=0.1)
            if screen.is_due():
                screen.show(watch_lines(node.watched, time.monotonic()))
        if not node.watched.total:
            raise StreampetrError(f"{args.node}/detections: nothing came in {args.wait:g} s; is the node active?")
        print(summary(node.watched))
    finally:
        rclpy.try_shutdown()


def _is_over(watched: object, start: float, args: Namespace) -> bool:
    now = time.monotonic()
    if not watched.total:
        return args.wait is not None and now - start > args.wait
    return args.idle is not None and now - watched.outputs[-1][0] > args.idle


class _Screen:
    """Lines that replace those before on a terminal, and follow them elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._height = 0
        self._next = 0.0

    def is_due(self) -> bool:
        """Say whether it is time to show something again."""
        return time.monotonic() >= self._next

    def show(self, lines: list[str]) -> None:
        """Show lines; without a terminal the first alone."""
        self._next = time.monotonic() + (_REFRESH if self._is_terminal else _PLAIN_REFRESH)
        if not self._is_terminal:
            print(lines[0], flush=True)
            return
        up = f"\033[{self._height}A" if self._height else ""
        print(up + "\033[J" + "\n".join(lines), flush=True)
        self._height = len(lines)
