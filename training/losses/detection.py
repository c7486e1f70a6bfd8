"""The 3D losses: class and box of every decoder layer, against the objects that matching gives to its queries.

L layers, B samples, Q queries, S classes, G objects of a sample, K matched pairs. Facts: paper section 4.1 and the
published configurations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from streampetr_core.heads import Predictions
from training.losses.config import LossConfig
from training.losses.functions import focal_loss
from training.losses.matching import Matches, class_cost, match
from training.truth import Truth

_WITHOUT_VELOCITY = slice(0, 8)  # velocity is often unknown, so it takes no part in matching


def box_codes(boxes: Tensor) -> Tensor:
    """Encode boxes (..., 9) as `Truth` gives them into the heads' ten numbers (..., 10)."""
    centre, size, yaw, velocity = boxes.split([3, 3, 1, 2], dim=-1)
    return torch.cat([centre, size.log(), yaw.sin(), yaw.cos(), velocity], dim=-1)


@torch.no_grad()
def match_detections(predictions: Predictions, truths: Sequence[Truth], config: LossConfig) -> Matches:
    """Match the queries of every layer with each sample's objects."""
    weights = predictions.boxes.new_tensor(config.code_weights)[_WITHOUT_VELOCITY]
    costs = []
    for sample, truth in enumerate(truths):
        codes_LQ8 = predictions.boxes[:, sample, :, _WITHOUT_VELOCITY] * weights
        targets_G8 = box_codes(truth.boxes_G9)[:, _WITHOUT_VELOCITY] * weights
        box_cost = torch.cdist(codes_LQ8, targets_G8.expand(len(codes_LQ8), -1, -1), p=1.0)
        classes = class_cost(predictions.class_logits[:, sample], truth.labels_G)
        costs.append(config.class_weight * classes + config.box_weight * box_cost)
    return match(costs)


def detection_losses(
    predictions: Predictions, truths: Sequence[Truth], matches: Matches, mean_matched: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """Return `loss_cls` and `loss_bbox` of the last layer, with the prefix `d<i>.` of the earlier ones.

    `mean_matched` is the number of matched pairs, at least 1, averaged over all processes.
    """
    labels = torch.cat([truth.labels_G for truth in truths])
    targets_LK10 = box_codes(torch.cat([truth.boxes_G9 for truth in truths]))[matches.object_LK]
    layer_L1, sample_K, query_LK = matches.index
    is_class_LBQS = torch.zeros_like(predictions.class_logits)
    is_class_LBQS[layer_L1, sample_K, query_LK, labels[matches.object_LK]] = 1.0
    class_loss_L = focal_loss(predictions.class_logits, is_class_LBQS).sum(dim=(1, 2, 3)) / max(len(matches), 1)
    box_loss_L = box_distance(predictions.boxes[matches.index], targets_LK10, config) / mean_matched
    return by_layer("loss_cls", config.class_weight * class_loss_L) | by_layer(
        "loss_bbox", config.box_weight * box_loss_L
    )


def box_distance(codes_LK10: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """Return the weighted absolute differences of each layer, summed: (L,). Boxes not known in full do not count."""
    known = targets.isfinite().all(dim=-1, keepdim=True)
    difference = (codes_LK10 - torch.where(known, targets, 0.0)).abs() * codes_LK10.new_tensor(config.code_weights)
    return torch.where(known, difference, 0.0).sum(dim=(1, 2))


def by_layer(name: str, losses_L: Tensor) -> dict[str, Tensor]:
    """Name the losses of the layers as the published code does."""
    *earlier, last = losses_L.unbind()
    return {name: last, **{f"d{layer}.{name}": loss for layer, loss in enumerate(earlier)}}
