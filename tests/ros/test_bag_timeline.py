"""The clock of a playback: pausing, resuming and rates."""

import math

from hypothesis import given
from hypothesis import strategies as st

from streampetr_ros.bag.timeline import Timeline

START_NS = 1_532_402_927_604_844_000
rates = st.floats(0.01, 100.0)
spans = st.floats(0.0, 1000.0)


@given(rates, spans, spans)
def test_a_message_is_due_when_bag_time_reaches_it(rate, wall, ahead):
    timeline = Timeline(START_NS, 50.0, rate)
    stamp_ns = timeline.bag_time(50.0 + wall) + round(ahead * rate * 1e9)
    assert math.isclose(timeline.delay(stamp_ns, 50.0 + wall), ahead, abs_tol=1e-6)


@given(rates, spans, spans, spans)
def test_a_pause_shifts_all_that_follows_by_its_length(rate, before, pause, after):
    timeline = Timeline(START_NS, 50.0, rate)
    paused = timeline.toggled(50.0 + before)
    resumed = paused.toggled(50.0 + before + pause)
    assert paused.bag_time(50.0 + before + pause) == timeline.bag_time(50.0 + before)
    assert paused.delay(START_NS, 51.0) == math.inf
    shifted = resumed.bag_time(50.0 + before + pause + after) - timeline.bag_time(50.0 + before + after)
    assert abs(shifted) < 1000 * max(1.0, rate)
