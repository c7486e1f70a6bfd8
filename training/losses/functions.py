"""The formulas behind the losses, element by element.

Focal loss: Lin et al., arXiv 1708.02002. Quality focal loss: Li et al., arXiv 2006.04388. Gaussian focal loss: Law and
Deng, "CornerNet", arXiv 1808.01244. Generalised IoU: Rezatofighi et al., arXiv 1902.09630.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
LOG_EPSILON = 1e-12
_AREA_EPSILON = 1e-6
_GAUSSIAN_ALPHA = 2.0
_GAUSSIAN_GAMMA = 4.0


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sigmoid focal loss of each logit; `targets` are 0 or 1."""
    probabilities = logits.sigmoid()
    error = torch.where(targets > 0.5, 1.0 - probabilities, probabilities)
    balance = torch.where(targets > 0.5, FOCAL_ALPHA, 1.0 - FOCAL_ALPHA)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * balance * error**FOCAL_GAMMA


def quality_focal_loss(logits: Tensor, qualities: Tensor) -> Tensor:
    """Return the quality focal loss of each logit; `qualities` are in [0, 1], 0 for what is not there."""
    error = (qualities - logits.sigmoid()).abs()
    return F.binary_cross_entropy_with_logits(logits, qualities, reduction="none") * error**FOCAL_GAMMA


def gaussian_focal_loss(probabilities: Tensor, heatmap: Tensor) -> Tensor:
    """Return the loss of each probability against a heatmap that is 1 at centres and falls off around them."""
    at_centre = -(probabilities + LOG_EPSILON).log() * (1.0 - probabilities) ** _GAUSSIAN_ALPHA
    elsewhere = -(1.0 - probabilities + LOG_EPSILON).log() * probabilities**_GAUSSIAN_ALPHA
    return torch.where(heatmap == 1.0, at_centre, elsewhere * (1.0 - heatmap) ** _GAUSSIAN_GAMMA)


def box_overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU of boxes (..., 4) as left, top, right, bottom; the shapes broadcast."""
    low, high = boxes.split(2, dim=-1)
    other_low, other_high = others.split(2, dim=-1)
    intersection = _area(torch.maximum(low, other_low), torch.minimum(high, other_high))
    union = (_area(low, high) + _area(other_low, other_high) - intersection).clamp(min=_AREA_EPSILON)
    hull = _area(torch.minimum(low, other_low), torch.maximum(high, other_high)).clamp(min=_AREA_EPSILON)
    iou = intersection / union
    return iou, iou - (hull - union) / hull


def centre_to_corners(boxes: Tensor) -> Tensor:
    """Turn boxes (..., 4) given as centre x, y, width, height into left, top, right, bottom."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def corners_to_centre(boxes: Tensor) -> Tensor:
    """Turn boxes (..., 4) given as left, top, right, bottom into centre x, y, width, height."""
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0.0).prod(dim=-1)
