"""Writes synthetic scenes as a nuScenes v1.0 root: the thirteen tables, pictures and LiDAR scans.

Border to nuScenes' own conventions: sizes are written width, length, height; quaternions w, x, y, z; times in
microseconds. One picture of each camera and one scan make a turn; turns are 12 Hz with sweeps, 2 Hz without.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, quaternion_from_yaw
from training.synth.lidar import Scan, scan
from training.synth.render import render
from training.synth.scene import SceneDescription, make_scene

MANIFEST = "synth.json"
_FORMAT = 1  # raise this when the same options give another world
_KEYFRAME_PERIOD = 0.5
_TURNS_PER_KEYFRAME = 6
_JPEG_QUALITY = 92
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
_TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)


@dataclass(frozen=True)
class WorldOptions:
    """What to write: `samples` keyframes (2 Hz) in each of `scenes` scenes.

    The same options give the same bytes, as long as the libraries are the same.
    """

    scenes: int = 1
    samples: int = 40
    seed: int = 0
    width: int = 1600
    height: int = 900
    sweeps: bool = False
    version: str = "v1.0-synth"

    def scene_names(self) -> list[str]:
        """Return the names of the scenes: for v1.0-mini the official ones, validation first, as far as they go."""
        if self.version != "v1.0-mini":
            return [f"scene-{number:04d}" for number in range(1, self.scenes + 1)]
        # Only this version needs the devkit, which takes seconds to import.
        from nuscenes.utils.splits import mini_train, mini_val

        names = [*mini_val, *mini_train]
        if self.scenes > len(names):
            raise StreampetrError(f"--scenes {self.scenes}: v1.0-mini has {len(names)} scenes; use v1.0-synth for more")
        return names[: self.scenes]

    def check(self) -> None:
        """Raise StreampetrError for options that make no world."""
        limits = {"scenes": (1, 9999), "samples": (2, 1000), "seed": (0, 2**32 - 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise StreampetrError(f"--{name} {getattr(self, name)}: give a number from {low} to {high}")
        if not (64 <= self.width <= 4096 and 36 <= self.height <= 4096):
            raise StreampetrError(f"--size {self.width}x{self.height}: give a size from 64x36 to 4096x4096")
        if self.version not in ("v1.0-synth", "v1.0-mini"):
            raise StreampetrError(f"--version {self.version}: give v1.0-synth or v1.0-mini")
        self.scene_names()


def write_world(root: Path, options: WorldOptions) -> bool:
    """Write a world to the folder `root`; return False when this very world is already there.

    The folder appears under its name only when it is complete. Raises StreampetrError when `root` holds anything else.
    """
    options.check()
    root = Path(root).absolute()  # so that it has a name even when given as '.'
    manifest = {"format": _FORMAT, **asdict(options)}
    if _is_already_there(root, manifest):
        return False
    partial = root.with_name(root.name + ".partial")
    if partial.exists() and not (partial / MANIFEST).is_file():
        raise StreampetrError(f"{partial} is in the way and is no unfinished world; remove it or choose another folder")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _World(partial, options).write()
        if root.exists():
            root.rmdir()
        partial.rename(root)
    except OSError as error:
        where = error.filename or partial
        raise StreampetrError(f"cannot write {where}: {error.strerror}; choose another folder") from None
    return True


def _is_already_there(root: Path, manifest: dict) -> bool:
    if not root.exists():
        return False
    if not root.is_dir():
        raise StreampetrError(f"{root} is a file; choose another folder")
    if not any(root.iterdir()):
        return False
    try:
        if json.loads((root / MANIFEST).read_text()) == manifest:
            return True
    except (FileNotFoundError, json.JSONDecodeError):
        raise StreampetrError(f"{root} is not empty and is no synthetic world; choose another folder") from None
    raise StreampetrError(f"{root} holds a synthetic world made with other options; remove it or choose another folder")


@dataclass(frozen=True)
class _Turn:
    """One turn of the sensors: `time` in seconds of the scene, the sample it belongs to."""

    index: int
    time: float
    is_key_frame: bool
    sample_token: str


class _World:
    """The tables of one world while they are being filled."""

    def __init__(self, root: Path, options: WorldOptions) -> None:
        self.root = root
        self.options = options
        self.tables: dict[str, list[dict]] = {name: [] for name in _TABLES}

    def write(self) -> None:
        names = self.options.scene_names()
        self._add_fixed_tables()
        duration = (self.options.samples - 1) * _KEYFRAME_PERIOD
        turns = len(names) * len(list(self._turns("")))
        with tqdm(total=turns, unit="turn", desc="synthetic world", disable=None) as progress:
            for name in names:
                size = (self.options.width, self.options.height)
                self._add_scene(make_scene(self.options.seed, name, duration, size), progress)
        folder = self.root / self.options.version
        folder.mkdir()
        for name, rows in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
        if self.options.version == "v1.0-synth":
            (folder / "splits.json").write_text(json.dumps({"synth_val": names}))

    def _add(self, table: str, token: str, **columns: object) -> None:
        self.tables[table].append({"token": token, **columns})

    def _token(self, *parts: object) -> str:
        """Return 32 hexadecimal digits that depend on the seed and `parts` alone."""
        text = "/".join(str(part) for part in (self.options.seed, *parts))
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def _add_fixed_tables(self) -> None:
        for name in _CATEGORIES.values():
            self._add("category", self._token(name), name=name, description="")
        for name in _ATTRIBUTES:
            self._add("attribute", self._token(name), name=name, description="")
        for token, level in _VISIBILITIES.items():
            self._add("visibility", token, level=level, description="")
        self._add(
            "log",
            self._token("log"),
            logfile="synthetic",
            vehicle="synthetic",
            date_captured="2020-09-13",
            location="synthetic",
        )
        picture = self.root / "maps" / "empty.png"
        picture.parent.mkdir()
        picture.write_bytes(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
        self._add(
            "map",
            self._token("map"),
            category="semantic_prior",
            filename="maps/empty.png",
            log_tokens=[self._token("log")],
        )

    def _turns(self, name: str) -> Iterator[_Turn]:
        step = 1 if self.options.sweeps else _TURNS_PER_KEYFRAME
        for index in range(0, (self.options.samples - 1) * _TURNS_PER_KEYFRAME + 1, step):
            # The devkit interpolates boxes of a sweep only if it belongs to the keyframe that follows.
            sample, before = -(-index // _TURNS_PER_KEYFRAME), index % _TURNS_PER_KEYFRAME
            time = index * _KEYFRAME_PERIOD / _TURNS_PER_KEYFRAME
            yield _Turn(index, time, before == 0, self._token(name, "sample", sample))

    def _add_scene(self, scene: SceneDescription, progress: tqdm) -> None:
        self._add_sensors(scene)
        scans = []
        for turn in self._turns(scene.name):
            pictures = {}
            for camera in scene.rig.cameras:
                pictures[camera.channel] = render(scene, camera, turn.time + camera.exposure)
                image = cv2.cvtColor(pictures[camera.channel].image, cv2.COLOR_RGB2BGR)
                _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                self._add_data(scene, turn, camera.channel, camera.exposure, "jpg", content.tobytes())
            rng = np.random.default_rng([self.options.seed, zlib.crc32(scene.name.encode()), turn.index])
            result = scan(scene, turn.time, pictures, rng)
            self._add_data(scene, turn, "LIDAR_TOP", 0.0, "pcd.bin", result.points.tobytes())
            if turn.is_key_frame:
                scans.append(result)
            progress.update()
        self._add_samples(scene)
        for index in range(len(scene.objects)):
            self._add_instance(scene, index, scans)

    def _add_sensors(self, scene: SceneDescription) -> None:
        mounts = [("LIDAR_TOP", scene.rig.base_T_lidar, [])]
        mounts += [(camera.channel, camera.base_T_cam, camera.intrinsics.tolist()) for camera in scene.rig.cameras]
        for channel, base_T_sensor, intrinsics in mounts:
            sensor = self._token(channel)
            if all(row["token"] != sensor for row in self.tables["sensor"]):
                modality = "camera" if intrinsics else "lidar"
                self._add("sensor", sensor, channel=channel, modality=modality)
            self._add(
                "calibrated_sensor",
                self._token(scene.name, channel),
                sensor_token=sensor,
                translation=base_T_sensor[:3, 3].tolist(),
                rotation=_quaternion(base_T_sensor),
                camera_intrinsic=intrinsics,
            )

    def _add_data(
        self, scene: SceneDescription, turn: _Turn, channel: str, exposure: float, fileformat: str, content: bytes
    ) -> None:
        """Write one file and its rows of `sample_data` and `ego_pose`, linked to the sensor's row before."""
        timestamp = scene.start + round((turn.time + exposure) * 1e6)
        folder = f"{'samples' if turn.is_key_frame else 'sweeps'}/{channel}"
        filename = f"{folder}/synthetic-{scene.name}__{channel}__{timestamp}.{fileformat}"
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / filename).write_bytes(content)
        step = 1 if self.options.sweeps else _TURNS_PER_KEYFRAME
        last = (self.options.samples - 1) * _TURNS_PER_KEYFRAME
        token = self._token(scene.name, channel, turn.index)
        world_T_base = scene.ego.pose(turn.time + exposure)
        self._add(
            "ego_pose",
            token,
            timestamp=timestamp,
            rotation=_quaternion(world_T_base),
            translation=world_T_base[:3, 3].tolist(),
        )
        is_picture = fileformat == "jpg"
        self._add(
            "sample_data",
            token,
            sample_token=turn.sample_token,
            ego_pose_token=token,
            calibrated_sensor_token=self._token(scene.name, channel),
            timestamp=timestamp,
            fileformat=fileformat,
            is_key_frame=turn.is_key_frame,
            height=self.options.height if is_picture else 0,
            width=self.options.width if is_picture else 0,
            filename=filename,
            prev=self._token(scene.name, channel, turn.index - step) if turn.index else "",
            next=self._token(scene.name, channel, turn.index + step) if turn.index < last else "",
        )

    def _add_samples(self, scene: SceneDescription) -> None:
        tokens = [self._token(scene.name, "sample", index) for index in range(self.options.samples)]
        scene_token = self._token(scene.name)
        for index, token in enumerate(tokens):
            timestamp = scene.start + round(index * _KEYFRAME_PERIOD * 1e6)
            self._add("sample", token, timestamp=timestamp, scene_token=scene_token, **_links(tokens, index))
        self._add(
            "scene",
            scene_token,
            log_token=self._token("log"),
            nbr_samples=len(tokens),
            name=scene.name,
            first_sample_token=tokens[0],
            last_sample_token=tokens[-1],
            description="Synthetic road with all classes",
        )

    def _add_instance(self, scene: SceneDescription, index: int, scans: list[Scan]) -> None:
        item = scene.objects[index]
        tokens = [self._token(scene.name, "annotation", index, sample) for sample in range(self.options.samples)]
        instance = self._token(scene.name, "instance", index)
        self._add(
            "instance",
            instance,
            category_token=self._token(_CATEGORIES[item.kind]),
            nbr_annotations=len(tokens),
            first_annotation_token=tokens[0],
            last_annotation_token=tokens[-1],
        )
        length, width, height = item.size
        for sample, (token, result) in enumerate(zip(tokens, scans, strict=True)):
            box = item.box(sample * _KEYFRAME_PERIOD)
            self._add(
                "sample_annotation",
                token,
                sample_token=self._token(scene.name, "sample", sample),
                instance_token=instance,
                visibility_token=_visibility(result.visibility[index]),
                attribute_tokens=[self._token(item.attribute)] if item.attribute else [],
                translation=box[:3].tolist(),
                size=[width, length, height],
                rotation=quaternion_from_yaw(box[6]).tolist(),
                num_lidar_pts=int(result.counts[index]),
                num_radar_pts=0,
                **_links(tokens, sample),
            )


def _links(tokens: list[str], index: int) -> dict[str, str]:
    return {"prev": tokens[index - 1] if index else "", "next": tokens[index + 1] if index + 1 < len(tokens) else ""}


def _quaternion(transform: Array) -> list[float]:
    x, y, z, w = Rotation.from_matrix(transform[:3, :3]).as_quat().tolist()
    return [w, x, y, z]


def _visibility(share: float) -> str:
    return str(1 + int(np.searchsorted([0.4, 0.6, 0.8], share, side="right")))
