"""The rows of the nuScenes v1.0 tables.

Border to nuScenes' own conventions: sizes are written width, length, height; quaternions w, x, y, z; times in
microseconds. One picture of each camera and one LiDAR turn go together; turns are 12 Hz with sweeps, 2 Hz without.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_core.geometry import Array, quaternion_from_yaw, transform_points, yaw_of
from training.synth.observe import Sweep
from training.synth.options import KEYFRAME_PERIOD, TURNS_PER_KEYFRAME, SceneSpec, WorldOptions
from training.synth.rig import CHANNELS
from training.synth.scene import FAMILIES, SceneDescription

LIDAR = "LIDAR_TOP"
MAP_FILE = "maps/empty.png"
ANNOTATED = 65.0  # metres; objects are annotated from when they first come as near as that until they last are
FIXED_TABLES = ("attribute", "category", "log", "map", "sensor", "visibility")
SCENE_TABLES = ("calibrated_sensor", "ego_pose", "instance", "sample", "sample_annotation", "sample_data", "scene")
_CATEGORIES = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction",
    "pedestrian": "human.pedestrian.adult",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}
_ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
_VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}
# Metres from the ego vehicle within which nuScenes' detection benchmark counts a class.
_RANGES = {"pedestrian": 40, "motorcycle": 40, "bicycle": 40, "traffic_cone": 30, "barrier": 30}
_USUAL_RANGE = 50
Rows = dict[str, list[dict]]


@dataclass(frozen=True)
class Turn:
    """Turn `index` of the LiDAR, 12 a second."""

    index: int

    @property
    def time(self) -> float:
        """When it ends, in seconds since the first keyframe."""
        return self.index * KEYFRAME_PERIOD / TURNS_PER_KEYFRAME

    @property
    def is_key_frame(self) -> bool:
        """Whether the turn belongs to a sample as its keyframe."""
        return self.index % TURNS_PER_KEYFRAME == 0

    @property
    def sample(self) -> int:
        """The number of the sample: the keyframe that follows, or the devkit interpolates no boxes of a sweep."""
        return -(-self.index // TURNS_PER_KEYFRAME)


def token(*parts: object) -> str:
    """Return 32 hexadecimal digits that depend on `parts` alone."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def fixed_rows(seed: int) -> Rows:
    """Return the tables that are the same whatever the scenes are: FIXED_TABLES."""
    logs = [
        {
            "token": token(seed, "log", family),
            "logfile": f"synthetic-{family}",
            "vehicle": "synthetic",
            "date_captured": "2020-09-13",
            "location": f"synthetic-{family}",
        }
        for family in FAMILIES
    ]
    named = {"category": _CATEGORIES.values(), "attribute": _ATTRIBUTES}
    rows: Rows = {
        table: [{"token": token(seed, name), "name": name, "description": ""} for name in names]
        for table, names in named.items()
    }
    rows["visibility"] = [{"token": key, "level": level, "description": ""} for key, level in _VISIBILITIES.items()]
    rows["sensor"] = [
        {"token": token(seed, channel), "channel": channel, "modality": "lidar" if channel == LIDAR else "camera"}
        for channel in (LIDAR, *CHANNELS)
    ]
    rows["log"] = logs
    rows["map"] = [
        {
            "token": token(seed, "map"),
            "category": "semantic_prior",
            "filename": MAP_FILE,
            "log_tokens": [log["token"] for log in logs],
        }
    ]
    return rows


