"""The synchroniser on simulated rigs whose true rotations are known."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampetr_ros import synchroniser as reasons
from streampetr_ros.rhythm import Rhythm, learn_rhythm
from streampetr_ros.synchroniser import ImageSet, Synchroniser

MS = 1_000_000
# When nuScenes' cameras expose, in ms before the LiDAR's stamp; the cameras run at 12 Hz.
NUSCENES = {"front_left": -43, "front": -35, "front_right": -28, "back_right": -20, "back": -10, "back_left": -1}
LATENCY, POLL, WAIT, FEWEST = 0.02, 0.02, 0.15, 4


@dataclass(frozen=True)
class Stream:
    """How images of a rig come to be; times in ms."""

    period: float = 1000 / 12
    offsets: Mapping[str, float] = field(default_factory=lambda: NUSCENES)
    rotations: int = 60
    loss: float = 0.0
    repeated: float = 0.0
    arrival_jitter: float = 0.0
    stamp_jitter: float = 0.0
    irregular: float = 0.0  # part of the period by which an interval may differ
    pattern: Sequence[float] = ()  # intervals, instead of the period
    pause: tuple[int, float] = (0, 0.0)  # before this rotation
    dead: tuple[str, int, int] = ("", 0, 0)  # camera, first rotation without it, first with it again
    half_rate: str = ""
    seed: int = 0

    def arrivals(self) -> list[tuple[float, str, int, int]]:
        """Return time of arrival (s), camera, stamp (ns) and true rotation of every image."""
        chance, found, time = random.Random(self.seed), [], 1e6
        for rotation in range(self.rotations):
            interval = self.period * (1 + self.irregular * chance.uniform(-1, 1))
            time += self.pattern[rotation % len(self.pattern)] if self.pattern else interval
            time += self.pause[1] if rotation == self.pause[0] else 0.0
            for camera, offset in self.offsets.items():
                without = camera == self.dead[0] and self.dead[1] <= rotation < self.dead[2]
                if without or (camera == self.half_rate and rotation % 2) or chance.random() < self.loss:
                    continue
                stamp = int((time + offset + chance.uniform(-1, 1) * self.stamp_jitter) * MS)
                for _ in range(1 + (chance.random() < self.repeated)):
                    delay = LATENCY + chance.uniform(0, self.arrival_jitter) / 1e3
                    found.append((stamp / 1e9 + delay, camera, stamp, rotation))
        return sorted(found)


@dataclass
class Outcome:
    """What the synchroniser made of a stream; images are their true rotations."""

    sets: list[tuple[float, ImageSet]] = field(default_factory=list)  # with the time of release
    notes: list[str] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    waiting: int = 0

    @property
    def rotations(self) -> list[set[int]]:
        """True rotations of the images of each set."""
        return [set(image_set.images.values()) for _, image_set in self.sets]


def run(stream: Stream, fewest: int = FEWEST) -> Outcome:
    """Feed a stream, polling as a node would, until nothing can come any more."""
    synchroniser, outcome = Synchroniser(tuple(stream.offsets), fewest, WAIT), Outcome()
    arrivals = stream.arrivals()
    polled = arrivals[0][0]

    def use(step: reasons.Step, now: float) -> None:
        outcome.sets += [(now, image_set) for image_set in step.sets]
        outcome.notes += step.notes

    for now, camera, stamp, rotation in arrivals:
        while polled + POLL < now:
            polled += POLL
            use(synchroniser.poll(polled), polled)
        use(synchroniser.add(camera, stamp, rotation, now), now)
    use(synchroniser.poll(now + 1.0), now + 1.0)
    outcome.drops, outcome.waiting = synchroniser.drops, synchroniser.waiting
    return outcome


def _check_sound(stream: Stream, outcome: Outcome, fewest: int = FEWEST) -> None:
    """No set mixes rotations, none comes twice or late, and every image is accounted for."""
    rotations = outcome.rotations
    assert [r for r in rotations if len(r) > 1] == []
    order = [rotation for (rotation,) in rotations]
    assert order == sorted(set(order))
    assert all(len(image_set.images) >= fewest for _, image_set in outcome.sets)
    used = sum(len(image_set.images) for _, image_set in outcome.sets)
    assert used + sum(outcome.drops.values()) + outcome.waiting == len(stream.arrivals())


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Six cameras at 2 to 20 Hz: exposed as by a LiDAR of their own rate, or by nuScenes' milliseconds.

    Those milliseconds make a rotation only while the pause after it is the longest, also next to a dead camera: 15 Hz.
    """
    rate = draw(st.floats(2, 20))
    fixed = rate <= 15 and draw(st.booleans())
    offsets = NUSCENES if fixed else {camera: offset * 12 / rate for camera, offset in NUSCENES.items()}
    camera, first, last = draw(st.sampled_from(list(NUSCENES))), draw(st.integers(0, 60)), draw(st.integers(0, 60))
    return Stream(
        period=1000 / rate,
        offsets=offsets,
        loss=draw(st.floats(0, 0.1)),
        repeated=draw(st.sampled_from([0.0, 0.05])),
        arrival_jitter=draw(st.floats(0, 60)),
        stamp_jitter=draw(st.floats(0, 1.5)),
        irregular=draw(st.floats(0, 0.05 if rate > 12 else 0.15)),
        pause=(draw(st.integers(1, 59)), draw(st.sampled_from([0.0, 700.0, 5000.0]))),
        dead=draw(st.sampled_from([("", 0, 0), (camera, first, last), (camera, 0, 60)])),
        half_rate=draw(st.sampled_from(["", *NUSCENES])),
        seed=draw(st.integers(0, 2**32)),
    )


