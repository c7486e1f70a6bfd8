"""Proposals: which image tokens become queries, and where."""

import dataclasses
import math

import pytest
import torch

from streampetr_core.errors import StreampetrError
from streampetr_core.position import invert_projections
from streampetr_core.proposals import TokenClaims, agreed_boxes, claimed_boxes, token_scores
from tests.core.models import lively_detector, make_frame, tiny_config

CONFIG = tiny_config(num_proposals=5)
HEIGHT, WIDTH = CONFIG.feature_size
STRIDE = CONFIG.feature_stride


def claims_of(logits_T, offsets_T2=None) -> TokenClaims:
    """Return claims of one camera's tokens about one class; offsets are 0 where nothing else is said."""
    logits = torch.tensor(logits_T)[None, :, None]
    values = torch.zeros(1, len(logits_T), 8)
    if offsets_T2 is not None:
        values[0, :, 1:3] = torch.tensor(offsets_T2)
    return TokenClaims(logits, values, logits)


def test_a_token_that_points_elsewhere_counts_less_than_the_one_at_the_centre():
    offsets = [[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    scores = token_scores(claims_of([4.0] * 4, offsets), 1, 4)[0, 0, 0]
    assert (scores.diff() > 0).all()
    assert scores[3] == pytest.approx(torch.tensor(4.0).sigmoid().item())
    assert scores[0] < 1e-3


def test_beside_a_better_token_there_is_hardly_a_second_proposal_but_apart_from_it_there_is():
    scores = token_scores(claims_of([3.0, 2.9, -5.0, -5.0, 2.0]), 1, 5)[0, 0, 0]
    assert scores.argsort(descending=True)[:2].tolist() == [0, 4]
    assert scores[1] < 0.25 * scores[0]


@pytest.mark.parametrize("camera", range(3))
def test_a_claim_becomes_the_box_that_the_camera_would_show_there(camera):
    frame = make_frame(CONFIG)
    img_P_ref = frame.img_P_ref_BN44[0, camera].double()
    token = 5  # second row, second column
    values = torch.zeros(1, 3 * HEIGHT * WIDTH, 8)
    values[0, camera * HEIGHT * WIDTH + token] = torch.tensor([math.log(7.0), 0.25, -0.5, 1.0, 0.5, 0.2, 0.0, 1.0])
    boxes = claimed_boxes(values, invert_projections(frame.img_P_ref_BN44), STRIDE, HEIGHT, WIDTH)
    box = boxes[0, camera * HEIGHT * WIDTH + token].double()
    projected = img_P_ref @ torch.cat([box[:3], torch.ones(1, dtype=torch.float64)])
    expected = [(1.5 + 0.25) * STRIDE * 7.0, (1.5 - 0.5) * STRIDE * 7.0, 7.0]
    torch.testing.assert_close(projected[:3].tolist(), expected, rtol=1e-4, atol=1e-3)
    assert box[3:6].tolist() == pytest.approx([1.0, 0.5, 0.2])
    # It heads away from the camera: along the ray, seen from above.
    along = torch.linalg.inv(img_P_ref)[:2, :3] @ torch.tensor([1.5 * STRIDE, 1.5 * STRIDE, 1.0], dtype=torch.float64)
    torch.testing.assert_close(box[6:].flip(0), along / along.norm(), rtol=0, atol=1e-5)


def agreed(places, classes, width=2.0):
    """Return the box that the first of some tokens has in the end; they claim places (x, y), each of one class."""
    boxes = torch.zeros(1, len(places), 8)
    boxes[0, :, :2] = torch.tensor(places)
    boxes[..., 3:6] = math.log(width)
    boxes[..., 7] = 1.0
    classes_BTS = torch.nn.functional.one_hot(torch.tensor(classes), 3)[None].float()
    return agreed_boxes(boxes, classes_BTS, torch.zeros(1, 1, dtype=torch.int64))[0, 0]


def test_tokens_of_one_object_agree_on_its_place():
    box = agreed([(0.0, 20.0), (0.0, 21.0), (0.1, 21.0)], [0, 0, 0])
    assert 20.3 < box[1] < 20.9
    assert box[3:].tolist() == pytest.approx([math.log(2.0)] * 3 + [0.0, 1.0])


@pytest.mark.parametrize(("other", "label"), [((0.0, 21.0), 1), ((2.0, 20.0), 0), ((0.0, 30.0), 0)])
def test_tokens_of_other_objects_are_not_asked(other, label):
    torch.testing.assert_close(
        agreed([(0.0, 20.0), other], [0, label])[:2], torch.tensor([0.0, 20.0]), rtol=0, atol=0.02
    )


def test_narrow_objects_side_by_side_stay_apart():
    places = [(0.0, 10.0), (0.5, 10.0)]
    assert agreed(places, [0, 0], width=0.5)[0] < 0.02 < agreed(places, [0, 0], width=4.0)[0]


def test_proposals_stand_between_learned_and_propagated_queries_where_tokens_say():
    detector = lively_detector(CONFIG).requires_grad_(False)
    frame = make_frame(CONFIG)
    proposals = detector.propose(detector.encode(frame.images_BN3HW), frame, detector.fresh_memory())
    queries = detector.temporal(detector.fresh_memory(), proposals=proposals)
    assert queries.content_BQC.shape[1] == CONFIG.num_queries
    own = slice(CONFIG.num_learned - 5, CONFIG.num_learned)
    torch.testing.assert_close(queries.reference_BQ3[:, own], proposals.reference_BP3)
    assert len(detector.queries.reference_points) == CONFIG.num_learned - 5
    best = token_scores(proposals.claims, HEIGHT, WIDTH).flatten().topk(5).indices
    boxes = claimed_boxes(proposals.claims.values_BT8, invert_projections(frame.img_P_ref_BN44), STRIDE, HEIGHT, WIDTH)
    low, high = torch.tensor(CONFIG.detection_range).chunk(2)
    expected = ((boxes[:, best, :3] - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(proposals.reference_BP3, expected)


def test_absent_cameras_propose_nothing_and_the_rest_is_as_without_them():
    detector = lively_detector(CONFIG).requires_grad_(False)
    whole = make_frame(CONFIG)
    absent = dataclasses.replace(whole, present_BN=torch.tensor([[True, False, True]]))
    absent.images_BN3HW[0, 1] = 100.0
    kept = [0, 2]
    without = dataclasses.replace(
        whole,
        images_BN3HW=whole.images_BN3HW[:, kept],
        intrinsics_BN33=whole.intrinsics_BN33[:, kept],
        img_P_ref_BN44=whole.img_P_ref_BN44[:, kept],
    )
    ours, expected = (
        detector.propose(detector.encode(frame.images_BN3HW), frame, detector.fresh_memory())
        for frame in (absent, without)
    )
    torch.testing.assert_close(ours.reference_BP3, expected.reference_BP3)
    torch.testing.assert_close(ours.content_BPC, expected.content_BPC)


def test_a_decoder_that_adds_nothing_repeats_what_the_tokens_say():
    detector = lively_detector(CONFIG).requires_grad_(False)
    for branch in (detector.heads.classes, detector.heads.boxes):
        torch.nn.init.zeros_(branch[-1].weight)
    torch.nn.init.zeros_(detector.heads.boxes[-1].bias)
    torch.nn.init.constant_(detector.heads.classes[-1].bias, math.log(0.01 / 0.99))
    frame = make_frame(CONFIG)
    features, memory = detector.encode(frame.images_BN3HW), detector.fresh_memory()
    proposals = detector.propose(features, frame, memory)
    queries = detector.temporal(memory, proposals=proposals)
    hidden_LBQC = detector.decode(features, detector.geometry(frame), queries)
    predictions = detector.heads(hidden_LBQC, queries.reference_BQ3, queries.prior_BQO)
    claims = proposals.claims
    scores, best = token_scores(claims, HEIGHT, WIDTH).flatten().topk(5)
    boxes = claimed_boxes(claims.values_BT8, invert_projections(frame.img_P_ref_BN44), STRIDE, HEIGHT, WIDTH)
    boxes = agreed_boxes(boxes, claims.class_logits_BTS.sigmoid(), best[None])[0]
    own = slice(CONFIG.num_learned - 5, CONFIG.num_learned)
    said = predictions.class_logits[-1, 0].sigmoid()
    torch.testing.assert_close(said[own].amax(dim=-1), scores)
    assert (said[own].argmax(dim=-1) == claims.class_logits_BTS[0, best].argmax(dim=-1)).all()
    torch.testing.assert_close(predictions.boxes[-1, 0, own, 3:], torch.nn.functional.pad(boxes[:, 3:], (0, 2)))
    others = torch.cat([said[: own.start], said[own.stop :]])
    torch.testing.assert_close(others, torch.full_like(others, 0.01))


def test_gradients_reach_the_features_through_the_content_and_not_through_the_place():
    detector = lively_detector(CONFIG)
    frame = make_frame(CONFIG)
    features = detector.encode(frame.images_BN3HW).detach().requires_grad_(True)
    proposals = detector.propose(features, frame, detector.fresh_memory())
    assert not proposals.reference_BP3.requires_grad and not proposals.prior_BPO.requires_grad
    proposals.content_BPC.sum().backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("number", [9, 12])
def test_more_proposals_than_tokens_or_queries_are_refused(number):
    with pytest.raises(StreampetrError, match="num_proposals must be at most 8"):
        tiny_config(num_proposals=number)
