"""Which prediction answers for which object: one to one, at the smallest total cost (Hungarian matching, DETR).

L layers, B samples, Q predictions of a sample, G objects of a sample, S classes, K = sum over samples of min(Q, G).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from training.losses.functions import FOCAL_ALPHA, FOCAL_GAMMA, LOG_EPSILON

_NOT_FINITE_COST = 100.0


@dataclass(frozen=True)
class Matches:
    """The K pairs of every layer; objects are counted through all samples of the batch."""

    sample_K: Tensor
    prediction_LK: Tensor  # index among its sample's predictions
    object_LK: Tensor

    def __len__(self) -> int:
        """Return K."""
        return len(self.sample_K)

    @property
    def index(self) -> tuple[Tensor, Tensor, Tensor]:
        """The index that picks the matched predictions (L, K, ...) out of all predictions (L, B, Q, ...)."""
        layer_L1 = torch.arange(len(self.prediction_LK), device=self.sample_K.device)[:, None]
        return layer_L1, self.sample_K, self.prediction_LK


def match(costs: Sequence[Tensor]) -> Matches:
    """Match at the smallest total cost, for each layer and sample alone; `costs` holds (L, Q, G) for each sample."""
    samples, predictions, objects, num_before = [], [], [], 0
    for sample, cost_LQG in enumerate(costs):
        cost_LQG = cost_LQG.nan_to_num(_NOT_FINITE_COST, _NOT_FINITE_COST, -_NOT_FINITE_COST).cpu().numpy()
        prediction_LK, object_LK = np.stack([linear_sum_assignment(cost_QG) for cost_QG in cost_LQG], axis=1)
        samples.append(np.full(prediction_LK.shape[1], sample))
        predictions.append(prediction_LK)
        objects.append(object_LK + num_before)
        num_before += cost_LQG.shape[-1]
    arrays = (np.concatenate(x, axis=-1) for x in (samples, predictions, objects))
    return Matches(*(torch.from_numpy(array).to(costs[0].device) for array in arrays))


def class_cost(logits: Tensor, labels_G: Tensor) -> Tensor:
    """Return by how much the focal loss would change if a prediction (..., Q, S) had to be of a class: (..., Q, G)."""
    probabilities = logits.sigmoid()
    if_there = -(probabilities + LOG_EPSILON).log() * FOCAL_ALPHA * (1.0 - probabilities) ** FOCAL_GAMMA
    if_not = -(1.0 - probabilities + LOG_EPSILON).log() * (1.0 - FOCAL_ALPHA) * probabilities**FOCAL_GAMMA
    return (if_there - if_not)[..., labels_G]
