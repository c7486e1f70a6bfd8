"""The streaming detector as a robot sees it: image sets and poses in, detections out. Knows nothing of ROS.

It owns what must survive from set to set: the memory, and the time and pose at which it was last written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streampetr_core.decode import Detections, decode_detections
from streampetr_core.distortion import Distortion
from streampetr_core.frame import Frame
from streampetr_core.geometry import invert_transform, projection
from streampetr_core.memory import Memory
from streampetr_core.preprocess import ResizeCrop, normalise, plan_resize, resize_crop_fast
from streampetr_core.runtime import Runtime

# A set is admitted to the memory when at least this part of the memory interval has passed, since stamps jitter.
_INTERVAL_TOLERANCE = 0.9


@dataclass(frozen=True)
class CameraView:
    """One camera of a set: its image and where it looked from at its own exposure time."""

    image: NDArray[np.uint8]  # (height, width, 3), blue, green, red
    K: NDArray[np.float64]  # 3x3, pixels of `image`
    cam_T_ref: NDArray[np.float64]  # from ref at the reference time into the camera at its exposure time
    distortion: Distortion | None = None  # of the lens; None for an image that is rectified

    def input_image(self, plan: ResizeCrop) -> NDArray[np.uint8]:
        """Return the network's input: undistorted, resized and cropped."""
        if self.distortion is None:
            return resize_crop_fast(self.image, plan)
        return self.distortion.resize_crop(self.image, plan)


@dataclass(frozen=True)
class Snapshot:
    """One set: views in the rig's order (None: this camera is missing) and the pose of ref in the fixed frame."""

    stamp: float  # seconds, the reference time
    views: Sequence[CameraView | None]
    world_T_ref: NDArray[np.float64]


@dataclass(frozen=True)
class ResetPolicy:
    """When the memory is worthless: its entries cannot be carried to the present."""

    max_gap: float  # seconds without a written memory
    max_speed: float  # m/s: a pose that would need more is a jump of the odometry

    def reason(self, elapsed: float, moved: float) -> str | None:
        """Say why to start anew after `elapsed` seconds and `moved` metres, or None to go on."""
        if elapsed <= 0:
            return f"time went back by {-elapsed:.3f} s"
        if elapsed > self.max_gap:
            return f"a gap of {elapsed:.1f} s (max_gap is {self.max_gap:g} s)"
        if moved > self.max_speed * elapsed:
            return f"odometry jumped by {moved:.1f} m in {elapsed:.3f} s (max_speed is {self.max_speed:g} m/s)"
        return None


class Perception:
    """Runs the detector on one snapshot after the other."""

    def __init__(self, runtime: Runtime, policy: ResetPolicy, memory_interval: float | None = None) -> None:
        self._runtime = runtime
        self._policy = policy
        self._memory_interval = runtime.config.memory_interval if memory_interval is None else memory_interval
        self._memory = runtime.fresh_memory()
        self._written: Snapshot | None = None
        self._seen: dict[int, CameraView] = {}  # the last view of each camera, by its place in the rig

    def reset(self) -> None:
        """Begin a new scene with the next snapshot."""
        self._written = None

    def process(self, snapshot: Snapshot) -> tuple[Detections, str | None]:
        """Detect in one snapshot; also return the reason if the memory had to start anew, else None."""
        reason = self._reset_reason(snapshot)
        if reason is not None:
            self.reset()
        frame = self._frame(snapshot)
        predictions, memory = self._runtime.step(frame, self._memory)
        if self._written is None or float(frame.dt_B) >= _INTERVAL_TOLERANCE * self._memory_interval:
            self._remember(snapshot, memory)
        return decode_detections(predictions, self._runtime.config)[0], reason

    def _remember(self, snapshot: Snapshot, memory: Memory) -> None:
        self._memory = memory
        self._written = Snapshot(snapshot.stamp, (), snapshot.world_T_ref)

    def _reset_reason(self, snapshot: Snapshot) -> str | None:
        if self._written is None:
            return None
        moved = np.linalg.norm(snapshot.world_T_ref[:3, 3] - self._written.world_T_ref[:3, 3])
        return self._policy.reason(snapshot.stamp - self._written.stamp, float(moved))

    def _frame(self, snapshot: Snapshot) -> Frame:
        config = self._runtime.config
        present = [view is not None for view in snapshot.views]
        images = np.zeros((len(present), config.input_height, config.input_width, 3), np.uint8)
        intrinsics, img_P_ref = np.empty((len(present), 3, 3)), np.empty((len(present), 4, 4))
        for index, view in enumerate(self._calibrated_views(snapshot)):
            plan = plan_resize(view.image.shape[1], view.image.shape[0], config)
            if present[index]:
                images[index] = view.input_image(plan)
            intrinsics[index] = plan.input_T_source @ view.K
            img_P_ref[index] = projection(intrinsics[index], view.cam_T_ref)
        ref_T_prev, dt = self._motion(snapshot)
        return Frame(
            images_BN3HW=normalise(torch.from_numpy(images), config)[None],
            intrinsics_BN33=torch.from_numpy(intrinsics).float()[None],
            img_P_ref_BN44=torch.from_numpy(img_P_ref)[None],
            ref_T_prev_B44=torch.from_numpy(ref_T_prev).float()[None],
            dt_B=torch.tensor([dt], dtype=torch.float32),
            is_first_B=torch.tensor([self._written is None]),
            present_BN=None if all(present) else torch.tensor([present]),
        )

    def _calibrated_views(self, snapshot: Snapshot) -> list[CameraView]:
        """Return a view of every camera; that of a missing one lends its calibration only.

        The network pairs tokens with the focal lengths of other cameras too (see `PositionEncoder.cone`), so a missing
        camera still needs a calibration: its last one or, before its first image, that of any camera that is there.
        """
        self._seen |= {index: view for index, view in enumerate(snapshot.views) if view is not None}
        present = [view for view in snapshot.views if view is not None]
        return [self._seen.get(index, present[0]) for index in range(len(snapshot.views))]

    def _motion(self, snapshot: Snapshot) -> tuple[NDArray[np.float64], float]:
        """Return `ref_T_prev` and the seconds since the memory was last written."""
        if self._written is None:
            return np.eye(4), 0.0
        ref_T_prev = invert_transform(snapshot.world_T_ref) @ self._written.world_T_ref
        return ref_T_prev, snapshot.stamp - self._written.stamp
