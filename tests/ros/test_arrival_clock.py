from streampetr_ros.arrival_clock import ArrivalClock


class _Times:
    def __init__(self) -> None:
        self.sim, self.wall = 100.0, 5000.0


def test_a_clock_that_runs_is_followed_at_any_rate():
    times = _Times()
    clock = ArrivalClock(lambda: times.sim, lambda: times.wall)
    for step in range(100):
        times.sim, times.wall = 100.0 + step / 100, 5000.0 + step
        assert clock() == times.sim


def test_a_clock_that_has_ended_goes_on_by_the_wall_after_a_second():
    times = _Times()
    clock = ArrivalClock(lambda: times.sim, lambda: times.wall)
    times.sim, times.wall = 101.0, 5001.0
    assert clock() == 101.0
    times.wall = 5001.9
    assert clock() == 101.0
    times.wall = 5004.0
    assert clock() == 103.0
    times.sim, times.wall = 101.1, 5005.0  # the pause is over
    assert clock() == 101.1


def test_a_clock_that_jumps_back_is_followed():
    times = _Times()
    clock = ArrivalClock(lambda: times.sim, lambda: times.wall)
    times.sim, times.wall = 20.0, 5000.5
    assert clock() == 20.0
