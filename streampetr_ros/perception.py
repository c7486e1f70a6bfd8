"""The streaming detector as a robot sees it: image sets and poses in, detections and tracks out. Knows nothing of ROS.

What must survive from set to set is one value, `PerceptionState`: the memory, when and where it was last written, and
the tracker.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streampetr_core.decode import Detections, decode_detections
from streampetr_core.distortion import Distortion
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.geometry import invert_transform, projection
from streampetr_core.heads import Predictions, admitted_queries
from streampetr_core.image_path import ImagePath, InputBuffer, Pixels
from streampetr_core.memory import Memory, is_due
from streampetr_core.preprocess import plan_resize
from streampetr_core.runtime import Runtime
from streampetr_core.tracking import TrackerConfig, TrackerState, Tracks, track


@dataclass(frozen=True)
class CameraView:
    """One camera of a set: its image and where it looked from at its own exposure time."""

    image: NDArray[np.uint8]  # (height, width, 3), blue, green, red
    K: NDArray[np.float64]  # 3x3, pixels of `image`
    cam_T_ref: NDArray[np.float64]  # from ref at the reference time into the camera at its exposure time
    distortion: Distortion | None = None  # of the lens; None for an image that is rectified

    @property
    def lens(self) -> "Lens":
        """What stays of a camera when its image is missing."""
        return Lens(self.image.shape[1], self.image.shape[0], self.K)


@dataclass(frozen=True)
class Lens:
    """The calibration of a camera whose image is missing."""

    width: int  # pixels
    height: int
    K: NDArray[np.float64]


@dataclass(frozen=True)
class PreparedView:
    """One camera of a set whose image is of the network's size already, and perhaps encoded."""

    lens: Lens  # of the image as it came
    cam_T_ref: NDArray[np.float64]
    pixels: Pixels | None  # the network's input; None where it is encoded
    features_1Chw: Tensor | None = None


@dataclass(frozen=True)
class Snapshot:
    """One set: views in the rig's order and the pose of ref in the fixed frame.

    A camera without an image is there as its Lens, or as None where its calibration is not known either.
    """

    stamp: float  # seconds, the reference time
    views: Sequence[CameraView | PreparedView | Lens | None]
    world_T_ref: NDArray[np.float64]

    @property
    def instant(self) -> "Instant":
        """When and where it was taken."""
        return Instant(self.stamp, self.world_T_ref)


@dataclass(frozen=True)
class Instant:
    """When and where ref was: seconds, and its pose in the fixed frame."""

    stamp: float
    world_T_ref: NDArray[np.float64]

    def motion_since(self, earlier: "Instant | None") -> tuple[NDArray[np.float64], float]:
        """Return `ref_T_prev`, from ref at the earlier instant into this one's, and the seconds between; None: here."""
        if earlier is None:
            return np.eye(4), 0.0
        return invert_transform(self.world_T_ref) @ earlier.world_T_ref, self.stamp - earlier.stamp


@dataclass(frozen=True)
class ResetPolicy:
    """When memory and tracks are worthless: they cannot be carried to the present."""

    max_gap: float  # seconds without a set
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


@dataclass(frozen=True)
class PerceptionState:
    """What one set leaves to the next."""

    memory: Memory
    written: Instant | None  # of the set that the memory was last written by; None: a scene begins
    last: Instant | None  # of the set before
    tracker: TrackerState

    def fresh(self, config: TrackerConfig) -> "PerceptionState":
        """Return the state at the beginning of another scene; ids of tracks go on, so that none is used twice."""
        return PerceptionState(self.memory, None, None, TrackerState.fresh(config, self.tracker.next_id))


@dataclass(frozen=True)
class Perceived:
    """What is found in one set, in ref, on the CPU."""

    detections: Detections
    tracks: Tracks  # those seen in this set
    reset_reason: str | None  # why memory and tracks had to start anew
    encode_seconds: float  # of the images that were not encoded before
    step_seconds: float  # geometry, queries, decoder and tracks


