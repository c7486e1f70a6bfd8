"""The dense image head: every token of the features tells which object it sees, and what can be known of it there.

A crutch of training, as the auxiliary 2D head is: features that say class, depth, size and heading by themselves are
quick to learn, because each token is told what it should have said. The published V2-99 models start from features that
were trained like this (FCOS3D, arXiv 2104.10956); this head teaches them in one piece with the detector, or before it.

I images, h and w feature map size, T = h w tokens of an image (row by row), S classes, G objects of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.frame import Frame
from training.losses.aux_head import NORM_GROUPS, start_as_background
from training.losses.detection import box_codes
from training.losses.functions import focal_loss
from training.truth import Truth

# What a token tells of its object: log depth, offset to the projected centre in cells (x, y), log length, width and
# height, sine and cosine of the heading against the viewing ray.
_PARTS = {"depth": 1, "centre": 2, "size": 3, "heading": 2}
_WEIGHTS = {"depth": 1.0, "centre": 0.25, "size": 1.0, "heading": 0.5}
_CLASS_WEIGHT = 2.0
# What a token's content tells when it knows where the token looks: the object's box in ref, as the decoder tells it.
_BOX_WEIGHTS = (0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1)
_MAX_OFFSET = 8.0  # cells; large objects at close range must not drown the others
_MIN_DEPTH = 0.5  # metres; what is nearer has no projection to speak of


@dataclass(frozen=True)
class DensePredictions:
    """What every token says; see `_PARTS` for the order of `values_IT8`."""

    class_logits_ITS: Tensor
    values_IT8: Tensor
    stride: int  # pixels of the images from token to token
    codes_IT10: Tensor | None = None  # boxes, see `box_codes`; None where tokens do not know where they look


@dataclass(frozen=True)
class DenseTruth:
    """What every token should say. Tokens that see no object have label S, and values without meaning."""

    labels_IT: Tensor
    values_IT8: Tensor
    codes_IT10: Tensor
    weights_IT: Tensor  # of the tokens in the losses: large objects, which cover many, do not count as many times


class DenseHead(nn.Module):
    """One shared layer, and one output for classes and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.shared = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(NORM_GROUPS, channels), nn.ReLU()
        )
        self.cls = nn.Conv2d(channels, len(config.class_names), 1)
        self.values = nn.Conv2d(channels, sum(_PARTS.values()), 1)
        self.boxes = nn.Linear(channels, len(_BOX_WEIGHTS))
        self.stride = config.feature_stride
        start_as_background(self.cls)

    def forward(self, features_IChw: Tensor, tokens_ITC: Tensor | None = None) -> DensePredictions:
        """Predict from the feature maps of I images and, if given, from what the decoder attends to."""
        shared = self.shared(features_IChw)
        class_logits, values = (branch(shared).flatten(2).transpose(1, 2) for branch in (self.cls, self.values))
        codes = None if tokens_ITC is None else self.boxes(tokens_ITC)
        return DensePredictions(class_logits, values, self.stride, codes)


