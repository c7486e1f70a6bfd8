"""Does the odometry go as a vehicle goes, and do things that stand still stay where they are?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array
from streampetr_ros.calibration import FISHEYE_MODELS, camera_model
from streampetr_ros.doctor.evidence import Evidence, Shot
from streampetr_ros.doctor.findings import Finding, error, ok, warning
from streampetr_ros.doctor.flow import Tracked, misfit, reversed_motion, track_points, typical
from streampetr_ros.doctor.frames import Tree
from streampetr_ros.parameters import Parameters

_SECOND = 1_000_000_000
_STEP_NS = 90_000_000  # between the poses that are compared
_HARDEST = 20.0  # m/s^2; brakes reach 10
_FASTEST_TURN = 2.0  # rad/s
_MOVING = 1.0  # m/s
_AHEAD = 0.7  # cosine
_FEWEST_POINTS = 30  # of a camera, that moved
_VISIBLE = 1.0  # pixels by which a point must move to count
_LEAST_METRES = 0.5  # all pairs of a camera together
_FITS_PIXELS, _FITS_PART = 1.0, 0.35  # the misfit of motion that is right: pixels, and part of the points' own motion
_STILL_PART = 0.1  # of the points that move in pictures of a vehicle that stands


def check_motion(expected: Parameters, stamps: Sequence[int], tree: Tree) -> Iterator[Finding]:
    """Check speed, acceleration and direction of the odometry at the images' stamps."""
    times, poses = _poses(stamps, tree)
    if len(times) < 3:
        return
    seconds = np.diff(times) / _SECOND
    steps = np.diff(poses[:, :3, 3], axis=0)
    velocities = steps / seconds[:, None]
    speeds = np.linalg.norm(velocities, axis=1)
    hard = np.linalg.norm(np.diff(velocities, axis=0), axis=1) / (0.5 * (seconds[1:] + seconds[:-1]))
    turns = poses[:-1, :3, :3].transpose(0, 2, 1) @ poses[1:, :3, :3]
    angles = np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)) / seconds
    remedy = "let 'fixed_frame' be one that never jumps, such as odom; localisation belongs into map"
    at = int(speeds.argmax())
    if speeds[at] > expected.max_speed:
        found = f"{np.linalg.norm(steps[at]):.2f} m in {seconds[at]:.3f} s at stamp {times[at] / _SECOND:.3f}"
        yield error("odometry jump", "", f"less than {expected.max_speed:g} m/s ('max_speed')", found, remedy)
    elif hard.max() > _HARDEST:
        found = f"{hard.max():.0f} m/s^2 at stamp {times[int(hard.argmax()) + 1] / _SECOND:.3f}"
        yield warning("odometry jump", "", f"less than {_HARDEST:g} m/s^2", found, remedy)
    elif angles.max() > _FASTEST_TURN:
        found = f"{angles.max():.1f} rad/s at stamp {times[int(angles.argmax())] / _SECOND:.3f}"
        yield warning("odometry jump", "", f"turns slower than {_FASTEST_TURN:g} rad/s", found, remedy)
    else:
        way = np.linalg.norm(steps, axis=1).sum()
        yield ok("odometry", "", f"{way:.1f} m, {speeds.max():.1f} m/s at most, {hard.max():.1f} m/s^2 at most")
    yield from _direction(expected, velocities, poses[:-1, :3, :3])


def _poses(stamps: Sequence[int], tree: Tree) -> tuple[np.ndarray, Array]:
    """Return times (T,) and poses (T, 4, 4) of the vehicle, some time apart; what cannot be looked up is left out."""
    times, poses = [], []
    for stamp in sorted(stamps):
        if times and stamp - times[-1] < _STEP_NS:
            continue
        try:
            poses.append(tree.world_T_base(stamp))
        except StreampetrError:
            continue  # the check of frames says so
        times.append(stamp)
    return np.array(times), np.array(poses).reshape(-1, 4, 4)


def _direction(expected: Parameters, velocities: Array, world_R_bases: Array) -> Iterator[Finding]:
    """Check that the vehicle moves along its own x axis."""
    speeds = np.linalg.norm(velocities, axis=1)
    moving = speeds > _MOVING
    if not moving.any():
        return
    in_base = np.einsum("tji,tj->ti", world_R_bases[moving], velocities[moving]) / speeds[moving, None]
    ahead = float(np.median(in_base[:, 0]))
    subject, wanted = expected.base_frame, "motion along x, which points forward"
    if ahead < -_AHEAD:
        remedy = "unless it was reversing: mend the sign of the odometry, or the direction of the frame's x axis"
        yield warning("odometry direction", subject, wanted, "it moves backwards all the time", remedy)
    elif ahead < _AHEAD:
        remedy = "let base's x axis point forward (REP-105), and publish the odometry of that frame"
        yield warning("odometry direction", subject, wanted, "it moves sideways most of the time", remedy)


@dataclass(frozen=True)
class _Verdict:
    """What the pictures of one camera say; medians in pixels."""

    points: int
    metres: float
    flow: float
    misfit: float
    backwards: float  # misfit of the same way gone backwards
    moved_part: float  # of the points

    @property
    def is_known(self) -> bool:
        return self.points >= _FEWEST_POINTS

    @property
    def fits(self) -> bool:
        return _fits(self.misfit, self.flow)

    @property
    def fits_backwards(self) -> bool:
        return not self.fits and _fits(self.backwards, self.flow)

    @property
    def stands(self) -> bool:
        return self.moved_part < _STILL_PART and self.metres > _LEAST_METRES


