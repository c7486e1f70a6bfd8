"""Matching: the smallest total cost, one to one, whatever the numbers are."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from training.losses.functions import focal_loss
from training.losses.matching import class_cost, match

_COSTS = st_numpy.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 4), st.integers(0, 4)),
    elements=st.floats(-50, 50, width=32),
)


def _smallest_total(cost):
    """Try every assignment."""
    if cost.shape[0] < cost.shape[1]:
        cost = cost.T
    num_rows, num_columns = cost.shape
    return min(
        sum(cost[row, column] for column, row in enumerate(rows)) for rows in permutations(range(num_rows), num_columns)
    )


@given(st.lists(_COSTS, min_size=1, max_size=3))
def test_matches_are_one_to_one_and_cost_least(costs):
    matches = match([torch.from_numpy(cost) for cost in costs])
    num_before = np.cumsum([0] + [cost.shape[2] for cost in costs])
    for sample, cost in enumerate(costs):
        mine = matches.sample_K == sample
        for layer in range(2):
            rows = matches.prediction_LK[layer, mine].numpy()
            columns = matches.object_LK[layer, mine].numpy() - num_before[sample]
            assert len(rows) == len(set(rows)) == len(set(columns)) == min(cost.shape[1:])
            assert cost[layer, rows, columns].sum() == pytest.approx(_smallest_total(cost[layer]), abs=1e-3)


def test_the_index_picks_matched_predictions_of_each_layer_and_sample():
    costs = [torch.tensor([[[5.0], [1.0]], [[1.0], [5.0]]]), torch.tensor([[[0.0], [9.0]], [[0.0], [9.0]]])]
    matches = match(costs)
    values_LBQ = torch.arange(8).view(2, 2, 2)
    assert values_LBQ[matches.index].tolist() == [[1, 2], [4, 6]]
    assert matches.object_LK.tolist() == [[0, 1], [0, 1]]


def test_costs_that_are_not_finite_lose_against_all_others():
    cost = torch.tensor([[[torch.nan, 7.0], [torch.inf, torch.nan], [8.0, torch.nan]]])
    assert match([cost]).prediction_LK.tolist() == [[0, 2]]
    assert match([cost]).object_LK.tolist() == [[1, 0]]


def test_the_class_cost_is_what_the_focal_loss_would_change_by():
    logits = torch.linspace(-6, 6, 21).reshape(7, 3)
    change = focal_loss(logits, torch.ones_like(logits)) - focal_loss(logits, torch.zeros_like(logits))
    labels = torch.tensor([2, 0, 0])
    torch.testing.assert_close(class_cost(logits, labels), change[:, labels], rtol=1e-4, atol=1e-5)
