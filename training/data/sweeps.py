"""Frames between keyframes, from nuScenes' sweeps: what a camera sees that delivers more than two images a second."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from nuscenes.nuscenes import NuScenes
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import invert_transform
from training.data.infos import Camera, Infos, Keyframe, Objects2D, Objects3D
from training.data.prepare import REFERENCE, sensor_poses
from training.data.tables import Row

_NO_OBJECTS = Objects3D(*(np.zeros((0, width)) for width in (7, 2)), (), *(np.zeros(0, np.int64),) * 3)
_NO_OBJECTS_2D = Objects2D(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 2), (0,))))
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class _Row:
    """All measurements of one sensor in one scene, in the order of time."""

    stamps: Sequence[int]
    rows: Sequence[Row]

    def nearest(self, stamp: float) -> Row:
        """Return the measurement nearest to a time in microseconds."""
        after = bisect_left(self.stamps, stamp)
        candidates = self.rows[max(0, after - 1) : after + 1]
        return min(candidates, key=lambda row: abs(row["timestamp"] - stamp))


def with_sweeps(tables: NuScenes, infos: Infos, rate: float) -> Infos:
    """Return the keyframes and, between those of a scene, frames made of sweeps: about `rate` a second in all.

    The times between two keyframes are evenly spaced; the LiDAR turn nearest to each is the reference, as for a
    keyframe, and each camera gives the image nearest to its place in the turn. These frames have no annotations, and
    no token.

    Raises:
        StreampetrError: two frames would need the same image of a camera: there are not that many sweeps.
    """
    measured = _measurements(tables)
    keyframes = list(tqdm(infos, desc=f"{rate:g} Hz", unit="sample", disable=None))
    frames = list(keyframes)
    for keyframe, following in zip(keyframes, keyframes[1:], strict=False):
        if following.token == keyframe.following:
            frames += _between(tables, measured[keyframe.scene], infos.header.cameras, keyframe, following, rate)
    return Infos.from_keyframes(infos.header, frames)


def _measurements(tables: NuScenes) -> dict[str, dict[str, _Row]]:
    """Return scene -> channel -> measurements."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in tables.sample_data:
        found[tables.get("sample", row["sample_token"])["scene_token"]][row["channel"]].append(row)
    for channels in found.values():
        for rows in channels.values():
            rows.sort(key=lambda row: row["timestamp"])
    return {
        scene: {channel: _Row([row["timestamp"] for row in rows], rows) for channel, rows in channels.items()}
        for scene, channels in found.items()
    }


def _between(
    tables: NuScenes,
    measured: dict[str, _Row],
    cameras: Sequence[str],
    keyframe: Keyframe,
    following: Keyframe,
    rate: float,
) -> Iterator[Keyframe]:
    pause = following.timestamp - keyframe.timestamp
    count = round(pause / _MICROSECONDS * rate)
    offsets = [camera.timestamp - keyframe.timestamp for camera in keyframe.cameras]
    used = [{camera.path, ahead.path} for camera, ahead in zip(keyframe.cameras, following.cameras, strict=True)]
    for number in range(1, count):
        stamp = keyframe.timestamp + pause * number / count
        rows = [measured[name].nearest(stamp + offset) for name, offset in zip(cameras, offsets, strict=True)]
        for name, row, paths in zip(cameras, rows, used, strict=True):
            if row["filename"] in paths:
                raise StreampetrError(
                    f"{tables.table_root}: {name} has too few sweeps for {rate:g} frames a second after sample "
                    f"'{keyframe.token}'; give a lower --rate, or unpack the sweeps"
                )
            paths.add(row["filename"])
        yield _frame(tables, keyframe, measured[REFERENCE].nearest(stamp), rows)


def _frame(tables: NuScenes, keyframe: Keyframe, reference: Row, rows: Sequence[Row]) -> Keyframe:
    base_T_ref, world_T_base = sensor_poses(tables, reference)
    ref_T_world = invert_transform(world_T_base.matrix @ base_T_ref.matrix)
    cameras = []
    for camera, row in zip(keyframe.cameras, rows, strict=True):
        base_T_cam, world_T_base_then = sensor_poses(tables, row)
        ref_T_cam = ref_T_world @ world_T_base_then.matrix @ base_T_cam.matrix
        cameras.append(Camera(row["filename"], row["timestamp"], camera.intrinsics, ref_T_cam, _NO_OBJECTS_2D))
    return Keyframe(
        token="",
        previous=keyframe.token,
        following=keyframe.following,
        scene=keyframe.scene,
        starts_sequence=False,
        timestamp=reference["timestamp"],
        base_T_ref=base_T_ref,
        world_T_base=world_T_base,
        cameras=tuple(cameras),
        objects=_NO_OBJECTS,
    )