def check_static_things(seen: Evidence, base_T_cams: Mapping[str, Array], tree: Tree) -> Iterator[Finding]:
    """Compare how the pictures of each camera move with what odometry and mounting say."""
    tracks = {name: _tracked(seen, name, tree) for name in base_T_cams}
    verdicts = {name: _judge(tracks[name], base_T_cams[name]) for name in base_T_cams if tracks[name]}
    standing = [name for name, verdict in verdicts.items() if verdict.stands]
    known = {name: verdict for name, verdict in verdicts.items() if verdict.is_known}
    wrong = {name: verdict for name, verdict in known.items() if not verdict.fits}
    expected = "static things stay put when pictures are compared by way of the odometry"
    if standing and 2 * len(standing) > len(verdicts):
        metres = max(verdicts[name].metres for name in standing)
        found = f"the odometry went {metres:.1f} m between pictures that do not move"
        yield error("static things", "", expected, found, "look whether odometry and images belong together")
    elif not known:
        yield ok("static things", "", "cannot be told: nothing moves in the pictures")
    elif 2 * len(wrong) > len(known):
        yield _all_wrong(wrong, expected)
    else:
        for name, verdict in wrong.items():
            yield _one_wrong(name, verdict, tracks[name], base_T_cams)
        yield from (ok("static things", name, _told(verdict)) for name, verdict in known.items() if verdict.fits)


def _all_wrong(wrong: Mapping[str, _Verdict], expected: str) -> Finding:
    found = "; ".join(f"{name}: {_told(verdict)}" for name, verdict in wrong.items())
    backwards = [name for name, verdict in wrong.items() if verdict.fits_backwards]
    if 2 * len(backwards) > len(wrong):
        found = f"pictures move as if the vehicle went the other way; {found}"
        remedy = "mend the sign of the odometry, or publish fixed_frame -> base_frame and not its inverse"
        return error("odometry sign", "", expected, found, remedy)
    remedy = "check the odometry: its direction, its turn, its clock; and base_frame, to which it belongs"
    return error("static things", "", expected, found, remedy)


def _one_wrong(name: str, verdict: _Verdict, tracks: list[Tracked], base_T_cams: Mapping[str, Array]) -> Finding:
    """Tell of a camera whose pictures do not fit, while those of most others do."""
    others = {other: _judge(tracks, pose) for other, pose in base_T_cams.items() if other != name}
    best = min(others, key=lambda other: others[other].misfit, default=None)
    expected = "the camera's pictures move as its pose and the odometry say, as those of the others do"
    remedy = "check its transform and its topic"
    if best is not None and others[best].fits:
        remedy = f"its pictures move as if it stood where {best} does: look whether transforms or topics are swapped"
    return error("camera pose", name, expected, _told(verdict), remedy)


def _told(verdict: _Verdict) -> str:
    return (
        f"{verdict.points} points moved by {verdict.flow:.1f} pixels, {verdict.misfit:.1f} of them unexplained, "
        f"{verdict.backwards:.1f} if it had gone backwards"
    )


def _fits(misfit_pixels: float, flow: float) -> bool:
    return misfit_pixels <= max(_FITS_PIXELS, _FITS_PART * flow)


def _judge(tracks: Sequence[Tracked], base_T_cam: Array) -> _Verdict:
    moved = [each.flow > _VISIBLE for each in tracks]
    motions = [each.camera_motion(base_T_cam) for each in tracks]
    return _Verdict(
        points=int(sum(each.sum() for each in moved)),
        metres=sum(each.metres for each in tracks),
        flow=typical(each.flow[mask] for each, mask in zip(tracks, moved, strict=True)),
        misfit=typical(misfit(t, motion)[mask] for t, motion, mask in zip(tracks, motions, moved, strict=True)),
        backwards=typical(
            misfit(t, reversed_motion(motion))[mask] for t, motion, mask in zip(tracks, motions, moved, strict=True)
        ),
        moved_part=sum(each.sum() for each in moved) / max(1, sum(len(each) for each in moved)),
    )


def _tracked(seen: Evidence, name: str, tree: Tree) -> list[Tracked]:
    """Return the points of a camera's pairs of pictures; pairs without transforms are left out."""
    camera, tracks = seen.cameras[name], []
    if not camera.infos:
        return tracks
    info = camera.infos[-1]
    try:
        camera_model(info, name)
    except StreampetrError:
        return tracks  # the check of lenses says so
    for a, b in camera.pairs:
        try:
            poses = tree.world_T_base(a.stamp), tree.world_T_base(b.stamp)
        except StreampetrError:
            continue  # the check of frames says so
        pixels_a, pixels_b = track_points(a.grey, b.grey)
        if len(pixels_a):
            tracks.append(Tracked(_rays(pixels_a, a, info), _rays(pixels_b, b, info), a.scale * info.k[0], *poses))
    return tracks


def _rays(pixels: Array, shot: Shot, info: Any) -> Array:
    """Return the rays (P, 2) of pixels of a small picture, without the lens's distortion."""
    K, d = np.array(info.k).reshape(3, 3), np.array(info.d, dtype=np.float64)
    source = ((pixels + 0.5) / shot.scale - 0.5)[:, None]
    undistort = cv2.fisheye.undistortPoints if info.distortion_model in FISHEYE_MODELS else cv2.undistortPoints
    return undistort(source, K, d if d.any() else np.zeros(4))[:, 0]
