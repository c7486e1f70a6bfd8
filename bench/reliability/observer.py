"""What a node publishes and says, and how much memory it takes."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from vision_msgs.msg import Detection3DArray

_NODE = "/streampetr"
_PERIOD = 0.25  # seconds between looks at the memory


@dataclass(frozen=True)
class Counts:
    """What the node counted when all was quiet."""

    images: int
    in_sets: int
    waiting: int
    sets: int
    published: int
    images_dropped: dict[str, int]
    sets_dropped: dict[str, int]

    @property
    def images_add_up(self) -> bool:
        """Say whether every image is in a set, dropped under a reason, or waiting."""
        return self.images == self.in_sets + sum(self.images_dropped.values()) + self.waiting

    @property
    def sets_add_up(self) -> bool:
        """Say whether every set was published or dropped under a reason."""
        return self.sets == self.published + sum(self.sets_dropped.values())


@dataclass
class Heard:
    """Everything with its time of arrival, in seconds of a steady clock."""

    detections: list[tuple[float, int]] = field(default_factory=list)  # and their stamps in ns
    states: list[tuple[float, str]] = field(default_factory=list)  # every text of every report
    reports: list[tuple[float, bool]] = field(default_factory=list)  # whether all is well, but for the speed
    counts: Counts | None = None
    memory: list[tuple[float, float]] = field(default_factory=list)  # MB


class Observer:
    """Listens in a thread of its own."""

    def __init__(self, node: Node, pid: int) -> None:
        self.heard = Heard()
        self._status = Path(f"/proc/{pid}/status")
        node.create_subscription(Detection3DArray, f"{_NODE}/detections", self._on_detections, 100)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        node.create_timer(_PERIOD, self._measure)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hear no more."""
        self._stopped.set()
        self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        while not self._stopped.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _on_detections(self, message: Detection3DArray) -> None:
        stamp = message.header.stamp
        self.heard.detections.append((time.monotonic(), stamp.sec * 1_000_000_000 + stamp.nanosec))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now = time.monotonic()
        parts = {each.name.removeprefix(f"{_NODE}: "): each for each in message.status if each.hardware_id == _NODE}
        if "sets" not in parts:
            return
        texts = [value.value for value in parts["state"].values]
        self.heard.states += [(now, text) for text in texts]
        self.heard.reports.append((now, all(text.startswith("over budget") for text in texts)))
        values = {name: {value.key: value.value for value in part.values} for name, part in parts.items()}
        images = sum(int(part["images"]) for name, part in values.items() if name.startswith("camera "))
        self.heard.counts = _counts(images, values["sets"])

    def _measure(self) -> None:
        lines = self._status.read_text().splitlines() if self._status.exists() else []
        for line in lines:
            if line.startswith("VmRSS:"):
                self.heard.memory.append((time.monotonic(), int(line.split()[1]) / 1024))


def megabytes(memory: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Return the median between two times."""
    return float(np.median([used for at, used in memory if start <= at <= end] or [np.nan]))


def slope(memory: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Return how the memory grows between two times, in MB/h."""
    points = np.array([point for point in memory if start <= point[0] <= end])
    if len(points) < 2:
        return float("nan")
    return float(np.polyfit(points[:, 0] - points[0, 0], points[:, 1], 1)[0] * 3600)


def _counts(images: int, values: dict[str, str]) -> Counts:
    def reasons(prefix: str) -> dict[str, int]:
        return {key.removeprefix(prefix): int(value) for key, value in values.items() if key.startswith(prefix)}

    return Counts(
        images,
        int(values["images in sets"]),
        int(values["images waiting"]),
        int(values["released"]),
        int(values["published"]),
        reasons("images dropped: "),
        reasons("sets dropped: "),
    )