@settings(max_examples=300, deadline=None)
@given(streams())
def test_whatever_happens_no_set_mixes_rotations_and_every_image_is_accounted_for(stream: Stream):
    _check_sound(stream, run(stream))


@pytest.mark.parametrize("rate", [2, 6, 12, 20])
def test_of_rotations_with_two_lost_images_in_a_hundred_nearly_all_yield_a_set(rate: float):
    """Counted from the very first rotation on; a yield is a set of at least four of the six cameras."""
    offsets = {camera: offset * 12 / rate for camera, offset in NUSCENES.items()}
    stream = Stream(1000 / rate, offsets, 600, loss=0.02, arrival_jitter=60, stamp_jitter=1)
    outcome = run(stream)
    _check_sound(stream, outcome)
    assert len(outcome.sets) >= 0.99 * stream.rotations
    sent = Counter(rotation for *_, rotation in stream.arrivals())
    whole = sum(count == len(NUSCENES) for count in sent.values())
    assert sum(len(image_set.images) == len(NUSCENES) for _, image_set in outcome.sets) >= 0.98 * whole


def test_rotations_before_the_rhythm_is_known_are_not_lost():
    outcome = run(Stream())
    assert [len(image_set.images) for _, image_set in outcome.sets] == [len(NUSCENES)] * 60
    assert outcome.rotations[0] == {0}
    assert not outcome.drops
    (note,) = outcome.notes
    assert "83 ms apart, exposures within 42 ms, first front_left, last back_left" in note


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
@pytest.mark.parametrize("apart", [0.0, 4.0])
def test_any_number_of_cameras_with_one_trigger_or_one_after_the_other(count: int, apart: float):
    stream = Stream(offsets={f"camera {i}": i * apart for i in range(count)}, arrival_jitter=30, stamp_jitter=1)
    outcome = run(stream, fewest=count)
    _check_sound(stream, outcome, fewest=count)
    assert len(outcome.sets) == stream.rotations


