"""Recognition: which image tokens speak of which remembered objects, and what becomes of both."""

import dataclasses
import math

import pytest
import torch

from streampetr_core.memory import Memory
from streampetr_core.position import invert_projections
from streampetr_core.proposals import claimed_boxes, token_scores
from streampetr_core.recognition import corrected_velocities, expected_centres, fused_centres, recognise
from tests.core.models import lively_detector, make_frame, tiny_config

CONFIG = tiny_config(num_proposals=5)
REMEMBERED = CONFIG.num_propagated


def recognised(expected, claimed, scores, known=None):
    """Recognise objects expected at places (x, y) in claims at places (x, y)."""
    expected_BR3, claimed_BT3 = (torch.tensor([[[*xy, 0.5] for xy in places]]) for places in (expected, claimed))
    known_BR = torch.ones(1, len(expected), dtype=torch.bool) if known is None else torch.tensor([known])
    return recognise(expected_BR3, known_BR, claimed_BT3, torch.tensor([scores]))


def test_an_object_takes_the_token_that_is_sure_and_near():
    found = recognised([(0.0, 20.0)], [(0.0, 21.0), (0.2, 20.0), (0.0, 60.0), (-30.0, 20.0)], [0.9, 0.1, 1.0, 1.0])
    assert found.found_BR.tolist() == [[True]]
    assert found.token_BR.tolist() == [[0]]
    assert found.taken_BT.tolist() == [[True, False, False, False]]


def test_along_the_line_of_sight_an_object_may_be_farther_off_than_across():
    ahead = recognised([(0.0, 40.0)], [(0.0, 48.0)], [0.8])
    aside = recognised([(0.0, 40.0)], [(8.0, 40.0)], [0.8])
    assert ahead.found_BR.item()
    assert not aside.found_BR.item()
    assert aside.fit_BR.item() == 0.0


def test_of_two_objects_with_one_token_the_first_has_it():
    found = recognised([(0.0, 20.3), (0.0, 20.0)], [(0.0, 20.0)], [0.8])
    assert found.found_BR.tolist() == [[True, False]]
    assert found.taken_BT.tolist() == [[True]]
    unknown_first = recognised([(0.0, 20.3), (0.0, 20.0)], [(0.0, 20.0)], [0.8], known=[False, True])
    assert unknown_first.found_BR.tolist() == [[False, True]]


def test_tokens_of_absent_cameras_speak_of_nothing():
    assert not recognised([(0.0, 20.0)], [(0.0, 20.0)], [-1.0]).found_BR.item()


def test_objects_are_expected_where_their_velocity_has_taken_them():
    turned = torch.eye(4)
    turned[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # ref turned by 90 degrees since the object was seen
    memory = Memory(
        embedding_BMC=torch.zeros(1, 2, 4),
        centre_BM3=torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]),
        velocity_BM2=torch.tensor([[[4.0, 0.0], [9.0, 9.0]]]),
        age_BM1=torch.full((1, 2, 1), 0.5),
        ref_T_obs_BM44=turned.expand(1, 2, 4, 4),
    )
    centre_BR3, velocity_BR2 = expected_centres(memory, 1)
    torch.testing.assert_close(velocity_BR2, torch.tensor([[[0.0, 4.0]]]))
    torch.testing.assert_close(centre_BR3, torch.tensor([[[1.0, 4.0, 3.0]]]))


def test_where_claim_and_expectation_agree_the_place_is_between_them():
    expected, claimed = torch.tensor([[[0.0, 20.0, 0.0]]]), torch.tensor([[[0.0, 22.0, 1.0]]])
    between = fused_centres(expected, claimed, torch.tensor([[0.8]]))[0, 0]
    assert 20.0 < between[1] < 22.0
    assert 0.0 < between[2] < 1.0
    torch.testing.assert_close(fused_centres(expected, claimed, torch.tensor([[0.0]])), claimed)


def test_what_an_object_is_off_becomes_velocity_and_less_of_it_along_the_line_of_sight():
    expected = torch.tensor([[[0.0, 20.0, 0.0]]])
    velocity, age = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.5]]])

    def change(x, y):
        claimed = expected + torch.tensor([x, y, 3.0])
        return (corrected_velocities(velocity, age, expected, claimed) - velocity)[0, 0].tolist()

    assert change(0.0, 0.0) == [0.0, 0.0]
    across, along = change(1.0, 0.0), change(0.0, 1.0)
    assert across[1] == along[0] == 0.0
    assert 0.0 < along[1] < across[0] < 2.0  # 2 m/s would explain a metre in half a second


