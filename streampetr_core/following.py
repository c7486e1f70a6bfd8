"""Following: what is known of a remembered object, where it should be by now, and what a new sight of it changes.

The decoder sees objects in one frame's images, and takes each distance anew. Over frames the errors of place average
out, but an object may move. So each one is followed by two Kalman filters with one place: of an object that stands, and
of one that keeps its velocity; each sight tells which of them is the likelier one (interacting multiple models, Blom
and Bar-Shalom 1988, with the places merged after every sight). Along the line of sight a single image errs much more
than across it, so places have covariances, in ref: an object that is seen from two places of the road is where both
lines of sight cross. Class, size, height and heading are running averages. Only models with proposals follow objects;
no gradient flows through it.

B batch, M memory entries, R remembered objects that become queries (the newest entries), Q queries, S classes,
V numbers known of an object, A axes: along and across the line of sight. Covariances (..., 2, 2) are of x and y in ref.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory

# Errors of place that a frame makes, one standard deviation along and across the line of sight: metres, and more for
# each metre of distance.
_ERROR, _ERROR_PER_METRE = (0.3, 0.15), (0.05, 0.015)
_DRIFT = 0.05  # m/s, of what stands: errors that frames share
_CHANGES = 0.005  # per second: how often an object stops or starts
_MOVING = 0.3  # how likely an object moves that is seen for the first time
_SPEED = 8.0  # m/s, of what moves, one standard deviation
_SLOW = {"pedestrian": 1.5, "bicycle": 4.0, "barrier": 0.1, "traffic_cone": 0.1}  # m/s, where `_SPEED` is too much
_ACCELERATION = 0.33  # of its class's speed, for each second
_PROBABLY = 0.5  # from here on an object is said to move
_TINY = 1e-6  # keeps divisors from being zero, and what has a root from being negative
_UNLIKELY = 1e-3  # of a sight under a hypothesis, so that none dies for ever
# Share of the newest sight in the running averages, once many have been seen.
_CLASS_SHARE, _SIZE_SHARE, _HEADING_SHARE, _HEIGHT_SHARE = 0.2, 0.2, 0.3, 0.2
_CONFIRMED = 0.6  # what is seen again is surer by up to so much log odds
_FADES = 0.5  # what is not seen again is less sure by so much log odds in each frame, unless the decoder sees it
_AHEAD = 0.5  # of the heading of what moves for sure, in standard deviations of its velocity: how far it follows it
# By how much log odds an object is less sure for each metre that its place is uncertain, and if it moves.
_PLACE_DOUBT, _MOTION_DOUBT = 0.3, 0.5
_BESIDE, _HIDDEN = 0.7, 3.0  # what has a better one within so many widths of the narrower loses so much log odds


@dataclass(frozen=True)
class Known:
    """What is known of objects, (B, R or Q, ...), in ref beside their place."""

    class_logits: Tensor  # (..., S)
    log_size: Tensor  # (..., 3)
    heading: Tensor  # (..., 2): cos and sin of yaw, shorter than 1 where sights disagree
    velocity: Tensor  # (..., 2), m/s, if it moves
    moving: Tensor  # (..., 1): how likely it does
    sights: Tensor  # (..., 1): how many frames have shown it
    still: Tensor  # (..., 2, 2): covariance of its place if it stands
    place: Tensor  # (..., 2, 2): of its place if it moves ...
    shared: Tensor  # (..., 2, 2): ... of that, row by row, with the velocity ...
    speed: Tensor  # (..., 2, 2): ... and of the velocity

    def packed(self) -> Tensor:
        """Return all of it as (..., V)."""
        return torch.cat([value.flatten(2) for value in vars(self).values()], dim=-1)


_SIZES = (3, 2, 2, 1, 1)  # of the fields between classes and covariances
_NUM_COVARIANCES = 4


def number_known(num_classes: int) -> int:
    """Return V."""
    return num_classes + sum(_SIZES) + 4 * _NUM_COVARIANCES


def unpacked(known: Tensor) -> Known:
    """Return the fields of (..., V)."""
    num_classes = known.shape[-1] - number_known(0)
    *fields, covariances = known.split([num_classes, *_SIZES, 4 * _NUM_COVARIANCES], dim=-1)
    return Known(*fields, *covariances.unflatten(-1, (_NUM_COVARIANCES, 2, 2)).unbind(dim=-3))


@dataclass(frozen=True)
class Expected:
    """Where remembered objects should be by now, and what is known of them, all in ref."""

    still_BR3: Tensor  # metres: where an object is if it stands ...
    moved_BR3: Tensor  # ... and if it moves
    known: Known  # with the covariances that errors have by now
    error_BR22: Tensor  # covariance of the place that a frame will say
    exists_BR1: Tensor  # bool: the memory knows an object here

    @property
    def centre_BR3(self) -> Tensor:
        """Where the objects probably are."""
        return torch.lerp(self.still_BR3, self.moved_BR3, self.known.moving)

    @property
    def velocity_BR2(self) -> Tensor:
        """How they probably move, m/s."""
        return self.known.moving * self.known.velocity


def expect(memory: Memory, number: int, speeds_S: Tensor) -> Expected:
    """Return where the `number` newest objects of a carried memory should be by now; see `typical_speeds`."""
    known, age = unpacked(memory.known_BMV[:, :number]), memory.age_BM1[:, :number]
    turn_BR22 = memory.ref_T_obs_BM44[:, :number, :2, :2]
    velocity, heading = ((turn_BR22 @ x[..., None])[..., 0] for x in (known.velocity, known.heading))
    still, place, shared, speed = (
        turn_BR22 @ x @ turn_BR22.transpose(-1, -2) for x in (known.still, known.place, known.shared, known.speed)
    )
    changes = (_CHANGES * age).clamp(max=0.5)
    speeding = _in_all_directions(_ACCELERATION * age * _typical_speed(known.class_logits, speeds_S))
    span = age[..., None]
    ahead = replace(
        known,
        velocity=velocity,
        heading=heading,
        moving=known.moving + changes * (1.0 - 2.0 * known.moving),
        still=still + _in_all_directions(_DRIFT * age),
        place=place + span * (shared + shared.transpose(-1, -2) + span * (speed + speeding / 4.0)),
        shared=shared + span * (speed + speeding / 2.0),
        speed=speed + speeding,
    )
    still_BR3 = memory.centre_BM3[:, :number]
    moved_BR3 = still_BR3 + F.pad(velocity * age, (0, 1))
    return Expected(still_BR3, moved_BR3, ahead, _error(still_BR3), age > 0.0)


def likelihoods(expected: Expected, places_BRT2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how likely each of T places is one of an object that stands, and of one that moves, (B, R, T) each.

    In units of the density of a frame's errors. The third is by how many of the likelier one's variances it is off.
    """
    hypotheses = ((expected.still_BR3, expected.known.still), (expected.moved_BR3, expected.known.place))
    densities, misfits = [], []
    for place_BR3, covariance_BR22 in hypotheses:
        away_BRT2 = places_BRT2 - place_BR3[:, :, None, :2]
        whole_BR22 = covariance_BR22 + expected.error_BR22
        misfit_BRT = (away_BRT2 @ _inverse(whole_BR22) * away_BRT2).sum(dim=-1)
        sharpness_BR = (_determinant(expected.error_BR22) / _determinant(whole_BR22)).sqrt()
        densities.append(torch.exp(-0.5 * misfit_BRT) * sharpness_BR[..., None])
        misfits.append(misfit_BRT)
    return *densities, torch.minimum(*misfits)


