"""From nuScenes' tables and a result file to what one picture shows: a value that needs no tables any more."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, invert_transform, projection, transform_from_quaternion
from training.pictures.results import Results, world_boxes
from training.pictures.views import CAMERAS, TRAIL_SECONDS, CameraView, Found, Moment, SampleView, Truth


@dataclass(frozen=True)
class Selection:
    """Which samples to show, and what of them."""

    scenes: Sequence[str] = ()  # all if empty
    tokens: Sequence[str] = ()  # all if empty
    lowest_score: float = 0.25
    with_truth: bool = True


def sample_views(tables: NuScenes, results: Results, selection: Selection) -> list[list[SampleView]]:
    """Return what to draw, a list for each scene, samples in order of time.

    Raises:
        StreampetrError: results of samples that these tables do not have, unknown scenes or tokens, a broken box, or
            image files that are missing.
    """
    _check_known(tables, results, selection)
    views = []
    for scene in tables.scene:
        if not selection.scenes or scene["name"] in selection.scenes:
            try:
                of_scene = list(_scene_views(tables, results, selection, scene))
            except KeyError as error:
                raise StreampetrError(
                    f"{tables.table_root}: a row of {scene['name']} points to {error}, which does not exist; "
                    "unpack the tables of this version again"
                ) from error
            views += [of_scene] if of_scene else []
    if not views:
        raise StreampetrError(f"{results.path}: has no sample of {', '.join(selection.scenes)} in {tables.version}")
    _check_images(views)
    return views


def _check_known(tables: NuScenes, results: Results, selection: Selection) -> None:
    known = {sample["token"] for sample in tables.sample}
    unknown = [token for token in results.rows if token not in known]
    if unknown:
        raise StreampetrError(
            f"{results.path}: {len(unknown)} of its {len(results.rows)} samples, {unknown[0]} for one, are not in "
            f"{tables.table_root}; give the --dataroot and --version that the results were made on"
        )
    names = [scene["name"] for scene in tables.scene]
    for name in selection.scenes:
        if name not in names:
            raise StreampetrError(f"--scene {name}: not in {tables.table_root}; there are: {_some(names)}")
    for token in selection.tokens:
        if token not in results.rows:
            place = f"{results.path}: has no result for it" if token in known else f"not in {tables.table_root}"
            raise StreampetrError(f"--tokens {token}: {place}; give sample tokens of the results")


def _check_images(views: list[list[SampleView]]) -> None:
    paths = [camera.path for of_scene in views for view in of_scene for camera in view.cameras]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise StreampetrError(
            f"{missing[0]}: no such image ({len(missing)} of {len(paths)} are missing); check --dataroot, unpack all "
            "parts of the data set, or choose among the scenes that are there with --scene"
        )


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _scene_views(
    tables: NuScenes, results: Results, selection: Selection, scene: dict[str, Any]
) -> Iterator[SampleView]:
    first = tables.get("sample", scene["first_sample_token"])
    past: dict[str, list[tuple[float, Array]]] = defaultdict(list)
    token, number = first["token"], 0
    while token:
        sample = tables.get("sample", token)
        if token in results.rows:
            seconds = (sample["timestamp"] - first["timestamp"]) * 1e-6
            boxes = results.boxes(token, selection.lowest_score)
            for track, centre in zip(boxes.ids, boxes.centres_D3, strict=True):
                past[track].append((seconds, centre))
            if not selection.tokens or token in selection.tokens:
                trails = _trails(boxes.ids, past, seconds) if results.kind == "tracking" else ()
                yield SampleView(
                    Moment(scene["name"], token, number, scene["nbr_samples"], sample["timestamp"] * 1e-6, seconds),
                    cameras=tuple(_camera(tables, sample, name) for name in CAMERAS),
                    base_T_world=invert_transform(_world_T_base(tables, _data_row(tables, sample, "LIDAR_TOP"))),
                    found=Found(boxes, len(results.rows[token]), selection.lowest_score, trails),
                    truth=_truth(tables, sample) if selection.with_truth else None,
                )
        token, number = sample["next"], number + 1


def _trails(tracks: Sequence[str], past: dict[str, list[tuple[float, Array]]], now: float) -> tuple[Array, ...]:
    return tuple(
        np.array([centre for seconds, centre in past[track] if now - seconds <= TRAIL_SECONDS]) for track in tracks
    )


def _data_row(tables: NuScenes, sample: dict[str, Any], channel: str) -> dict[str, Any]:
    if channel not in sample["data"]:
        raise StreampetrError(f"{tables.table_root}: sample {sample['token']} has no key frame of {channel}")
    return tables.get("sample_data", sample["data"][channel])


def _world_T_base(tables: NuScenes, data: dict[str, Any]) -> Array:
    pose = tables.get("ego_pose", data["ego_pose_token"])
    return transform_from_quaternion(pose["rotation"], pose["translation"])


def _camera(tables: NuScenes, sample: dict[str, Any], channel: str) -> CameraView:
    data = _data_row(tables, sample, channel)
    sensor = tables.get("calibrated_sensor", data["calibrated_sensor_token"])
    world_T_cam = _world_T_base(tables, data) @ transform_from_quaternion(sensor["rotation"], sensor["translation"])
    img_P_world = projection(sensor["camera_intrinsic"], invert_transform(world_T_cam))
    return CameraView(channel, Path(tables.dataroot) / data["filename"], (data["width"], data["height"]), img_P_world)


def _truth(tables: NuScenes, sample: dict[str, Any]) -> Truth:
    """Return the annotations of the ten detection classes."""
    rows = [tables.get("sample_annotation", token) for token in sample["anns"]]
    rows = [row for row in rows if category_to_detection_name(row["category_name"])]
    boxes = world_boxes(
        [{**row, "velocity": tables.box_velocity(row["token"])[:2]} for row in rows],
        [category_to_detection_name(row["category_name"]) for row in rows],
        [np.nan] * len(rows),
        [""] * len(rows),
    )
    return Truth(boxes, np.array([row["num_lidar_pts"] + row["num_radar_pts"] > 0 for row in rows], dtype=bool))
