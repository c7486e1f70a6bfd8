"""The node's states on /diagnostics and in its log, once a second, also when nothing comes in."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from streampetr_ros.diagnosis import Level, Monitor, State, Surroundings
from streampetr_ros.guard import Guard
from streampetr_ros.intake import Calibrations, ThrottledLog
from streampetr_ros.latency import LATENCY, Latencies
from streampetr_ros.preparation import Preparation
from streampetr_ros.publishers import Listening, unheard_publishers
from streampetr_ros.synchroniser import Synchroniser

_PERIOD_SECONDS = 1.0
_IDLE_LOG_SECONDS = 60.0  # an inactive node is often meant to be so
_QUEUE = 10


@dataclass(frozen=True)
class Watched:
    """What an active node is made of."""

    monitor: Monitor
    synchroniser: Synchroniser
    calibrations: Calibrations
    smallest_set: int
    listening: Sequence[Listening]
    latencies: Latencies
    preparation: Preparation

    def states(self, node: Node, now: float) -> list[State]:
        """Return what is the case, worst first."""
        around = Surroundings(
            self.calibrations.missing(),
            unheard_publishers(node, self.listening),
            self.synchroniser.rhythm is not None,
            self.smallest_set,
        )
        return self.monitor.states(now, around)


class Diagnostics:
    """Publishes and logs; `watch` while the node is active, `idle` while it is not."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._watched: Watched | None = None
        self._idle = State("not configured", Level.WARN, "the model is not loaded", "configure the node")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", _QUEUE)
        logger = node.get_logger()
        # rclpy wants one severity for each line of code that logs, hence a line for each.
        warn = ThrottledLog(lambda text: logger.warning(text))
        inform = ThrottledLog(lambda text: logger.info(text))
        self._log = {Level.OK: inform, Level.WARN: warn, Level.ERROR: warn}
        self._idle_log = ThrottledLog(lambda text: logger.info(text), _IDLE_LOG_SECONDS)
        # Simulated time stands still when a bag ends, and then the states are wanted most.
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD_SECONDS, guard.safe(self._tick, "diagnostics"), clock=self._clock)

    def watch(self, watched: Watched) -> None:
        """Report on an active node."""
        self._watched = watched

    def idle(self, name: str, text: str, remedy: str) -> None:
        """Report on a node that is not active."""
        self._watched, self._idle = None, State(name, Level.WARN, text, remedy)

    def _tick(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        if self._watched is None:
            message.status = [self._status("state", [self._idle], {})]
            self._idle_log(str(self._idle))
        else:
            message.status = self._active(self._watched, time.monotonic())
        self._publisher.publish(message)

    def _active(self, watched: Watched, now: float) -> list[DiagnosticStatus]:
        states = watched.states(self._node, now)
        for state in states:
            self._log[state.level](str(state), key=f"{state.name} {state.subject}")
        texts = {f"{state.name} {state.subject}".rstrip(): str(state) for state in states}
        statuses = [self._status("state", states, texts), self._status("sets", [], _sets(watched))]
        statuses.append(self._status(LATENCY, [], watched.latencies.facts(now)))
        lags = watched.synchroniser.lags()
        for camera, facts in watched.monitor.cameras(now).items():
            own = [state for state in states if state.subject == camera]
            statuses.append(self._status(f"camera {camera}", own, facts | {"behind the newest, s": lags.get(camera)}))
        return statuses

    def _status(self, part: str, states: list[State], values: dict[str, object]) -> DiagnosticStatus:
        name = self._node.get_fully_qualified_name()
        status = DiagnosticStatus(name=f"{name}: {part}", hardware_id=name, message="as it should be")
        status.level = bytes([states[0].level if states else Level.OK])
        if states:
            status.message = str(states[0])
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        return status


def _sets(watched: Watched) -> dict[str, object]:
    synchroniser, monitor = watched.synchroniser, watched.monitor
    values: dict[str, object] = {"released": monitor.released, "published": monitor.published}
    values |= {f"sets dropped: {reason}": count for reason, count in monitor.set_drops.items()}
    values["images in sets"] = monitor.in_sets
    values |= {f"images dropped: {reason}": count for reason, count in monitor.image_drops.items()}
    values |= {"images encoded in vain": watched.preparation.encoded_in_vain}
    values |= {f"unusable: {name}": count for name, count in monitor.faults.items()}
    values |= {"images waiting": synchroniser.waiting, "rhythm learnt anew": synchroniser.relocks}
    if synchroniser.rhythm is not None:
        values["exposures within, s"] = synchroniser.rhythm.spread / 1e9
        values["rotations apart, s"] = synchroniser.rhythm.spacing / 1e9
    return values


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
