"""Denoising: what is put in front of the queries, and that nothing leaks from there."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training import tiny
from training.losses.config import LossConfig
from training.losses.denoising import make_denoising
from training.losses.forward import run_frame

_CONFIG = LossConfig(denoising_groups=3)


def _make(*num_objects, uniform=None, config=_CONFIG):
    return make_denoising(tiny.truths(*num_objects), tiny.CONFIG, config, uniform)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any), st.integers(1, 4))
def test_every_group_holds_every_box_once(num_objects, groups):
    denoising = _make(*num_objects, config=LossConfig(denoising_groups=groups))
    places = list(zip(denoising.sample_n.tolist(), denoising.query_n.tolist(), strict=True))
    slots = max(num_objects)
    expected = {(b, g * slots + j) for b, count in enumerate(num_objects) for g in range(groups) for j in range(count)}
    assert len(places) == len(set(places))
    assert set(places) == expected
    assert denoising.reference_BD3.shape == (len(num_objects), groups * slots, 3)
    assert denoising.reference_BD3.min() >= 0.0
    assert denoising.reference_BD3.max() <= 1.0


@given(st.integers(1, 4), st.integers(1, 5))
def test_groups_see_themselves_and_all_real_queries_and_nobody_sees_them(slots, groups):
    allowed = _make(slots, config=LossConfig(denoising_groups=groups)).allowed
    num_noisy, num_real = groups * slots, tiny.CONFIG.num_queries
    assert allowed.shape == (num_noisy + num_real, num_noisy + tiny.CONFIG.num_learned + tiny.CONFIG.memory_length)
    assert allowed[:, num_noisy:].all()
    assert not allowed[num_noisy:, :num_noisy].any()
    group = torch.arange(num_noisy) // slots
    assert torch.equal(allowed[:num_noisy, :num_noisy], group[:, None] == group)


def test_no_shift_gives_the_true_centre_and_class():
    denoising = _make(2, 3, uniform=torch.full((15, 3), 0.5))
    low, high = torch.tensor(tiny.CONFIG.detection_range).chunk(2)
    centres = denoising.reference_BD3[denoising.sample_n, denoising.query_n] * (high - low) + low
    torch.testing.assert_close(centres, denoising.boxes_n9[:, :3], rtol=0, atol=1e-4)
    torch.testing.assert_close(denoising.labels_n, torch.cat([t.labels_G for t in tiny.truths(2, 3)]).repeat(3))


def test_far_shifts_make_background():
    uniform = torch.full((3, 3), 0.5)
    uniform[0, 0], uniform[1, 0] = 0.87, 0.88  # shifted by 0.74 and 0.76 of half the length
    labels = _make(1, uniform=uniform).labels_n
    assert (labels == len(tiny.CONFIG.class_names)).tolist() == [False, True, False]


def test_reach_is_added_to_half_the_box_and_a_wide_split_keeps_every_class():
    uniform = torch.ones(3, 3)  # the far corner of what can be drawn
    config = LossConfig(denoising_groups=3, noise_reach=(3.0, 2.0, 1.0), noise_split=2.0)
    denoising = _make(1, uniform=uniform, config=config)
    low, high = torch.tensor(tiny.CONFIG.detection_range).chunk(2)
    centres = denoising.reference_BD3[0] * (high - low) + low
    box_9 = tiny.truths(1)[0].boxes_G9[0]
    expected = box_9[:3] + box_9[3:6] / 2 + torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(centres, expected.clamp(low, high).expand(3, 3), rtol=0, atol=1e-4)
    assert torch.equal(denoising.labels_n, tiny.truths(1)[0].labels_G.repeat(3))


def test_without_boxes_or_groups_there_is_nothing_to_denoise():
    assert _make(0, 0) is None
    assert _make(2, config=LossConfig(denoising_groups=0)) is None


def _outputs(denoising):
    model = tiny.model(seed=3)
    frame, memory = tiny.frame(), model.detector.fresh_memory(2)
    return run_frame(model.detector, None, frame, memory, denoising)


@pytest.mark.parametrize("group", [0, 1, 2])
def test_what_happens_in_a_group_stays_in_the_group(group):
    denoising = _make(2, 4)
    moved = denoising.reference_BD3.clone()
    moved[:, group * 4 : group * 4 + 4] = torch.rand(2, 4, 3)
    (before, memory_before), (after, memory_after) = (
        _outputs(dataclasses.replace(denoising, reference_BD3=reference))
        for reference in (denoising.reference_BD3, moved)
    )
    assert torch.equal(before.detections.class_logits, after.detections.class_logits)
    assert torch.equal(before.detections.boxes, after.detections.boxes)
    for name, value in vars(memory_before).items():
        assert torch.equal(value, getattr(memory_after, name))
    inside = torch.arange(12) // 4 == group
    changed = (before.denoised.class_logits != after.denoised.class_logits).any(dim=-1).all(dim=(0, 1))
    assert torch.equal(changed, inside)


def test_the_real_queries_say_the_same_with_and_without_denoising():
    (plain, memory), (noisy, memory_noisy) = _outputs(None), _outputs(_make(3, 1))
    # Metres up to 61, and matrices of another height may be summed in another order.
    torch.testing.assert_close(plain.detections.boxes, noisy.detections.boxes, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(plain.detections.class_logits, noisy.detections.class_logits)
    torch.testing.assert_close(memory.embedding_BMC, memory_noisy.embedding_BMC)
    assert plain.denoised.boxes.shape[2] == 0


def test_the_noisy_queries_see_the_real_ones():
    model = tiny.model(seed=3)
    frame, memory, denoising = tiny.frame(), model.detector.fresh_memory(2), _make(2, 2)
    before, _ = run_frame(model.detector, None, frame, memory, denoising)
    with torch.no_grad():
        model.detector.queries.reference_points += 0.1
    after, _ = run_frame(model.detector, None, frame, memory, denoising)
    assert (before.denoised.class_logits != after.denoised.class_logits).any(dim=-1).any(dim=(0, 1)).all()
