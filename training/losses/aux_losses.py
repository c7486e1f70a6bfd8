"""The losses of the auxiliary 2D head: class, box and projected centre of matched tokens, and a heatmap of centres.

I images, T tokens of an image, G objects of an image (or of all images), K matched pairs, h and w feature map size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.aux_head import AuxPredictions
from training.losses.functions import (
    box_overlap,
    centre_to_corners,
    corners_to_centre,
    gaussian_focal_loss,
    quality_focal_loss,
)
from training.losses.matching import Matches, class_cost, match
from training.truth import CameraTruth

# Weights of the losses and of the matching costs alike.
_CLASS_WEIGHT, _BOX_WEIGHT, _OVERLAP_WEIGHT, _CENTRE_WEIGHT = 2.0, 5.0, 2.0, 10.0
_LOWEST_PROBABILITY = 1e-4  # of the heatmap; the highest is as far from 1


@torch.no_grad()
def match_images(predictions: AuxPredictions, images: Sequence[CameraTruth], size: tuple[int, int]) -> Matches:
    """Match the tokens of every image with its objects; images are `size` (height, width) pixels."""
    size_2 = _width_and_height(size, predictions.boxes_IT4)
    corners_IT4 = centre_to_corners(predictions.boxes_IT4) * size_2.repeat(2)
    costs = []
    for image, truth in enumerate(images):
        boxes_G4 = corners_to_centre(truth.boxes_G4) / size_2.repeat(2)
        _, overlap_TG = box_overlap(corners_IT4[image, :, None], truth.boxes_G4)
        cost_TG = (
            _CLASS_WEIGHT * class_cost(predictions.class_logits_ITS[image], truth.labels_G)
            + _BOX_WEIGHT * torch.cdist(predictions.boxes_IT4[image], boxes_G4, p=1.0)
            - _OVERLAP_WEIGHT * overlap_TG
            + _CENTRE_WEIGHT * torch.cdist(predictions.centres_IT2[image], truth.centres_G2 / size_2, p=1.0)
        )
        costs.append(cost_TG[None])
    return match(costs)


def aux_losses(
    predictions: AuxPredictions,
    images: Sequence[CameraTruth],
    matches: Matches,
    mean_matched: Tensor,
    size: tuple[int, int],
) -> dict[str, Tensor]:
    """Return the five losses under their published names.

    Images are `size` (height, width) pixels. `mean_matched` is the number of matched pairs, at least 1, averaged over
    all processes; class and overlap are divided by this process's own number.
    """
    size_2 = _width_and_height(size, predictions.boxes_IT4)
    image_K, token_K, object_K = matches.sample_K, matches.prediction_LK[0], matches.object_LK[0]
    true_boxes_K4 = torch.cat([image.boxes_G4 for image in images])[object_K]
    true_centres_K2 = torch.cat([image.centres_G2 for image in images])[object_K] / size_2
    boxes_K4, centres_K2 = predictions.boxes_IT4[image_K, token_K], predictions.centres_IT2[image_K, token_K]
    iou_K, overlap_K = box_overlap(centre_to_corners(boxes_K4) * size_2.repeat(2), true_boxes_K4)
    box_distance = (boxes_K4 - corners_to_centre(true_boxes_K4) / size_2.repeat(2)).abs().sum()

    labels_K = torch.cat([image.labels_G for image in images])[object_K]
    quality_ITS = torch.zeros_like(predictions.class_logits_ITS)
    quality_ITS[image_K, token_K, labels_K] = iou_K.detach()

    stride = size[0] // predictions.centreness_Ihw.shape[1]
    heatmap_Ihw = torch.stack([centre_heatmap(image, size, stride) for image in images])
    centreness_Ihw = predictions.centreness_Ihw.sigmoid().clamp(_LOWEST_PROBABILITY, 1.0 - _LOWEST_PROBABILITY)
    matched = max(len(matches), 1)
    return {
        "enc_loss_cls": _CLASS_WEIGHT * quality_focal_loss(predictions.class_logits_ITS, quality_ITS).sum() / matched,
        "enc_loss_bbox": _BOX_WEIGHT * box_distance / mean_matched,
        "enc_loss_iou": _OVERLAP_WEIGHT * (1.0 - overlap_K).sum() / matched,
        "centers2d_losses": _CENTRE_WEIGHT * (centres_K2 - true_centres_K2).abs().sum() / mean_matched,
        "centerness_losses": gaussian_focal_loss(centreness_Ihw, heatmap_Ihw).sum() / mean_matched,
    }


def centre_heatmap(image: CameraTruth, size: tuple[int, int], stride: int) -> Tensor:
    """Return (h, w): 1 in the cells of projected centres, around them a Gaussian window as wide as the box allows.

    The window reaches from the centre to the nearest side of the box, at least one cell far.
    """
    height, width = (length // stride for length in size)
    low_G2, high_G2 = image.boxes_G4.split(2, dim=-1)
    to_sides_G4 = torch.cat([image.centres_G2 - low_G2, high_G2 - image.centres_G2], dim=-1)
    radius_G11 = (to_sides_G4.amin(dim=-1) / stride).ceil().clamp(min=1.0)[:, None, None]
    column_G11, row_G11 = (image.centres_G2 / stride).floor()[..., None, None].unbind(dim=1)
    device = image.boxes_G4.device
    x_Gw = torch.arange(width, device=device) - column_G11
    y_Gh = torch.arange(height, device=device)[:, None] - row_G11
    sigma_G11 = (2.0 * radius_G11 + 1.0) / 6.0
    gaussian_Ghw = torch.exp(-(x_Gw**2 + y_Gh**2) / (2.0 * sigma_G11**2))
    gaussian_Ghw = torch.where((x_Gw.abs() <= radius_G11) & (y_Gh.abs() <= radius_G11), gaussian_Ghw, 0.0)
    nothing_1hw = gaussian_Ghw.new_zeros(1, height, width)
    return torch.cat([nothing_1hw, gaussian_Ghw]).amax(dim=0)


def _width_and_height(size: tuple[int, int], like: Tensor) -> Tensor:
    return like.new_tensor([size[1], size[0]])
