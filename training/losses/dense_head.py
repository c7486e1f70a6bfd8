"""Losses of the token head: every token is told which object it sees, and what can be known of it there.

It makes the proposals of a model that has some. For others it is a crutch of training, as the auxiliary 2D head is:
features that say class, depth, size and heading by themselves are quick to learn, because each token is told what it
should have said. The published V2-99 models start from features that were trained so (FCOS3D, arXiv 2104.10956).

I images, h and w feature map size, T = h w tokens of an image (row by row), N cameras, S classes, G objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.frame import Frame
from streampetr_core.position import invert_projections
from streampetr_core.proposals import VALUES, TokenClaims, ray_axes, token_centres
from training.losses.functions import focal_loss
from training.truth import Truth

_WEIGHTS = {"depth": 5.0, "centre": 0.5, "size": 1.0, "heading": 0.5}
_CLASS_WEIGHT = 2.0
_MAX_OFFSET = 8.0  # cells; large objects at close range must not drown the others
_MIN_DEPTH = 0.5  # metres; what is nearer has no projection to speak of


@dataclass(frozen=True)
class TokenOutputs:
    """What the tokens of the images of cameras that are present say, sample by sample; `VALUES` orders `values_IT8`."""

    class_logits_ITS: Tensor
    values_IT8: Tensor
    stride: int  # pixels of the images from token to token

    @staticmethod
    def of_present(claims: TokenClaims, frame: Frame, stride: int) -> "TokenOutputs":
        """Sort claims by image and leave out cameras that are not present."""
        batch, num_cameras = frame.img_P_ref_BN44.shape[:2]
        present_I = slice(None) if frame.present_BN is None else frame.present_BN.flatten()

        def sort(x_BTc: Tensor) -> Tensor:
            return x_BTc.reshape(batch * num_cameras, -1, x_BTc.shape[-1])[present_I]

        return TokenOutputs(sort(claims.class_logits_BTS), sort(claims.values_BT8), stride)


@dataclass(frozen=True)
class TokenTruth:
    """What every token should say. Tokens that see no object have label S, and values without meaning."""

    labels_IT: Tensor
    values_IT8: Tensor
    weights_IT: Tensor  # of the tokens in the losses: large objects, which cover many, do not count as many times


@torch.no_grad()
def dense_truth(frame: Frame, truths: Sequence[Truth], outputs: TokenOutputs) -> TokenTruth:
    """Return what the tokens of all images of cameras that are present see, sample by sample."""
    stride, num_classes = outputs.stride, outputs.class_logits_ITS.shape[-1]
    height, width = (length // stride for length in frame.images_BN3HW.shape[-2:])
    cells_T2 = token_centres(stride, height, width, frame.img_P_ref_BN44)
    axes_2BT2 = ray_axes(invert_projections(frame.img_P_ref_BN44), stride, height, width)
    samples = [
        _sample_truth(frame.img_P_ref_BN44[index], truth, cells_T2, stride, [axes_BT2[index] for axes_BT2 in axes_2BT2])
        for index, truth in enumerate(truths)
    ]
    parts = [torch.cat(part) for part in zip(*samples, strict=True)]
    if frame.present_BN is not None:
        parts = [part[frame.present_BN.flatten()] for part in parts]
    labels_IT, values_IT8, weights_IT = parts
    return TokenTruth(torch.where(labels_IT < 0, num_classes, labels_IT), values_IT8, weights_IT)


def _sample_truth(
    img_P_ref_N44: Tensor, truth: Truth, cells_T2: Tensor, stride: int, axes: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels (N, T), -1 for nothing, values (N, T, 8) and weights (N, T) of one sample.

    `axes` are those of `ray_axes`, (N T, 2) each.
    """
    shape = (len(img_P_ref_N44), len(cells_T2))
    if not len(truth.labels_G):
        return (
            torch.full(shape, -1, dtype=torch.int64, device=cells_T2.device),
            cells_T2.new_zeros(*shape, sum(VALUES.values())),
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
    yaw_NT = truth.boxes_G9[:, 6][object_NT]
    along_NT2 = torch.stack([yaw_NT.cos(), yaw_NT.sin()], dim=-1)
    heading_NT2 = torch.stack([(along_NT2 * axis.view_as(along_NT2)).sum(dim=-1) for axis in axes], dim=-1)
    values_NT8 = torch.cat([known_NT3[..., :1], offset_NT2, log_size_NT3, heading_NT2], dim=-1)
    labels_NT = torch.where(sees_NT, truth.labels_G[object_NT], -1)
    weights_NT = torch.where(sees_NT, size_NT.clamp(min=1).rsqrt(), 1.0)
    return labels_NT, values_NT8, weights_NT


def dense_losses(outputs: TokenOutputs, truth: TokenTruth) -> dict[str, Tensor]:
    """Return `dense_loss_cls` and the distances of all values, averaged over the tokens that see an object."""
    num_classes = outputs.class_logits_ITS.shape[-1]
    is_class_ITS = F.one_hot(truth.labels_IT, num_classes + 1)[..., :num_classes].to(outputs.class_logits_ITS)
    weights_IT = torch.where(truth.labels_IT < num_classes, truth.weights_IT, 0.0)
    total_weight = weights_IT.sum().clamp(min=1.0)
    class_loss_ITS = focal_loss(outputs.class_logits_ITS, is_class_ITS) * truth.weights_IT[..., None]
    losses = {"dense_loss_cls": _CLASS_WEIGHT * class_loss_ITS.sum() / total_weight}
    distance_IT8 = (outputs.values_IT8 - truth.values_IT8).abs() * weights_IT[..., None]
    for (name, size), distance in zip(VALUES.items(), distance_IT8.split(list(VALUES.values()), dim=-1), strict=True):
        losses[f"dense_loss_{name}"] = _WEIGHTS[name] * distance.sum() / size / total_weight
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
