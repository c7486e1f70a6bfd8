"""Recognition: what image tokens say now about objects that the memory knows.

Without it a model with proposals would begin every object anew: a proposal starts with what its token says, and a
propagated query with nothing, so the decoder would never take the second. Here each remembered object looks for the
token that speaks of it, starts with what that token says, as a proposal does, and takes the token out of the proposals.

B batch, T image tokens, R remembered objects that become queries (the newest memory entries).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.memory import Memory

# How far a token's claim may lie from where an object is expected, one standard deviation: metres across the line of
# sight (objects move), and along it, where what a single image says is worse the farther away.
_ACROSS, _ALONG, _ALONG_PER_METRE = 1.5, 1.0, 0.08
_REACH = 3.0  # standard deviations
# How much of what an object is off its expectation is put down to its velocity: across the line of sight, and along it.
_GAIN_ACROSS, _GAIN_ALONG = 0.3, 0.1
_SPAN = 0.5  # seconds; over less, errors of place would count as velocity
_TRUST = 0.0  # share of the expectation in the place of an object that is exactly where it is expected


@dataclass(frozen=True)
class Recognition:
    """Which tokens speak of which remembered objects."""

    token_BR: Tensor  # means something only where one was found
    found_BR: Tensor  # bool
    fit_BR: Tensor  # 1: exactly where it was expected; 0: far off, or not found
    taken_BT: Tensor  # bool: tokens that speak of a remembered object


def expected_centres(memory: Memory, number: int) -> tuple[Tensor, Tensor]:
    """Return where the `number` newest objects of a carried memory should be by now, (B, R, 3), and how they move.

    Velocities (B, R, 2) are turned into ref, in m/s.
    """
    turn_BR22 = memory.ref_T_obs_BM44[:, :number, :2, :2]
    velocity_BR2 = (turn_BR22 @ memory.velocity_BM2[:, :number, :, None])[..., 0]
    moved_BR2 = velocity_BR2 * memory.age_BM1[:, :number]
    return memory.centre_BM3[:, :number] + F.pad(moved_BR2, (0, 1)), velocity_BR2


def recognise(expected_BR3: Tensor, known_BR: Tensor, claimed_BT3: Tensor, scores_BT: Tensor) -> Recognition:
    """Find the token that speaks of each remembered object: the one that is surest and nearest.

    Of objects that choose the same one, the first has it: memory entries stand best first. `known_BR` says which
    entries are objects at all.
    """
    misfit_BRT = _misfit(expected_BR3, claimed_BT3)
    fit_BRT = torch.exp(-0.5 * misfit_BRT)
    claim_BRT = torch.where(misfit_BRT < _REACH**2, fit_BRT * scores_BT[:, None], 0.0)
    best_BR, token_BR = claim_BRT.max(dim=-1)
    found_BR = known_BR & (best_BR > 0.0)
    same_BRR = (token_BR[:, :, None] == token_BR[:, None, :]) & found_BR[:, None, :]
    earlier_RR = torch.ones_like(same_BRR[0]).tril(diagonal=-1)
    found_BR = found_BR & ~(same_BRR & earlier_RR).any(dim=-1)
    chosen_BRT = token_BR[..., None] == torch.arange(scores_BT.shape[1], device=token_BR.device)
    chosen_BRT &= found_BR[..., None]
    fit_BR = torch.where(chosen_BRT, fit_BRT, 0.0).amax(dim=-1)
    return Recognition(token_BR, found_BR, fit_BR, chosen_BRT.any(dim=1))


def fused_centres(expected_BR3: Tensor, claimed_BR3: Tensor, fit_BR: Tensor) -> Tensor:
    """Return where the objects probably are, (B, R, 3): between the claim and the expectation, if they agree."""
    return claimed_BR3 + _TRUST * fit_BR[..., None] * (expected_BR3 - claimed_BR3)


def corrected_velocities(velocity_BR2: Tensor, age_BR1: Tensor, expected_BR3: Tensor, claimed_BR3: Tensor) -> Tensor:
    """Return velocities (B, R, 2) that explain a part of how far the claims are from the expectations (a g-h filter).

    A single image says little of how far away an object is, so the part along the line of sight counts less.
    """
    away_BR2 = (claimed_BR3 - expected_BR3)[..., :2]
    ahead_BR2 = _ahead(expected_BR3)
    along_BR2 = (away_BR2 * ahead_BR2).sum(dim=-1, keepdim=True) * ahead_BR2
    explained_BR2 = _GAIN_ACROSS * (away_BR2 - along_BR2) + _GAIN_ALONG * along_BR2
    return velocity_BR2 + explained_BR2 / age_BR1.clamp(min=_SPAN)


def _ahead(expected_BR3: Tensor) -> Tensor:
    """Return the directions (B, R, 2) in which objects are, seen from above."""
    return F.normalize(expected_BR3[..., :2], dim=-1)


def _misfit(expected_BR3: Tensor, claimed_BT3: Tensor) -> Tensor:
    """Return the squared distances (B, R, T) in standard deviations, seen from above."""
    away_BRT2 = claimed_BT3[:, None, :, :2] - expected_BR3[:, :, None, :2]
    range_BR1 = expected_BR3[..., :2].norm(dim=-1, keepdim=True)
    along_BRT = (away_BRT2 * _ahead(expected_BR3)[:, :, None]).sum(dim=-1)
    across_squared_BRT = away_BRT2.square().sum(dim=-1) - along_BRT.square()
    along_unit_BR1 = _ALONG + _ALONG_PER_METRE * range_BR1
    return (along_BRT / along_unit_BR1).square() + across_squared_BRT / _ACROSS**2