def follow(
    predictions: Predictions, expected: Expected, found_BR1: Tensor, speeds_S: Tensor
) -> tuple[Predictions, Tensor]:
    """Return what is known of the objects of all queries, as predictions of one layer, and as (B, Q, V).

    Of what the decoder says of the last R queries, sights are made where a token speaks of a known object. One that
    none speaks of is where it is expected.
    """
    logits_BQS, boxes_BQ10 = predictions.class_logits[-1], predictions.boxes[-1]
    first = first_sight(logits_BQS, boxes_BQ10, speeds_S)
    num_known = found_BR1.shape[1]
    of_known = slice(logits_BQS.shape[1] - num_known, None)
    sight = Known(**{name: value[:, of_known] for name, value in vars(first).items()})
    centre_BR3, again = seen_again(expected, sight, boxes_BQ10[:, of_known, :3])
    faded = torch.maximum(sight.class_logits, expected.known.class_logits - _FADES)
    unseen = replace(expected.known, class_logits=faded)

    def choose(seen: Tensor, not_seen: Tensor, new: Tensor) -> Tensor:
        known = torch.where(expected.exists_BR1, torch.where(found_BR1, seen, not_seen), new[:, of_known])
        return torch.cat([new[:, : of_known.start], known], dim=1)

    known_BQV = choose(again.packed(), unseen.packed(), first.packed())
    centre_BQ3 = choose(centre_BR3, expected.centre_BR3, boxes_BQ10[..., :3])
    return _said(centre_BQ3, unpacked(known_BQV), predictions.embedding_BQC), known_BQV


