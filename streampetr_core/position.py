"""Where image tokens look: from camera geometry to the 3D position embedding of every token.

B batch, N cameras, T = N h w image tokens (camera by camera, then row by row), D depth bins, C channels.
PETR (arXiv 2203.05625) section 3.2; the spatial alignment by the cone of a token is StreamPETR's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_core.config import ModelConfig
from streampetr_core.modulation import ModulatedLayerNorm, modulate

# The cone of a token: its camera's focal lengths and two points of its ray, the one of the last depth bin and the one
# of bin 34. The published weights were trained with just this bin.
_CONE_CHANNELS = 8
_CONE_MIDDLE_BIN = 34
_FOCAL_LENGTH_UNIT = 1000.0  # pixels
_MIN_PROBABILITY = 1e-5


@dataclass(frozen=True)
class Geometry:
    """What the cameras' calibration alone decides; the same for every frame of an unchanged rig."""

    position_BTC: Tensor  # embedded 3D positions along each token's ray
    gamma_BTC: Tensor  # scale of the token's content by its cone
    beta_BTC: Tensor  # shift of the token's content by its cone


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Return the logit of `x` clamped to [1e-5, 1 - 1e-5] in numerator and denominator, as the published code does."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=_MIN_PROBABILITY) / (1.0 - x).clamp(min=_MIN_PROBABILITY))


def depth_bins(config: ModelConfig) -> Tensor:
    """Return the D depths in metres: spacing grows linearly with the index, from `first_depth` to the range's end."""
    index = torch.arange(config.num_depth_bins, dtype=torch.float32)
    bin_size = (config.position_range[3] - config.first_depth) / (config.num_depth_bins * (1 + config.num_depth_bins))
    return config.first_depth + bin_size * index * (index + 1)


def invert_projections(img_P_ref_BN44: Tensor) -> Tensor:
    """Return the inverses, computed in float64, as float32."""
    return torch.linalg.inv(img_P_ref_BN44.double()).float()


class PositionEncoder(nn.Module):
    """Turns feature maps into tokens that know where they look."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, hidden = config.channels, config.position_hidden_channels
        self.stride = config.feature_stride
        self.ray_encoder = nn.Sequential(
            nn.Linear(3 * config.num_depth_bins, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.content = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.spatial_alignment = ModulatedLayerNorm(_CONE_CHANNELS, channels)
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.Sigmoid())
        low, high = torch.tensor(config.position_range).chunk(2)
        self.register_buffer("depths_D", depth_bins(config), persistent=False)
        self.register_buffer("range_low_3", low, persistent=False)
        self.register_buffer("range_size_3", high - low, persistent=False)

    def geometry(self, img_P_ref_BN44: Tensor, intrinsics_BN33: Tensor, height: int, width: int) -> Geometry:
        """Embed the rays of all tokens of feature maps `height` x `width`; pixels are the network input's."""
        return self.embed_rays(invert_projections(img_P_ref_BN44), intrinsics_BN33, height, width)

    def embed_rays(
        self,
        ref_P_img_BN44: Tensor,
        intrinsics_BN33: Tensor,
        height: int,
        width: int,
        cameras: list[int] | None = None,
    ) -> Geometry:
        """Do what `geometry` does from the inverses of the projections; these are best computed in float64.

        With `cameras`, the result has the tokens of these alone.
        """
        coordinates, cone = self.rays_and_cones(ref_P_img_BN44, intrinsics_BN33, height, width, cameras)
        return Geometry(self.ray_encoder(coordinates), *self.spatial_alignment.scale_and_shift(cone))

    def rays_and_cones(
        self,
        ref_P_img_BN44: Tensor,
        intrinsics_BN33: Tensor,
        height: int,
        width: int,
        cameras: list[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what is embedded of each token: its ray's points as logits (B, T, 3 D), and its cone (B, T, 8)."""
        rays_BNTD3 = self._ray_points(ref_P_img_BN44 if cameras is None else ref_P_img_BN44[:, cameras], height, width)
        rays_BTD3 = rays_BNTD3.flatten(1, 2)
        cone = self.cone(rays_BTD3, intrinsics_BN33, cameras)
        return inverse_sigmoid(rays_BTD3).flatten(2), cone

    def cone(self, rays_BTD3: Tensor, intrinsics_BN33: Tensor, cameras: list[int] | None = None) -> Tensor:
        """Return (B, T, 8): |fx|, |fy| in thousands of pixels, the last and the middle point of each token's ray.

        The published weights pair token t with the focal lengths of camera t mod N, not with those of the camera that
        the token belongs to; they depend on it, so it is kept. Mirrored training images have negative focal lengths.
        With `cameras`, the rays are those of these alone.
        """
        num_cameras = intrinsics_BN33.shape[1]
        tokens = rays_BTD3.shape[1] // (num_cameras if cameras is None else len(cameras))  # of a camera
        focal_BN2 = intrinsics_BN33.diagonal(dim1=-2, dim2=-1)[..., :2].abs().to(rays_BTD3.dtype) / _FOCAL_LENGTH_UNIT
        focal_BT2 = focal_BN2.repeat(1, tokens, 1)
        if cameras is not None:
            focal_BT2 = focal_BT2.unflatten(1, (num_cameras, tokens))[:, cameras].flatten(1, 2)
        return torch.cat([focal_BT2, rays_BTD3[:, :, -1], rays_BTD3[:, :, _CONE_MIDDLE_BIN]], dim=-1)

    def forward(self, features_BNChw: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Return the tokens' content and position, each (B, T, C), for features (B, N, C, h, w)."""
        features_BTC = features_BNChw.flatten(3).transpose(2, 3).flatten(1, 2)
        tokens_BTC = modulate(self.content(features_BTC), geometry.gamma_BTC, geometry.beta_BTC)
        return tokens_BTC, geometry.position_BTC * self.gate(tokens_BTC)

    def _ray_points(self, ref_P_img_BN44: Tensor, height: int, width: int) -> Tensor:
        """Return points along each token's ray in ref, (B, N, h w, D, 3), with the position range mapped to [0, 1]."""
        pixels_T3 = self._pixel_centres(height, width)
        directions_BNT3 = pixels_T3 @ ref_P_img_BN44[..., :3, :3].transpose(-1, -2)
        origins_BN3 = ref_P_img_BN44[..., :3, 3]
        points = directions_BNT3[..., None, :] * self.depths_D[:, None] + origins_BN3[..., None, None, :]
        return (points - self.range_low_3) / self.range_size_3

    def _pixel_centres(self, height: int, width: int) -> Tensor:
        """Return (h w, 3): homogeneous pixel (u, v, 1) of the centre of every feature cell, row by row."""
        device, dtype = self.depths_D.device, self.depths_D.dtype
        v = (torch.arange(height, device=device, dtype=dtype) + 0.5) * self.stride
        u = (torch.arange(width, device=device, dtype=dtype) + 0.5) * self.stride
        v_grid, u_grid = torch.meshgrid(v, u, indexing="ij")
        return torch.stack([u_grid, v_grid, torch.ones_like(u_grid)], dim=-1).flatten(0, 1)
