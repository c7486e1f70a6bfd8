"""The truth of a nuScenes root, written as if a detector and a tracker had predicted it."""

import json
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.eval.tracking.evaluate import TrackingEval
from nuscenes.utils.splits import get_scenes_of_split

META = dict.fromkeys(("use_camera", "use_lidar", "use_radar", "use_map", "use_external"), False)
NOT_TRACKED = ("barrier", "traffic_cone", "construction_vehicle")


def detection_metrics(nusc: NuScenes, split: str, folder: Path):
    """Judge the truth as detections; returns the devkit's metrics and the boxes it counted."""
    path = _write(nusc, split, folder / "detections.json", _detection)
    config = config_factory("detection_cvpr_2019")
    judge = DetectionEval(nusc, config, str(path), split, str(folder / "detection"), verbose=False)
    return judge.evaluate()[0], judge.gt_boxes


def tracking_metrics(nusc: NuScenes, split: str, folder: Path):
    """Judge the truth as tracks."""
    path = _write(nusc, split, folder / "tracks.json", _track)
    judge = TrackingEval(
        config_factory("tracking_nips_2019"),
        str(path),
        split,
        str(folder / "tracking"),
        nusc.version,
        nusc.dataroot,
        verbose=False,
    )
    return judge.evaluate()[0]


def _write(nusc: NuScenes, split: str, path: Path, entry) -> Path:
    names = get_scenes_of_split(split, nusc)
    tokens = {scene["token"] for scene in nusc.scene if scene["name"] in names}
    samples = [sample for sample in nusc.sample if sample["scene_token"] in tokens]
    results = {}
    for sample in samples:
        annotations = [nusc.get("sample_annotation", token) for token in sample["anns"]]
        entries = [entry(nusc, annotation) for annotation in annotations if annotation["num_lidar_pts"] > 0]
        results[sample["token"]] = [item for item in entries if item]
    path.write_text(json.dumps({"meta": META, "results": results}))
    return path


def _box(nusc: NuScenes, annotation: dict) -> dict:
    keys = ("sample_token", "translation", "size", "rotation")
    return {**{key: annotation[key] for key in keys}, "velocity": nusc.box_velocity(annotation["token"])[:2].tolist()}


def _detection(nusc: NuScenes, annotation: dict) -> dict:
    attributes = [nusc.get("attribute", token)["name"] for token in annotation["attribute_tokens"]]
    name = category_to_detection_name(annotation["category_name"])
    name_and_score = {"detection_name": name, "detection_score": 0.9}
    return {**_box(nusc, annotation), **name_and_score, "attribute_name": attributes[0] if attributes else ""}


def _track(nusc: NuScenes, annotation: dict) -> dict | None:
    name = category_to_detection_name(annotation["category_name"])
    if name in NOT_TRACKED:
        return None
    identity = {"tracking_id": annotation["instance_token"], "tracking_name": name, "tracking_score": 0.9}
    return {**_box(nusc, annotation), **identity}
