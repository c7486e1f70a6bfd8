"""All losses of one frame by name, and their sum.

The sum of all entries is what training minimises. In several processes each divides some losses by the mean of a count
over all of them: `reduce_mean` takes a small tensor and returns its mean over the processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from training.losses.aux_head import AuxPredictions
from training.losses.aux_losses import aux_losses, match_images
from training.losses.config import LossConfig
from training.losses.denoising import Denoising, denoising_losses
from training.losses.dense_head import TokenOutputs, dense_losses, dense_truth
from training.losses.detection import detection_losses, match_detections
from training.losses.matching import Matches
from training.truth import CameraTruth, Truth

ReduceMean = Callable[[Tensor], Tensor]


def alone(counts: Tensor) -> Tensor:
    """Be the `reduce_mean` of a single process: the mean over one is the value itself."""
    return counts


@dataclass(frozen=True)
class Outputs:
    """What the network says about one frame when it trains."""

    detections: Predictions  # of the learned and propagated queries
    denoised: Predictions  # of the denoising queries, if any
    auxiliary: AuxPredictions | None  # of the images of cameras that are present, sample by sample; None: no such head
    dense: TokenOutputs | None = None  # the same
    guidance: Mapping[str, Tensor] = field(default_factory=dict)  # losses of where the decoder looks


def frame_losses(
    outputs: Outputs,
    frame: Frame,
    truths: Sequence[Truth],
    denoising: Denoising | None,
    config: LossConfig,
    reduce_mean: ReduceMean = alone,
) -> dict[str, Tensor]:
    """Return every loss under its published name; `truths` are those of the frame's samples."""
    matches = match_detections(outputs.detections, truths, config)
    in_images = _matched_images(outputs.auxiliary, frame, truths)
    counts = [len(matches), len(in_images or ()), 0 if denoising is None else len(denoising.labels_n)]
    means = reduce_mean(outputs.detections.boxes.new_tensor(counts)).clamp(min=1.0)
    losses = detection_losses(outputs.detections, truths, matches, means[0], config)
    if denoising is not None:
        losses |= denoising_losses(outputs.denoised, denoising, means[2], config)
    elif config.denoising_groups:
        # The published code logs and sums copies without gradient where a batch has no box; so totals stay comparable.
        losses |= {name.replace("loss", "dn_loss"): loss.detach() for name, loss in losses.items()}
    losses |= outputs.guidance
    return losses | _image_losses(outputs.auxiliary, outputs.dense, frame, truths, in_images, means[1])


def image_losses(
    auxiliary: AuxPredictions | None,
    dense: TokenOutputs | None,
    frame: Frame,
    truths: Sequence[Truth],
    reduce_mean: ReduceMean = alone,
) -> dict[str, Tensor]:
    """Return the losses of the heads that teach the image features alone; none of a head that is not there."""
    matches = _matched_images(auxiliary, frame, truths)
    mean_matched = reduce_mean(frame.dt_B.new_tensor([len(matches or ())])).clamp(min=1.0)[0]
    return _image_losses(auxiliary, dense, frame, truths, matches, mean_matched)


def _matched_images(auxiliary: AuxPredictions | None, frame: Frame, truths: Sequence[Truth]) -> Matches | None:
    if auxiliary is None:
        return None
    return match_images(auxiliary, shown_images(frame, truths), tuple(frame.images_BN3HW.shape[-2:]))


def _image_losses(
    auxiliary: AuxPredictions | None,
    dense: TokenOutputs | None,
    frame: Frame,
    truths: Sequence[Truth],
    matches: Matches | None,
    mean_matched: Tensor,
) -> dict[str, Tensor]:
    losses, size = {}, tuple(frame.images_BN3HW.shape[-2:])
    if auxiliary is not None:
        losses |= aux_losses(auxiliary, shown_images(frame, truths), matches, mean_matched, size)
    if dense is not None:
        losses |= dense_losses(dense, dense_truth(frame, truths, dense))
    return losses


def shown_images(frame: Frame, truths: Sequence[Truth]) -> list[CameraTruth]:
    """Return what each image of a camera that is present shows, sample by sample."""
    cameras = [camera for truth in truths for camera in truth.cameras]
    if frame.present_BN is None:
        return cameras
    return [camera for camera, present in zip(cameras, frame.present_BN.flatten().tolist(), strict=True) if present]


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum; raises StreampetrError that names every loss that is not finite."""
    values = torch.stack(list(losses.values()))
    finite = values.detach().isfinite().tolist()
    if not all(finite):
        wrong = [f"{name} is {loss.item()}" for (name, loss), ok in zip(losses.items(), finite, strict=True) if not ok]
        raise StreampetrError(
            f"loss {', '.join(wrong)}; resume in float32 (--set training.precision=fp32), or begin a run from the last "
            "weights (training.initial_checkpoint) with a lower learning rate"
        )
    return values.sum()
