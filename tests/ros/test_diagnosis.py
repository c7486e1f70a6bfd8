import time

import pytest

from streampetr_core.errors import StreampetrError
from streampetr_ros.diagnosis import BAD_INFO, NO_INFO, Level, Monitor, State, Surroundings
from streampetr_ros.synchroniser import FAR, INCOMPLETE, LATE, Drop

TOPICS = {"a": "/a/image_raw", "b": "/b/image_raw"}
WELL = Surroundings(smallest_set=2)


def _monitor(seconds: float = 3.0, silent: str = "", lag_ms: int = 0, sets: bool = True) -> Monitor:
    """Return a monitor after some seconds of images at 10 Hz; camera b may be silent, or its stamps may lag."""
    monitor = Monitor(TOPICS, 0.0)
    for index in range(int(seconds * 10)):
        now = index / 10
        for camera in TOPICS:
            if camera != silent:
                monitor.image(camera, int(now * 1e9) - (lag_ms * 1_000_000 if camera == "b" else 0), now)
        if sets:
            monitor.set_released(2, now)
            monitor.set_published(0.02, 0.9, 0.2, now)
    return monitor


def _names(states: list[State]) -> list[tuple[str, str]]:
    return [(state.name, state.subject) for state in states]


def test_where_all_is_well_there_is_nothing_to_say():
    monitor = _monitor()
    assert monitor.states(3.0, WELL) == []
    facts = monitor.cameras(3.0)["a"]
    assert facts["images"] == 30
    assert facts["rate, Hz"] == pytest.approx(10.0)
    assert facts["last image ago, s"] == pytest.approx(0.1)


def test_a_silent_camera_is_named_and_is_an_error_once_no_set_comes():
    (state,) = _monitor(silent="b").states(3.0, WELL)
    assert (state.name, state.level, state.subject) == ("no images", Level.WARN, "b")
    assert str(state).startswith("no images: none on /b/image_raw yet; check the camera")
    (state,) = _monitor(silent="b", sets=False).states(3.0, WELL)
    assert state.level == Level.ERROR
    both = _monitor().states(4.5, WELL)
    assert _names(both) == [("no images", "a"), ("no images", "b")]
    assert "for 1.6 s" in str(both[0])
    assert Monitor(TOPICS, 0.0).states(0.5, WELL) == []  # it has only just begun


def test_a_slow_camera_is_not_silent_between_two_images():
    monitor = Monitor({"a": "/a"}, 0.0)
    for second in range(0, 30, 2):
        monitor.image("a", second, second)
    assert _names(monitor.states(29.9, WELL)) != [("no images", "a")]
    assert ("no images", "a") in _names(monitor.states(34.0, WELL))


def test_missing_and_unusable_calibrations_are_not_said_twice():
    monitor = _monitor()
    missing = Surroundings({"a": "/a/camera_info"}, smallest_set=2)
    monitor.fault(NO_INFO, "a", "/a/camera_info: no CameraInfo yet; start it", 2.9)
    (state,) = monitor.states(3.0, missing)
    assert str(state).startswith("no CameraInfo: none on /a/camera_info yet; start the camera's driver")
    monitor = _monitor()
    monitor.fault(BAD_INFO, "a", "/a/camera_info: intrinsics K are zero; calibrate the camera", 2.9)
    (state,) = monitor.states(3.0, WELL)
    assert str(state) == "unusable CameraInfo: /a/camera_info: intrinsics K are zero; calibrate the camera"
    assert BAD_INFO not in [state.name for state in monitor.states(5.0, WELL)]


def test_an_error_that_passes_is_noted():
    monitor = Monitor(TOPICS, 0.0)
    with pytest.raises(StreampetrError), monitor.watching("no transform", "a"):
        raise StreampetrError("no transform from 'ref' to 'a': too old; publish it")
    states = monitor.states(time.monotonic(), WELL)
    (state,) = [state for state in states if state.remedy == "publish it"]
    assert str(state) == "no transform from 'ref' to 'a': too old; publish it"


@pytest.mark.parametrize(("lag", "reason", "said"), [(500, LATE, "500 ms behind"), (-9000, FAR, "9000 ms ahead of")])
def test_a_camera_whose_stamps_are_of_another_time(lag: int, reason: str, said: str):
    monitor = _monitor(lag_ms=lag)
    for tick in range(20):
        monitor.dropped([Drop("b", 0, reason)], 1.0 + tick / 10)
    (state,) = monitor.states(3.0, WELL)
    assert (state.name, state.subject) == ("stamps apart", "b")
    assert f"those of /b/image_raw lie {said} the others'; fix the cameras' clocks" in str(state)
    assert monitor.cameras(3.0)["b"][f"dropped: {reason}"] == 20


def test_a_few_late_images_are_no_state():
    monitor = _monitor()
    monitor.dropped([Drop("b", 0, LATE)] * 3, 2.5)
    assert monitor.states(3.0, WELL) == []


def test_sets_that_stay_incomplete_and_a_rhythm_that_is_not_known():
    monitor = _monitor(sets=False)
    assert _names(monitor.states(3.0, Surroundings(rhythm_known=False))) == [("learning the rhythm", "")]
    monitor.dropped([Drop("a", 0, INCOMPLETE)], 2.9)
    (state,) = monitor.states(3.0, WELL)
    assert "no rotation has images of 2 cameras (a 10.0 Hz, b 10.0 Hz); bring the cameras to one rate" in str(state)


def test_work_that_takes_too_long_and_scores_that_are_too_low():
    monitor = _monitor()
    monitor.set_dropped("detection is slower than the cameras", 2.9, overrun=True)
    monitor.set_dropped("unusable", 2.9)
    (state,) = monitor.states(3.0, WELL)
    assert str(state).startswith("over budget: 1 sets dropped in 2 s; a set takes 20 ms, one comes every 100 ms")
    assert dict(monitor.set_drops) == {"detection is slower than the cameras": 1, "unusable": 1}
    monitor = _monitor()
    for tick in range(20):
        now = 3.0 + tick / 10
        for camera in TOPICS:
            monitor.image(camera, int(now * 1e9), now)
        monitor.set_released(2, now)
        monitor.set_published(0.02, 0.15, 0.2, now)
    (state,) = monitor.states(now, WELL)
    assert (state.name, state.level) == ("all scores below threshold", Level.OK)
    assert "the best is 0.15, 'score_threshold' is 0.20" in str(state)


def test_errors_come_first():
    monitor = _monitor(silent="b")
    monitor.fault("no transform", "a", "no transform from 'ref' to 'a': too old; publish it", 2.9)
    assert [state.level for state in monitor.states(3.0, WELL)] == [Level.ERROR, Level.WARN]
