"""From decoder output to classes and boxes: one pair of branches, shared by all layers.

L layers, B batch, Q queries, C channels, O what is said of a query: class logits, then box code. A box is ten numbers:
centre x, y, z (gravity centre), log length, log width, log height, sin yaw, cos yaw, velocity x, y; metres, m/s, ref.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.position import inverse_sigmoid

BOX_CODE_SIZE = 10
_CENTRE, _VELOCITY = slice(0, 3), slice(8, 10)
_PRIOR_PROBABILITY = 0.01  # what an untrained class branch should answer (RetinaNet, arXiv 1708.02002, section 4.1)
PRIOR_LOGIT = math.log(_PRIOR_PROBABILITY / (1 - _PRIOR_PROBABILITY))


@dataclass(frozen=True)
class Predictions:
    """What the decoder's layers say about every query; the last layer counts."""

    class_logits: Tensor  # (L, B, Q, number of classes)
    boxes: Tensor  # (L, B, Q, 10)
    embedding_BQC: Tensor  # normed output of the last layer

    @property
    def centre_BQ3(self) -> Tensor:
        """Centres in ref of the last layer, metres."""
        return self.boxes[-1, ..., _CENTRE]

    @property
    def velocity_BQ2(self) -> Tensor:
        """Velocities in ref of the last layer, m/s."""
        return self.boxes[-1, ..., _VELOCITY]


def admitted_queries(predictions: Predictions, num_admitted: int) -> Tensor:
    """Return which queries enter the memory, (B, K), best first: those whose best class scores highest."""
    return predictions.class_logits[-1].sigmoid().amax(dim=-1).topk(num_admitted, dim=1).indices


def rows(x_BTC: Tensor, index_BP: Tensor) -> Tensor:
    """Return rows of every batch element; by `index_select`, since OpenVINO's reader rejects what `gather` becomes."""
    batch, length = x_BTC.shape[:2]
    first_B1 = torch.arange(batch, device=index_BP.device)[:, None] * length
    return x_BTC.flatten(0, 1).index_select(0, (index_BP + first_B1).flatten()).unflatten(0, index_BP.shape)


class Heads(nn.Module):
    """Class branch and box branch; centres are refined from each query's initial reference point in every layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.classes = nn.Sequential(
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, len(config.class_names)),
        )
        self.boxes = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, BOX_CODE_SIZE),
        )
        nn.init.constant_(self.classes[-1].bias, PRIOR_LOGIT)
        low, high = torch.tensor(config.detection_range).chunk(2)
        self.register_buffer("range_low_3", low, persistent=False)
        self.register_buffer("range_size_3", high - low, persistent=False)

    def forward(self, hidden_LBQC: Tensor, reference_BQ3: Tensor, prior_BQO: Tensor) -> Predictions:
        """Predict from the normed outputs of L layers, the queries' normalised reference points and their prior.

        The prior is what was said of the queries before they were decoded; what the branches say is added to it.
        """
        prior_class_BQS, prior_box_BQ10 = prior_BQO.split([prior_BQO.shape[-1] - BOX_CODE_SIZE, BOX_CODE_SIZE], dim=-1)
        codes = self.boxes(hidden_LBQC) + prior_box_BQ10
        normalised = torch.sigmoid(codes[..., _CENTRE] + inverse_sigmoid(reference_BQ3))
        centres = normalised * self.range_size_3 + self.range_low_3
        boxes = torch.cat([centres, codes[..., _CENTRE.stop :]], dim=-1)
        return Predictions(self.classes(hidden_LBQC) + prior_class_BQS, boxes, hidden_LBQC[-1])
