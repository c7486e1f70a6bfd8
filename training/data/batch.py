"""What a data loader gives: samples of one frame each, and batches of them that turn into the detector's input.

B batch, N cameras, H and W input image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from streampetr_core.config import ModelConfig
from streampetr_core.frame import Frame
from streampetr_core.preprocess import normalise
from training.data.gridmask import GridMask, apply_grid_mask
from training.truth import Truth


@dataclass(frozen=True)
class Sample:
    """One frame of one slot. The reference frame is the changed one where the scene was augmented."""

    token: str
    is_first: bool  # the memory starts anew
    time: float  # seconds, float64
    images_NHW3: Tensor  # bytes: blue, green, red; a quarter of what normalised images would take
    intrinsics_N33: Tensor  # float32; of the input images
    img_P_ref_N44: Tensor  # float32
    world_T_ref_44: Tensor  # float64; with a scale where the scene was scaled
    truth: Truth | None = None
    grid_mask: GridMask | None = None


@dataclass(frozen=True)
class Moment:
    """Where and when a memory was last written: all that the next frame needs to tell the motion since then."""

    world_T_ref_B44: Tensor  # float64
    time_B: Tensor  # float64, seconds


@dataclass(frozen=True)
class Batch:
    """One frame of every slot."""

    tokens: tuple[str, ...]
    is_first_B: Tensor
    time_B: Tensor
    images_BNHW3: Tensor
    intrinsics_BN33: Tensor
    img_P_ref_BN44: Tensor
    world_T_ref_B44: Tensor
    truths: tuple[Truth, ...] | None
    grid_masks: tuple[GridMask | None, ...]

    @property
    def moment(self) -> Moment:
        """Where and when these frames are; keep it beside the memory that they write."""
        return Moment(self.world_T_ref_B44, self.time_B)

    def frame(self, model: ModelConfig, previous: Moment | None) -> Frame:
        """Return the detector's input, on the batch's device.

        Args:
            model: tells how images are normalised.
            previous: the `moment` of the batch that wrote the memory; None: there is no memory, every slot starts anew.
        """
        flat_NHW3 = self.images_BNHW3.flatten(0, 1)
        images_BN3HW = normalise(flat_NHW3, model).unflatten(0, self.images_BNHW3.shape[:2])
        if any(mask is not None for mask in self.grid_masks):
            pairs = zip(images_BN3HW, self.grid_masks, strict=True)
            images_BN3HW = torch.stack([apply_grid_mask(images, mask) for images, mask in pairs])
        is_first_B = torch.ones_like(self.is_first_B) if previous is None else self.is_first_B
        ref_T_prev_B44, dt_B = self._motion(previous, is_first_B)
        return Frame(images_BN3HW, self.intrinsics_BN33, self.img_P_ref_BN44, ref_T_prev_B44, dt_B, is_first_B)

    def _motion(self, previous: Moment | None, is_first_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return ref_T_prev and the time since; only these, computed in float64, may be rounded to float32."""
        identity_B44 = torch.eye(4, device=is_first_B.device).expand(len(is_first_B), 4, 4)
        if previous is None:
            return identity_B44.clone(), torch.zeros_like(self.time_B).float()
        ref_T_prev_B44 = torch.linalg.solve(self.world_T_ref_B44, previous.world_T_ref_B44).float()
        dt_B = (self.time_B - previous.time_B).float()
        return torch.where(is_first_B[:, None, None], identity_B44, ref_T_prev_B44), dt_B.masked_fill(is_first_B, 0.0)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with every tensor on `device`."""
        return self._map(lambda value: value.to(device, non_blocking=True), lambda truth: truth.to(device))

    def pin_memory(self) -> "Batch":
        """Return the batch with its large tensors in pinned memory; data loaders call this."""
        return self._map(lambda value: value.pin_memory(), lambda truth: truth)

    def _map(self, on_tensor: Any, on_truth: Any) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: on_tensor(value) for name, value in values.items() if isinstance(value, Tensor)}
        truths = None if self.truths is None else tuple(on_truth(truth) for truth in self.truths)
        return Batch(**(values | changed | {"truths": truths}))


def collate(windows: Sequence[Sequence[Sample]]) -> tuple[Batch, ...]:
    """Return one batch for every frame of the windows, in the order of time; streaming has windows of one frame."""
    return tuple(_collate_frame(samples) for samples in zip(*windows, strict=True))


def _collate_frame(samples: Sequence[Sample]) -> Batch:
    truths = tuple(sample.truth for sample in samples)
    return Batch(
        tokens=tuple(sample.token for sample in samples),
        is_first_B=torch.tensor([sample.is_first for sample in samples]),
        time_B=torch.tensor([sample.time for sample in samples], dtype=torch.float64),
        images_BNHW3=torch.stack([sample.images_NHW3 for sample in samples]),
        intrinsics_BN33=torch.stack([sample.intrinsics_N33 for sample in samples]),
        img_P_ref_BN44=torch.stack([sample.img_P_ref_N44 for sample in samples]),
        world_T_ref_B44=torch.stack([sample.world_T_ref_44 for sample in samples]),
        truths=None if None in truths else truths,
        grid_masks=tuple(sample.grid_mask for sample in samples),
    )
