"""The person at the keyboard of a running playback: single keys, and the wish to stop."""

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yield `read(seconds)`, which waits that long for a key and returns it, or "" if none was pressed.

    The terminal gives single keys meanwhile and is restored at the end. Where standard input is no terminal, or
    another process has the foreground, `read` just waits.
    """
    if not has_keyboard():
        yield _wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield lambda seconds: _read_key(terminal, seconds)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def has_keyboard() -> bool:
    """Return whether keys reach this process: a background job that touches the terminal would be stopped."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):  # standard input is closed or no file
        return False


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield `stopped()`, which tells whether SIGINT or SIGTERM came; meanwhile neither interrupts anything."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, _frame: received.append(number))
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(seconds: float) -> str:
    time.sleep(max(0.0, seconds))
    return ""


def _read_key(terminal: int, seconds: float) -> str:
    ready, _, _ = select.select([terminal], [], [], max(0.0, seconds))
    return os.read(terminal, 1).decode("ascii", "replace") if ready else ""