def first_sight(class_logits_BQS: Tensor, boxes_BQ10: Tensor, speeds_S: Tensor) -> Known:
    """Return what is known of objects that are seen for the first time."""
    _, log_size, sin_cos, velocity = boxes_BQ10.split([3, 3, 2, 2], dim=-1)
    error = _error(boxes_BQ10[..., :3])
    ones = torch.ones_like(log_size[..., :1])
    return Known(
        class_logits_BQS,
        log_size,
        F.normalize(sin_cos.flip(-1), dim=-1),
        velocity,
        _MOVING * ones,
        ones,
        error,
        error,
        torch.zeros_like(error),
        _in_all_directions(_typical_speed(class_logits_BQS, speeds_S)),
    )


def seen_again(expected: Expected, sight: Known, centre_BR3: Tensor) -> tuple[Tensor, Known]:
    """Return centres (B, R, 3) and what is known of objects that a frame shows at `centre`, and else as `sight`."""
    known = expected.known
    stands, moves, _ = likelihoods(expected, centre_BR3[:, :, None, :2])
    moves, stands = known.moving * (moves + _UNLIKELY), (1.0 - known.moving) * (stands + _UNLIKELY)
    moving = moves / (moves + stands)

    def gained(gain_BR22: Tensor, place_BR3: Tensor) -> Tensor:
        return (gain_BR22 @ (centre_BR3 - place_BR3)[..., :2, None])[..., 0]

    gain_still = known.still @ _inverse(known.still + expected.error_BR22)
    sharpness_BR22 = _inverse(known.place + expected.error_BR22)
    gain_place, gain_speed = known.place @ sharpness_BR22, known.shared.transpose(-1, -2) @ sharpness_BR22
    still_BR2 = expected.still_BR3[..., :2] + gained(gain_still, expected.still_BR3)
    moved_BR2 = expected.moved_BR3[..., :2] + gained(gain_place, expected.moved_BR3)
    sights = known.sights + 1.0
    height_BR1 = _averaged(expected.still_BR3[..., 2:], centre_BR3[..., 2:], sights, _HEIGHT_SHARE)
    after = Known(
        _averaged(known.class_logits, sight.class_logits + _CONFIRMED, sights, _CLASS_SHARE),
        _averaged(known.log_size, sight.log_size, sights, _SIZE_SHARE),
        _averaged(known.heading, sight.heading, sights, _HEADING_SHARE),
        known.velocity + gained(gain_speed, expected.moved_BR3),
        moving,
        sights,
        _symmetric(known.still - gain_still @ known.still),
        _symmetric(known.place - gain_place @ known.place),
        known.shared - gain_place @ known.shared,
        _symmetric(known.speed - gain_speed @ known.shared),
    )
    return torch.cat([torch.lerp(still_BR2, moved_BR2, moving), height_BR1], dim=-1), after


def _said(centre_BQ3: Tensor, known: Known, embedding_BQC: Tensor) -> Predictions:
    """Return predictions of one layer. What moves for sure heads where it moves; what probably stands has no speed.

    A score says how probable an object is at this place, so it is the lower the less sure the place is.
    """
    certainty = known.velocity / (_trace(known.speed) / 2.0).clamp(min=_TINY).sqrt()
    heading = F.normalize(known.heading + _AHEAD * known.moving * certainty, dim=-1)
    velocity = torch.where(known.moving > _PROBABLY, known.velocity, 0.0)
    boxes = torch.cat([centre_BQ3, known.log_size, heading.flip(-1), velocity], dim=-1)
    error_BQ1 = _largest_deviation(torch.lerp(known.still, known.place, known.moving[..., None]))
    doubt_BQ1 = _PLACE_DOUBT * error_BQ1 + _MOTION_DOUBT * known.moving
    hidden_BQ1 = _HIDDEN * _has_better_beside(centre_BQ3, known)
    return Predictions((known.class_logits - doubt_BQ1 - hidden_BQ1)[None], boxes[None], embedding_BQC)


