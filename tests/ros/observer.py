"""A rig that sends images on and on, and hears what the node says about itself."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn

from streampetr_ros.node import StreampetrNode
from tests.ros.rig import Rig, Spinner, make_node, picture, spin_until

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
INTERVAL, LAG = SECOND // 10, SECOND // 50


class Observer:
    """Sends images of both cameras until the node has said something."""

    def __init__(self, rig: Rig, node: StreampetrNode) -> None:
        self.rig, self.node = rig, node
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.silent: set[str] = set()
        self.lag_ns = {"left": LAG, "right": 0}
        self.keep = {"left": 1.0, "right": 1.0}
        self.with_info, self.with_poses = {"left", "right"}, True
        self.besides: Callable[[], None] = lambda: None  # what else is sent with every set
        self._stamps = itertools.count(START, INTERVAL)
        rig.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id == f"/{self.rig.detector}":
                self.statuses[status.name.split(": ")[1]] = status

    def begin_at(self, stamp: int) -> None:
        """Let the next set have this stamp."""
        self._stamps = itertools.count(stamp, INTERVAL)

    def send(self) -> None:
        """Send one set, its calibrations and the vehicle's pose around it."""
        stamp = next(self._stamps)
        self.besides()
        for camera in self.with_info:
            self.rig.send_info(camera)
        if self.with_poses:
            self.rig.send_poses({stamp + step * INTERVAL: (10.0, 0.0, 0.0) for step in range(-1, 2)})
        for camera in {"left", "right"} - self.silent:
            self.rig.send_jpeg(camera, stamp - self.lag_ns[camera], picture(0), self.keep[camera])

    def sees(self, *parts: str, sending: bool = True, part: str = "state", level: int | None = None) -> bool:
        """Say whether a status with these words, and the same words in the log, come while images are sent."""

        def said() -> bool:
            if sending:
                self.send()
                time.sleep(0.05)
            status = self.statuses.get(part)
            texts = [] if status is None else [status.message, *(value.value for value in status.values)]
            is_level = level is None or (status is not None and status.level == bytes([level]))
            return is_level and any(all(p in text for p in parts) for text in texts) and self.rig.logged(*parts)

        return spin_until(said)

    def is_well(self) -> bool:
        """Say whether nothing is wrong any more while images are sent, but that a busy machine may be slow."""

        def well() -> bool:
            self.send()
            time.sleep(0.05)
            return self.statuses["state"].level < bytes([2])

        return spin_until(well)

    def values(self, part: str) -> dict[str, str]:
        """Return the values of a status."""
        return {value.key: value.value for value in self.statuses[part].values}

    def activate(self) -> None:
        """Configure and activate the node."""
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def sends_until(self, condition: Callable[[], bool]) -> bool:
        """Send sets until something is the case."""

        def met() -> bool:
            self.send()
            time.sleep(0.05)
            return condition()

        return spin_until(met)

    def detects_again(self) -> bool:
        """Send sets until there are new detections."""
        count = len(self.rig.detections)
        return self.sends_until(lambda: len(self.rig.detections) > count)


@contextmanager
def observers(model: Path) -> Iterator[Callable[..., Observer]]:
    """Yield what makes an observer of a node with given parameters."""
    rclpy.init()
    opened = []

    def build(open_model: Callable | None = None, **values: object) -> Observer:
        rig = Rig()
        node = make_node(rig, open_model, **({"model": str(model)} | values))
        opened.append((rig, node, Spinner(rig.node, node)))
        rig.send_static()
        return Observer(rig, node)

    try:
        yield build
    finally:
        for rig, node, spinner in opened:
            spinner.stop()
            node.destroy_node()
            rig.node.destroy_node()
        rclpy.try_shutdown()
