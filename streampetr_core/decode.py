"""From predictions to a list of boxes: the best class scores, without non-maximum suppression.

D detections, Q queries.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.heads import Predictions


@dataclass(frozen=True)
class Detections:
    """Detected objects of one frame, best first; metres, radians, m/s, in ref."""

    boxes_D7: Tensor  # gravity centre x, y, z, length, width, height, yaw about z
    velocities_D2: Tensor
    scores_D: Tensor  # 0..1
    labels_D: Tensor  # index into the model's class names
    queries_D: Tensor  # the query that made it; one query may stand behind several classes

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores_D)

    def select(self, index: Tensor) -> "Detections":
        """Return the detections that a bool mask or an index tensor names."""
        return Detections(**{name: value[index] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> "Detections":
        """Return the detections with every tensor on `device`."""
        return Detections(**{name: value.to(device) for name, value in vars(self).items()})


def decode_detections(predictions: Predictions, config: ModelConfig) -> list[Detections]:
    """Return the detections of every batch element: the top class scores whose centres lie in the position range."""
    logits, codes = predictions.class_logits[-1], predictions.boxes[-1]
    return [_decode_one(scores, codes_Q10, config) for scores, codes_Q10 in zip(logits.sigmoid(), codes, strict=True)]


def _decode_one(scores_QS: Tensor, codes_Q10: Tensor, config: ModelConfig) -> Detections:
    num_classes = scores_QS.shape[-1]
    scores_D, flat_D = scores_QS.flatten().topk(min(config.max_detections, scores_QS.numel()))
    queries_D = flat_D // num_classes
    centre, log_size, sin_yaw, cos_yaw, velocity = codes_Q10[queries_D].split([3, 3, 1, 1, 2], dim=-1)
    boxes_D7 = torch.cat([centre, log_size.exp(), torch.atan2(sin_yaw, cos_yaw)], dim=-1)
    low, high = centre.new_tensor(config.position_range).chunk(2)
    in_range_D = ((centre >= low) & (centre <= high)).all(dim=-1)
    return Detections(boxes_D7, velocity, scores_D, flat_D % num_classes, queries_D).select(in_range_D)