def _has_better_beside(centre_BQ3: Tensor, known: Known) -> Tensor:
    """Return 1 where another query has probably found the same object and is surer of it, (B, Q, 1), else 0."""
    best_BQ1 = known.class_logits.amax(dim=-1, keepdim=True)
    width_BQ1 = known.log_size[..., 1:2].exp()
    reach_BQQ = _BESIDE * torch.minimum(width_BQ1, width_BQ1.transpose(1, 2))
    away_BQQ = torch.linalg.vector_norm(centre_BQ3[:, :, None, :2] - centre_BQ3[:, None, :, :2], dim=-1)
    return ((best_BQ1 < best_BQ1.transpose(1, 2)) & (away_BQQ < reach_BQQ)).any(dim=-1, keepdim=True).float()


def typical_speeds(class_names: tuple[str, ...]) -> Tensor:
    """Return how fast objects of each class may be, (S,), m/s, one standard deviation of what moves."""
    return torch.tensor([_SLOW.get(name, _SPEED) for name in class_names])


def _typical_speed(class_logits: Tensor, speeds_S: Tensor) -> Tensor:
    share = class_logits.sigmoid()
    return (share * speeds_S).sum(dim=-1, keepdim=True) / share.sum(dim=-1, keepdim=True).clamp(min=_TINY)


def _averaged(before: Tensor, now: Tensor, sights: Tensor, least_share: float) -> Tensor:
    return torch.lerp(before, now, (1.0 / sights).clamp(min=least_share))


def _error(place_BR3: Tensor) -> Tensor:
    """Return the covariance (B, R, 2, 2) of the place that one frame says."""
    distance_BR1 = place_BR3[..., :2].norm(dim=-1, keepdim=True)
    along_BR2 = F.normalize(place_BR3[..., :2], dim=-1)
    across_BR2 = torch.stack([-along_BR2[..., 1], along_BR2[..., 0]], dim=-1)
    errors = zip(_ERROR, _ERROR_PER_METRE, strict=True)
    deviation_BRA = torch.cat([at_once + per_metre * distance_BR1 for at_once, per_metre in errors], dim=-1)
    axes_BR2A = torch.stack([along_BR2, across_BR2], dim=-1) * deviation_BRA[..., None, :]
    return axes_BR2A @ axes_BR2A.transpose(-1, -2)


def _in_all_directions(deviation: Tensor) -> Tensor:
    """Return the covariance (..., 2, 2) of what has a standard deviation (..., 1) in every direction."""
    return deviation.square()[..., None] * torch.eye(2, dtype=deviation.dtype, device=deviation.device)


def _symmetric(x: Tensor) -> Tensor:
    """Return covariances without what rounding makes of them, since that would grow from sight to sight."""
    return (x + x.transpose(-1, -2)) / 2.0


def _trace(x: Tensor) -> Tensor:
    return x[..., 0, :1] + x[..., 1, 1:]


def _determinant(x: Tensor) -> Tensor:
    """Return determinants of covariances, (...,); what rounding makes negative is `_TINY`."""
    return (x[..., 0, 0] * x[..., 1, 1] - x[..., 0, 1] * x[..., 1, 0]).clamp(min=_TINY)


def _inverse(x: Tensor) -> Tensor:
    """Return inverses of covariances, (..., 2, 2)."""
    adjugate = torch.stack([x[..., 1, 1], -x[..., 0, 1], -x[..., 1, 0], x[..., 0, 0]], dim=-1).unflatten(-1, (2, 2))
    return adjugate / _determinant(x)[..., None, None]


def _largest_deviation(x: Tensor) -> Tensor:
    """Return the standard deviation (..., 1) in the direction that is least sure: the root of the larger eigenvalue."""
    middle = _trace(x) / 2.0
    apart = (middle.square() - _determinant(x)[..., None]).clamp(min=0.0).sqrt()
    return (middle + apart).sqrt()
