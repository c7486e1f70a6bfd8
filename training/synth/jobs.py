"""Tasks in several processes, with one progress bar over all of them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from typing import Any

import cv2
from tqdm import tqdm

from streampetr_core.errors import StreampetrError

_REFRESH = 0.2  # seconds
# In a worker: the number of pictures that all workers have finished, and whether to stop.
_counter: Any = None
_stop: Any = None


def run_jobs(
    function: Callable[[Any, Callable[[int], None]], None],
    tasks: Sequence[Any],
    jobs: int,
    pictures: int,
    title: str,
    done: int = 0,
) -> None:
    """Call `function(task, advance)` for each task, in `jobs` fresh processes of one thread each if more than one.

    A task makes `pictures` pictures and calls `advance(n)` as they come; `done` were made before. The first exception
    ends it all and is raised here.
    """
    total = done + pictures * len(tasks)
    with tqdm(total=total, initial=done, unit="picture", desc=title, disable=None) as bar:
        jobs = min(jobs, len(tasks))
        if jobs <= 1:
            for task in tasks:
                function(task, bar.update)
        else:
            _run_in_processes(function, tasks, jobs, bar)


def _run_in_processes(function: Callable, tasks: Sequence[Any], jobs: int, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    counter, stop, shown = context.Value("q", 0), context.Event(), 0
    with ProcessPoolExecutor(jobs, context, _start_worker, (counter, stop)) as pool:
        waiting = {pool.submit(_work, function, task) for task in tasks}
        try:
            while waiting:
                finished, waiting = wait(waiting, _REFRESH, FIRST_EXCEPTION)
                now = counter.value
                bar.update(now - shown)
                shown = now
                for future in finished:
                    future.result()
        except BrokenProcessPool:
            raise StreampetrError(
                "a worker process died (out of memory?); give the same command again, with fewer --jobs: finished "
                "scenes are kept"
            ) from None
        finally:
            stop.set()  # matters only if something went wrong: then nobody should finish his scene first
            pool.shutdown(cancel_futures=True)


def _start_worker(counter: Any, stop: Any) -> None:
    global _counter, _stop
    _counter, _stop = counter, stop
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, so that a second run finds nobody writing."""
    wait_for_any([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(function: Callable, task: Any) -> None:
    function(task, _advance)


def _advance(count: int) -> None:
    if _stop.is_set():
        raise KeyboardInterrupt
    with _counter.get_lock():
        _counter.value += count
