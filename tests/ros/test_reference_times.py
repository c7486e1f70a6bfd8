from hypothesis import given
from hypothesis import strategies as st

from streampetr_ros.reference_times import ReferenceTimes

STAMPS = st.lists(st.integers(0, 10**6), max_size=30)


@given(STAMPS, st.integers(0, 10**6), st.integers(0, 10**5))
def test_the_nearest_stamp_is_found_in_whichever_order_they_came(stamps: list[int], exposure: int, limit: int):
    times = ReferenceTimes()
    for stamp in stamps:
        times.add(stamp)
    near = [stamp for stamp in stamps if abs(stamp - exposure) <= limit]
    found = times.nearest(exposure, limit)
    assert (found is None) == (not near)
    assert found is None or abs(found - exposure) == min(abs(stamp - exposure) for stamp in near)
    assert times.reaches(exposure) == any(stamp >= exposure for stamp in stamps)


def test_after_a_jump_of_the_clock_old_stamps_are_forgotten():
    times = ReferenceTimes()
    times.add(100)
    times.clear()
    assert times.nearest(100, 10) is None and not times.reaches(0)
