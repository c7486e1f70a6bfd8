"""Recognition: which image tokens speak of which remembered objects, and what becomes of both."""

import dataclasses
import math

import pytest
import torch

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.following import first_sight, unpacked
from streampetr_core.position import invert_projections
from streampetr_core.proposals import claimed_boxes, token_scores
from streampetr_core.recognition import recognise
from tests.core.followed import expected_at
from tests.core.models import lively_detector, make_frame, tiny_config

CONFIG = tiny_config(num_proposals=5)
REMEMBERED = CONFIG.num_propagated


def recognised(expected, claimed, scores, known=None, labels=None):
    """Recognise cars expected at places (x, y) in claims, of cars unless `labels` say otherwise, at places (x, y)."""
    expectation = expected_at(expected)
    if known is not None:
        expectation = dataclasses.replace(expectation, exists_BR1=torch.tensor([known])[..., None])
    claimed_BT3 = torch.tensor([[[*xy, 0.5] for xy in claimed]])
    index = torch.tensor([NUSCENES_CLASSES.index(label) for label in labels or ["car"] * len(claimed)])
    classes_BTS = torch.nn.functional.one_hot(index, len(NUSCENES_CLASSES))[None].float()
    return recognise(expectation, claimed_BT3, classes_BTS, torch.tensor([scores]))


def test_an_object_takes_the_token_that_is_sure_and_near():
    found = recognised([(0.0, 20.0)], [(0.0, 21.0), (0.2, 20.0), (0.0, 60.0), (-30.0, 20.0)], [0.9, 0.1, 1.0, 1.0])
    assert found.found_BR.tolist() == [[True]]
    assert found.token_BR.tolist() == [[0]]
    assert found.taken_BT.tolist() == [[True, False, False, False]]


def test_along_the_line_of_sight_an_object_may_be_farther_off_than_across():
    at_once = recognised([(0.0, 40.0)], [(2.5, 40.0), (0.0, 42.5)], [0.8, 0.8])
    assert at_once.token_BR.tolist() == [[1]]
    assert not recognised([(0.0, 40.0)], [(25.0, 40.0)], [0.8]).found_BR.item()


def test_an_object_takes_the_token_of_its_class():
    found = recognised([(0.0, 20.0)], [(0.0, 20.1), (0.0, 20.4)], [0.8, 0.7], labels=["pedestrian", "car"])
    assert found.token_BR.tolist() == [[1]]


def test_of_two_objects_with_one_token_the_first_has_it():
    found = recognised([(0.0, 20.3), (0.0, 20.0)], [(0.0, 20.0)], [0.8])
    assert found.found_BR.tolist() == [[True, False]]
    assert found.taken_BT.tolist() == [[True]]
    unknown_first = recognised([(0.0, 20.3), (0.0, 20.0)], [(0.0, 20.0)], [0.8], known=[False, True])
    assert unknown_first.found_BR.tolist() == [[False, True]]


def test_tokens_of_absent_cameras_speak_of_nothing():
    assert not recognised([(0.0, 20.0)], [(0.0, 20.0)], [-1.0]).found_BR.item()


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
    centre, age, known = (x.clone() for x in (fresh.centre_BM3, fresh.age_BM1, fresh.known_BMV))
    code_110 = torch.nn.functional.pad(boxes[:, best : best + 1], (0, 2))
    sight = first_sight(claims.class_logits_BTS[:, best : best + 1], code_110, detector.proposals.speeds_S)
    centre[0, 0], age[0, 0], known[0, 0] = boxes[0, best, :3], 0.5, sight.packed()[0, 0]
    memory = dataclasses.replace(fresh, centre_BM3=centre, age_BM1=age, known_BMV=known)
    return detector, features, frame, memory, boxes[0, best]


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
    velocity = torch.tensor([0.6, -0.2])
    about = unpacked(memory.known_BMV)
    about = dataclasses.replace(about, velocity=about.velocity + velocity, moving=torch.ones_like(about.moving))
    centre = memory.centre_BM3.clone()
    centre[0, 0, :2] = box[:2] - 0.5 * velocity
    moving = dataclasses.replace(memory, known_BMV=about.packed(), centre_BM3=centre)
    recognised = detector.propose(features, frame, moving).recognised
    torch.testing.assert_close(recognised.prior_BRO[0, 0, -2:], velocity, rtol=0, atol=0.02)
    torch.testing.assert_close(recognised.centre_BR3[0, 0], box[:3], rtol=0, atol=1e-4)
    assert math.isclose(recognised.prior_BRO[0, 0, -3], box[7], abs_tol=1e-5)
