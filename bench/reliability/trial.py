"""One fault tried on one node: before, while and after."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

from bench.reliability import node as faulty
from bench.reliability.faults import Fault
from bench.reliability.observer import Counts, Heard, Observer, megabytes, slope
from bench.reliability.player import Player, unchanged
from bench.reliability.recording import Recording
from streampetr_ros.bag.play import own_node

_PATIENCE = 180.0  # seconds until the first detections; for slow machines
_QUIET_SECONDS = 20.0  # at most, until all is counted
_RECOVERY_SECONDS = 30.0  # at most
_BEFORE, _WHILE = 0.25, 0.5  # parts of a trial


@dataclass(frozen=True)
class Outcome:
    """What a trial showed; times in seconds, memory in MB."""

    fault: str
    seconds: float
    lived: bool
    recovered_after: float | None  # until there were detections of images exposed after the fault; None: never
    well_after: float | None  # until /diagnostics had nothing to say, but about the speed; None: not in time
    images_sent: int
    counts: Counts
    memory_before: float
    memory_after: float
    memory_slope: float  # MB/h, from the beginning of the fault to the end
    said: list[str]

    @property
    def adds_up(self) -> bool:
        """Say whether every image and every set is accounted for."""
        return self.counts.images_add_up and self.counts.sets_add_up

    def as_dict(self) -> dict:
        """Return what goes into JSON."""
        return asdict(self) | {"adds_up": self.adds_up}


def attempt(fault: Fault, recording: Recording, model: Path, seconds: float, context: BaseContext) -> Outcome:
    """Try a fault for half of `seconds`, with a quarter before it and a quarter after it."""
    switch = context.Value("i", 0)
    parameters = {"model": model, "autostart": "true", "reliability": "reliable", "device": "cpu"}
    parameters |= {"transport": "raw" if fault.raw else "compressed", "score_threshold": 0.0}
    parameters |= {"track_birth_score": 1.0}  # untrained weights make tracks of nothing
    log = model.with_name("node.log")
    process = context.Process(target=faulty.run, args=(switch, parameters, str(log)))
    process.start()
    try:
        with own_node("reliability") as node:
            observer = Observer(node, process.pid)
            player = Player(node, recording)
            _wait(lambda: player.listeners() == len(player.topics), _PATIENCE)
            player.start()
            try:
                if not _wait(lambda: len(observer.heard.detections) > 3, _PATIENCE):
                    raise RuntimeError(f"nothing was published before any fault; the node said:\n{_tail(log)}")
                outcome = _run(fault, player, observer, seconds, switch, process.is_alive)
            finally:
                player.stop()
                observer.stop()
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        process.join(30)
        if process.is_alive():
            process.kill()
    return outcome


def _run(
    fault: Fault,
    player: Player,
    observer: Observer,
    seconds: float,
    switch: faulty.Switch,
    lives: Callable[[], bool],
) -> Outcome:
    heard = observer.heard
    time.sleep(_BEFORE * seconds)
    began = time.monotonic()
    with fault.around(switch):
        player.change = fault.change
        time.sleep(_WHILE * seconds)
        player.change = unchanged
    ended, ended_ns = time.monotonic(), time.time_ns()
    recovered = _wait(lambda: _recovery(heard, ended, ended_ns) is not None, _RECOVERY_SECONDS)
    time.sleep(max(0.0, ended + (1 - _BEFORE - _WHILE) * seconds - time.monotonic()))
    _wait(lambda: _well(heard, ended) is not None, 5.0)
    finished = time.monotonic()
    player.stop()
    _wait(lambda: _is_quiet(heard), _QUIET_SECONDS)
    texts = dict.fromkeys(text for at, text in heard.states if began <= at <= ended + 1)
    before = {state_name(text) for at, text in heard.states if began - _BEFORE * seconds <= at < began}
    said: dict[str, str] = {}
    for text in texts:
        if state_name(text) not in before:
            said.setdefault(state_name(text), text)
    return Outcome(
        fault.name,
        seconds,
        lives(),
        _recovery(heard, ended, ended_ns) if recovered else None,
        _well(heard, ended),
        sum(player.sent.values()),
        heard.counts,
        megabytes(heard.memory, began - _BEFORE * seconds, began),
        megabytes(heard.memory, finished - 2.0, finished),
        slope(heard.memory, began, finished),
        list(said.values()),
    )


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:]) if log.exists() else "nothing"


def _recovery(heard: Heard, ended: float, ended_ns: int) -> float | None:
    hour_ns = 3_600_000_000_000
    fresh = (at for at, stamp in heard.detections if at > ended and 0 <= stamp - ended_ns < hour_ns // 2)
    return next((at - ended for at in fresh), None)


def _well(heard: Heard, ended: float) -> float | None:
    return next((at - ended for at, well in heard.reports if at > ended and well), None)


def _is_quiet(heard: Heard) -> bool:
    """Say whether the node has worked off everything: its last images are long enough ago for that."""
    silent = any(text.startswith("no images") for at, text in heard.states if at > time.monotonic() - 1.5)
    return silent and heard.counts is not None and heard.counts.sets_add_up


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def state_name(text: str) -> str:
    """Return the name of a state by its text, without the frames that a missing transform names."""
    return text.partition(":")[0].partition(" from ")[0]
