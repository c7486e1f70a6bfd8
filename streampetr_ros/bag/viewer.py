"""A recording for the rerun viewer of what the node published, beside what it saw. D objects.

Entities:
  odom/way                      where the vehicle went, all at once
  odom/trails                   where tracks were in the last seconds
  odom/base_link                the vehicle's pose; `vehicle`: its outline on the ground
  odom/base_link/<camera>       pose at its own exposure, pinhole and image
  odom/base_link/objects        boxes with class colours and ids; `velocities`: where they are in a second
  odom/base_link/truth          the true boxes, where the bag tells them
Time lines: `stamp`, the stamps of what was published, and `set`, their numbers.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from tqdm import tqdm

from streampetr_core.drawing import Colour, class_colour
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform
from streampetr_core.nuscenes_results import FoundObjects
from streampetr_core.scene_drawing import TRUTH
from streampetr_ros.bag.moments import BagScenery, Moment, Shot
from streampetr_ros.bag.video import VEHICLE, PictureOptions, Trails, best_of, labels_of

ODOM, BASE = "odom", "odom/base_link"
_IMAGE_DISTANCE = 2.0  # metres ahead of the cameras, in the 3D view
_SLOWEST = 0.5  # m/s, to get an arrow
# Half the thickness of lines, in points of the screen: those in metres would fill the picture when they are near.
_LINE, _THIN_LINE = rr.Radius.ui_points(1.2), rr.Radius.ui_points(0.6)
_PNG = b"\x89PNG"
_GREY = (150, 150, 150)


def write_recording(
    scenery: BagScenery, published: dict[int, FoundObjects], path: Path, options: PictureOptions
) -> int:
    """Write a recording (.rrd) of everything published; return the number of its moments.

    `options` say what is shown; their tile width is of no meaning here.

    Raises:
        StreampetrError: nothing was published, or the file cannot be written.
    """
    stamps = sorted(published)
    if not stamps:
        raise StreampetrError(f"{path}: nothing was published, so there is nothing to show")
    recording = _open(path, options.cameras)
    recording.log(ODOM, rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    ahead, behind, side = VEHICLE
    outline = [[ahead, side, 0], [-behind, side, 0], [-behind, -side, 0], [ahead, -side, 0], [ahead, side, 0]]
    recording.log(f"{BASE}/vehicle", rr.LineStrips3D([outline], colors=_GREY, radii=_LINE), static=True)
    if options.note:
        recording.log("note", rr.TextDocument(options.note), static=True)
    trails, way = Trails(), []
    for number, moment in enumerate(
        tqdm(scenery.moments(stamps), total=len(stamps), desc="recording", leave=False, disable=None)
    ):
        found = best_of(published[moment.stamp_ns], options)
        trails.extend(moment.stamp_ns, found, moment.odom_T_base)
        way.append(moment.odom_T_base[:3, 3])
        recording.set_time("stamp", timestamp=np.datetime64(moment.stamp_ns, "ns"))
        recording.set_time("set", sequence=number)
        _log_vehicle(recording, moment, options)
        _log_objects(recording, moment, found, trails)
    recording.log(f"{ODOM}/way", rr.LineStrips3D([way], colors=_GREY, radii=_THIN_LINE), static=True)
    recording.flush(blocking=True)
    recording.disconnect()
    return len(stamps)


def show(path: Path) -> None:
    """Open a recording in the viewer, which stays open; where there is no display, say how to look at it."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print(f"No display here: copy {path} to a machine that has one, and run there: rerun {path.name}")
        return
    command, silent = [sys.executable, "-m", "rerun", "--bind", "127.0.0.1", str(path)], subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdout=silent, stderr=silent)


def _open(path: Path, cameras: Sequence[str]) -> rr.RecordingStream:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written ({error.strerror}); choose another name or folder") from error
    rr.set_strict_mode(True)  # otherwise it leaves out what it cannot log, with a warning
    recording = rr.RecordingStream("streampetr")
    recording.save(path, default_blueprint=_layout(cameras))
    return recording


def _layout(cameras: Sequence[str]) -> rrb.Blueprint:
    """Return how the viewer is divided: cameras in rows of three, and the scene around the vehicle."""
    boxes = [f"{BASE}/objects", f"{BASE}/truth"]
    views = [
        rrb.Spatial2DView(origin=f"{BASE}/{camera}", contents=["$origin/**", *boxes], name=camera) for camera in cameras
    ]
    around = rrb.Spatial3DView(origin=BASE, contents=f"{ODOM}/**", name="around the vehicle")
    return rrb.Blueprint(rrb.Horizontal(rrb.Grid(*views, grid_columns=3), around), collapse_panels=True)


def _log_vehicle(recording: rr.RecordingStream, moment: Moment, options: PictureOptions) -> None:
    """Log the pose of the vehicle, its cameras, and the truth; what is not there at this moment disappears."""
    recording.log(BASE, _pose(moment.odom_T_base))
    for camera in options.cameras:
        shot = moment.shots.get(camera)
        recording.log(f"{BASE}/{camera}", *(_seen(shot) if shot else [rr.Clear(recursive=False)]))
    if options.truth and moment.truth is not None:
        recording.log(f"{BASE}/truth", _boxes(moment.truth, [TRUTH] * len(moment.truth), _THIN_LINE))
    else:
        recording.log(f"{BASE}/truth", rr.Clear(recursive=False))


def _log_objects(recording: rr.RecordingStream, moment: Moment, found: FoundObjects, trails: Trails) -> None:
    colours = [class_colour(name)[::-1] for name in found.names_D]
    recording.log(f"{BASE}/objects", _boxes(found.boxes_D7, colours, _LINE, labels_of(found)))
    fast = np.flatnonzero(np.linalg.norm(found.velocities_D2, axis=1) >= _SLOWEST)
    arrows = rr.Arrows3D(
        origins=found.boxes_D7[fast, :3],
        vectors=np.c_[found.velocities_D2[fast], np.zeros(len(fast))],
        colors=[colours[index] for index in fast],
        radii=_THIN_LINE,
    )
    recording.log(f"{BASE}/velocities", arrows)
    ways = [trails.of(id_, np.eye(4)) for id_ in found.ids_D]
    recording.log(f"{ODOM}/trails", rr.LineStrips3D(ways, colors=colours, radii=_THIN_LINE))


def _seen(shot: Shot) -> list:
    pinhole = rr.Pinhole(
        image_from_camera=shot.model.K,
        width=shot.model.width,
        height=shot.model.height,
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=_IMAGE_DISTANCE,
    )
    content = shot.encoded()
    image = rr.EncodedImage(contents=content, media_type="image/png" if content.startswith(_PNG) else "image/jpeg")
    return [_pose(invert_transform(shot.cam_T_base)), pinhole, image]


def _pose(parent_T_child: Array) -> rr.Transform3D:
    return rr.Transform3D(translation=parent_T_child[:3, 3], mat3x3=parent_T_child[:3, :3])


def _boxes(
    boxes_D7: Array, colours: Sequence[Colour], line: rr.components.Radius, labels: Sequence[str] = ()
) -> rr.Boxes3D:
    half_yaws = boxes_D7[:, 6] / 2
    zeros = np.zeros(len(boxes_D7))
    return rr.Boxes3D(
        centers=boxes_D7[:, :3],
        half_sizes=boxes_D7[:, 3:6] / 2,
        quaternions=np.c_[zeros, zeros, np.sin(half_yaws), np.cos(half_yaws)],  # x, y, z, w
        colors=colours,
        radii=line,
        labels=labels or None,
        show_labels=bool(labels),
    )
