"""Latency by stage: over the last seconds, median and 95th percentile."""

import pytest

from streampetr_ros.latency import Latencies


def test_the_last_seconds_count():
    latencies = Latencies()
    latencies.note(90.0, step=7.0)
    for index in range(101):
        latencies.note(100.0, step=index / 1000)
    facts = latencies.facts(101.0)
    assert facts == {"step, median, ms": pytest.approx(50.0), "step, 95 %, ms": pytest.approx(95.0)}
    assert latencies.facts(106.0) == {}


def test_stamps_of_a_recording_tell_nothing():
    latencies = Latencies()
    latencies.note(100.0, age=2e8, receive=-2e8, step=0.1)
    assert set(latencies.recent(100.0)) == {"step"}
