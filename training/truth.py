"""What is true about one sample: the answers that the losses compare predictions with.

G objects (their number differs from sample to sample and camera to camera).
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CameraTruth:
    """Objects that one camera shows, in pixels of the network's input image."""

    boxes_G4: Tensor  # left, top, right, bottom
    labels_G: Tensor  # int64; official info files number the classes of 2D boxes in an order of their own
    centres_G2: Tensor  # the projected 3D centres
    depths_G: Tensor  # of the 3D centres, metres

    def to(self, device: torch.device | str) -> "CameraTruth":
        """Return the same with every tensor on `device`."""
        return CameraTruth(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Truth:
    """Objects around the vehicle, in ref; metres, radians, m/s.

    Official arrays give the height of the bottom face as z: convert where such arrays are read.
    """

    boxes_G9: Tensor  # gravity centre x, y, z, length, width, height, yaw about z, velocity x, y (NaN: not known)
    labels_G: Tensor  # int64 index into the model's class names
    cameras: tuple[CameraTruth, ...]  # in the order of the frame's images

    def to(self, device: torch.device | str) -> "Truth":
        """Return the same with every tensor on `device`."""
        cameras = tuple(camera.to(device) for camera in self.cameras)
        return dataclasses.replace(
            self, boxes_G9=self.boxes_G9.to(device), labels_G=self.labels_G.to(device), cameras=cameras
        )
