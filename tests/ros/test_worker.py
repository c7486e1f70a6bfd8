"""The worker: the newest job first, small pieces of other work in between."""

import threading

from streampetr_ros.worker import Worker
from tests.ros.rig import spin_until


def test_other_work_is_done_piece_by_piece_while_no_job_waits():
    done, pieces = [], ["a", "b", "c"]
    entered, go_on = threading.Event(), threading.Event()

    def idle() -> bool:
        if not pieces:
            return False
        done.append(pieces.pop(0))
        if done[-1] == "a":
            entered.set()
            go_on.wait(20)
        return True

    worker = Worker(done.append, lambda job: None, keep_all=True, idle=idle)
    worker.nudge()
    assert entered.wait(20)
    for job in (1, 2):
        worker.submit(job)
    assert worker.is_behind
    go_on.set()
    assert spin_until(lambda: len(done) == 5)
    assert done == ["a", 1, 2, "b", "c"] and not worker.is_behind
    pieces.append("d")
    worker.nudge()
    assert spin_until(lambda: done[-1] == "d")
    worker.stop()


def test_the_job_that_waits_gives_way_to_a_newer_one():
    done, dropped = [], []
    entered, go_on = threading.Event(), threading.Event()

    def work(job: int) -> None:
        entered.set()
        go_on.wait(20)
        done.append(job)

    worker = Worker(work, dropped.append, keep_all=False)
    worker.submit(0)
    assert entered.wait(20)
    for job in (1, 2, 3):
        worker.submit(job)
    go_on.set()
    assert spin_until(lambda: done == [0, 3]) and dropped == [1, 2]
    worker.stop()
