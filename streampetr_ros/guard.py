"""What to do with exceptions that nobody expected: a node must live on, and must say what happened."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from streampetr_ros.diagnosis import Monitor
from streampetr_ros.intake import ThrottledLog

INTERNAL = "internal error"
_LONGEST = 300  # letters of what an exception says


class Guard:
    """Turns exceptions into a fault on /diagnostics and a line in the log."""

    def __init__(self, problem: ThrottledLog) -> None:
        """Take where to log."""
        self._problem = problem
        self._monitor: Monitor | None = None

    def watch(self, monitor: Monitor | None) -> None:
        """Tell faults to this monitor from now on; None: only to the log."""
        self._monitor = monitor

    def fault(self, name: str, text: str, camera: str = "") -> None:
        """Say what is wrong, and what to do about it behind a semicolon."""
        if self._monitor is not None:
            self._monitor.fault(name, camera, text, time.monotonic())
        self._problem(f"{name}: {text}", key=f"{name} {camera}")

    def caught(self, error: Exception, where: str, camera: str = "") -> None:
        """Say that something raised what it should not have; call it while the exception is handled."""
        text = f"{where}: {describe(error)}"
        if self._monitor is not None:
            self._monitor.fault(INTERNAL, camera, text, time.monotonic())
        self._problem(f"{INTERNAL}: {text}\n{traceback.format_exc()}", key=f"{where} {type(error).__name__}")

    def safe(self, callback: Callable[..., None], where: str, camera: str = "") -> Callable[..., None]:
        """Return the callback so that no exception leaves it: in an executor it would end the node."""

        def call(*message: Any) -> None:
            try:
                callback(*message)
            except Exception as error:
                self.caught(error, where, camera)

        return call


def is_out_of_memory(error: Exception) -> bool:
    """Say whether memory was wanting; PyTorch's allocator for the CPU has no exception of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def describe(error: Exception) -> str:
    """Return an unexpected exception in one line, with a remedy behind the only semicolon."""
    said = " ".join(str(error).split()).replace("; ", ", ")[:_LONGEST]
    if is_out_of_memory(error):
        return f"out of memory: {said}; close other programs, or use a smaller model or another device"
    return f"{type(error).__name__}: {said}; please report it"