class Perception:
    """Runs the detector and the tracker on one snapshot after the other."""

    def __init__(
        self,
        runtime: Runtime,
        policy: ResetPolicy,
        memory_interval: float | None = None,
        tracking: TrackerConfig | None = None,
        resize: str = "fast",
        one_by_one: bool = False,
    ) -> None:
        """Take a model and how to run it.

        Args:
            runtime: runs the model.
            policy: when to start anew.
            memory_interval: seconds between memory entries; None: as the model was trained.
            tracking: how tracks are made; None: along the model's queries, with the usual thresholds.
            resize: one of `image_path.PATHS`.
            one_by_one: whether cameras are encoded one by one, so that it does not matter when; else all at once.
        """
        self._runtime = runtime
        self._policy = policy
        self._memory_interval = runtime.config.memory_interval if memory_interval is None else memory_interval
        self._tracking = tracking or TrackerConfig.for_model(runtime.config)
        self.path = ImagePath(runtime.config, resize)
        self._buffer = InputBuffer(self.path)
        self._one_by_one = one_by_one
        self._state = PerceptionState(runtime.fresh_memory(), None, None, TrackerState.fresh(self._tracking))
        self._lenses: dict[int, Lens] = {}  # the last one of each camera, by its place in the rig

    @property
    def state(self) -> PerceptionState:
        """What the last set left."""
        return self._state

    def reset(self) -> None:
        """Begin a new scene with the next snapshot."""
        self._state = self._state.fresh(self._tracking)

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        """Encode images of the network's size to features (N, C, h, w); leaves no trace in the state."""
        return self._runtime.encode(self._buffer.fill(images))

    def process(self, snapshot: Snapshot) -> Perceived:
        """Detect and track in one snapshot.

        Raises:
            StreampetrError: the model answers with numbers that are none; the next snapshot begins a new scene.
        """
        reason = self._reset_reason(snapshot)
        if reason is not None:
            self.reset()
        state = self._state
        began = time.perf_counter()
        features_NChw = self._features(snapshot)
        encoded = time.perf_counter()
        predictions, memory = self._runtime.detect(features_NChw, self._frame(snapshot), state.memory)
        if not _is_finite(predictions):
            self.reset()  # what is not finite stays in the memory for good
            raise StreampetrError("the model's output is not finite; check its weights, and try another precision")
        is_admitted = self._is_admitted(snapshot)
        detections = decode_detections(predictions, self._runtime.config)[0].to("cpu")
        tracks, tracker = self._track(snapshot, detections, predictions if is_admitted else None)
        state = replace(state, last=snapshot.instant, tracker=tracker)
        self._state = replace(state, memory=memory, written=snapshot.instant) if is_admitted else state
        return Perceived(detections, tracks, reason, encoded - began, time.perf_counter() - encoded)

    def _is_admitted(self, snapshot: Snapshot) -> bool:
        """Say whether the memory that this snapshot leaves is kept: entries are one memory interval apart."""
        state = self._state
        if state.written is None:
            return True
        return is_due(snapshot.stamp - state.written.stamp, snapshot.stamp - state.last.stamp, self._memory_interval)

    def _track(
        self, snapshot: Snapshot, detections: Detections, admitted: Predictions | None
    ) -> tuple[Tracks, TrackerState]:
        admitted_K = None
        if admitted is not None:
            admitted_K = admitted_queries(admitted, self._runtime.config.num_admitted)[0].cpu()
        motion = snapshot.instant.motion_since(self._state.last)
        return track(detections, admitted_K, self._state.tracker, *motion, self._tracking)

    def _reset_reason(self, snapshot: Snapshot) -> str | None:
        last = self._state.last
        if last is None:
            return None
        moved = np.linalg.norm(snapshot.world_T_ref[:3, 3] - last.world_T_ref[:3, 3])
        return self._policy.reason(snapshot.stamp - last.stamp, float(moved))

    def _features(self, snapshot: Snapshot) -> Tensor:
        """Return the features of all cameras that have an image, in order."""
        views = [self._prepared(view) for view in snapshot.views if _is_seen(view)]
        if not self._one_by_one:
            return self.encode([view.pixels for view in views])
        done = (view.features_1Chw for view in views)
        return torch.cat([self.encode([v.pixels]) if f is None else f for v, f in zip(views, done, strict=True)])

    def _prepared(self, view: CameraView | PreparedView) -> PreparedView:
        if isinstance(view, PreparedView):
            return view
        lens = view.lens
        plan = plan_resize(lens.width, lens.height, self._runtime.config)
        return PreparedView(lens, view.cam_T_ref, self.path.shrink(view.image, plan, view.distortion))

    def _frame(self, snapshot: Snapshot) -> Frame:
        config = self._runtime.config
        present = [_is_seen(view) for view in snapshot.views]
        intrinsics, img_P_ref = np.empty((len(present), 3, 3)), np.zeros((len(present), 4, 4))
        for index, (view, lens) in enumerate(zip(snapshot.views, self._every_lens(snapshot), strict=True)):
            plan = plan_resize(lens.width, lens.height, config)
            intrinsics[index] = plan.input_T_source @ lens.K
            img_P_ref[index] = projection(intrinsics[index], view.cam_T_ref if present[index] else np.eye(4))
        written = self._state.written
        ref_T_prev, dt = snapshot.instant.motion_since(written)
        return Frame(
            images_BN3HW=None,
            intrinsics_BN33=torch.from_numpy(intrinsics).float()[None],
            img_P_ref_BN44=torch.from_numpy(img_P_ref).float()[None],
            ref_T_prev_B44=torch.from_numpy(ref_T_prev).float()[None],
            dt_B=torch.tensor([dt], dtype=torch.float32),
            is_first_B=torch.tensor([written is None]),
            present_BN=None if all(present) else torch.tensor([present]),
        )

    def _every_lens(self, snapshot: Snapshot) -> list[Lens]:
        """Return the calibration of every camera.

        The network pairs tokens with the focal lengths of other cameras too (see `PositionEncoder.cone`), so a missing
        camera still needs one: its own, its last one or, before it was ever known, that of any camera that is there.
        """
        lenses = [view.lens if _is_seen(view) else view for view in snapshot.views]
        self._lenses |= {index: lens for index, lens in enumerate(lenses) if lens is not None}
        any_lens = next(view.lens for view in snapshot.views if _is_seen(view))
        return [self._lenses.get(index, any_lens) for index in range(len(lenses))]


def _is_finite(predictions: Predictions) -> bool:
    return bool(torch.isfinite(predictions.class_logits[-1]).all() and torch.isfinite(predictions.boxes[-1]).all())


def _is_seen(view: CameraView | PreparedView | Lens | None) -> bool:
    """Say whether a camera delivered an image."""
    return isinstance(view, (CameraView, PreparedView))