def test_between_two_entries_of_the_memory_errors_of_place_do_not_become_velocity():
    expected, velocity = torch.tensor([[[0.0, 20.0, 0.0]]]), torch.zeros(1, 1, 2)
    claimed = expected + torch.tensor([0.5, 0.0, 0.0])
    late, early = (
        corrected_velocities(velocity, torch.tensor([[[age]]]), expected, claimed).norm() for age in (0.5, 0.08)
    )
    assert early <= late


def test_a_filter_of_claims_and_expectations_finds_out_how_fast_an_object_is():
    place, velocity, age = torch.tensor([[[10.0, 10.0, 0.0]]]), torch.zeros(1, 1, 2), torch.tensor([[[0.5]]])
    truth = torch.tensor([3.0, 1.0])
    for _ in range(25):
        expected = place + torch.nn.functional.pad(velocity * 0.5, (0, 1))
        claimed = place + torch.nn.functional.pad(truth * 0.5, (0, 1))
        velocity, place = corrected_velocities(velocity, age, expected, claimed), claimed
    torch.testing.assert_close(velocity[0, 0], truth, rtol=0, atol=0.3)


@pytest.fixture
def known():
    """Return detector, features, a frame, and a memory that holds the object of the surest token."""
    detector = lively_detector(CONFIG).requires_grad_(False)
    frame = make_frame(CONFIG, is_first_B=torch.tensor([False]))
    features = detector.encode(frame.images_BN3HW)
    ref_P_img = invert_projections(frame.img_P_ref_BN44)
    claims = detector.proposals.head(features, ref_P_img)
    size = features.shape[-2:]
    best = token_scores(claims, *size).flatten().argmax()
    boxes = claimed_boxes(claims.values_BT8, ref_P_img, CONFIG.feature_stride, *size)
    fresh = detector.fresh_memory()
    centre, age = fresh.centre_BM3.clone(), fresh.age_BM1.clone()
    centre[0, 0], age[0, 0] = boxes[0, best, :3], 0.5
    return detector, features, frame, dataclasses.replace(fresh, centre_BM3=centre, age_BM1=age), boxes[0, best]


def test_a_known_object_is_not_proposed_again_and_begins_with_what_its_token_says(known):
    detector, features, frame, memory, box = known
    before = detector.propose(features, frame, detector.fresh_memory())
    after = detector.propose(features, frame, memory)
    torch.testing.assert_close(after.reference_BP3[:, :-1], before.reference_BP3[:, 1:])
    queries = detector.temporal(memory, proposals=after)
    own = CONFIG.num_learned
    torch.testing.assert_close(queries.prior_BQO[:, own], before.prior_BPO[:, 0])
    torch.testing.assert_close(after.recognised.centre_BR3[0, 0], box[:3])
    assert queries.prior_BQO[:, own + 1 :].abs().max() == 0


def test_where_it_was_expected_is_known_to_its_query(known):
    detector, features, frame, memory, _ = known
    torch.nn.init.normal_(detector.proposals.motion.weight)
    moved = dataclasses.replace(memory, centre_BM3=memory.centre_BM3 + torch.tensor([0.3, 0.2, 0.0]))
    here, there = (detector.propose(features, frame, m).recognised for m in (memory, moved))
    torch.testing.assert_close(here.prior_BRO[..., :-2], there.prior_BRO[..., :-2])
    assert (here.content_BRC[0, 0] - there.content_BRC[0, 0]).abs().max() > 1e-3
    assert there.content_BRC[0, 1:].abs().max() == 0


def test_a_scene_that_begins_knows_nothing(known):
    detector, features, frame, *_ = known
    memory = detector.fresh_memory()
    recognised = detector.propose(features, frame, memory).recognised
    torch.testing.assert_close(recognised.centre_BR3, memory.centre_BM3[:, :REMEMBERED])
    assert recognised.prior_BRO.abs().max() == 0


def test_velocities_are_kept_until_the_decoder_corrects_them(known):
    detector, features, frame, memory, box = known
    velocity = memory.velocity_BM2.clone()
    velocity[0, 0] = torch.tensor([0.6, -0.2])
    centre = memory.centre_BM3.clone()
    centre[0, 0, :2] = box[:2] - 0.5 * velocity[0, 0]
    moving = dataclasses.replace(memory, velocity_BM2=velocity, centre_BM3=centre)
    recognised = detector.propose(features, frame, moving).recognised
    torch.testing.assert_close(recognised.prior_BRO[0, 0, -2:], velocity[0, 0])
    torch.testing.assert_close(recognised.centre_BR3[0, 0], box[:3], rtol=0, atol=1e-4)
    assert math.isclose(recognised.prior_BRO[0, 0, -3], box[7], abs_tol=1e-5)
