"""What goes into one step: images, camera geometry and the motion since the memory was last written.

B batch, N cameras, H and W image size in pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One instant of B scenes, seen by N cameras.

    Times and world poses stay outside the network: only relative motion enters it, so unix times and kilometre-sized
    coordinates cannot cost precision.
    """

    # float32, normalised (see `preprocess`); None where the images have been encoded before (see `Detector.detect`)
    images_BN3HW: Tensor | None
    intrinsics_BN33: Tensor  # camera matrices of the network's input images, in pixels
    img_P_ref_BN44: Tensor  # (x, y, z, 1) of ref to (u d, v d, d, 1); each camera at its own exposure time
    ref_T_prev_B44: Tensor  # maps the reference frame of the last written memory into this frame's
    dt_B: Tensor  # seconds since the memory was last written
    is_first_B: Tensor  # bool: starts a scene, whatever is in the memory is forgotten
    # bool: which cameras delivered an image; None: all of them. The matrices of absent ones must be valid all the same:
    # tokens of other cameras take their focal lengths (see `PositionEncoder.cone`).
    present_BN: Tensor | None = None

    def to(self, device: torch.device | str) -> "Frame":
        """Return the frame with every tensor on `device`."""
        return Frame(**{name: value if value is None else value.to(device) for name, value in vars(self).items()})
