"""The geometry of the image tokens from frame to frame: what stays is kept, what moves is embedded anew.

On a moving vehicle each camera looks from where it was at its own exposure time, so that its pose in ref differs a
little from frame to frame. It is embedded anew, camera by camera, when a point of one of its rays has moved further
than `STILL`; so noise of the odometry, and cameras that expose at the reference time, cost nothing. What is kept is
never further off than that, since it is compared with where it was embedded.

Where the engine computes in bfloat16, so do the layers here. A coordinate has more digits than bfloat16 holds (rounded
ones cost 0.3 m), so it goes in as two numbers, what bfloat16 holds of it and what it leaves.
B scenes, N cameras, T image tokens, D depth bins, C channels.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.frame import Frame
from streampetr_core.position import Geometry, PositionEncoder

STILL = 2e-4  # metres that points of a ray may move before it is embedded anew


@dataclass(frozen=True)
class _Kept:
    """What was embedded, and for where the cameras were then."""

    ref_P_img_BN44: Tensor  # float64, on the CPU
    intrinsics_BN33: Tensor
    geometry: Geometry


class KeptGeometry:
    """Returns the geometry of a frame, and computes as little of it as it can."""

    def __init__(
        self, encoder: PositionEncoder, config: ModelConfig, dtype: torch.dtype, arithmetic: torch.dtype
    ) -> None:
        """Take the encoder, the type of the result, and the type in which the engine computes."""
        self._encoder, self._config, self._dtype = encoder, config, dtype
        # GPUs compute float32 fast enough.
        on_cpu = encoder.depths_D.device.type == "cpu"
        self._rays = _SplitRays(encoder) if arithmetic == torch.bfloat16 and on_cpu else encoder
        self._kept: _Kept | None = None

    def __call__(self, frame: Frame) -> Geometry:
        """Return the geometry of all cameras, present or not."""
        ref_P_img_BN44 = torch.linalg.inv(frame.img_P_ref_BN44.to("cpu", torch.float64))
        intrinsics_BN33 = frame.intrinsics_BN33.cpu()
        moved_BN = self._moved(ref_P_img_BN44, intrinsics_BN33)
        if moved_BN.all():
            geometry = self._embed(ref_P_img_BN44, intrinsics_BN33)
        elif moved_BN.any():
            geometry = self._renewed(ref_P_img_BN44, intrinsics_BN33, moved_BN)
            ref_P_img_BN44 = torch.where(moved_BN[..., None, None], ref_P_img_BN44, self._kept.ref_P_img_BN44)
        else:
            return self._kept.geometry
        self._kept = _Kept(ref_P_img_BN44, intrinsics_BN33.clone(), geometry)
        return geometry

    def _moved(self, ref_P_img_BN44: Tensor, intrinsics_BN33: Tensor) -> Tensor:
        """Say which cameras must be embedded anew, (B, N).

        How far a point of a ray has moved is linear in its depth and in its pixel, so the furthest of an image's points
        are those of its corners, at depth zero or at the last bin.
        """
        kept = self._kept
        if kept is None or not _equal(kept.intrinsics_BN33, intrinsics_BN33):  # all depend on all, see `cone`
            return torch.ones(ref_P_img_BN44.shape[:2], dtype=torch.bool)
        change_BN44 = ref_P_img_BN44 - kept.ref_P_img_BN44
        width, height, depth = self._config.input_width, self._config.input_height, float(self._encoder.depths_D[-1])
        corners = [(u * depth, v * depth, depth, 1.0) for u in (0, width) for v in (0, height)]
        points_4P = torch.tensor([*corners, (0.0, 0.0, 0.0, 1.0)], dtype=torch.float64).T
        moved_BNP = (change_BN44 @ points_4P)[..., :3, :].norm(dim=-2)
        return ~(moved_BNP.amax(dim=-1) <= STILL)  # what is not a number has moved

    def _renewed(self, ref_P_img_BN44: Tensor, intrinsics_BN33: Tensor, moved_BN: Tensor) -> Geometry:
        """Return the kept geometry with that of some cameras computed anew; each scene's cameras by themselves."""
        tensors = {name: x.unflatten(1, (moved_BN.shape[1], -1)).clone() for name, x in self._kept_tensors()}
        for scene, moved_N in enumerate(moved_BN):
            cameras = moved_N.nonzero()[:, 0].tolist()
            if cameras:
                own = slice(scene, scene + 1)
                part = self._embed(ref_P_img_BN44[own], intrinsics_BN33[own], cameras)
                for name, value in vars(part).items():
                    tensors[name][scene, cameras] = value[0].unflatten(0, (len(cameras), -1))
        return Geometry(**{name: value.flatten(1, 2) for name, value in tensors.items()})

    def _kept_tensors(self) -> list[tuple[str, Tensor]]:
        return list(vars(self._kept.geometry).items())

    def _embed(self, ref_P_img_BN44: Tensor, intrinsics_BN33: Tensor, cameras: list[int] | None = None) -> Geometry:
        encoder = self._encoder
        matrices = ref_P_img_BN44.to(encoder.depths_D), intrinsics_BN33.to(encoder.depths_D)
        geometry = self._rays.embed_rays(*matrices, *self._config.feature_size, cameras)
        return Geometry(**{name: value.to(self._dtype) for name, value in vars(geometry).items()})


class _SplitRays:
    """`PositionEncoder.embed_rays` with its layers in bfloat16."""

    def __init__(self, encoder: PositionEncoder) -> None:
        self._encoder = encoder
        first, _, self._last = (_halved(layer) for layer in encoder.ray_encoder)
        first.weight = nn.Parameter(first.weight.repeat(1, 2), requires_grad=False)
        self._first = first
        alignment = encoder.spatial_alignment
        self._reduce, self._gamma, self._beta = alignment.reduce, _halved(alignment.gamma), _halved(alignment.beta)

    def embed_rays(
        self, ref_P_img_BN44: Tensor, intrinsics_BN33: Tensor, height: int, width: int, cameras: list[int] | None
    ) -> Geometry:
        coordinates, cone = self._encoder.rays_and_cones(ref_P_img_BN44, intrinsics_BN33, height, width, cameras)
        held = coordinates.bfloat16()
        split = torch.cat([held, (coordinates - held).bfloat16()], dim=-1)
        position = self._last(F.relu_(self._first(split)))
        hidden = F.relu_(self._reduce(cone)).bfloat16()
        return Geometry(position, self._gamma(hidden), self._beta(hidden))


def _halved(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer).to(torch.bfloat16)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
