"""Guidance: denoising queries are told at which image tokens to look.

Where to look for an object, given a place near it, follows from the cameras' geometry. A decoder finds that out by
itself, but slowly: convergence of DETR is slow for this very reason (Conditional DETR, arXiv 2108.06152). The cross-
attention of every layer is therefore asked to be on the tokens that the centres of the true objects project to.

B samples, D denoising queries of a sample that are guided, T tokens, N cameras, L layers, H heads, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_core.detector import Detector
from streampetr_core.frame import Frame
from streampetr_core.queries import Queries
from training.losses.config import LossConfig
from training.losses.denoising import Denoising
from training.losses.detection import by_layer

_GUIDED_GROUPS = 2  # of the denoising queries; more teach the same
_MIN_DEPTH = 0.5  # metres


def guidance_losses(
    detector: Detector,
    keys_BTC: Tensor,
    queries: Queries,
    frame: Frame,
    denoising: Denoising | None,
    config: LossConfig,
) -> dict[str, Tensor]:
    """Return `look_loss` of every layer: how unlikely its heads find the tokens of the true objects, in nats.

    Queries count by their position alone, as in the first layer; `keys_BTC` are content and position of the tokens.
    Objects that no camera shows are left out.
    """
    if denoising is None:
        return by_layer("look_loss", keys_BTC.new_zeros(len(detector.decoder.layers)))
    num_guided = denoising.reference_BD3.shape[1] // config.denoising_groups * _GUIDED_GROUPS
    allowed_BDT = tokens_of_objects(frame, denoising, num_guided, detector.config.feature_stride)
    shown_BD = allowed_BDT.any(dim=-1)
    allowed_BDT |= ~shown_BD[..., None]  # what nothing shows has no loss; infinities would give it a gradient
    position_BDC = queries.position_BQC[:, :num_guided]
    losses = [
        _look_loss(layer.cross_attention, position_BDC, keys_BTC, allowed_BDT, shown_BD, frame.present_BN)
        for layer in detector.decoder.layers
    ]
    return by_layer("look_loss", config.guidance_weight * torch.stack(losses))


def _look_loss(
    attention: torch.nn.Module,
    position_BDC: Tensor,
    keys_BTC: Tensor,
    allowed_BDT: Tensor,
    shown_BD: Tensor,
    present_BN: Tensor | None,
) -> Tensor:
    heads = (attention.num_heads, -1)
    (query_weight, key_weight, _), (query_bias, key_bias, _) = (
        attention.in_proj_weight.chunk(3),
        attention.in_proj_bias.chunk(3),
    )
    query_BHDc = F.linear(position_BDC, query_weight, query_bias).unflatten(-1, heads).transpose(1, 2)
    key_BHTc = F.linear(keys_BTC, key_weight, key_bias).unflatten(-1, heads).transpose(1, 2)
    logits_BHDT = query_BHDc @ key_BHTc.transpose(-1, -2) / math.sqrt(query_BHDc.shape[-1])
    if present_BN is not None:
        absent_BT = ~present_BN.repeat_interleave(keys_BTC.shape[1] // present_BN.shape[1], dim=1)
        logits_BHDT = logits_BHDT.masked_fill(absent_BT[:, None, None], -torch.inf)
    on_object_BHD = logits_BHDT.masked_fill(~allowed_BDT[:, None], -torch.inf).logsumexp(dim=-1)
    unlikely_BHD = logits_BHDT.logsumexp(dim=-1) - on_object_BHD
    unlikely_BD = torch.where(shown_BD[:, None], unlikely_BHD, 0.0).mean(dim=1)
    return unlikely_BD.sum() / shown_BD.sum().clamp(min=1)


@torch.no_grad()
def tokens_of_objects(frame: Frame, denoising: Denoising, num_guided: int, stride: int) -> Tensor:
    """Return bool (B, D, T): the token of each camera, if any, in which the centre of a query's object is."""
    height, width = (length // stride for length in frame.images_BN3HW.shape[-2:])
    batch, cameras = frame.img_P_ref_BN44.shape[:2]
    guided = denoising.query_n < num_guided
    sample_n, query_n = denoising.sample_n[guided], denoising.query_n[guided]
    centre_n4 = F.pad(denoising.boxes_n9[guided, :3], (0, 1), value=1.0)
    projected_nN4 = torch.einsum("nNij,nj->nNi", frame.img_P_ref_BN44[sample_n], centre_n4)
    depth_nN = projected_nN4[..., 2]
    cell_nN2 = (projected_nN4[..., :2] / depth_nN.clamp(min=_MIN_DEPTH)[..., None] / stride).floor()
    column_nN, row_nN = cell_nN2.unbind(dim=-1)
    seen_nN = (depth_nN > _MIN_DEPTH) & (column_nN >= 0) & (column_nN < width) & (row_nN >= 0) & (row_nN < height)
    if frame.present_BN is not None:
        seen_nN &= frame.present_BN[sample_n]
    allowed_BDT = torch.zeros(batch, num_guided, cameras * height * width, dtype=torch.bool, device=depth_nN.device)
    number_s, camera_s = seen_nN.nonzero(as_tuple=True)
    token_s = camera_s * height * width + row_nN[seen_nN].long() * width + column_nN[seen_nN].long()
    allowed_BDT[sample_n[number_s], query_n[number_s], token_s] = True
    return allowed_BDT
