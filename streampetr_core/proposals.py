"""Proposals: queries that begin where the images already show an object.

A learned query must find its object in all images. Where training has few samples, or the network few layers, it helps
to begin at an object: every image token says which class it sees, how far away and how large, and the best of them
become queries at that place in ref (two-stage DETR, arXiv 2010.04159, section 4; from images to 3D as in Far3D,
arXiv 2308.09616). The published models have none.

B batch, N cameras, T image tokens (camera by camera, row by row), P proposals, S classes, C channels, h and w feature
map size, O class logits and box code.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.following import Expected, expect, follow, typical_speeds
from streampetr_core.heads import BOX_CODE_SIZE, PRIOR_LOGIT, Predictions, rows
from streampetr_core.memory import Memory
from streampetr_core.position import inverse_sigmoid
from streampetr_core.recognition import recognise

# What a token says of its object: log depth, offset from the token to the projected centre in cells (x, y), log
# length, width and height, and the heading against the token's viewing ray (see `ray_axes`).
VALUES = {"depth": 1, "centre": 2, "size": 3, "heading": 2}
_RAY_VALUES = 7  # direction and origin of a token's ray in ref, and the angle that the token covers
_ORIGIN_UNIT, _ANGLE_UNIT = 2.0, 0.1  # metres, radians: about what cameras of cars have
_FIRST_DEPTH = 15.0  # metres; what an untrained head says
_LOG_DEPTHS = (math.log(0.5), math.log(100.0))
_CENTRE_WIDTH = 0.7  # cells; how fast a token's score falls with the distance to the centre that it points to
# How far apart two tokens' claims of one object are, one standard deviation: along the line of sight for each metre of
# distance, and across it for each metre of the object's narrower side.
_SAME_ALONG, _SAME_ACROSS = 0.08, 0.15
_MOTION_VALUES = 3 + 2 + 1  # of a remembered object: by how much it is not where it was expected, velocity, age
_TINY = 1e-9  # keeps divisors from being zero
_BESIDE = 0.2  # what the score of a token counts that has a better one next to it


@dataclass(frozen=True)
class TokenClaims:
    """What every image token says about the object that it sees; see `VALUES` for the order of `values_BT8`."""

    class_logits_BTS: Tensor
    values_BT8: Tensor
    hidden_BTC: Tensor


@dataclass(frozen=True)
class _Tokens:
    """All tokens of a frame: what they claim, and how much of it counts."""

    claims: TokenClaims
    boxes_BT8: Tensor  # see `claimed_boxes`
    scores_BT: Tensor  # see `token_scores`; below 0: of an absent camera
    classes_BTS: Tensor  # how likely each class is

    @staticmethod
    def heard(claims: TokenClaims, boxes_BT8: Tensor, scores_BT: Tensor, present_BT: Tensor | None) -> "_Tokens":
        """Return them with nothing of absent cameras left in what is compared, not even a number that is none."""
        classes_BTS = claims.class_logits_BTS.detach().sigmoid()
        if present_BT is None:
            return _Tokens(claims, boxes_BT8, scores_BT, classes_BTS)
        boxes_BT8, classes_BTS = (torch.where(present_BT[..., None], x, 0.0) for x in (boxes_BT8, classes_BTS))
        return _Tokens(claims, boxes_BT8, torch.where(present_BT, scores_BT, -1.0), classes_BTS)


@dataclass(frozen=True)
class Recognised:
    """What tokens say of the R remembered objects that become queries; zero where no token speaks of one."""

    content_BRC: Tensor
    centre_BR3: Tensor  # metres; where no token speaks of an object, where it is expected
    prior_BRO: Tensor
    found_BR1: Tensor  # bool: a token speaks of it
    expected: Expected


@dataclass(frozen=True)
class Proposals:
    """P queries at objects that image tokens see; `claims` are those of all tokens, for training."""

    content_BPC: Tensor
    reference_BP3: Tensor  # normalised to the detection range
    prior_BPO: Tensor  # what the tokens say, to be corrected by the decoder; see `Heads`
    recognised: Recognised
    claims: TokenClaims


class TokenHead(nn.Module):
    """Lets every token say what it sees; it knows its ray, so that it can tell depth from where things stand."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stride = config.feature_stride
        self.content = nn.Linear(channels, channels)
        self.ray = nn.Sequential(nn.Linear(_RAY_VALUES, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, channels)
        self.classes = nn.Linear(channels, len(config.class_names))
        self.values = nn.Linear(channels, sum(VALUES.values()))
        nn.init.constant_(self.classes.bias, PRIOR_LOGIT)
        with torch.no_grad():
            self.values.bias[0] = math.log(_FIRST_DEPTH)

    def forward(self, features_BNChw: Tensor, ref_P_img_BN44: Tensor) -> TokenClaims:
        """Return the claims of all tokens; `ref_P_img` are the inverses of the projections of the network's input."""
        height, width = features_BNChw.shape[-2:]
        features_BTC = features_BNChw.flatten(3).transpose(2, 3).flatten(1, 2)
        rays_BT7 = _ray_values(ref_P_img_BN44, self.stride, height, width)
        hidden_BTC = F.relu(self.norm(self.content(features_BTC) + self.ray(rays_BT7)))
        hidden_BTC = F.relu(self.hidden(hidden_BTC))
        return TokenClaims(self.classes(hidden_BTC), self.values(hidden_BTC), hidden_BTC)


class ProposalBuilder(nn.Module):
    """Turns the tokens that are surest of an object into queries at its place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_proposals, self.num_propagated = config.num_proposals, config.num_propagated
        self.head = TokenHead(config)
        said = len(config.class_names) + len(_CODE)
        self.content = nn.Linear(config.channels + said, config.channels)
        self.motion = nn.Linear(_MOTION_VALUES, config.channels)
        low, high = torch.tensor(config.detection_range).chunk(2)
        self.register_buffer("range_low_3", low, persistent=False)
        self.register_buffer("range_size_3", high - low, persistent=False)
        self.register_buffer("speeds_S", typical_speeds(config.class_names), persistent=False)

    def forward(
        self, features_BNChw: Tensor, ref_P_img_BN44: Tensor, memory: Memory, present_BN: Tensor | None = None
    ) -> Proposals:
        """Return what is recognised of a carried memory and the P best proposals of the other tokens of all cameras.

        Cameras that are not present say nothing.
        """
        height, width = features_BNChw.shape[-2:]
        claims = self.head(features_BNChw, ref_P_img_BN44)
        scores_BT = token_scores(claims, height, width).flatten(1).detach()
        boxes_BT8 = claimed_boxes(claims.values_BT8, ref_P_img_BN44, self.head.stride, height, width)
        present_BT = None if present_BN is None else present_BN.repeat_interleave(height * width, dim=1)
        tokens = _Tokens.heard(claims, boxes_BT8, scores_BT, present_BT)
        recognised, taken_BT = self._recognise(tokens, memory)
        _, best_BP = torch.where(taken_BT, -1.0, tokens.scores_BT).topk(self.num_proposals, dim=1)
        content_BPC, boxes_BP8, prior_BPO = self._said(tokens, best_BP)
        reference_BP3 = (boxes_BP8[..., :3] - self.range_low_3) / self.range_size_3
        return Proposals(content_BPC, reference_BP3.clamp(0.0, 1.0), prior_BPO, recognised, claims)

    @torch.no_grad()
    def follow(self, predictions: Predictions, expected: Expected, found_BR1: Tensor) -> tuple[Predictions, Tensor]:
        """Return what is known of objects after the decoder's predictions; see `following.follow`."""
        return follow(predictions, expected, found_BR1, self.speeds_S)

    def _recognise(self, tokens: _Tokens, memory: Memory) -> tuple[Recognised, Tensor]:
        """Return what tokens say of remembered objects, and which tokens do, (B, T)."""
        expected = expect(memory, self.num_propagated, self.speeds_S)
        found = recognise(expected, tokens.boxes_BT8[..., :3].detach(), tokens.classes_BTS, tokens.scores_BT)
        content_BRC, boxes_BR8, prior_BRO = self._said(tokens, found.token_BR)
        claimed_BR3, found_BR1 = boxes_BR8[..., :3], found.found_BR[..., None]
        age_BR1, velocity_BR2 = memory.age_BM1[:, : self.num_propagated], expected.velocity_BR2
        motion_BRm = torch.cat([claimed_BR3 - expected.centre_BR3, velocity_BR2, age_BR1], dim=-1)
        content_BRC = content_BRC + self.motion(motion_BRm)
        prior_BRO = prior_BRO + F.pad(velocity_BR2, (prior_BRO.shape[-1] - velocity_BR2.shape[-1], 0))
        recognised = Recognised(
            torch.where(found_BR1, content_BRC, 0.0),
            torch.where(found_BR1, claimed_BR3, expected.centre_BR3),
            torch.where(found_BR1, prior_BRO, 0.0),
            found_BR1,
            expected,
        )
        return recognised, found.taken_BT

    def _said(self, tokens: _Tokens, token_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return content (B, P, C), boxes (B, P, 8) and prior (B, P, O) of queries that begin with what tokens say."""
        claims = tokens.claims
        of_all = (tokens.boxes_BT8, claims.class_logits_BTS, claims.hidden_BTC, tokens.scores_BT[..., None])
        boxes_BP8, logits_BPS, hidden_BPC, scores_BP1 = (rows(x, token_BP) for x in of_all)
        said_BPc = torch.cat([hidden_BPC, logits_BPS.sigmoid(), boxes_BP8[..., 3:]], dim=-1)
        boxes_BP8 = agreed_boxes(tokens.boxes_BT8.detach(), tokens.classes_BTS, token_BP)
        return self.content(said_BPc), boxes_BP8, _prior(logits_BPS.detach(), scores_BP1[..., 0], boxes_BP8)


_CODE = ("log length", "log width", "log height", "sin yaw", "cos yaw")  # what a claimed box has beside its centre


def _prior(logits_BPS: Tensor, scores_BP: Tensor, boxes_BP8: Tensor) -> Tensor:
    """Return class logits and box code, (B, P, O), that are right if the decoder has nothing to add.

    An untrained class branch says `PRIOR_LOGIT`, so this much is taken off. Classes count as much as the token's score
    says: one that is not the best of its object, or of an absent camera, is hardly anything. Velocities are unknown.
    """
    probability_BPS = logits_BPS.sigmoid()
    quality_BP = (scores_BP / probability_BPS.amax(dim=-1)).clamp(min=0.0)
    class_BPS = inverse_sigmoid(probability_BPS * quality_BP[..., None]) - PRIOR_LOGIT
    # The centre is where the query begins.
    box_BPc = F.pad(boxes_BP8[..., 3:], (3, BOX_CODE_SIZE - boxes_BP8.shape[-1]))
    return torch.cat([class_BPS, box_BPc], dim=-1)


def agreed_boxes(boxes_BT8: Tensor, classes_BTS: Tensor, token_BP: Tensor) -> Tensor:
    """Return boxes (B, P, 8) of P tokens, with place and size as all tokens that see the same object say on average.

    That two tokens see the same one is the likelier, the more sure they are of the same class and the nearer the places
    that they claim; along the line of sight these may be farther apart.
    """
    own_BP8 = rows(boxes_BT8, token_BP)
    narrower_BP1 = own_BP8[..., 3:5].amin(dim=-1, keepdim=True).exp()
    distance_BP1 = own_BP8[..., :2].norm(dim=-1, keepdim=True).clamp(min=_TINY)
    ahead_x_BP1, ahead_y_BP1 = (own_BP8[..., :2] / distance_BP1).split(1, dim=-1)
    # x and y by themselves: arrays of pairs take several times as long.
    x_BPT, y_BPT = (boxes_BT8[:, None, :, axis] - own_BP8[..., axis, None] for axis in (0, 1))
    along_BPT = x_BPT * ahead_x_BP1 + y_BPT * ahead_y_BP1
    across_BPT = y_BPT * ahead_x_BP1 - x_BPT * ahead_y_BP1
    misfit_BPT = (along_BPT / (_SAME_ALONG * distance_BP1)).square() + (
        across_BPT / (_SAME_ACROSS * narrower_BP1)
    ).square()
    alike_BPT = rows(classes_BTS, token_BP) @ classes_BTS.transpose(1, 2)
    weight_BPT = alike_BPT * torch.exp(-0.5 * misfit_BPT)
    agreed_BP6 = weight_BPT @ boxes_BT8[..., :6] / weight_BPT.sum(dim=-1, keepdim=True).clamp(min=_TINY)
    return torch.cat([agreed_BP6, own_BP8[..., 6:]], dim=-1)


def token_scores(claims: TokenClaims, height: int, width: int) -> Tensor:
    """Return how good a proposal each token is, (B, N, h, w), in [0, 1].

    All tokens that an object covers name its class. The one at its centre is wanted once, so a token counts the less
    the farther the centre is that it points to, and the less where a neighbour counts more.
    """
    away_BT = claims.values_BT8[..., 1:3].norm(dim=-1)
    scores_BT = claims.class_logits_BTS.sigmoid().amax(dim=-1) * torch.exp(-0.5 * (away_BT / _CENTRE_WIDTH) ** 2)
    scores_Mhw = scores_BT.unflatten(1, (-1, height, width)).flatten(0, 1)
    is_best_Mhw = scores_Mhw >= F.max_pool2d(scores_Mhw[:, None], 3, stride=1, padding=1)[:, 0]
    scores_Mhw = torch.where(is_best_Mhw, scores_Mhw, _BESIDE * scores_Mhw)
    return scores_Mhw.unflatten(0, (len(scores_BT), -1))


def claimed_boxes(values_BT8: Tensor, ref_P_img_BN44: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Return the boxes in ref that tokens speak of: centre x, y, z, log length, width, height, sine, cosine of yaw."""
    log_depth, offset, log_size, heading = values_BT8.split(list(VALUES.values()), dim=-1)
    cells_T2 = token_centres(stride, height, width, values_BT8)
    num_cameras = ref_P_img_BN44.shape[1]
    pixels_BT2 = cells_T2.repeat(num_cameras, 1) + offset * stride
    depth_BT1 = log_depth.clamp(*_LOG_DEPTHS).exp()
    points_BNt3 = (F.pad(pixels_BT2, (0, 1), value=1.0) * depth_BT1).unflatten(1, (num_cameras, -1))
    centres_BNt3 = points_BNt3 @ ref_P_img_BN44[..., :3, :3].transpose(-1, -2) + ref_P_img_BN44[:, :, None, :3, 3]
    sideways_BT2, forward_BT2 = ray_axes(ref_P_img_BN44, stride, height, width)
    heading_BT2 = F.normalize(heading[..., :1] * sideways_BT2 + heading[..., 1:] * forward_BT2, dim=-1)
    return torch.cat([centres_BNt3.flatten(1, 2), log_size, heading_BT2.flip(-1)], dim=-1)


def ray_axes(ref_P_img_BN44: Tensor, stride: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return two axes of every token in the ground plane of ref, (B, T, 2) each and of length 1.

    The second is the one that the token looks along, the first goes from there along the image's x: a mirrored image
    shows mirrored headings.
    """
    directions_BT3 = _ray_directions(ref_P_img_BN44, stride, height, width)
    forward_BT2 = F.normalize(directions_BT3[..., :2], dim=-1)
    right_BT2 = torch.stack([forward_BT2[..., 1], -forward_BT2[..., 0]], dim=-1)
    image_x_BN2 = ref_P_img_BN44[..., :2, 0]
    along_BT = (right_BT2.unflatten(1, (image_x_BN2.shape[1], -1)) * image_x_BN2[:, :, None]).sum(dim=-1).flatten(1)
    return torch.where(along_BT[..., None] < 0, -right_BT2, right_BT2), forward_BT2


def token_centres(stride: int, height: int, width: int, like: Tensor) -> Tensor:
    """Return the pixels (h w, 2) of the centres of a camera's tokens, row by row, with type and device of `like`."""
    v, u = (torch.arange(length, device=like.device, dtype=like.dtype) for length in (height, width))
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    return ((torch.stack([columns, rows], dim=-1) + 0.5) * stride).flatten(0, 1)


def _ray_directions(ref_P_img_BN44: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Return what a metre of depth moves along each token's ray, (B, T, 3) in ref."""
    pixels_T3 = F.pad(token_centres(stride, height, width, ref_P_img_BN44), (0, 1), value=1.0)
    return (pixels_T3 @ ref_P_img_BN44[..., :3, :3].transpose(-1, -2)).flatten(1, 2)


def _ray_values(ref_P_img_BN44: Tensor, stride: int, height: int, width: int) -> Tensor:
    directions_BT3 = _ray_directions(ref_P_img_BN44, stride, height, width)
    origin_BN3 = ref_P_img_BN44[..., :3, 3] / _ORIGIN_UNIT
    angle_BN1 = stride * ref_P_img_BN44[..., :3, 0].norm(dim=-1, keepdim=True) / _ANGLE_UNIT
    of_camera_BN4 = torch.cat([origin_BN3, angle_BN1], dim=-1)
    of_camera_BT4 = of_camera_BN4[:, :, None].expand(-1, -1, height * width, -1).flatten(1, 2)
    return torch.cat([directions_BT3, of_camera_BT4], dim=-1)