class SceneRecords:
    """The rows of one scene while its turns are being observed."""

    def __init__(self, options: WorldOptions, spec: SceneSpec, scene: SceneDescription) -> None:
        self.options, self.spec, self.scene = options, spec, scene
        self.rows: Rows = {name: [] for name in SCENE_TABLES}
        self._sweeps: list[Sweep] = []
        self._add_mounts()

    def _token(self, *parts: object) -> str:
        return token(self.options.seed, self.spec.name, *parts)

    def filename(self, turn: Turn, channel: str) -> str:
        """Return where the file of one sensor's turn belongs, relative to the root."""
        folder, ending = "samples" if turn.is_key_frame else "sweeps", "pcd.bin" if channel == LIDAR else "jpg"
        stamp = self.stamp(turn.time + self._exposure(channel))
        return f"{folder}/{channel}/synthetic-{self.spec.name}__{channel}__{stamp}.{ending}"

    def stamp(self, time: float) -> int:
        """Return the time stamp in microseconds."""
        return self.scene.start + round(time * 1e6)

    def _exposure(self, channel: str) -> float:
        return 0.0 if channel == LIDAR else self.scene.rig.cameras[CHANNELS.index(channel)].exposure

    def _add_mounts(self) -> None:
        rig = self.scene.rig
        mounts = [(LIDAR, rig.base_T_lidar, [])]
        mounts += [(camera.channel, camera.base_T_cam, camera.intrinsics.tolist()) for camera in rig.cameras]
        for channel, base_T_sensor, intrinsics in mounts:
            self.rows["calibrated_sensor"].append(
                {
                    "token": self._token(channel),
                    "sensor_token": token(self.options.seed, channel),
                    "translation": base_T_sensor[:3, 3].tolist(),
                    "rotation": _quaternion(base_T_sensor),
                    "camera_intrinsic": intrinsics,
                }
            )

    def add_turn(self, turn: Turn, sweep: Sweep) -> None:
        """Add the rows of `sample_data` and `ego_pose` of all sensors; a keyframe's truth is kept for `finish`."""
        for channel in (*CHANNELS, LIDAR):
            self._add_data(turn, channel)
        if turn.is_key_frame:
            # The pictures themselves are not needed again.
            self._sweeps.append(Sweep({}, sweep.points, sweep.lidar_points, sweep.visibility, sweep.pixels))

    def _add_data(self, turn: Turn, channel: str) -> None:
        time = turn.time + self._exposure(channel)
        world_T_base = self.scene.world_T_site @ self.scene.ego.pose(time)
        here = self._token(channel, turn.index)
        self.rows["ego_pose"].append(
            {
                "token": here,
                "timestamp": self.stamp(time),
                "rotation": _quaternion(world_T_base),
                "translation": world_T_base[:3, 3].tolist(),
            }
        )
        turns = self.options.turns
        before, after = turn.index - turns.step, turn.index + turns.step
        size = (0, 0) if channel == LIDAR else (self.options.height, self.options.width)
        self.rows["sample_data"].append(
            {
                "token": here,
                "sample_token": self._token("sample", turn.sample),
                "ego_pose_token": here,
                "calibrated_sensor_token": self._token(channel),
                "timestamp": self.stamp(time),
                "fileformat": "pcd" if channel == LIDAR else "jpg",
                "is_key_frame": turn.is_key_frame,
                "height": size[0],
                "width": size[1],
                "filename": self.filename(turn, channel),
                "prev": self._token(channel, before) if before in turns else "",
                "next": self._token(channel, after) if after in turns else "",
            }
        )

    def finish(self) -> tuple[Rows, Counter]:
        """Return all rows, and how many annotations of each class are seen and within the benchmark's range."""
        tokens = [self._token("sample", index) for index in range(self.options.samples)]
        for index, here in enumerate(tokens):
            stamp = self.stamp(index * KEYFRAME_PERIOD)
            row = {"token": here, "timestamp": stamp, "scene_token": self._token(), **_links(tokens, index)}
            self.rows["sample"].append(row)
        side = "left" if self.scene.backdrop.mirrored else "right"
        self.rows["scene"].append(
            {
                "token": self._token(),
                "log_token": token(self.options.seed, "log", self.spec.family),
                "nbr_samples": len(tokens),
                "name": self.spec.name,
                "first_sample_token": tokens[0],
                "last_sample_token": tokens[-1],
                "description": f"Synthetic {self.scene.family} {self.scene.kind}, traffic on the {side}",
            }
        )
        return self.rows, self._add_annotations()

    def _add_annotations(self) -> Counter:
        times = np.arange(self.options.samples) * KEYFRAME_PERIOD
        boxes = np.array([self.scene.boxes(time) for time in times])  # (samples, O, 7) in site
        ego = np.array([self.scene.ego.pose(time)[:2, 3] for time in times])
        distances = np.linalg.norm(boxes[:, :, :2] - ego[:, None], axis=2)
        attributes = [self.scene.attributes(time) for time in times]
        boxes[:, :, :3] = transform_points(self.scene.world_T_site, boxes[:, :, :3])
        boxes[:, :, 6] += yaw_of(self.scene.world_T_site)
        counted: Counter = Counter()
        for number, item in enumerate(self.scene.objects):
            near = np.flatnonzero(distances[:, number] < ANNOTATED)
            if not len(near):
                continue
            samples = range(near[0], near[-1] + 1)
            self._add_instance(number, samples, boxes[:, number], [names[number] for names in attributes])
            close = distances[:, number] < _RANGES.get(item.kind, _USUAL_RANGE)
            seen = np.array([self._sweeps[i].lidar_points[number] for i in samples]) > 0
            counted[item.kind] += int(np.count_nonzero(seen & close[near[0] : near[-1] + 1]))
        return counted

    def _add_instance(self, number: int, samples: range, boxes: Array, attributes: list[str]) -> None:
        item, seed = self.scene.objects[number], self.options.seed
        tokens = [self._token("annotation", number, sample) for sample in samples]
        instance = self._token("instance", number)
        self.rows["instance"].append(
            {
                "token": instance,
                "category_token": token(seed, _CATEGORIES[item.kind]),
                "nbr_annotations": len(tokens),
                "first_annotation_token": tokens[0],
                "last_annotation_token": tokens[-1],
            }
        )
        length, width, height = item.size
        for index, sample in enumerate(samples):
            sweep, attribute = self._sweeps[sample], attributes[sample]
            self.rows["sample_annotation"].append(
                {
                    "token": tokens[index],
                    "sample_token": self._token("sample", sample),
                    "instance_token": instance,
                    "visibility_token": str(sweep.levels[number]),
                    "attribute_tokens": [token(seed, attribute)] if attribute else [],
                    "translation": boxes[sample, :3].tolist(),
                    "size": [width, length, height],
                    "rotation": quaternion_from_yaw(boxes[sample, 6]).tolist(),
                    "num_lidar_pts": int(sweep.lidar_points[number]),
                    "num_radar_pts": 0,
                    **_links(tokens, index),
                }
            )


def _links(tokens: list[str], index: int) -> dict[str, str]:
    return {"prev": tokens[index - 1] if index else "", "next": tokens[index + 1] if index + 1 < len(tokens) else ""}


def _quaternion(transform: Array) -> list[float]:
    x, y, z, w = Rotation.from_matrix(transform[:3, :3]).as_quat().tolist()
    return [w, x, y, z]