@torch.no_grad()
def dense_truth(frame: Frame, truths: Sequence[Truth], predictions: DensePredictions) -> DenseTruth:
    """Return what the tokens of all images of cameras that are present see, sample by sample."""
    stride, num_classes = predictions.stride, predictions.class_logits_ITS.shape[-1]
    height, width = (length // stride for length in frame.images_BN3HW.shape[-2:])
    device = frame.images_BN3HW.device
    y, x = torch.meshgrid(*(torch.arange(n, device=device) + 0.5 for n in (height, width)), indexing="ij")
    cells_T2 = torch.stack([x, y], dim=-1).flatten(0, 1) * stride
    samples = [_sample_truth(frame, index, truth, cells_T2, stride) for index, truth in enumerate(truths)]
    parts = [torch.cat(part) for part in zip(*samples, strict=True)]
    if frame.present_BN is not None:
        parts = [part[frame.present_BN.flatten()] for part in parts]
    labels_IT, values_IT8, codes_IT10, weights_IT = parts
    return DenseTruth(torch.where(labels_IT < 0, num_classes, labels_IT), values_IT8, codes_IT10, weights_IT)


def _sample_truth(
    frame: Frame, sample: int, truth: Truth, cells_T2: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return labels (N, T), -1 for nothing, values (N, T, 8), codes (N, T, 10) and weights (N, T) of one sample."""
    img_P_ref_N44 = frame.img_P_ref_BN44[sample]
    shape = (len(img_P_ref_N44), len(cells_T2))
    if not len(truth.labels_G):
        return (
            torch.full(shape, -1, dtype=torch.int64, device=cells_T2.device),
            cells_T2.new_zeros(*shape, sum(_PARTS.values())),
            cells_T2.new_zeros(*shape, len(_BOX_WEIGHTS)),
            cells_T2.new_ones(shape),
        )
    centre_NG2, depth_NG = _project(img_P_ref_N44, truth.boxes_G9[:, None, :3])
    centre_NG2, depth_NG = centre_NG2[:, :, 0], depth_NG[:, :, 0]
    low_NG2, high_NG2 = _bounds(img_P_ref_N44, truth.boxes_G9)
    # Whatever is smaller than a cell is seen by the cell that its centre is in.
    low_NG2, high_NG2 = (
        torch.minimum(low_NG2, centre_NG2 - stride / 2),
        torch.maximum(high_NG2, centre_NG2 + stride / 2),
    )
    cells_T12 = cells_T2[:, None]
    inside_NTG = ((cells_T12 >= low_NG2[:, None]) & (cells_T12 <= high_NG2[:, None])).all(dim=-1)
    inside_NTG &= (depth_NG > _MIN_DEPTH)[:, None]
    nearest_NT, object_NT = torch.where(inside_NTG, depth_NG[:, None], torch.inf).min(dim=-1)
    sees_NT = nearest_NT.isfinite()
    size_NT = F.one_hot(object_NT, len(truth.labels_G)).mul(sees_NT[..., None]).sum(dim=1).gather(1, object_NT)

    known_NG3 = torch.cat([depth_NG[..., None].clamp(min=_MIN_DEPTH).log(), centre_NG2], dim=-1)
    known_NT3 = known_NG3.take_along_dim(object_NT[..., None], dim=1)
    offset_NT2 = ((known_NT3[..., 1:] - cells_T2) / stride).clamp(-_MAX_OFFSET, _MAX_OFFSET)
    log_size_NT3 = truth.boxes_G9[:, 3:6].log()[object_NT]
    focal_N = frame.intrinsics_BN33[sample, :, 0, 0].abs()
    heading_NT2 = _headings(img_P_ref_N44, focal_N, truth.boxes_G9, centre_NG2).take_along_dim(
        object_NT[..., None], dim=1
    )
    values_NT8 = torch.cat([known_NT3[..., :1], offset_NT2, log_size_NT3, heading_NT2], dim=-1)
    labels_NT = torch.where(sees_NT, truth.labels_G[object_NT], -1)
    weights_NT = torch.where(sees_NT, size_NT.clamp(min=1).rsqrt(), 1.0)
    return labels_NT, values_NT8, box_codes(truth.boxes_G9)[object_NT], weights_NT


def dense_losses(predictions: DensePredictions, truth: DenseTruth) -> dict[str, Tensor]:
    """Return `dense_loss_cls` and the distances of all values, averaged over the tokens that see an object.

    `dense_loss_box` is that of the boxes in ref; nothing where tokens do not know where they look.
    """
    num_classes = predictions.class_logits_ITS.shape[-1]
    is_class_ITS = F.one_hot(truth.labels_IT, num_classes + 1)[..., :num_classes].to(predictions.class_logits_ITS)
    weights_IT = torch.where(truth.labels_IT < num_classes, truth.weights_IT, 0.0)
    total_weight = weights_IT.sum().clamp(min=1.0)
    class_loss_ITS = focal_loss(predictions.class_logits_ITS, is_class_ITS) * truth.weights_IT[..., None]
    losses = {"dense_loss_cls": _CLASS_WEIGHT * class_loss_ITS.sum() / total_weight}
    distance_IT8 = (predictions.values_IT8 - truth.values_IT8).abs() * weights_IT[..., None]
    for (name, size), distance in zip(_PARTS.items(), distance_IT8.split(list(_PARTS.values()), dim=-1), strict=True):
        losses[f"dense_loss_{name}"] = _WEIGHTS[name] * distance.sum() / size / total_weight
    if predictions.codes_IT10 is not None:
        distance_IT10 = (predictions.codes_IT10 - truth.codes_IT10).abs() * weights_IT[..., None]
        box_weights_10 = distance_IT10.new_tensor(_BOX_WEIGHTS)
        losses["dense_loss_box"] = (distance_IT10 * box_weights_10).sum() / total_weight
    return losses


def _project(img_P_ref_N44: Tensor, points_GP3: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels (N, G, P, 2) and depths (N, G, P) of P points of each of G objects."""
    rotation_N133, shift_N1 = img_P_ref_N44[:, None, :3, :3], img_P_ref_N44[:, None, None, :3, 3]
    projected = points_GP3 @ rotation_N133.transpose(-1, -2) + shift_N1
    depth = projected[..., 2]
    return projected[..., :2] / depth.clamp(min=_MIN_DEPTH)[..., None], depth


def _bounds(img_P_ref_N44: Tensor, boxes_G9: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper left and lower right pixels (N, G, 2) of what of the boxes is in front of the cameras."""
    signs = torch.cartesian_prod(*[boxes_G9.new_tensor([-0.5, 0.5])] * 3)
    offsets_G83 = signs * boxes_G9[:, None, 3:6]
    cos, sin = boxes_G9[:, 6].cos()[:, None], boxes_G9[:, 6].sin()[:, None]
    x, y, z = offsets_G83.unbind(dim=-1)
    corners_G83 = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1) + boxes_G9[:, None, :3]
    pixels_NG82, depth_NG8 = _project(img_P_ref_N44, corners_G83)
    in_front = (depth_NG8 > _MIN_DEPTH)[..., None]
    low = torch.where(in_front, pixels_NG82, torch.inf).amin(dim=2)
    return low, torch.where(in_front, pixels_NG82, -torch.inf).amax(dim=2)


def _headings(img_P_ref_N44: Tensor, focal_N: Tensor, boxes_G9: Tensor, centre_NG2: Tensor) -> Tensor:
    """Return (N, G, 2): sideways and forward part of each heading as the image shows it, of length 1.

    A mirrored image shows mirrored headings: sideways counts along the image's x.
    """
    heading_G3 = torch.stack([boxes_G9[:, 6].cos(), boxes_G9[:, 6].sin(), torch.zeros_like(boxes_G9[:, 6])], dim=-1)
    turned_NG3 = heading_G3 @ img_P_ref_N44[:, :3, :3].transpose(-1, -2)
    forward_NG = turned_NG3[..., 2]
    sideways_NG = (turned_NG3[..., 0] - centre_NG2[..., 0] * forward_NG) / focal_N[:, None]
    return F.normalize(torch.stack([sideways_NG, forward_NG], dim=-1), dim=-1)
