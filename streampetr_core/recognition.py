"""Recognition: what image tokens say now about objects that the memory knows.

Without it a model with proposals would begin every object anew: a proposal starts with what its token says, and a
propagated query with nothing, so the decoder would never take the second. Here each remembered object looks for the
token that speaks of it, starts with what that token says, as a proposal does, and takes the token out of the proposals.

B batch, T image tokens, R remembered objects that become queries (the newest memory entries), S classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.following import Expected, likelihoods

_REACH = 3.0  # standard deviations between where an object is expected and what a token claims


@dataclass(frozen=True)
class Recognition:
    """Which tokens speak of which remembered objects."""

    token_BR: Tensor  # means something only where one was found
    found_BR: Tensor  # bool
    taken_BT: Tensor  # bool: tokens that speak of a remembered object


def recognise(expected: Expected, claimed_BT3: Tensor, classes_BTS: Tensor, scores_BT: Tensor) -> Recognition:
    """Find the token that speaks of each remembered object: the one that is surest, nearest and of its class.

    Of objects that choose the same one, the first has it: memory entries stand best first. `classes` are how likely
    each token finds each class.
    """
    stands_BRT, moves_BRT, misfit_BRT = likelihoods(expected, claimed_BT3[:, None, :, :2])
    fit_BRT = torch.lerp(stands_BRT, moves_BRT, expected.known.moving) * _alike(expected, classes_BTS)
    claim_BRT = torch.where(misfit_BRT < _REACH**2, fit_BRT * scores_BT[:, None], 0.0)
    best_BR, token_BR = claim_BRT.max(dim=-1)
    found_BR = expected.exists_BR1[..., 0] & (best_BR > 0.0)
    same_BRR = (token_BR[:, :, None] == token_BR[:, None, :]) & found_BR[:, None, :]
    earlier_RR = torch.ones_like(same_BRR[0]).tril(diagonal=-1)
    found_BR = found_BR & ~(same_BRR & earlier_RR).any(dim=-1)
    chosen_BRT = token_BR[..., None] == torch.arange(scores_BT.shape[1], device=token_BR.device)
    chosen_BRT &= found_BR[..., None]
    return Recognition(token_BR, found_BR, chosen_BRT.any(dim=1))


def _alike(expected: Expected, classes_BTS: Tensor) -> Tensor:
    """Return how much the tokens' classes are those of the objects, (B, R, T), in [0, 1]."""
    known_BRS = F.normalize(expected.known.class_logits.sigmoid(), dim=-1)
    return known_BRS @ F.normalize(classes_BTS, dim=-1).transpose(-1, -2)
