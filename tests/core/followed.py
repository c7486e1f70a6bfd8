"""Objects that a memory knows, for tests of following and recognition: no lively network behind them."""

import torch

from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.following import Known, expect, first_sight, typical_speeds
from streampetr_core.memory import Memory

SPEEDS = typical_speeds(NUSCENES_CLASSES)
SIZE = (4.6, 1.9, 1.7)


def sight(places, label="car", score=0.8, yaw=0.0) -> tuple[torch.Tensor, Known]:
    """Return centres (1, R, 3) and first sights of objects at places (x, y) in ref."""
    count = len(places)
    logits = torch.full((1, count, len(NUSCENES_CLASSES)), -6.0)
    logits[..., NUSCENES_CLASSES.index(label)] = torch.logit(torch.tensor(score))
    centres = torch.tensor([[[*map(float, place), 0.5] for place in places]])
    yaws = torch.tensor(yaw).expand(1, count, 1)
    sizes = torch.tensor(SIZE).log().expand(1, count, 3)
    boxes = torch.cat([centres, sizes, yaws.sin(), yaws.cos(), torch.zeros(1, count, 2)], dim=-1)
    return centres, first_sight(logits, boxes, SPEEDS)


def remembered(centres, known, age=0.5, turn=None) -> Memory:
    """Return a memory of just these objects; ref has been turned by the matrix `turn` since they were seen."""
    count = centres.shape[1]
    ref_T_obs = torch.eye(4)
    if turn is not None:
        ref_T_obs[:2, :2] = torch.as_tensor(turn)
    return Memory(
        torch.zeros(1, count, 4),
        centres,
        torch.zeros(1, count, 2),
        torch.full((1, count, 1), age),
        ref_T_obs.expand(1, count, 4, 4),
        known.packed(),
    )


def expected_at(places, **about):
    """Return the expectation of objects that were seen once, half a second ago, at places (x, y)."""
    centres, known = sight(places, **about)
    return expect(remembered(centres, known), len(places), SPEEDS)
