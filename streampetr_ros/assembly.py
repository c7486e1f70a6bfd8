"""From a set of images to what the network is given: pixels, calibrations, and where everything was when it exposed.

It runs in the worker's thread. What is missing is waited for no longer than the parameter `transform_wait` says.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from streampetr_core.errors import StreampetrError
from streampetr_ros.calibration import CameraModel
from streampetr_ros.diagnosis import BAD_INFO, NO_INFO, Monitor
from streampetr_ros.intake import Calibrations
from streampetr_ros.mounts import Mounts
from streampetr_ros.parameters import Parameters
from streampetr_ros.perception import Lens, PreparedView, Snapshot
from streampetr_ros.preparation import Preparation
from streampetr_ros.reference_times import ReferenceTimes
from streampetr_ros.synchroniser import ImageSet
from streampetr_ros.transforms import Transforms

_NANOSECONDS = 1_000_000_000
_RETRY_SECONDS = 0.01  # between two looks for a transform that is not there yet
_REFERENCE_REACH_NS = 60_000_000  # between the newest exposure of a set and its reference time


@dataclass(frozen=True)
class Assembled:
    """What the network is given, when it was, and where the vehicle is in it."""

    snapshot: Snapshot
    base_T_ref: NDArray
    reference_ns: int


@dataclass(frozen=True)
class Assembler:
    """Makes a snapshot of each set; all its parts are the node's."""

    settings: Parameters
    preparation: Preparation
    calibrations: Calibrations
    monitor: Monitor
    transforms: Transforms
    mounts: Mounts
    reference_times: ReferenceTimes
    wait: Callable[[float], bool]  # so many seconds; True: the node stops, do not wait any more
    problem: Callable[[str], None]  # logs what is wrong
    inform: Callable[[str], None]  # logs what changed

    def assemble(self, image_set: ImageSet) -> Assembled:
        """Return the snapshot of a set.

        Raises:
            StreampetrError: too few cameras are usable, or the vehicle's pose is not known.
        """
        models = self._prepare(image_set)  # first, since transforms often come a little later
        reference_ns = self._reference_time(image_set.newest_stamp)
        snapshot, base_T_ref = self._snapshot(image_set, models, reference_ns)
        return Assembled(snapshot, base_T_ref, reference_ns)

    def _reference_time(self, newest_ns: int) -> int:
        """Return the instant to which a set with this newest exposure belongs."""
        if not self.settings.reference_topic:
            return newest_ns
        deadline = time.monotonic() + self.settings.transform_wait
        while not self.reference_times.reaches(newest_ns) and time.monotonic() < deadline:
            if self.wait(_RETRY_SECONDS):
                break
        reference_ns = self.reference_times.nearest(newest_ns, _REFERENCE_REACH_NS)
        if reference_ns is None:
            self.problem(f"{self.settings.reference_topic}: no stamp near a set; its newest exposure stands in")
        return newest_ns if reference_ns is None else reference_ns

    def _prepare(self, image_set: ImageSet) -> dict[str, CameraModel]:
        """Make the images of a set ready for the network; return the calibrations of those that are usable."""
        for camera, image in image_set.images.items():  # all at once, so that all threads have work
            with suppress(StreampetrError):  # which is said below
                self.preparation.begin(image, self.calibrations.model(camera))
        models = {}
        for camera, image in image_set.images.items():
            try:
                with self.monitor.watching(NO_INFO if camera in self.calibrations.missing() else BAD_INFO, camera):
                    model = self.calibrations.model(camera)
                with self.monitor.watching("unusable images", camera):
                    self.preparation.finish(image, model)
                models[camera] = model
            except StreampetrError as error:
                self.problem(str(error))
        return models

    def _snapshot(
        self, image_set: ImageSet, models: dict[str, CameraModel], reference_ns: int
    ) -> tuple[Snapshot, NDArray]:
        """Look up the geometry of a set; also return `base_T_ref`."""
        views = {camera: self.calibrations.lens(camera) for camera in self.settings.cameras}
        deadline = time.monotonic() + self.settings.transform_wait
        for camera, model in models.items():
            try:
                views[camera] = self._view(camera, image_set, model, reference_ns, deadline)
            except StreampetrError as error:
                self.problem(str(error))
        usable = sum(isinstance(view, PreparedView) for view in views.values())
        needed = self.settings.smallest_set
        if usable < needed:
            absent = ", ".join(camera for camera, view in views.items() if not isinstance(view, PreparedView))
            raise StreampetrError(f"{usable} of {needed} cameras usable, without {absent}; the reasons were given")
        with self.monitor.watching("no transform"):
            world_T_ref = self._retry(deadline, self.transforms.world_T_ref, reference_ns)
            base_T_ref = self._retry(deadline, self.transforms.base_T_ref, reference_ns)
        return Snapshot(reference_ns / _NANOSECONDS, list(views.values()), world_T_ref), base_T_ref

    def _view(
        self, camera: str, image_set: ImageSet, model: CameraModel, reference_ns: int, deadline: float
    ) -> PreparedView:
        image, times = image_set.images[camera], (image_set.stamps[camera], reference_ns)
        frame = image.message.header.frame_id
        with self.monitor.watching("no transform", camera):
            cam_T_ref = self._retry(deadline, self.transforms.cam_T_ref, frame, *times)
        moved = self.mounts.change(frame)
        if moved:
            self.inform(f"{moved}; in use from this set on")
        lens = Lens(model.width, model.height, model.K)
        return PreparedView(lens, cam_T_ref, image.pixels.result(), image.features_1Chw)

    def _retry(self, deadline: float, lookup: Callable[..., NDArray], *args: Any) -> NDArray:
        """Look a transform up until it is there or the set is too old to wait for it."""
        while True:
            try:
                return lookup(*args)
            except StreampetrError:
                if time.monotonic() > deadline or self.wait(_RETRY_SECONDS):
                    raise