def test_at_20_hertz_nuscenes_exposures_have_no_pause_and_are_cut_at_one_place_for_good():
    outcome = run(Stream(period=50, loss=0.02, arrival_jitter=40, stamp_jitter=1))
    steps = {
        (camera, rotation - image_set.images["back"])
        for _, image_set in outcome.sets
        for camera, rotation in image_set.images.items()
        if "back" in image_set.images
    }
    assert len(steps) == len(NUSCENES)
    spread = [max(s.stamps.values()) - min(s.stamps.values()) for _, s in outcome.sets]
    assert max(spread) < 43 * MS
    assert len(outcome.sets) >= 58


def test_a_lidar_that_triggers_every_turn_or_every_other():
    """NuScenes' 12 Hz cameras follow a LiDAR of 20 Hz: 50 or 100 ms lie between two rotations."""
    stream = Stream(pattern=(100, 100, 50), loss=0.02, arrival_jitter=60, stamp_jitter=1)
    outcome = run(stream)
    _check_sound(stream, outcome)
    assert len(outcome.sets) >= 59


def test_a_dead_camera_is_waited_for_in_a_few_rotations_and_not_for_long():
    stream = Stream(dead=("front", 20, 60))
    outcome = run(stream)
    _check_sound(stream, outcome)
    assert len(outcome.sets) == stream.rotations
    ages = {max(s.images.values()): released - s.newest_stamp / 1e9 for released, s in outcome.sets}
    # The last image of a rotation was due 1 ms before its LiDAR's stamp, and takes 20 ms.
    assert all(age < LATENCY + WAIT + POLL + 0.01 for rotation, age in ages.items() if rotation >= 6)
    late = [rotation for rotation, age in ages.items() if rotation >= 6 and age > LATENCY + POLL]
    assert late and set(late) <= set(range(20, 30))


def test_a_camera_that_comes_back_is_in_the_sets_again():
    stream = Stream(dead=("back_left", 10, 30), arrival_jitter=20)
    outcome = run(stream)
    _check_sound(stream, outcome)
    cameras = {max(s.images.values()): len(s.images) for _, s in outcome.sets}
    assert [cameras[rotation] for rotation in (9, 10, 29, 33, 59)] == [6, 5, 5, 6, 6]
    assert set(outcome.drops) <= {reasons.LATE}


def test_a_camera_that_starts_later_joins_when_its_place_is_known():
    stream = Stream(dead=("front_left", 0, 20))
    outcome = run(stream)
    _check_sound(stream, outcome)
    assert len(outcome.sets) == stream.rotations
    assert len(outcome.sets[-1][1].images) == len(NUSCENES)
    assert outcome.drops == {reasons.UNPLACED: outcome.drops[reasons.UNPLACED]}
    assert 1 <= outcome.drops[reasons.UNPLACED] <= 5
    assert "rhythm of front_left learnt too" in outcome.notes[1]


def test_a_camera_at_half_rate_is_in_every_other_set():
    outcome = run(Stream(half_rate="back"))
    with_it = [("back" in s.images, *set(s.images.values())) for _, s in outcome.sets]
    assert with_it == [(rotation % 2 == 0, rotation) for rotation in range(60)]


def test_too_few_cameras_make_no_set():
    stream = Stream(offsets={"a": 0, "b": 10, "c": 20}, dead=("b", 10, 60))
    outcome = run(stream, fewest=3)
    assert outcome.rotations == [{rotation} for rotation in range(10)]
    assert outcome.drops == {reasons.INCOMPLETE: 100}


