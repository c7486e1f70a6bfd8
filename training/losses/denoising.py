"""Denoising queries: shifted copies of the true boxes that the decoder has to pull back (DN-DETR, arXiv 2203.01305).

They stand in front of the real queries, in groups that cannot see each other; no real query sees any of them.
B samples, D denoising queries of a sample, n noisy boxes of the batch, Q real queries, M memory entries that are keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.heads import Predictions
from training.losses.config import LossConfig
from training.losses.detection import box_codes, box_distance, by_layer
from training.losses.functions import focal_loss
from training.truth import Truth


@dataclass(frozen=True)
class Denoising:
    """Noisy boxes as queries, and what should come out of them. Slots without a box are computed and ignored."""

    reference_BD3: Tensor  # normalised to the detection range
    allowed: Tensor  # bool (D + Q, D + Q + M): who may look at whom
    sample_n: Tensor
    query_n: Tensor  # index among the sample's D queries
    labels_n: Tensor  # the number of classes stands for background
    boxes_n9: Tensor  # without noise, as in `Truth`


def make_denoising(
    truths: Sequence[Truth], model: ModelConfig, config: LossConfig, uniform_n3: Tensor | None = None
) -> Denoising | None:
    """Shift every box `denoising_groups` times; None if the batch has no box.

    `uniform_n3` replaces the numbers in [0, 1) that are drawn otherwise: group by group, all boxes of the batch.
    """
    groups, slots = config.denoising_groups, max(len(truth.labels_G) for truth in truths)
    if not groups or not slots:
        return None
    boxes_n9 = torch.cat([truth.boxes_G9 for truth in truths]).repeat(groups, 1)
    labels_n = torch.cat([truth.labels_G for truth in truths]).repeat(groups)
    if uniform_n3 is None:
        uniform_n3 = torch.rand_like(boxes_n9[:, :3])
    shift_n3 = 2.0 * uniform_n3 - 1.0
    reach_n3 = boxes_n9[:, 3:6] / 2 * config.noise_scale + boxes_n9.new_tensor(config.noise_reach)
    centres_n3 = boxes_n9[:, :3] + shift_n3 * reach_n3
    low, high = boxes_n9.new_tensor(model.detection_range).chunk(2)
    sample_n, query_n = _places(truths, groups, slots)
    reference_BD3 = boxes_n9.new_zeros(len(truths), groups * slots, 3)
    reference_BD3[sample_n, query_n] = ((centres_n3 - low) / (high - low)).clamp(0.0, 1.0)
    too_far = shift_n3.norm(dim=-1) > config.noise_split
    return Denoising(
        reference_BD3,
        _allowed(groups, slots, model, boxes_n9.device),
        sample_n,
        query_n,
        torch.where(too_far, len(model.class_names), labels_n),
        boxes_n9,
    )


def _places(truths: Sequence[Truth], groups: int, slots: int) -> tuple[Tensor, Tensor]:
    """Return sample and query of every noisy box."""
    device = truths[0].labels_G.device
    counts = [len(truth.labels_G) for truth in truths]
    sample = torch.arange(len(truths)).repeat_interleave(torch.tensor(counts))
    slot = torch.cat([torch.arange(count) for count in counts])
    query = torch.cat([slot + group * slots for group in range(groups)])
    return sample.repeat(groups).to(device), query.to(device)


def _allowed(groups: int, slots: int, model: ModelConfig, device: torch.device) -> Tensor:
    num_noisy = groups * slots
    num_rows = num_noisy + model.num_queries
    num_columns = num_rows + model.memory_length - model.num_propagated
    group = torch.arange(num_noisy, device=device) // slots
    allowed = torch.ones(num_rows, num_columns, dtype=torch.bool, device=device)
    allowed[num_noisy:, :num_noisy] = False
    allowed[:num_noisy, :num_noisy] = group[:, None] == group
    return allowed


def denoising_losses(
    predictions: Predictions, denoising: Denoising, mean_noisy: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """Return `dn_loss_cls` and `dn_loss_bbox` of every layer, named as in `detection_losses`.

    Boxes that should be called background are pulled back all the same. `mean_noisy` is n, at least 1, averaged over
    all processes.
    """
    logits_LnS = predictions.class_logits[:, denoising.sample_n, denoising.query_n]
    codes_Ln10 = predictions.boxes[:, denoising.sample_n, denoising.query_n]
    num_classes = logits_LnS.shape[-1]
    is_class_nS = torch.nn.functional.one_hot(denoising.labels_n, num_classes + 1)[:, :num_classes].to(logits_LnS)
    # The expected number of boxes that keep their class: the share of the shift cube inside the ball of that radius,
    # exact up to a radius of 1, and all of it where the ball holds the cube.
    num_kept = len(denoising.labels_n) * min(1.0, math.pi / 6 * config.noise_split**3)
    class_loss_L = focal_loss(logits_LnS, is_class_nS.expand_as(logits_LnS)).sum(dim=(1, 2)) / max(num_kept, 1.0)
    box_loss_L = box_distance(codes_Ln10, box_codes(denoising.boxes_n9), config) / mean_noisy
    weight = config.denoising_weight
    return by_layer("dn_loss_cls", weight * config.class_weight * class_loss_L) | by_layer(
        "dn_loss_bbox", weight * config.box_weight * box_loss_L
    )
