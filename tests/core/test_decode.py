"""From box codes to detections."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streampetr_core.decode import decode_detections
from streampetr_core.heads import Predictions
from tests.core.models import tiny_config

CONFIG = tiny_config()
NUM_CLASSES = len(CONFIG.class_names)


def code(x, y, z, length, width, height, yaw, vx, vy, scale=1.0):
    """Return the ten numbers of a box; `scale` stretches (sin, cos), which the network does not normalise."""
    sin, cos = scale * math.sin(yaw), scale * math.cos(yaw)
    return [x, y, z, math.log(length), math.log(width), math.log(height), sin, cos, vx, vy]


def predictions(codes, logits):
    """Return predictions of two layers, of which the first is nonsense."""
    boxes, logits = torch.tensor(codes)[None], torch.tensor(logits)[None]
    wrong = torch.full_like(boxes, 9.0), torch.full_like(logits, 9.0)
    return Predictions(torch.stack([wrong[1], logits]), torch.stack([wrong[0], boxes]), torch.empty(0))


def logits_of(*entries):
    """Return one query's logits, -9 except for the given (class, logit) pairs."""
    values = [-9.0] * NUM_CLASSES
    for label, logit in entries:
        values[label] = logit
    return values


@given(
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.floats(-9, 9),
    st.tuples(*[st.floats(0.1, 20)] * 3),
    st.floats(-3.1, 3.1),
    st.tuples(*[st.floats(-30, 30)] * 2),
    st.floats(0.1, 3),
    st.integers(0, NUM_CLASSES - 1),
)
def test_a_known_box_comes_back(x, y, z, size, yaw, velocity, scale, label):
    given_code = code(x, y, z, *size, yaw, *velocity, scale=scale)
    (detections,) = decode_detections(predictions([given_code], [logits_of((label, 2.0))]), CONFIG)
    torch.testing.assert_close(detections.boxes_D7[0], torch.tensor([x, y, z, *size, yaw]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(detections.velocities_D2[0], torch.tensor(velocity))
    assert detections.labels_D[0] == label
    assert detections.queries_D[0] == 0
    assert float(detections.scores_D[0]) == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)


def test_detections_are_sorted_and_one_query_may_have_several_labels():
    codes = [code(1, 1, 0, 4, 2, 1.5, 0, 0, 0), code(2, 2, 0, 4, 2, 1.5, 0, 0, 0)]
    logits = [logits_of((0, 3.0), (5, 1.0)), logits_of((8, 2.0))]
    (detections,) = decode_detections(predictions(codes, logits), CONFIG)
    assert detections.labels_D[:3].tolist() == [0, 8, 5]
    assert detections.queries_D[:3].tolist() == [0, 1, 0]
    assert detections.boxes_D7[:3, 0].tolist() == [1, 2, 1]
    assert (detections.scores_D.diff() <= 0).all()


def test_only_centres_in_the_position_range_are_kept():
    places = [(61.2, 0, 0), (61.3, 0, 0), (0, -61.3, 0), (0, 0, 10.1), (0, 0, -9.9), (math.nan, 0, 0)]
    codes = [code(*place, 4, 2, 1.5, 0, 0, 0) for place in places]
    (detections,) = decode_detections(predictions(codes, [logits_of((0, 1.0))] * len(places)), CONFIG)
    assert set(detections.queries_D.tolist()) == {0, 4}


def test_no_more_than_the_configured_number_is_returned():
    config = tiny_config(max_detections=7)
    codes = [code(k, 0, 0, 4, 2, 1.5, 0, 0, 0) for k in range(5)]
    (detections,) = decode_detections(predictions(codes, [logits_of((0, 0.1 * k)) for k in range(5)]), config)
    assert len(detections) == 7
    assert detections.queries_D[:5].tolist() == [4, 3, 2, 1, 0]


def test_each_batch_element_has_its_own_list_and_can_be_selected_from():
    one = predictions([code(1, 0, 0, 4, 2, 1.5, 0, 0, 0)], [logits_of((0, 3.0), (1, 1.0))])
    other = predictions([code(2, 0, 0, 4, 2, 1.5, 0, 0, 0)], [logits_of((2, 3.0))])
    both = Predictions(
        *(torch.cat([getattr(p, n) for p in (one, other)], 1) for n in ("class_logits", "boxes")), one.boxes
    )
    first, second = decode_detections(both, CONFIG)
    assert (first.boxes_D7[0, 0], second.boxes_D7[0, 0]) == (1, 2)
    likely = first.select(first.scores_D > 0.5)
    assert likely.labels_D.tolist() == [0, 1]
    assert len(first.select(first.scores_D > 1)) == 0