@pytest.mark.parametrize(("before", "after"), [(12, 4), (4, 12)])
@pytest.mark.parametrize("scaled", [False, True])
def test_another_rate_is_followed(before: float, after: float, scaled: bool):
    """The offsets stay, or change as those of a LiDAR that turns at another rate: then everything is learnt anew."""
    synchroniser, sets, notes, sent = Synchroniser(tuple(NUSCENES), FEWEST, WAIT), [], [], 0
    time = 1e6
    for rotation in range(80):
        rate = before if rotation < 40 else after
        time += 1000 / rate
        for camera, offset in NUSCENES.items():
            stamp = int((time + offset * (12 / rate if scaled else 1)) * MS)
            step = synchroniser.add(camera, stamp, rotation, stamp / 1e9)
            sent, sets, notes = sent + 1, sets + step.sets, notes + step.notes
    rotations = [set(image_set.images.values()) for image_set in sets]
    assert [r for r in rotations if len(r) > 1] == []
    assert {rotation for (rotation,) in rotations} >= {*range(40), *range(43, 80)}
    assert sum(len(s.images) for s in sets) + sum(synchroniser.drops.values()) + synchroniser.waiting == sent
    if scaled:
        assert synchroniser.relocks >= 1
        assert any("rhythm of the cameras changed" in note for note in notes)


def test_two_cameras_of_their_own_clocks_drift_through_each_other():
    """Every set is the tightest pair or nearly so, though one camera makes a whole image more than the other."""
    synchroniser, sets = Synchroniser(("slow", "fast"), 2, WAIT), []
    stamps = [("slow", 100 * MS * i) for i in range(600)] + [("fast", int(99.8 * MS * i)) for i in range(601)]
    for camera, stamp in sorted(stamps, key=lambda entry: entry[1]):
        sets += synchroniser.add(camera, stamp, None, stamp / 1e9).sets
    spread = [abs(s.stamps["slow"] - s.stamps["fast"]) / MS for s in sets]
    assert max(spread) < 65
    assert len(sets) >= 580
    assert synchroniser.relocks == 1


def _steady(synchroniser: Synchroniser, rotations: Sequence[int], camera_lag: Mapping[str, int] | None = None):
    """Feed whole rotations of two cameras at 10 Hz, `b` 20 ms after `a`; return the sets and the last jump."""
    sets, jump = [], None
    for rotation in rotations:
        for camera, offset in (("a", 0), ("b", 20)):
            stamp = (100 * rotation + offset - (camera_lag or {}).get(camera, 0)) * MS
            step = synchroniser.add(camera, stamp, rotation, 0.1 * abs(rotation) + offset / 1e3)
            sets += [max(image_set.images.values()) for image_set in step.sets]
            jump = step.jump or jump
    return sets, jump


def test_after_a_pause_nothing_is_lost_and_after_a_bag_starts_anew_either():
    synchroniser = Synchroniser(("a", "b"), 2, WAIT)
    assert _steady(synchroniser, range(100, 110)) == (list(range(100, 110)), None)
    sets, jump = _steady(synchroniser, range(100_000, 100_010))
    assert sets == list(range(100_000, 100_010))
    assert jump == (100_000 - 109) * 100 * MS
    sets, jump = _steady(synchroniser, range(100, 110))
    assert sets == list(range(100, 110))
    assert jump < 0
    assert not synchroniser.drops


@pytest.mark.parametrize("wrong", [0, 2**62, 170_000 * MS])
def test_one_camera_of_another_time_is_left_out_and_counted(wrong: int):
    """Its stamps are zero, huge, or seconds away; the last two of its images wait for a jump that never comes."""
    synchroniser, sets = Synchroniser(("a", "b", "c"), 2, WAIT), []
    for rotation in range(60):
        for camera, offset in (("a", 0), ("b", 20), ("c", 30)):
            stamp = (100_000 + 100 * rotation + offset) * MS
            if camera == "c" and 20 <= rotation < 26:
                stamp = wrong
            sets += synchroniser.add(camera, stamp, rotation, 0.1 * rotation + offset / 1e3).sets
    sets += synchroniser.poll(100.0).sets
    assert [max(s.images.values()) for s in sets] == list(range(60))
    assert [len(s.images) for s in sets] == [3] * 20 + [2] * 6 + [3] * 34
    assert synchroniser.drops == {reasons.FAR: 4}
    assert synchroniser.waiting == 2
    assert synchroniser.end().drops[0].reason == reasons.ENDED
    assert synchroniser.waiting == 0
    assert synchroniser.drops == {reasons.FAR: 4, reasons.ENDED: 2}


