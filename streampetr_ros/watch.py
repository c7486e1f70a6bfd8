"""What a running detector does, as lines for a terminal: rates, age of the output, latency, objects, complaints."""

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, PointCloud2
from vision_msgs.msg import Detection3DArray

from streampetr_ros.clouds import read_cloud
from streampetr_ros.latency import LATENCY, latency_line

_WINDOW = 5.0  # seconds that rates and ages are taken over
_SILENT = 2.0  # seconds without output after which the state says so
_SHOWN = 8  # tracks
_KEPT_ARRIVALS = 2000


@dataclass
class Watched:
    """What was heard so far; times are those of a monotonic clock, in seconds."""

    exposures: deque = field(default_factory=lambda: deque(maxlen=_KEPT_ARRIVALS))  # (stamp in ns, arrival, camera)
    outputs: deque = field(default_factory=lambda: deque(maxlen=_KEPT_ARRIVALS))  # (arrival, age of the output)
    total: int = 0  # sets
    counts: Counter = field(default_factory=Counter)  # detections of the last set by class
    tracks: list[tuple[str, str, float, float, float, float]] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)  # of all output
    latency: str = ""  # by stage, as the detector says
    complaint: str = ""

    def heard_detections(self, stamp_ns: int, names: Sequence[str], now: float) -> None:
        """Note a set of detections; its age counts from when its newest image came."""
        came = [arrival for stamp, arrival, _ in self.exposures if stamp <= stamp_ns]
        age = now - came[-1] if came else math.nan
        self.total += 1
        self.outputs.append((now, age))
        self.ages.append(age)
        self.counts = Counter(names)


def watch_lines(watched: Watched, now: float) -> list[str]:
    """Return what there is to say at a time, at most 80 letters wide."""
    recent = [(arrival, age) for arrival, age in watched.outputs if arrival > now - _WINDOW]
    cameras = Counter(camera for _, arrival, camera in watched.exposures if arrival > now - _WINDOW)
    lines = [f"{_state(watched, now)}   {len(recent) / _WINDOW:4.1f} sets/s   {_ages([age for _, age in recent])}"]
    rates = "  ".join(f"{camera} {count / _WINDOW:.0f}" for camera, count in sorted(cameras.items()))
    lines.append(f"cameras (Hz): {rates or 'none'}")
    if watched.latency:
        lines.append(watched.latency)
    names = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in watched.counts.most_common())
    lines.append(f"detections: {names or 'none'}")
    lines.append(f"tracks: {len(watched.tracks)}")
    for id_, name, score, x, y, speed in watched.tracks[:_SHOWN]:
        lines.append(f"  {id_:>5}  {name:<21} {score:.2f}  at {x:6.1f} {y:6.1f} m  {speed:4.1f} m/s")
    if watched.complaint:
        lines.append(watched.complaint)
    return [line if len(line) <= 80 else line[:77] + "..." for line in lines]


def summary(watched: Watched) -> str:
    """Return one line about all that was heard."""
    return f"{watched.total} sets of detections; {_ages(watched.ages)}"


def _state(watched: Watched, now: float) -> str:
    if not watched.total:
        return "waiting for detections"
    silence = now - watched.outputs[-1][0]
    return "running" if silence < _SILENT else f"silent for {silence:.0f} s"


def _ages(ages: Sequence[float]) -> str:
    known = np.array([age for age in ages if not math.isnan(age)])
    if not len(known):
        return "age of output unknown"
    middle, high = 1000 * np.percentile(known, [50, 95])
    return f"age of output {middle:.0f} ms (95 %: {high:.0f} ms)"


class WatchNode(Node):
    """Listens to a detector and to its cameras' calibrations, which come with every image but are small."""

    def __init__(self, detector: str, cameras: Sequence[str]) -> None:
        super().__init__("streampetr_watch")
        self.watched = Watched()
        self._detector = detector
        every = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        for camera in cameras:
            self.create_subscription(CameraInfo, f"/{camera}/camera_info", partial(self._on_camera, camera), every)
        self.create_subscription(Detection3DArray, f"{detector}/detections", self._on_detections, 100)
        self.create_subscription(Detection3DArray, f"{detector}/tracks", self._on_tracks, 100)
        self.create_subscription(PointCloud2, f"{detector}/objects", self._on_objects, 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._speeds: dict[str, float] = {}

    def _on_camera(self, camera: str, info: CameraInfo) -> None:
        stamp_ns = Time.from_msg(info.header.stamp).nanoseconds
        self.watched.exposures.append((stamp_ns, time.monotonic(), camera))

    def _on_detections(self, message: Detection3DArray) -> None:
        names = [detection.results[0].hypothesis.class_id for detection in message.detections]
        self.watched.heard_detections(Time.from_msg(message.header.stamp).nanoseconds, names, time.monotonic())

    def _on_tracks(self, message: Detection3DArray) -> None:
        self.watched.tracks = [self._track(detection) for detection in message.detections]

    def _track(self, detection: object) -> tuple[str, str, float, float, float, float]:
        hypothesis, centre = detection.results[0].hypothesis, detection.bbox.center.position
        speed = self._speeds.get(detection.id, math.nan)
        return detection.id, hypothesis.class_id, hypothesis.score, centre.x, centre.y, speed

    def _on_objects(self, message: PointCloud2) -> None:
        points = read_cloud(message)
        speeds = np.hypot(points["vx"], points["vy"]).tolist()
        self._speeds = dict(zip(map(str, points["track_id"].tolist()), speeds, strict=True))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        name = self._detector.strip("/")
        own = [status for status in message.status if name in status.name]
        for status in own:
            if status.name.endswith(f": {LATENCY}"):
                self.watched.latency = latency_line({value.key: value.value for value in status.values})
        worst = max(own, key=lambda status: status.level, default=None)
        if worst is not None:
            self.watched.complaint = "" if worst.level == DiagnosticStatus.OK else f"{worst.name}: {worst.message}"
