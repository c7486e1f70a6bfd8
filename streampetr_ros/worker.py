"""A thread that takes the newest job, so that callbacks only enqueue and work never piles up."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Worker:
    """Calls `work(job)` for one job after the other in a thread of its own.

    With `keep_all` every job is done in order; otherwise a job that still waits is dropped when the next one comes, and
    `on_drop(job)` is told. While no job waits, `idle()` may do a small piece of other work, and says whether there was
    one; `nudge` tells that there is one again.
    """

    def __init__(
        self,
        work: Callable[[Any], None],
        on_drop: Callable[[Any], None],
        keep_all: bool,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._work = work
        self._on_drop = on_drop
        self._keep_all = keep_all
        self._idle = idle
        self._may_idle = False
        self._jobs: deque[Any] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="streampetr worker", daemon=True)
        self._thread.start()

    def submit(self, job: Any) -> None:
        """Queue a job."""
        dropped = []
        with self._wake:
            if not self._keep_all:
                dropped.extend(self._jobs)
                self._jobs.clear()
            self._jobs.append(job)
            self._wake.notify()
        for old in dropped:
            self._on_drop(old)

    @property
    def is_behind(self) -> bool:
        """Whether a job waits."""
        return bool(self._jobs)

    def nudge(self) -> None:
        """Let `idle` be called when no job waits."""
        with self._wake:
            self._may_idle = True
            self._wake.notify()

    def stop(self) -> list[Any]:
        """Finish the job at hand, end the thread, and return the jobs that are not done."""
        with self._wake:
            self._stopping = True
            left = list(self._jobs)
            self._jobs.clear()
            self._wake.notify()
        self._thread.join()
        return left

    def wait(self, seconds: float) -> bool:
        """Sleep inside a job; return True at once when the worker is being stopped."""
        with self._wake:
            return self._wake.wait_for(lambda: self._stopping, timeout=seconds)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._may_idle or self._stopping)
                if self._stopping:
                    return
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._may_idle = False
            if job is not None:
                self._work(job)
            elif self._idle():
                self.nudge()