def test_a_camera_whose_clock_lags_behind_misses_its_sets_and_its_lag_is_told():
    synchroniser = Synchroniser(("a", "b"), 1, WAIT)
    _steady(synchroniser, range(100, 120))
    sets, _ = _steady(synchroniser, range(120, 160), camera_lag={"b": 510})
    assert sets == list(range(120, 160))
    assert synchroniser.drops[reasons.LATE] == 40
    assert synchroniser.lags() == pytest.approx({"a": 0.0, "b": 0.49})


def test_each_reason_for_a_drop():
    synchroniser = Synchroniser(("a", "b", "c"), 3, WAIT)
    for rotation in range(100, 110):
        for camera, offset in (("a", 0), ("b", 20), ("c", 30)):
            synchroniser.add(camera, (100 * rotation + offset) * MS, None, rotation / 10)

    def drop(camera: str, stamp: int, now: float) -> list[str]:
        return [d.reason for d in synchroniser.add(camera, stamp * MS, None, now).drops]

    assert drop("a", 10_900, 11.0) == [reasons.DUPLICATE]
    assert drop("a", 10_870, 11.0) == [reasons.LATE]
    assert drop("a", 11_000, 11.0) == []
    assert drop("a", 11_001, 11.0) == [reasons.SECOND]
    assert drop("b", 11_032, 11.0) == [reasons.BETWEEN]
    assert drop("b", 11_020, 11.0) == []
    assert synchroniser.poll(11.1).drops == []
    (first, second) = synchroniser.poll(11.2).drops  # 150 ms after `c` was due
    assert {first.camera, second.camera} == {"a", "b"}
    assert first.reason == second.reason == reasons.INCOMPLETE
    assert drop("c", 11_030, 11.2) == [reasons.LATE]
    assert sum(synchroniser.drops.values()) == 7


def test_a_recording_of_one_instant_is_one_set():
    synchroniser = Synchroniser(("a", "b"), 2, WAIT)
    synchroniser.add("a", 0, "image", 0.0)
    assert synchroniser.poll(5.0).sets == []
    synchroniser.add("b", 40 * MS, "image", 5.0)
    assert synchroniser.poll(6.9).sets == []
    (image_set,) = synchroniser.poll(7.1).sets
    assert image_set.stamps == {"a": 0, "b": 40 * MS}
    assert synchroniser.waiting == 0
    apart = Synchroniser(("a", "b"), 2, WAIT)
    apart.add("a", 0, "image", 0.0)
    apart.add("b", 300 * MS, "image", 0.0)
    assert apart.poll(10.0).sets == []


def test_images_that_come_at_unrelated_times_teach_no_rhythm():
    chance = random.Random(1)
    stamps = {camera: [chance.randrange(10**10) for _ in range(10)] for camera in "ab"}
    assert learn_rhythm(stamps) is None or len(learn_rhythm(stamps).offsets) == 1
    assert learn_rhythm({"a": [0, 10**8], "b": []}) is None


def test_a_rhythm_that_is_renewed_keeps_its_origin_and_its_place_of_the_cut():
    known = Rhythm({"a": 0, "b": 49 * MS, "gone": 5 * MS}, 100 * MS, 0)
    drifted, changed = known.renewed(Rhythm({"b": 0, "a": 48 * MS}, 100 * MS, 0))
    assert not changed  # 48 ms is hardly tighter than 52 ms
    assert drifted.offsets == {"a": 0, "b": 52 * MS, "gone": 5 * MS}
    other, changed = drifted.renewed(Rhythm({"b": 0, "a": 40 * MS}, 100 * MS, 0))
    assert changed
    assert other.offsets["a"] - other.offsets["b"] == 40 * MS
